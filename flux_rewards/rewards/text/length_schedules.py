"""Length as a matter of correctness: brief where the response is right, thorough where it is wrong."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from flux_rewards.base import RewardFunction
from flux_rewards.combinator import Combinator
from flux_rewards.composite import carried
from flux_rewards.data import RewardBatch
from flux_rewards.errors import ConfigError, InputError, brief
from flux_rewards.grouping import group_keys, has_group, split_groups
from flux_rewards.naming import distinct
from flux_rewards.rewards.text.length import ResponseLength
from flux_rewards.rewards.text.units import length_of, one_unit
from flux_rewards.validation import number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from flux_rewards.data import Sample

    Values = NDArray[np.float64]

__all__ = ["CosineLength", "GroupLength"]


class _LengthInOneUnit(ResponseLength):
    """Refuses words beside tokens: lengths of one group in two units."""

    optional_fields: Sequence[str] = ("token_ids", "prompt", "group_id")  # type: ignore[assignment]  # a longer tuple

    def compute_rewards(self, samples: Sequence[Sample]) -> list[Any]:
        """One length a sample, or why there is none."""
        mixed = self.unit == "auto" and len({sample.token_ids is None for sample in samples}) > 1
        keys = group_keys(samples) if mixed else [None] * len(samples)
        in_tokens = {
            key
            for key, sample in zip(keys, samples, strict=True)
            if mixed and has_group(sample) and sample.token_ids is not None
        }
        return [
            _without_tokens() if sample.token_ids is None and key in in_tokens else _length_or_error(sample, self.unit)
            for key, sample in zip(keys, samples, strict=True)
        ]


class _LengthInGroup(ResponseLength):
    """Counts a whole group in tokens, or, where any has none, in words."""

    scope = "group"

    def compute_rewards(self, samples: Sequence[Sample]) -> list[Any]:
        """One length a sample of the group, or why there is none."""
        unit = one_unit(samples, self.unit)
        return [_length_or_error(sample, unit) for sample in samples]


def _without_tokens() -> InputError:
    return InputError(
        "expected token_ids, as other samples of the group have them, found none; give them to all, or set unit to "
        "'words' or 'characters'",
        field="token_ids",
    )


def _length_or_error(sample: Sample, unit: str) -> float | InputError:
    try:
        return float(length_of(sample, unit))
    except InputError as error:  # of this sample alone
        return error


class _LengthOfRightAndWrong(Combinator, abstract=True):
    """A fold of a reward that says what is right, and of the length."""

    def __init__(self, correct: RewardFunction, at_least: float, unit: str, name: str | None) -> None:
        kind = type(self).__name__
        if not isinstance(correct, RewardFunction):
            raise ConfigError(f"correct must be a reward, found {brief(correct)}", reward=kind)
        super().__init__(name=name or f"{kind}({correct.name})")
        self.correct = correct
        self.at_least = number(at_least, "at_least", self.name)
        self.unit = unit
        length = _LengthInGroup if self.group_wise else _LengthInOneUnit
        self.children = (correct, length(unit, name="ResponseLength"))

    def schedule(self, lengths: Values, right: NDArray[np.bool_]) -> Values:
        """The values of samples of which is known whether they are right; of one group where `group_wise`."""
        raise NotImplementedError

    def combine(self, batches: Sequence[RewardBatch], samples: Sequence[Sample]) -> RewardBatch:
        """Schedule what is right or wrong; keep NaN and failures."""
        correct, length = batches
        parts = dict(zip(distinct(child.name for child in self.children), batches, strict=True))
        known = ~np.isnan(correct.rewards) & ~np.isnan(length.rewards)
        right = correct.rewards >= self.at_least
        values = np.full(len(samples), np.nan)
        groups = split_groups(samples) if self.group_wise else [list(range(len(samples)))]
        for positions in groups:
            group = np.array(positions, dtype=np.int64)
            group = group[known[group]]
            if len(group):
                values[group] = self.schedule(length.rewards[group], right[group])
        return RewardBatch(values, errors=carried(parts), parts=parts)


class CosineLength(_LengthOfRightAndWrong):
    """Right responses score the more the shorter they are, wrong ones the more the longer, along half a cosine.

    With p = min(1, length / max_length), ``end + (start - end) / 2 * (1 + cos(pi * p))``, where

    - right: start = max_value_correct, end = min_value_correct;
    - wrong: start = min_value_wrong, end = max_value_wrong.

    Args:
        correct: The reward that says what is right.
        max_length: Where the cosine ends, in `unit`; whatever is longer scores the same. TRL's ``max_len``.
        min_value_wrong: Of an empty wrong response.
        max_value_wrong: Of a wrong one of `max_length`.
        min_value_correct: Of a right one of `max_length`.
        max_value_correct: Of the shortest right one.
        at_least: A response is right where ``correct >= at_least``.
        unit: ``"tokens"``: of `Sample.token_ids`; ``"words"``: what whitespace separates; ``"characters"``: code
            points; ``"auto"``: tokens where the sample has `token_ids`, else words. A sample without them in a group
            where others have them has failed: tokens and words do not compare.
        name: What it is called.

    Bounds: from the least to the greatest of the four values. Where `correct` does not apply, neither does this; where
    it failed, so has this. Parts: `correct`, and the length.

    Raises:
        ConfigError: `correct` is no reward, or a value is out of its range or above its greatest.
        InputError: With ``"auto"``, some samples of a group have `token_ids` and this one has none.

    Does not keep the token rewards of `correct`, and does not tokenize: text in a script without spaces is one word, so
    give `token_ids`, or count characters. Open-r1's version, of which ms-swift's is a copy, goes on along the
    cosine beyond `max_length`, so that longer responses score more again; this one does not. Source: the cosine reward
    of "Demystifying Long Chain-of-Thought Reasoning in LLMs" (arXiv 2502.03373), with the values of open-r1 and TRL.

    Examples:
        >>> from flux_rewards import NumericAnswerReward
        >>> cosine = CosineLength(NumericAnswerReward(), max_length=100, unit="characters")
        >>> cosine(response=["4", "so it must be" + " " * 86 + "4", "5"], reference=["4"] * 3).rewards.round(3)
        array([ 1. ,  0.5, -1. ])
    """

    example_config = {"correct": {"reward_model": "numeric_answer"}, "max_length": 20}

    def __init__(
        self,
        correct: RewardFunction,
        max_length: float,
        *,
        min_value_wrong: float = -1.0,
        max_value_wrong: float = -0.5,
        min_value_correct: float = 0.5,
        max_value_correct: float = 1.0,
        at_least: float = 1.0,
        unit: str = "auto",
        name: str | None = None,
    ) -> None:
        super().__init__(correct, at_least, unit, name)
        self.max_length = number(max_length, "max_length", self.name, above=0)
        self.max_value_wrong = number(max_value_wrong, "max_value_wrong", self.name)
        self.min_value_wrong = number(min_value_wrong, "min_value_wrong", self.name, high=self.max_value_wrong)
        self.max_value_correct = number(max_value_correct, "max_value_correct", self.name)
        self.min_value_correct = number(min_value_correct, "min_value_correct", self.name, high=self.max_value_correct)
        self.bounds = (
            min(self.min_value_wrong, self.min_value_correct),
            max(self.max_value_wrong, self.max_value_correct),
        )

    def schedule(self, lengths: Values, right: NDArray[np.bool_]) -> Values:
        """Half a cosine from start to end."""
        start = np.where(right, self.max_value_correct, self.min_value_wrong)
        end = np.where(right, self.min_value_correct, self.max_value_wrong)
        progress = np.minimum(1.0, lengths / self.max_length)
        return np.asarray(end + (start - end) / 2 * (1.0 + np.cos(math.pi * progress)))


class GroupLength(_LengthOfRightAndWrong):
    """Length relative to the other responses to the prompt: a right one gains by being short, a wrong one only loses.

    With ``lambda = 0.5 - (length - shortest) / (longest - shortest)`` within the group: lambda where the response is
    right, ``min(0, lambda)`` where it is wrong, and 0 for all where all are equally long, so in a group of one.

    Args:
        correct: The reward that says what is right.
        at_least: A response is right where ``correct >= at_least``.
        unit: ``"tokens"``: of `Sample.token_ids`; ``"words"``: what whitespace separates; ``"characters"``: code
            points; ``"auto"``: tokens where every sample of the group has `token_ids`, else words.
        name: What it is called.

    Groups go by `Sample.group_id`, or by equal prompts. Bounds: (-0.5, 0.5). A response to which `correct` does not
    apply, or for which it failed, takes no part: the others are compared without it. Parts: `correct`, and the length.

    Raises:
        ConfigError: `correct` is no reward, or `at_least` no number.

    Does not tokenize; see `CosineLength`. Does not compare responses to different prompts, as open-r1 does, which takes
    the shortest and longest of the batch. Source: the length reward of Kimi k1.5 (arXiv 2501.12599).

    Examples:
        >>> from flux_rewards import NumericAnswerReward
        >>> brief = GroupLength(NumericAnswerReward())
        >>> brief(prompt=["q"] * 3, response=["4", "It must be 4", "As I see it 5"], reference=["4"] * 3).rewards
        array([ 0.5 , -0.25, -0.5 ])
    """

    group_wise = True
    example_config = {"correct": {"reward_model": "numeric_answer"}}
    bounds = (-0.5, 0.5)

    def __init__(
        self, correct: RewardFunction, *, at_least: float = 1.0, unit: str = "auto", name: str | None = None
    ) -> None:
        super().__init__(correct, at_least, unit, name)

    def schedule(self, lengths: Values, right: NDArray[np.bool_]) -> Values:
        """Where the length lies between the shortest and the longest."""
        shortest, longest = lengths.min(), lengths.max()
        if shortest == longest:
            return np.zeros(len(lengths))
        gain = 0.5 - (lengths - shortest) / (longest - shortest)
        return np.asarray(np.where(right, gain, np.minimum(0.0, gain)))
