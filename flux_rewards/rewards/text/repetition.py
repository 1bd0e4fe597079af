"""How much a response repeats itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.validation import number, whole_number

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flux_rewards.data import Sample

__all__ = ["RepetitionPenalty"]


class RepetitionPenalty(RewardFunction):
    """(1 - distinct n-grams / n-grams) * max_penalty.

    Over `Sample.token_ids` where the sample has them, else over the words of the response: lower case, as whitespace
    separates them.

    Args:
        n: Length of an n-gram, in tokens or words. At least 1.
        max_penalty: What a response of one endlessly repeated n-gram comes close to. Not above 0.
        **options: Of every reward; see `RewardFunction`.

    Bounds: (max_penalty, 0). 0.0 without repetition, and where there are fewer than `n` tokens, so for an empty
    response too.

    Raises:
        ConfigError: A parameter is out of its range.

    Does not tokenize: text in a script without spaces is one word and never repeats; give `token_ids`. Source: the
    repetition penalty of "Demystifying Long Chain-of-Thought Reasoning in LLMs" (2025), as TRL computes it.

    Examples:
        >>> RepetitionPenalty(n=2)(response=["to be or not to be", "all words here differ"]).rewards.round(3)
        array([-0.2,  0. ])
    """

    required_fields = ("response",)
    optional_fields = ("token_ids",)
    bounds = (-1.0, 0.0)
    example_config = {"n": 3, "max_penalty": -1.0}

    def __init__(self, n: int = 3, max_penalty: float = -1.0, **options: Unpack[RewardOptions]) -> None:
        # Before the base rescales them.
        self.bounds = (number(max_penalty, "max_penalty", self.name, high=0), 0.0)
        super().__init__(**options)
        self.n = whole_number(n, "n", self.name, low=1)
        self.max_penalty = max_penalty

    def compute_reward(self, sample: Sample) -> float:
        """One score, from the n-grams."""
        tokens = _tokens(sample)
        total = len(tokens) - self.n + 1
        if total < 1:
            return 0.0
        # A set of tuples takes 0.2 ms for 4,096 ids and any n, a third of what sorting rows in numpy takes or less.
        distinct = len(set(zip(*(tokens[start:] for start in range(self.n)), strict=False)))
        return (total - distinct) / total * self.max_penalty + 0.0  # + 0.0: never -0.0


def _tokens(sample: Sample) -> Sequence[Any]:
    ids: Any = sample.token_ids
    if ids is None:
        return sample.response_text.lower().split()
    # Elements of an array or tensor hash slowly, and those of a tensor by identity.
    return ids.tolist() if hasattr(ids, "tolist") else list(ids)
