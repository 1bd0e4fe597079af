"""What a response is counted in: the one place that decides between tokens, words and characters."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flux_rewards.errors import InputError, brief
from flux_rewards.validation import one_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flux_rewards.data import Sample

    Codes = NDArray[np.int64]

__all__ = ["UNITS", "checked_unit", "fields_of", "length_of", "one_unit", "sequences_of"]

UNITS = ("auto", "tokens", "words", "characters")
"""``"tokens"``: of `Sample.token_ids`; ``"words"``: what whitespace separates; ``"characters"``: code points;
``"auto"``: tokens where the sample has `token_ids`, else words."""


def checked_unit(unit: Any, reward: str) -> str:
    """One of `UNITS`, or a `ConfigError`.

    Examples:
        >>> checked_unit("words", "length")
        'words'
    """
    return one_of(unit, "unit", reward, UNITS)


def fields_of(unit: str) -> tuple[str]:
    """The fields of a sample without which it cannot be counted in the unit.

    Examples:
        >>> fields_of("tokens"), fields_of("auto")
        (('token_ids',), ('response',))
    """
    return ("token_ids",) if unit == "tokens" else ("response",)


def length_of(sample: Sample, unit: str) -> int:
    """How long a response is.

    Examples:
        >>> from flux_rewards import Sample
        >>> sample = Sample(response="two words", token_ids=[7, 8, 9])
        >>> [length_of(sample, unit) for unit in UNITS]
        [3, 3, 2, 9]
    """
    if sample.token_ids is not None and unit in ("auto", "tokens"):
        return len(sample.token_ids)
    text = sample.response_text
    return len(text) if unit == "characters" else len(text.split())


def one_unit(samples: Sequence[Sample], unit: str) -> str:
    """The unit in which responses can be compared: ``"auto"`` is tokens where all have `token_ids`, else words.

    Examples:
        >>> from flux_rewards import Sample
        >>> one_unit([Sample(response="a", token_ids=[7]), Sample(response="b")], "auto")
        'words'
    """
    if unit != "auto":
        return unit
    return "tokens" if all(sample.token_ids is not None for sample in samples) else "words"


def sequences_of(samples: Sequence[Sample], unit: str) -> list[Codes]:
    """Each response as whole numbers, shape (length,) int64: equal where tokens, words or characters are equal.

    Words are compared in lower case, characters as they are. All are counted in `one_unit`.

    Raises:
        InputError: `token_ids` are no whole numbers.

    Examples:
        >>> from flux_rewards import Sample
        >>> [row.tolist() for row in sequences_of([Sample(response="To be"), Sample(response="to do")], "words")]
        [[0, 1], [0, 2]]
    """
    unit = one_unit(samples, unit)
    if unit == "tokens":
        return [_ids(sample.token_ids) for sample in samples]
    texts = [sample.response_text for sample in samples]
    if unit == "characters":
        # Lone surrogates are characters of a text like any other.
        encoded = (text.encode("utf-32-le", "surrogatepass") for text in texts)
        return [np.frombuffer(text, dtype="<u4").astype(np.int64) for text in encoded]
    known: dict[str, int] = {}
    return [_whole([known.setdefault(word, len(known)) for word in text.lower().split()]) for text in texts]


def _ids(given: Any) -> Codes:
    if hasattr(given, "detach"):
        given = given.detach().cpu().numpy()
    try:
        if not hasattr(given, "dtype"):
            return _whole(given)
        if given.ndim == 1 and (given.dtype.kind in "iu" or not len(given)):
            return np.asarray(given, dtype=np.int64)
    except (TypeError, ValueError, OverflowError):
        pass
    raise InputError(f"expected whole numbers, found {brief(given)}", field="token_ids")


def _whole(numbers: Sequence[int]) -> Codes:
    # By way of an array of the standard library, which refuses 1.5 where numpy would cut it, and is as fast.
    return np.asarray(array("q", numbers)).view(np.int64)
