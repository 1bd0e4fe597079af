"""Statistics of a stream of rewards, in memory that grows with the number of groups and not of samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flux_rewards.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import NDArray

    from flux_rewards.data import RewardBatch

    Values = NDArray[np.float64]
    Indices = NDArray[np.intp]

__all__ = ["RewardStatistics", "RewardSummary"]


@dataclass(frozen=True)
class RewardStatistics:
    """What one reward said over all samples. Numbers that nothing was there to compute from are NaN.

    Attributes:
        count: Samples seen, scored or not.
        scored: Samples with a score; `mean`, `std`, `min` and `max` are theirs.
        mean: Mean score.
        std: Standard deviation of the population: the mean squared deviation from `mean` is over `scored`, not
            over ``scored - 1``.
        min: Lowest score.
        max: Highest score.
        not_applicable: Share of `count` to which the reward does not apply, in [0, 1].
        failed: Share of `count` whose score could not be computed, in [0, 1].
        groups: Groups with at least two scored samples, which can be compared at all.
        flat_groups: Share of `groups` whose scores are all equal, in [0, 1]. A trainer that learns from differences
            within a group (GRPO, RLOO) learns nothing from them.
    """

    count: int
    scored: int
    mean: float
    std: float
    min: float
    max: float
    not_applicable: float
    failed: float
    groups: int
    flat_groups: float


class RewardSummary:
    """Accumulates the batches of a stream, for the total and for each of its parts.

    However the stream is cut into batches, also through the middle of a group, the statistics are the same (`mean`
    and `std` up to rounding). Only the parts of the total itself are followed, not the parts of parts.

    Examples:
        >>> import numpy as np
        >>> from flux_rewards.data import RewardBatch
        >>> summary = RewardSummary()
        >>> summary.add(RewardBatch(np.array([1.0, 1.0, 0.0])), ["a", "a", "b"])
        >>> summary.add(RewardBatch(np.array([2.0, np.nan])), ["b", "b"])
        >>> total = summary.total
        >>> total.count, total.scored, total.mean, total.max, total.not_applicable
        (5, 4, 1.0, 2.0, 0.2)
        >>> total.groups, total.flat_groups
        (2, 0.5)
    """

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}  # of groups, by order of appearance
        self._total = _Accumulator()
        self._parts: dict[str, _Accumulator] = {}

    def add(self, batch: RewardBatch, group_keys: Sequence[Hashable]) -> None:
        """Take in one batch; the batch is not kept.

        Args:
            batch: N rows.
            group_keys: N keys, one a sample: equal keys are one group, in this batch and in all others. See
                `flux_rewards.grouping.group_keys`.

        Raises:
            ContractError: Another number of keys than of rows, or a score that is infinite. Nothing was added then.
        """
        if len(group_keys) != len(batch):
            raise ContractError(f"{len(group_keys)} group keys for {len(batch)} rewards; give one a sample")
        _check_finite(batch, None)
        for name, part in batch.parts.items():
            _check_finite(part, name)
        numbers = np.array([self._numbers.setdefault(key, len(self._numbers)) for key in group_keys], dtype=np.intp)
        self._total.add(batch, numbers)
        for name, part in batch.parts.items():
            self._parts.setdefault(name, _Accumulator()).add(part, numbers)

    @property
    def total(self) -> RewardStatistics:
        """Of the rewards themselves."""
        return self._total.statistics()

    @property
    def parts(self) -> dict[str, RewardStatistics]:
        """Of each part by its name, in order of appearance, before its weight."""
        return {name: part.statistics() for name, part in self._parts.items()}


def _check_finite(batch: RewardBatch, part: str | None) -> None:
    for index in np.flatnonzero(np.isinf(batch.rewards)).tolist():
        raise ContractError(
            f"the score is {batch.rewards[index]}, which is not a finite number", reward=part, index=index
        )


class _Accumulator:
    """One reward."""

    def __init__(self) -> None:
        self._count = self._failed = 0
        self._moments = _Moments()
        self._spread = _Spread()

    def add(self, batch: RewardBatch, groups: Indices) -> None:
        failed = batch.failed
        scored = ~np.isnan(batch.rewards) & ~failed
        self._count += len(batch)
        self._failed += int(failed.sum())
        if scored.any():
            self._moments.add(batch.rewards[scored])
            self._spread.add(batch.rewards[scored], groups[scored])

    def statistics(self) -> RewardStatistics:
        moments, count = self._moments, self._count
        comparable, flat = self._spread.counts()
        return RewardStatistics(
            count=count,
            scored=moments.count,
            mean=moments.mean if moments.count else math.nan,
            std=math.sqrt(moments.squares / moments.count) if moments.count else math.nan,
            min=moments.low if moments.count else math.nan,
            max=moments.high if moments.count else math.nan,
            not_applicable=(count - moments.count - self._failed) / count if count else math.nan,
            failed=self._failed / count if count else math.nan,
            groups=comparable,
            flat_groups=flat / comparable if comparable else math.nan,
        )


class _Moments:
    """Mean and squared deviations, merged batch by batch as by Chan, Golub and LeVeque (1979)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.squares = 0.0
        self.low, self.high = math.inf, -math.inf

    def add(self, values: Values) -> None:
        # From the first value on, so that equal values have exactly their own mean and no deviation.
        mean = float(values[0] + (values - values[0]).mean())
        squares = float(np.square(values - mean).sum())
        if not self.count:
            self.mean = mean
        count = self.count + len(values)
        delta = mean - self.mean
        self.squares += squares + delta * delta * self.count * len(values) / count
        self.mean += delta * len(values) / count
        self.count = count
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))


class _Spread:
    """Number, lowest and highest of each group's scores; a group is flat where the latter two are equal."""

    def __init__(self) -> None:
        self._counts = np.zeros(0, dtype=np.int64)
        self._low = np.zeros(0)
        self._high = np.zeros(0)

    def add(self, values: Values, groups: Indices) -> None:
        self._make_room(int(groups.max()) + 1)
        np.add.at(self._counts, groups, 1)
        np.minimum.at(self._low, groups, values)
        np.maximum.at(self._high, groups, values)

    def counts(self) -> tuple[int, int]:
        """Groups with at least two scores, and those of them that are flat."""
        comparable = self._counts >= 2
        return int(comparable.sum()), int((comparable & (self._low == self._high)).sum())

    def _make_room(self, size: int) -> None:
        missing = size - len(self._counts)
        if missing <= 0:
            return
        missing = max(missing, len(self._counts))  # twice as many each time: a long stream is copied seldom
        self._counts = np.concatenate([self._counts, np.zeros(missing, dtype=np.int64)])
        self._low = np.concatenate([self._low, np.full(missing, math.inf)])
        self._high = np.concatenate([self._high, np.full(missing, -math.inf)])
