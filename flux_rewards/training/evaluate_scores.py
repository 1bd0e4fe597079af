"""Both answers of every pair, scored by any reward."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from flux_rewards.data import FIELDS, RewardBatch, Sample
from flux_rewards.errors import ComputeError, FluxRewardsError, InputError
from flux_rewards.fingerprint import Memo, fingerprint
from flux_rewards.naming import distinct
from flux_rewards.tree import fields_read
from flux_rewards.validation import number, whole_number
from flux_rewards.wrappers.mask_errors import MaskErrors
from flux_rewards.wrappers.wrapper import Wrapper

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flux_rewards.base import RewardFunction
    from flux_rewards.training.preferences import PreferencePair

__all__ = ["PairScores", "score_pairs", "score_samples"]


@dataclass(frozen=True, eq=False)
class PairScores:
    """Scores of N pairs, turned so that more is better.

    Attributes:
        chosen: float64, shape (N,); NaN where the reward does not apply, or failed.
        rejected: Likewise.
        errors: Reason by position, for pairs of which an answer could not be scored.
        parts: What each part of the reward said, by its name.
    """

    chosen: NDArray[np.float64]
    rejected: NDArray[np.float64]
    errors: Mapping[int, str] = field(default_factory=dict)
    parts: Mapping[str, PairScores] = field(default_factory=dict)

    @property
    def margins(self) -> NDArray[np.float64]:
        """``chosen - rejected``, shape (N,); NaN for pairs without two scores."""
        return self.chosen - self.rejected

    @property
    def scored(self) -> NDArray[np.bool_]:
        """Shape (N,): the pairs of which both answers have a score."""
        return ~np.isnan(self.margins)

    @property
    def not_applicable(self) -> int:
        """Pairs that did not fail, and have no score for an answer all the same."""
        return int((~self.scored).sum()) - len(self.errors)


def score_pairs(
    reward: RewardFunction,
    pairs: Sequence[PreferencePair],
    *,
    batch_size: int = 256,
    max_failure_rate: float = 0.0,
    seed: int = 0,
    advance: Callable[[int, int], None] = lambda _done, _total: None,
) -> PairScores:
    """Score both answers of every pair.

    To a reward that compares the samples of a group, each pair is a group of its own, and which of the two answers
    comes first is drawn by lot: a judge that prefers the first one must not look like one that is right. Any other
    reward scores answers that several pairs share once.

    Args:
        reward: Any reward.
        pairs: The pairs.
        batch_size: Answers scored at once, about.
        max_failure_rate: If positive, answers that fail have no score but a reason, until more than this share of a
            batch has failed. At 0 the first failure raises.
        seed: Of the lots.
        advance: Is told how many answers have been scored, and how many there are.

    Raises:
        InputError: An answer lacks a field that the reward needs, with the number of the pair.
        ComputeError: An answer could not be scored, with the number of the pair.

    Examples:
        >>> from flux_rewards import LengthReward
        >>> from flux_rewards.training.preferences import PreferencePair
        >>> score_pairs(LengthReward(4), [PreferencePair("q", "one two", "one")]).margins
        array([0.25])
    """
    number(max_failure_rate, "max_failure_rate", "", low=0.0, high=1.0)
    whole_number(batch_size, "batch_size", "", low=1)
    scorer = MaskErrors(reward, max_failure_rate) if max_failure_rate > 0 else reward
    samples, places = _in_groups(pairs, seed) if reward.scope == "group" else _distinct(reward, pairs)
    pieces = []
    advance(0, len(samples))
    for rows in _cut(len(samples), batch_size + batch_size % 2):  # never through the middle of a pair
        with _NamingPairs(places, rows.start):
            pieces.append((rows, scorer([samples[row] for row in rows])))
        advance(rows.stop, len(samples))
    batch = RewardBatch.scatter(len(samples), pieces)
    where = {place: row for row, held in enumerate(places) for place in held}
    sides = [[where[position, side] for position in range(len(pairs))] for side in ("chosen", "rejected")]
    return _by_pair(batch, sides, reward, more_is_better=reward.higher_is_better)


def score_samples(
    reward: RewardFunction, samples: Sequence[Sample], *, batch_size: int = 256, max_failure_rate: float = 0.0
) -> NDArray[np.float64]:
    """Scores of samples, turned so that more is better, shape (N,); NaN where one has none.

    A reward that compares the samples of a group is given all at once.

    Examples:
        >>> from flux_rewards import LengthReward
        >>> score_samples(LengthReward(4), [Sample(response="one two")])
        array([0.5])
    """
    number(max_failure_rate, "max_failure_rate", "", low=0.0, high=1.0)
    size = max(len(samples), 1) if reward.scope == "group" else whole_number(batch_size, "batch_size", "", low=1)
    scorer = MaskErrors(reward, max_failure_rate) if max_failure_rate > 0 else reward
    found = [scorer([samples[row] for row in rows]).rewards for rows in _cut(len(samples), size)]
    sign = 1.0 if reward.higher_is_better else -1.0
    return sign * np.concatenate(found) if found else np.zeros(0)


def _cut(count: int, size: int) -> Iterator[range]:
    return (range(start, min(start + size, count)) for start in range(0, count, size))


Places = list[list[tuple[int, str]]]
"""For each sample, the pairs and the sides whose answer it is."""


def _in_groups(pairs: Sequence[PreferencePair], seed: int) -> tuple[list[Sample], Places]:
    samples: list[Sample] = []
    places: Places = []
    for position, pair in enumerate(pairs):
        both = [(pair.chosen_sample, "chosen"), (pair.rejected_sample, "rejected")]
        if hashlib.sha256(f"{seed}:{position}".encode()).digest()[0] % 2:
            both.reverse()
        for sample, side in both:
            samples.append(replace(sample, group_id=f"pair {position}"))
            places.append([(position, side)])
    return samples, places


def _distinct(reward: RewardFunction, pairs: Sequence[PreferencePair]) -> tuple[list[Sample], Places]:
    told = fields_read(reward)
    read = FIELDS if told.anything else sorted(told.named)
    rows: dict[bytes, int] = {}
    samples: list[Sample] = []
    places: Places = []
    memo: Memo = {}
    for position, pair in enumerate(pairs):
        for sample, side in ((pair.chosen_sample, "chosen"), (pair.rejected_sample, "rejected")):
            key = fingerprint([getattr(sample, name) for name in read], memo)
            row = rows.setdefault(key, len(samples))
            if row == len(samples):
                samples.append(sample)
                places.append([])
            places[row].append((position, side))
    return samples, places


class _NamingPairs:
    """An error at "sample 7" of a batch says nothing; the number of the pair does."""

    def __init__(self, places: Places, start: int) -> None:
        self._places, self._start = places, start

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: object, _trace: object) -> None:
        if not isinstance(error, (InputError, ComputeError)) or error.index is None:
            return
        position, side = self._places[self._start + error.index][0]
        kind: type[FluxRewardsError] = InputError if isinstance(error, InputError) else ComputeError
        message = str(error.args[0]) if error.args else str(error)
        raise kind(f"pair {position}, {side}: {message}", reward=error.reward, field=error.field) from error


def _by_pair(
    batch: RewardBatch, sides: Sequence[Sequence[int]], reward: RewardFunction | None, *, more_is_better: bool
) -> PairScores:
    sign = 1.0 if more_is_better else -1.0
    chosen, rejected = (sign * batch.rewards[list(rows)] for rows in sides)
    errors = {
        position: batch.errors.get(first) or batch.errors[second]
        for position, (first, second) in enumerate(zip(*sides, strict=True))
        if first in batch.errors or second in batch.errors
    }
    known = {} if reward is None else _named_children(reward)
    directions = {child.higher_is_better for child in known.values()}
    # What has no name of a child is an aspect of the reward itself, or of children that are all alike.
    others = directions.pop() if len(directions) == 1 else more_is_better
    parts = {}
    for name, part in batch.parts.items():
        child = known.get(name)
        parts[name] = _by_pair(part, sides, child, more_is_better=others if child is None else child.higher_is_better)
    return PairScores(chosen, rejected, errors, parts)


def _named_children(reward: RewardFunction) -> dict[str, RewardFunction]:
    """The rewards that a combinator folds, by the names that it gives their parts; none for a leaf."""
    while isinstance(reward, Wrapper):  # its parts are those of what it wraps
        reward = reward.reward
    for names in (getattr(reward, "weights", None), getattr(reward, "names", None)):
        if isinstance(names, (Mapping, list, tuple)) and len(names) == len(reward.children) > 0:
            return {str(name): child for name, child in zip(names, reward.children, strict=True)}
    return dict(zip(distinct(child.name for child in reward.children), reward.children, strict=True))
