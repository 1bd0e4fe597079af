"""How much a response repeats itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.rewards.text.ngrams import distinct, ngrams
from flux_rewards.rewards.text.units import checked_unit, fields_of, sequences_of
from flux_rewards.validation import number, whole_number

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flux_rewards.data import Sample

__all__ = ["DistinctNGrams", "RepetitionPenalty"]


class RepetitionPenalty(RewardFunction):
    """(1 - distinct n-grams / n-grams) * max_penalty.

    Args:
        n: Length of an n-gram, in `unit`. At least 1.
        max_penalty: What a response of one endlessly repeated n-gram comes close to. Not above 0.
        unit: ``"tokens"``: of `Sample.token_ids`; ``"words"``: what whitespace separates, in lower case;
            ``"characters"``: code points; ``"auto"``: tokens where the sample has `token_ids`, else words.
        **options: Of every reward; see `RewardFunction`.

    Bounds: (max_penalty, 0). 0.0 without repetition, and where there are fewer than `n` tokens, so for an empty
    response too.

    Raises:
        ConfigError: A parameter is out of its range.
        InputError: `token_ids` are no whole numbers.

    Does not tokenize: text in a script without spaces is one word and never repeats; give `token_ids`, or count
    characters. Source: the repetition penalty of "Demystifying Long Chain-of-Thought Reasoning in LLMs"
    (arXiv 2502.03373), as TRL computes it.

    Examples:
        >>> RepetitionPenalty(n=2)(response=["to be or not to be", "all words here differ"]).rewards.round(3)
        array([-0.2,  0. ])
    """

    required_fields = ("response",)
    optional_fields = ("token_ids",)
    bounds = (-1.0, 0.0)
    example_config = {"n": 3, "max_penalty": -1.0}

    def __init__(
        self, n: int = 3, max_penalty: float = -1.0, unit: str = "auto", **options: Unpack[RewardOptions]
    ) -> None:
        # Before the base rescales them.
        self.bounds = (number(max_penalty, "max_penalty", self.name, high=0), 0.0)
        super().__init__(**options)
        self.n = whole_number(n, "n", self.name, low=1)
        self.max_penalty = max_penalty
        self.unit = checked_unit(unit, self.name)
        self.required_fields = fields_of(unit)

    def compute_reward(self, sample: Sample) -> float:
        """One score, from the n-grams."""
        (sequence,) = sequences_of([sample], self.unit)
        grams = ngrams(sequence, self.n)
        if not len(grams):
            return 0.0
        return (len(grams) - distinct(grams)) / len(grams) * self.max_penalty + 0.0  # + 0.0: never -0.0


class DistinctNGrams(RewardFunction):
    """distinct n-grams / n-grams: 1.0 where none occurs twice.

    Args:
        n: Length of an n-gram, in `unit`. At least 1.
        unit: ``"tokens"``: of `Sample.token_ids`; ``"words"``: what whitespace separates, in lower case;
            ``"characters"``: code points; ``"auto"``: tokens where the sample has `token_ids`, else words.
        **options: Of every reward; see `RewardFunction`.

    Bounds: (0, 1). Does not apply (None) to a response of fewer than `n` tokens, so not to an empty one: nothing is
    diverse about it, and nothing repeats.

    Raises:
        ConfigError: A parameter is out of its range.
        InputError: `token_ids` are no whole numbers.

    Falls with the length of a response, whatever it says: compare responses of like length. Does not compare responses
    with one another; see `GroupDiversity`. Source: distinct-n of Li et al., "A Diversity-Promoting Objective Function
    for Neural Conversation Models" (2016).

    Examples:
        >>> DistinctNGrams(n=2)(response=["to be or not to be", "all words here differ", "word"]).rewards
        array([0.8, 1. , nan])
    """

    required_fields = ("response",)
    optional_fields = ("token_ids",)
    bounds = (0.0, 1.0)
    example_config = {"n": 2}

    def __init__(self, n: int = 2, unit: str = "auto", **options: Unpack[RewardOptions]) -> None:
        super().__init__(**options)
        self.n = whole_number(n, "n", self.name, low=1)
        self.unit = checked_unit(unit, self.name)
        self.required_fields = fields_of(unit)

    def compute_reward(self, sample: Sample) -> float | None:
        """One score, from the n-grams; None where there is none."""
        (sequence,) = sequences_of([sample], self.unit)
        grams = ngrams(sequence, self.n)
        return distinct(grams) / len(grams) if len(grams) else None
