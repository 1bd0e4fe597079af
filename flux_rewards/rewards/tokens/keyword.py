"""Which tokens of a response belong to good and bad words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.data import RewardOutput, Sample
from flux_rewards.errors import InputError, brief
from flux_rewards.rewards.text.words import Keywords, good_and_bad
from flux_rewards.validation import number

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Unpack

__all__ = ["TokenKeywordReward"]


class TokenKeywordReward(RewardFunction):
    """One value a token: `good_weight` where it overlaps a good keyword, plus `bad_weight` where it overlaps a bad one.

    `token_rewards` has one value a token of `token_ids`; `reward` is their mean, so the dense and the scalar view
    say the same: ``sum(token_rewards) == reward * len(token_ids)``. A token that overlaps several good occurrences
    counts once.

    Args:
        good: Words and phrases whose tokens are rewarded.
        bad: Words and phrases whose tokens are punished.
        good_weight: Value of a token of a good keyword.
        bad_weight: Value of a token of a bad keyword; as it is added, a penalty is negative.
        ignore_case: Whether capitals don't matter.
        **options: Of every reward; see `RewardFunction`.

    Whole words and phrases only, as for `KeywordReward`; see `Keywords`. Unlike there, each occurrence counts.
    Offsets are (start, end) characters of the text that is judged (`Sample.response_text`); an empty span, such as
    the (0, 0) of a special token, overlaps nothing. A space that a tokenizer keeps in front of a word does no harm:
    touching is not overlapping.

    Bounds: the least and greatest of 0 and what the weights can add up to; (-1, 1) by default with both lists. Does
    not apply (None) to a response without tokens. Metadata: ``good`` and ``bad``, how many tokens overlap each.

    Raises:
        ConfigError: Both lists are empty, a keyword is blank, or one is listed twice or in both; a weight is no
            number.
        InputError: `token_offsets` differ from `token_ids` in number, or are no spans of the text.

    Does not tokenize, and does not guess offsets: a fast tokenizer gives them (``return_offsets_mapping=True``).

    Examples:
        >>> reward = TokenKeywordReward(good=["because"], bad=["maybe"])
        >>> offsets = [(0, 5), (5, 8), (8, 13)]
        >>> reward(response=["maybe because"], token_ids=[[5, 6, 7]], token_offsets=[offsets]).token_rewards
        [array([-1.,  1.,  1.])]
    """

    required_fields = ("response", "token_ids", "token_offsets")
    optional_fields = ()
    bounds = (-1.0, 1.0)
    example_config = {"good": ["because", "therefore"], "bad": ["maybe"]}

    def __init__(
        self,
        good: Sequence[str] = (),
        bad: Sequence[str] = (),
        good_weight: float = 1.0,
        bad_weight: float = -1.0,
        ignore_case: bool = True,
        **options: Unpack[RewardOptions],
    ) -> None:
        gain = number(good_weight, "good_weight", self.name) if good else 0.0
        loss = number(bad_weight, "bad_weight", self.name) if bad else 0.0
        reached = (0.0, gain, loss, gain + loss)
        # Before the base rescales them.
        self.bounds = (min(reached), max(reached))
        super().__init__(**options)
        self._good, self._bad = good_and_bad(good, bad, self.name, ignore_case=ignore_case)
        self.good = good
        self.bad = bad
        self.good_weight = good_weight
        self.bad_weight = bad_weight
        self.ignore_case = ignore_case

    def compute_reward(self, sample: Sample) -> RewardOutput | None:
        """One value a token, and their mean."""
        text = sample.response_text
        offsets = _checked_offsets(sample, len(text))
        if not len(offsets):
            return None
        good = _overlapping(self._good, text, offsets)
        bad = _overlapping(self._bad, text, offsets)
        values = good * float(self.good_weight) + bad * float(self.bad_weight)
        return RewardOutput(
            float(values.mean()),
            token_rewards=values,  # type: ignore[arg-type]  # an array is a sequence of numbers here
            metadata={"good": int(good.sum()), "bad": int(bad.sum())},
        )


def _overlapping(keywords: Keywords, text: str, offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Shape (tokens,): whether the token shares a character with an occurrence."""
    covered = np.zeros(len(text), dtype=np.int64)
    for start, end in keywords.spans(text):
        covered[start:end] = 1
    upto = np.concatenate([[0], np.cumsum(covered)])
    overlapping: NDArray[np.bool_] = upto[offsets[:, 1]] > upto[offsets[:, 0]]
    return overlapping


def _checked_offsets(sample: Sample, length: int) -> NDArray[np.int64]:
    """Shape (tokens, 2)."""
    given: Any = sample.token_offsets
    tokens: Any = sample.token_ids
    if len(given) != len(tokens):
        raise InputError(
            f"expected one (start, end) for each of the {len(tokens)} token_ids, found {len(given)}",
            field="token_offsets",
        )
    if not len(tokens):
        return np.zeros((0, 2), dtype=np.int64)
    try:
        offsets = np.asarray(given)
    except (TypeError, ValueError) as error:  # rows of different lengths
        raise _not_spans(given) from error
    if offsets.shape != (len(tokens), 2) or offsets.dtype.kind not in "iu":
        raise _not_spans(given)
    outside = (offsets[:, 0] < 0) | (offsets[:, 1] > length) | (offsets[:, 0] > offsets[:, 1])
    if outside.any():
        token = int(outside.argmax())
        raise InputError(
            f"expected 0 <= start <= end <= {length}, the length of the response, found "
            f"{tuple(offsets[token].tolist())} for token {token}; offsets count characters of the response alone",
            field="token_offsets",
        )
    return offsets.astype(np.int64)


def _not_spans(given: object) -> InputError:
    return InputError(
        f"expected a (start, end) pair of whole numbers for each token, found {brief(given)}", field="token_offsets"
    )
