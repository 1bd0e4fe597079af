"""What is done to two texts before they are compared, and which texts a reference accepts."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable
from decimal import Decimal
from numbers import Real
from typing import Any

from flux_rewards.errors import InputError, brief

__all__ = ["NORMALIZERS", "accepted_texts"]

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def _casefold(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold()).split())


def _squad(text: str) -> str:
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


NORMALIZERS: dict[str, Callable[[str], str]] = {
    "none": lambda text: text,
    "strip": str.strip,
    "casefold": _casefold,
    "squad": _squad,
}
"""By name. ``none``: nothing; ``strip``: no whitespace around; ``casefold``: composed Unicode (NFC), no capitals,
whitespace squeezed; ``squad``: the rule of the SQuAD evaluation script (evaluate-v1.1.py): lower case, without ASCII
punctuation, without the articles a, an and the, whitespace squeezed."""


def accepted_texts(reference: Any) -> list[str]:
    """The texts that a reference accepts: one, or those of a list; numbers as Python prints them.

    Raises:
        InputError: It is, or holds, anything else; or it is an empty list.

    Examples:
        >>> accepted_texts(18), accepted_texts(["Rome", "Roma"])
        (['18'], ['Rome', 'Roma'])
    """
    several = isinstance(reference, (list, tuple, set, frozenset))
    references = list(reference) if several else [reference]
    for entry in references:
        # A truth value is refused: nobody can know whether the response should say True, true or yes.
        if isinstance(entry, bool) or not isinstance(entry, (str, Real, Decimal)):
            raise InputError(
                f"expected a text, a number or a list of those, found {brief(entry)}; write the text to match",
                field="reference",
            )
    if not references:
        raise InputError("expected at least one accepted text, found an empty list", field="reference")
    return [str(entry) for entry in references]
