from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_rewards.data import RewardBatch
from flux_rewards.errors import ContractError
from flux_rewards.report.summary import RewardSummary

NAN = math.nan
FAILED = "failed"


def batch_of(scores: list[Any], parts: dict[str, RewardBatch] | None = None) -> RewardBatch:
    """A batch from numbers, None (does not apply) and FAILED."""
    errors = {index: "TimeoutError" for index, score in enumerate(scores) if score == FAILED}
    values = np.array([score if isinstance(score, (int, float)) else NAN for score in scores], dtype=float)
    return RewardBatch(values, errors=errors, parts=parts or {})


def summary_of(scores: list[Any], groups: Sequence[Hashable], cuts: Iterable[int] = ()) -> RewardSummary:
    summary = RewardSummary()
    ends = [0, *sorted(cuts), len(scores)]
    for start, end in itertools.pairwise(ends):
        summary.add(batch_of(scores[start:end]), groups[start:end])
    return summary


scores_and_cuts = st.lists(
    st.tuples(
        st.one_of(st.none(), st.just(FAILED), st.sampled_from([0.0, 1.0]), st.floats(-1e6, 1e6)),
        st.sampled_from(["a", "b", "c", 4]),
    ),
    max_size=40,
).flatmap(
    lambda rows: st.tuples(st.just(rows), st.lists(st.integers(0, len(rows)), max_size=5)),
)


@given(scores_and_cuts)
def test_the_statistics_are_those_of_numpy_on_the_whole_however_it_is_cut(case: Any) -> None:
    """The statistics are those of NumPy on the whole data, however it is cut into batches."""
    rows, cuts = case
    scores, groups = [score for score, _ in rows], [group for _, group in rows]
    total = summary_of(scores, groups, cuts).total

    numbers = [score for score in scores if isinstance(score, float)]
    assert (total.count, total.scored) == (len(scores), len(numbers))
    if numbers:
        assert total.mean == pytest.approx(np.mean(numbers), rel=1e-9, abs=1e-6)
        assert total.std == pytest.approx(np.std(numbers), rel=1e-6, abs=1e-6)
        assert (total.min, total.max) == (min(numbers), max(numbers))
    else:
        assert all(map(math.isnan, (total.mean, total.std, total.min, total.max)))
    if scores:
        assert total.not_applicable == pytest.approx(scores.count(None) / len(scores))
        assert total.failed == pytest.approx(scores.count(FAILED) / len(scores))

    by_group: defaultdict[Any, list[float]] = defaultdict(list)
    for score, group in rows:
        if isinstance(score, float):
            by_group[group].append(score)
    comparable = [found for found in by_group.values() if len(found) >= 2]
    assert total.groups == len(comparable)
    if comparable:
        flat = sum(len(set(found)) == 1 for found in comparable)
        assert total.flat_groups == pytest.approx(flat / len(comparable))
    else:
        assert math.isnan(total.flat_groups)


@pytest.mark.parametrize("offset", [1e9, -1e12])
def test_a_small_spread_far_from_zero_is_not_lost(offset: float) -> None:
    """A sum of squares would lose a spread of 1 at a distance of 1e9; the merged deviations keep it."""
    scores = [offset + (index % 7) / 7 for index in range(1000)]
    total = summary_of(scores, ["a"] * 1000, cuts=range(10, 1000, 10)).total
    assert total.mean == pytest.approx(statistics.fmean(scores), rel=1e-15)
    assert total.std == pytest.approx(statistics.pstdev(scores), rel=1e-4)


@pytest.mark.parametrize("score", [0.1, 1 / 3, -1e-7, 1e200])
def test_equal_scores_have_no_deviation_at_all(score: float) -> None:
    """Equal scores have exactly their own mean and a deviation of exactly 0, in one batch or in several."""
    total = summary_of([score] * 999, ["a"] * 999, cuts=[10, 500]).total
    assert (total.mean, total.std, total.flat_groups) == (score, 0.0, 1.0)


def test_the_deviation_is_that_of_the_population() -> None:
    """The deviation of 1, 2, 3, 4 is the root of 5/4, not of 5/3."""
    assert summary_of([1.0, 2.0, 3.0, 4.0], list("aabb")).total.std == pytest.approx(math.sqrt(1.25))


def test_parts_are_followed_beside_the_total() -> None:
    """Each part has statistics of its own, with its own failures and its own flat groups."""
    summary = RewardSummary()
    correct = batch_of([1.0, 1.0, 0.0, FAILED])
    brief = batch_of([0.5, 0.25, None, 0.5])
    total = batch_of([1.5, 1.25, 0.0, FAILED], {"correct": correct, "brief": brief})
    summary.add(total, ["q", "q", "r", "r"])
    found = summary.parts["correct"]
    assert (found.count, found.scored, found.not_applicable, found.failed) == (4, 3, 0.0, 0.25)
    assert (found.mean, found.std) == pytest.approx((2 / 3, math.sqrt(2) / 3))
    assert (found.min, found.max, found.groups, found.flat_groups) == (0.0, 1.0, 1, 1.0)
    assert list(summary.parts) == ["correct", "brief"]
    assert (summary.parts["brief"].not_applicable, summary.parts["brief"].failed) == (0.25, 0.0)
    assert summary.parts["brief"].flat_groups == 0.0
    assert summary.total.flat_groups == 0.0


def test_a_group_may_be_spread_over_batches() -> None:
    """A group whose samples arrive in different batches is one group."""
    total = summary_of([1.0, 2.0, 1.0, 3.0], ["a", "b", "a", "b"], cuts=[1, 2, 3]).total
    assert (total.groups, total.flat_groups) == (2, 0.5)


def test_an_empty_summary_is_nan_and_not_zero() -> None:
    """Where nothing was seen, shares and scores are NaN."""
    total = RewardSummary().total
    assert (total.count, total.groups) == (0, 0)
    assert all(map(math.isnan, (total.mean, total.std, total.not_applicable, total.failed, total.flat_groups)))


@pytest.mark.parametrize(
    ("batch", "groups", "message"),
    [
        (batch_of([1.0, 2.0]), ["a"], "1 group keys for 2 rewards"),
        (RewardBatch(np.array([0.0, math.inf])), ["a", "a"], "sample 1: the score is inf"),
        (batch_of([1.0], {"p": RewardBatch(np.array([-math.inf]))}), ["a"], "reward 'p', sample 0"),
    ],
)
def test_what_cannot_be_summarized_is_refused_whole(batch: RewardBatch, groups: Any, message: str) -> None:
    """A batch that cannot be summarized raises, and nothing of it is counted."""
    summary = RewardSummary()
    with pytest.raises(ContractError, match=message):
        summary.add(batch, groups)
    assert summary.total.count == 0
