"""How long to wait before another try."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from flux_rewards.backoff import pause_before


@pytest.mark.parametrize(
    ("attempt", "wait", "max_wait", "longest"),
    [
        (1, 0.5, 30.0, 0.5),
        (2, 0.5, 30.0, 1.0),
        (3, 0.5, 30.0, 2.0),
        (6, 0.5, 30.0, 16.0),
        (7, 0.5, 30.0, 30.0),
        (50, 0.5, 30.0, 30.0),
        (10**6, 0.5, 30.0, 30.0),  # 2.0 ** 10**6 would overflow
        (1, 5.0, 2.0, 2.0),
        (4, 0.0, 30.0, 0.0),
        (3, 1.0, 0.0, 0.0),
    ],
)
def test_it_grows_to_a_limit(attempt: int, wait: float, max_wait: float, longest: float) -> None:
    """Between half of and the whole of min(wait * 2 ** (attempt - 1), max_wait)."""
    pauses = [pause_before(attempt, wait=wait, max_wait=max_wait) for _ in range(200)]
    assert longest / 2 <= min(pauses) <= max(pauses) <= longest


def test_it_is_jittered() -> None:
    """All over its range: many that failed together do not come back together."""
    pauses = sorted(pause_before(1, wait=1.0, max_wait=30.0) for _ in range(400))
    assert len(set(pauses)) > 390
    assert pauses[0] < 0.55
    assert pauses[-1] > 0.95
    assert 0.7 < sum(pauses) / 400 < 0.8


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [
        ([], 0.5, 1.0),
        ([None, None], 0.5, 1.0),
        ([0.0], 0.5, 1.0),
        ([0.2], 0.5, 1.0),
        ([20.0], 20.05, 20.1),
        ([None, 5.0, 20.0, 3.0], 20.05, 20.1),
        ([3600.0], 3600.05, 3600.1),  # beyond max_wait: it is the other side's wish
    ],
)
def test_it_is_no_shorter_than_what_was_asked_for(asked: list[float | None], least: float, most: float) -> None:
    """And a little longer, each by its own: all were asked for the same."""
    pauses = [pause_before(1, wait=1.0, max_wait=30.0, asked=asked) for _ in range(100)]
    assert least <= min(pauses) <= max(pauses) <= most
    assert len(set(pauses)) > 90


def test_what_was_asked_for_may_be_given_once() -> None:
    """As an iterator."""
    assert pause_before(1, wait=1.0, max_wait=30.0, asked=iter([20.0])) >= 20.0


def test_the_callers_generator_is_left_alone() -> None:
    """A seed of the caller's neither moves nor decides."""
    random.seed(7)
    before = random.getstate()
    first = pause_before(3, wait=1.0, max_wait=30.0)
    assert random.getstate() == before
    random.seed(7)
    assert pause_before(3, wait=1.0, max_wait=30.0) != first


def test_from_several_threads() -> None:
    """Each gets a pause of its own."""
    with ThreadPoolExecutor(4) as pool:
        pauses = list(pool.map(lambda _: pause_before(1, wait=1.0, max_wait=30.0), range(200)))
    assert len(set(pauses)) > 190
