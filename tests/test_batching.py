"""Calls that are merged: who waits for whom, and who pays for whose failure."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from flux_rewards import ComputeError, ContractError, MaskErrors, RemoteError, RewardFunction, Sample
from flux_rewards.batching import Batcher

if TYPE_CHECKING:
    from flux_rewards.contract import Scored

LIMIT = 30.0


class Slow(RewardFunction):
    """Waits for "slow" until it is let go; 1.0 for all."""

    required_fields = ("response",)
    optional_fields = ()
    batch_size = 1
    num_workers = 8

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.gate = threading.Event()

    def compute_reward(self, sample: Sample) -> float:
        if sample.response == "slow":
            assert self.gate.wait(LIMIT)
        return 1.0


class Outage(RewardFunction):
    """Fails for all alike, and counts."""

    required_fields = ("response",)
    optional_fields = ()
    batch_size = 1
    num_workers = 8

    def __init__(self, error: type[Exception] = RemoteError, **options: Any) -> None:
        super().__init__(**options)
        self.error = error
        self.calls: list[str] = []

    def compute_reward(self, sample: Sample) -> float:
        self.calls.append(str(sample.response))
        raise self.error("no answer")


class WholeBatch(RewardFunction):
    """One call for all, which one bad sample breaks."""

    required_fields = ("response",)
    optional_fields = ()

    def __init__(self, error: Exception, **options: Any) -> None:
        super().__init__(**options)
        self.error = error
        self.calls: list[int] = []

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        self.calls.append(len(samples))
        if any(sample.response == "bad" for sample in samples):
            raise self.error
        return [1.0] * len(samples)


class Bad(RewardFunction):
    """Fails for "bad" alone."""

    required_fields = ("response",)
    optional_fields = ()

    def compute_reward(self, sample: Sample) -> float:
        if sample.response == "bad":
            raise ValueError("bad")
        return 1.0


class AuthorsError(ComputeError):
    """An error of an author's own, whose constructor wants more than a message."""

    def __init__(self, what: str, code: int) -> None:
        super().__init__(f"{what} ({code})")


class Chunks(RewardFunction):
    """Two samples a call; a call with "bad" fails whole, one with "wrong" breaks the contract."""

    required_fields = ("response",)
    optional_fields = ()
    batch_size = 2

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        said = [sample.response for sample in samples]
        if "bad" in said:
            raise ValueError("bad")
        return [1.0] * (len(said) + ("wrong" in said))


@pytest.fixture
def batchers() -> Iterator[list[Batcher]]:
    """What is made in a test ends with it."""
    made: list[Batcher] = []
    yield made
    for batcher in made:
        batcher.close(timeout=LIMIT)


def together(batchers: list[Batcher], reward: RewardFunction, *responses: str, **options: Any) -> list[Future[Scored]]:
    """Requests of one sample each that are in one batch."""
    batcher = Batcher(reward, **{"max_batch": len(responses), "window": LIMIT, **options})
    batchers.append(batcher)
    futures = [batcher.submit([Sample(response=response)]) for response in responses]
    batcher.start()
    return futures


def test_a_slow_neighbour_holds_nobody_up(batchers: list[Batcher]) -> None:
    """Each request has its answer as soon as its own samples are scored."""
    reward = Slow()
    slow, *others = together(batchers, reward, "slow", "a", "b", "c")
    assert [other.result(LIMIT).batch.rewards.tolist() for other in others] == [[1.0]] * 3
    assert not slow.done()
    reward.gate.set()
    assert slow.result(LIMIT).batch.rewards.tolist() == [1.0]


def test_only_what_is_late_fails_at_the_deadline(batchers: list[Batcher]) -> None:
    """What was scored before stands."""
    reward = Slow()
    slow, other = together(batchers, reward, "slow", "a", deadline=0.3)
    with pytest.raises(TimeoutError):
        slow.result(LIMIT)
    assert other.result(LIMIT).batch.rewards.tolist() == [1.0]
    reward.gate.set()


@pytest.mark.parametrize("error", [RemoteError, ValueError])
def test_failures_that_read_alike_are_not_one(batchers: list[Batcher], error: type[Exception]) -> None:
    """An outage is not asked about twice."""
    reward = Outage(error)
    for future in together(batchers, reward, *"abcdef"):
        assert list(future.result(LIMIT).batch.errors) == [0]
    assert sorted(reward.calls) == list("abcdef")


def test_one_bad_sample_breaks_its_own_request_only(batchers: list[Batcher]) -> None:
    """Where one call failed for several requests, each is scored by itself."""
    reward = WholeBatch(ValueError("bad"))
    good, bad, other = together(batchers, reward, "a", "bad", "b")
    assert [one.result(LIMIT).batch.rewards.tolist() for one in (good, other)] == [[1.0]] * 2
    assert bad.result(LIMIT).batch.errors == {0: "ValueError: bad"}
    assert reward.calls == [3, 1, 1, 1]


def test_a_call_that_may_succeed_later_is_not_made_again_at_once(batchers: list[Batcher]) -> None:
    """Nobody's fault, and no use."""
    reward = WholeBatch(RemoteError("overloaded", retryable=True))
    for future in together(batchers, reward, "a", "bad", "b"):
        scored = future.result(LIMIT)
        assert scored.causes[0].retryable
        assert isinstance(scored.causes[0], ComputeError)
    assert reward.calls == [3]


def test_nothing_is_held_of_what_is_done(batchers: list[Batcher]) -> None:
    """A worker that waits for the next batch has let go of the last one."""
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    gone = weakref.ref(image)
    batcher = Batcher(Slow(), max_batch=1, window=0.0)
    batchers.append(batcher)
    batcher.start()
    batcher.submit([Sample(response="a", image=image)]).result(LIMIT)
    batcher.submit([Sample(response="b")]).result(LIMIT)  # its worker has begun anew
    del image
    gc.collect()
    assert gone() is None


def test_too_many_failures_of_one_request_are_its_own(batchers: list[Batcher]) -> None:
    """A mask that has had enough raises for that request; its neighbours have their scores."""
    reward = MaskErrors(Bad(), max_failure_rate=0.5)
    bad, good = together(batchers, reward, "bad", "a")
    with pytest.raises(ComputeError, match="1 of 1 samples failed"):
        bad.result(LIMIT)
    assert good.result(LIMIT).batch.rewards.tolist() == [1.0]


def test_an_authors_own_error_reaches_its_requests(batchers: list[Batcher]) -> None:
    """It is copied without its constructor, whatever that wants."""
    reward = WholeBatch(AuthorsError("broken", 7))
    for future in together(batchers, reward, "bad", "bad"):
        (cause,) = future.result(LIMIT).causes.values()
        assert isinstance(cause, AuthorsError)
        assert "broken (7)" in str(cause)


def test_nobody_is_forgotten_where_one_call_fails_and_the_next_breaks_its_contract(batchers: list[Batcher]) -> None:
    """Each is scored by itself, also those that the first call was for."""
    bad, one, wrong, other = together(batchers, Chunks(), "bad", "a", "wrong", "b")
    assert [future.result(LIMIT).batch.rewards.tolist() for future in (one, other)] == [[1.0]] * 2
    assert bad.result(LIMIT).batch.errors == {0: "ValueError: bad"}
    with pytest.raises(ContractError):
        wrong.result(LIMIT)
