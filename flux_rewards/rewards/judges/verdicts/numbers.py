"""Numbers as judges write them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from flux_rewards.errors import JudgeError

if TYPE_CHECKING:
    from flux_rewards.rewards.judges.verdicts.scale import Scale

__all__ = ["DECORATION", "NOT_APPLICABLE", "Number", "on_scale", "read_number", "read_whole", "undecorated"]

DECORATION = r"[ \t*_#>`\"'“”„«»‹›\[\](){}|$]"
"""What Markdown, JSON and chat put around the parts of a verdict, in one line."""

NOT_APPLICABLE = "N/A"

_D = DECORATION
_NUMBER = r"[+\-−]?(?:\d+,\d{1,2}(?!\d)|\d+(?:\.\d+)?)"
_AT_START = re.compile(rf"({_NUMBER})(?!\d|[.,]\d|[eE][+-]?\d|[¼-¾⅐-⅞])(\s?%)?", re.ASCII)
_OUT_OF = re.compile(rf"{_D}*(?:/|(?:out of|of|von|sur|su|de|из)\b){_D}*(\d+(?:\.\d+)?)(?!\d|[.,]\d)", re.IGNORECASE)
_ANOTHER = re.compile(rf"{_D}*(?:to\b|or\b|~|到|至|[-–—]{_D}*(?=\d)){_D}*\d", re.IGNORECASE | re.ASCII)
_SEVERAL = re.compile(rf"(?:between|from|either)\s+{_NUMBER}", re.IGNORECASE | re.ASCII)
_NO_NUMBER = re.compile(r"(?:n\s?/\s?a|na|not applicable)(?!\w)", re.IGNORECASE)
_UNIT = re.compile(r"\s*(?:分|点|점|(?:points?|pts)\b)", re.IGNORECASE)
_SYMBOL = r"[^\x00-\x7f\w\s]"  # emoji, say
_END = re.compile(rf"(?:{_D}|[.!]|{_SYMBOL})*")
_A_WORD = re.compile(rf" [^\W\d_]{{1,20}}(?:{_D}|[.!]|{_SYMBOL})*")
_ASIDE = re.compile(r"[ \t*_`\"']*\([^()]*\)")
_REASON = re.compile(rf"{_D}*(?:[.,;:(–—]|-(?!>)|{_SYMBOL}|(?:because|since|as|for|due|given)\b)", re.IGNORECASE)


class Number(NamedTuple):
    """A number and the end of the scale that it names, as in ``8/10`` or ``80 %``."""

    value: float
    out_of: float | None = None
    percent: bool = False


def undecorated(text: str) -> str:
    """A text without the decoration before it.

    Examples:
        >>> undecorated("** [8]")
        '8]'
    """
    return text.lstrip(" \t*_#>`\"'“”„«»‹›[](){}|$")


def read_number(text: str) -> Number | str | None:
    """The number at the beginning of a line, `NOT_APPLICABLE`, or None where it begins with neither.

    A reason may follow, without another number but in parentheses or after ``8/10``: "8 because it is short" is 8, and
    "8, no, 5", "4 + 3 = 7" and "10 is what it asks for" are not.

    Args:
        text: Tidy (see `tidy`), without decoration before the number.

    Raises:
        JudgeError: There are several.

    Examples:
        >>> read_number("8,5 / 10, since"), read_number("N/A"), read_number("eight")
        (Number(value=8.5, out_of=10.0, percent=False), 'N/A', None)
    """
    found, rest = _leading(text)
    if found is None or _END.fullmatch(rest):
        return found
    aside = _ASIDE.match(rest)
    rest = rest[aside.end() :] if aside else rest
    if _END.fullmatch(rest):
        return found
    named = isinstance(found, Number) and found.out_of is not None
    if named and _A_WORD.fullmatch(rest):  # "7 von 10 Punkten"
        return found
    if not _REASON.match(rest):
        return None
    if re.search(r"\d", rest) if not named else _OUT_OF.search(rest):
        raise JudgeError("several numbers", "ambiguous")
    return found


def read_whole(text: str) -> Number | str | None:
    """The number that is all of a text, decoration aside; None where it is something else.

    Raises:
        JudgeError: There are several.

    Examples:
        >>> read_whole("**8/10**."), read_whole("8 of the 9 points are met")
        (Number(value=8.0, out_of=10.0, percent=False), None)
    """
    try:
        found, rest = _leading(undecorated(text))
    except JudgeError:
        if len(text) < 40:
            raise
        return None  # prose
    return found if _END.fullmatch(rest) else None


def _leading(text: str) -> tuple[Number | str | None, str]:
    """The number that a text begins with, and what follows."""
    none = _NO_NUMBER.match(text)
    if none is not None:
        return NOT_APPLICABLE, text[none.end() :]
    if _SEVERAL.match(text):
        raise JudgeError("several numbers", "ambiguous")
    found = _AT_START.match(text)
    if found is None:
        return None, text
    value = float(found[1].replace("−", "-").replace(",", "."))
    rest = text[found.end() :]
    if found[2]:
        return Number(value, 100.0, percent=True), rest
    out_of = _OUT_OF.match(rest)
    rest = rest[out_of.end() :] if out_of else rest
    unit = _UNIT.match(rest)
    rest = rest[unit.end() :] if unit else rest
    if _ANOTHER.match(rest):
        raise JudgeError("several numbers", "ambiguous")
    return Number(value, float(out_of[1]) if out_of else None), rest


def on_scale(number: Number, scale: Scale) -> float:
    """The value of a number, where it is on the scale.

    Raises:
        JudgeError: It is not, or it names another end of the scale.

    Examples:
        >>> from flux_rewards.rewards.judges.verdicts.scale import Scale
        >>> on_scale(Number(8, 10), Scale(1, 10))
        8
    """
    if number.percent and scale.high != 100:
        raise JudgeError(f"{number.value:g} % is no score on a scale of {scale}")
    if number.out_of is not None and number.out_of != scale.high:
        raise JudgeError(f"{number.value:g} of {number.out_of:g} is not on a scale of {scale}", "out_of_range")
    if not scale.low <= number.value <= scale.high:
        raise JudgeError(f"{number.value:g} is not on a scale of {scale}", "out_of_range")
    return number.value
