"""How much the responses of a group differ from one another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.rewards.text.ngrams import ngrams
from flux_rewards.rewards.text.units import checked_unit, fields_of, sequences_of
from flux_rewards.validation import whole_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from typing_extensions import Unpack

    from flux_rewards.data import Sample

    Codes = NDArray[np.int64]

__all__ = ["GroupDiversity"]

_CELLS = 4_000_000  # of the table of responses and n-grams that is held at a time


class GroupDiversity(RewardFunction):
    """1 - the mean similarity of a response to the others of its group.

    The similarity of two responses is the Jaccard index of their sets of n-grams: those in both, divided by those in
    either. 1.0 where no other shares an n-gram with it, 0.0 where all consist of the same ones.

    Args:
        n: Length of an n-gram, in `unit`. At least 1. A response shorter than that is one n-gram, itself.
        unit: ``"tokens"``: of `Sample.token_ids`; ``"words"``: what whitespace separates, in lower case;
            ``"characters"``: code points; ``"auto"``: tokens where every sample of the group has `token_ids`, else
            words.
        **options: Of every reward; see `RewardFunction`.

    Groups go by `Sample.group_id`, or by equal prompts. Bounds: (0, 1). Does not apply (None) to an empty response,
    which is left out of the comparison, nor to one that there is no other to compare with.

    Raises:
        ConfigError: A parameter is out of its range.
        InputError: `token_ids` are no whole numbers.

    Does not count how often an n-gram occurs in a response, does not compare meanings, and does not ask whether a
    response is any good: nonsense is diverse, so gate it by correctness (`Gate`). A response much longer than the
    others is unlike them by its length alone. Source: the Jaccard index over n-grams, as in Broder, "On
    the resemblance and containment of documents" (1997); related to self-BLEU (Zhu et al. 2018), but symmetric.

    Examples:
        >>> diversity = GroupDiversity(n=1)
        >>> diversity(prompt=["q"] * 3, response=["red blue", "red green", "yellow"]).rewards.round(3)
        array([0.833, 0.833, 1.   ])
    """

    required_fields = ("response",)
    optional_fields = ("token_ids",)
    scope = "group"
    bounds = (0.0, 1.0)
    example_config = {"n": 2}

    def __init__(self, n: int = 2, unit: str = "auto", **options: Unpack[RewardOptions]) -> None:
        super().__init__(**options)
        self.n = whole_number(n, "n", self.name, low=1)
        self.unit = checked_unit(unit, self.name)
        self.required_fields = fields_of(unit)

    def compute_rewards(self, samples: Sequence[Sample]) -> NDArray[np.float64] | list[float | None]:
        """One score a response of the group."""
        sequences = sequences_of(samples, self.unit)
        spoken = [row for row, sequence in enumerate(sequences) if len(sequence)]
        scores: list[float | None] = [None] * len(samples)
        if len(spoken) < 2:
            return scores
        similarity = _jaccard(*_distinct_ngrams([sequences[row] for row in spoken], self.n))
        np.fill_diagonal(similarity, 0.0)
        for row, mean in zip(spoken, (similarity.sum(axis=1) / (len(spoken) - 1)).tolist(), strict=True):
            scores[row] = max(0.0, 1.0 - mean)
        return scores


def _distinct_ngrams(sequences: Sequence[Codes], n: int) -> tuple[Codes, Codes, int]:
    """Row and n-gram of every different n-gram of every response, in order of the n-grams, and the number of rows."""
    # Padded by a number that no token has, so that what is shorter than n has one n-gram.
    least = min(int(sequence.min()) for sequence in sequences)
    padded = [np.pad(sequence - least + 1, (0, max(0, n - len(sequence)))) for sequence in sequences]
    # All at once, so that equal n-grams of two responses get equal numbers.
    grams = ngrams(np.concatenate(padded), n)
    ends = np.cumsum([len(row) for row in padded])
    rows = np.repeat(np.arange(len(padded)), [len(row) for row in padded])[: len(grams)]
    within = np.arange(len(grams)) + n <= ends[rows]  # not of the end of one response and the start of the next
    _, numbered = np.unique(grams[within], return_inverse=True)
    pairs = np.sort(numbered * len(padded) + rows[within])  # by n-gram, then by row
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]
    return pairs % len(padded), pairs // len(padded), len(padded)


def _jaccard(rows: Codes, grams: Codes, count: int) -> NDArray[np.float64]:
    """Shape (count, count): what two responses share, divided by what either has."""
    sizes = np.bincount(rows, minlength=count).astype(np.float64)
    frequent = np.bincount(grams) > 1  # what only one response has is shared by no two
    column = np.cumsum(frequent) - 1
    rows, columns = rows[frequent[grams]], column[grams[frequent[grams]]]
    shared = np.zeros((count, count))
    width = max(1, _CELLS // count)
    for start in range(0, int(frequent.sum()), width):
        low, high = np.searchsorted(columns, [start, start + width])
        table = np.zeros((count, width), dtype=np.float32)  # whole numbers below 2**24 are exact
        table[rows[low:high], columns[low:high] - start] = 1.0
        shared += table @ table.T
    return np.asarray(shared / (sizes[:, None] + sizes[None, :] - shared))
