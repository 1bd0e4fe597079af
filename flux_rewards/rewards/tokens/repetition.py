"""Which tokens of a response say again what was said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.data import RewardOutput, Sample
from flux_rewards.rewards.text.ngrams import ngrams, repeated
from flux_rewards.rewards.text.units import sequences_of
from flux_rewards.validation import number, whole_number

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["TokenRepetitionPenalty"]


class TokenRepetitionPenalty(RewardFunction):
    """One value a token: `penalty` where it completes an n-gram that stood in the response before, else 0.

    `token_rewards` has one value a token of `token_ids`; `reward` is their mean, so the dense and the scalar view say
    the same: ``sum(token_rewards) == reward * len(token_ids)``. There are as many such tokens as `RepetitionPenalty`
    counts repetitions; that one divides by the n-grams, of which there are n - 1 fewer than tokens.

    Args:
        n: Length of an n-gram, in tokens. At least 1.
        penalty: Value of a token that repeats. Not above 0.
        **options: Of every reward; see `RewardFunction`.

    Bounds: (penalty, 0). The first time is free, and so are the n - 1 tokens that begin a repetition. Does not apply
    (None) to a response without tokens. Metadata: ``repeated``, how many tokens repeat.

    Raises:
        ConfigError: A parameter is out of its range.
        InputError: `token_ids` are no whole numbers.

    Does not look at the text, so it needs no offsets.

    Examples:
        >>> TokenRepetitionPenalty(n=2)(token_ids=[[1, 2, 3, 1, 2, 3]]).token_rewards
        [array([ 0.,  0.,  0.,  0., -1., -1.])]
    """

    required_fields = ("token_ids",)
    optional_fields = ()
    bounds = (-1.0, 0.0)
    example_config = {"n": 2}

    def __init__(self, n: int = 3, penalty: float = -1.0, **options: Unpack[RewardOptions]) -> None:
        self.bounds = (number(penalty, "penalty", self.name, high=0), 0.0)  # before the base rescales them
        super().__init__(**options)
        self.n = whole_number(n, "n", self.name, low=1)
        self.penalty = penalty

    def compute_reward(self, sample: Sample) -> RewardOutput | None:
        """One value a token, and their mean."""
        (sequence,) = sequences_of([sample], "tokens")
        if not len(sequence):
            return None
        again = np.zeros(len(sequence), dtype=np.bool_)
        again[self.n - 1 :] = repeated(ngrams(sequence, self.n))
        values = np.where(again, float(self.penalty), 0.0)
        return RewardOutput(
            float(values.mean()),
            token_rewards=values,  # type: ignore[arg-type]  # an array is a sequence of numbers here
            metadata={"repeated": int(again.sum())},
        )
