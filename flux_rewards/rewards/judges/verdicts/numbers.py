"""Numbers as judges write them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from flux_rewards.errors import JudgeError

if TYPE_CHECKING:
    from flux_rewards.rewards.judges.verdicts.scale import Scale

__all__ = ["DECORATION", "NOT_APPLICABLE", "Number", "on_scale", "read_number", "read_whole"]

DECORATION = r"[\s*_#>`\"'“”„«»‹›\[\](){}|$]"
"""What Markdown, JSON and chat put around the parts of a verdict."""

_D = DECORATION
_NUMBER = r"[+\-−]?(?:\d+,\d{1,2}(?!\d)|\d+(?:\.\d+)?)"
_AT_START = re.compile(rf"(?P<number>{_NUMBER})(?!\d|[.,]\d|[eE][+-]?\d|[¼-¾⅐-⅞])(?P<percent>\s?%)?", re.ASCII)
_OUT_OF = re.compile(rf"{_D}*(?:/|(?:out\s+)?of\b){_D}*(?P<high>\d+(?:\.\d+)?)(?!\d|[.,]\d)", re.IGNORECASE | re.ASCII)
_ANOTHER = re.compile(
    rf"{_D}*?(?:(?:\bto\b|\bor\b|[~到至]){_D}*|\s?[-–—]\s?){_NUMBER}(?:\s*(?:/|(?:out\s+)?of)\s*\d+)?(?!{_D}*\w)"
    rf"|{_D}*?(?:\bto\b|\bor\b|[-–—~到至](?=\d)){_D}*\d",
    re.IGNORECASE | re.ASCII,
)
_BETWEEN = re.compile(rf"(?:between|from|either)\s+{_NUMBER}", re.IGNORECASE | re.ASCII)
_NOT_APPLICABLE = re.compile(r"(?:n\s?/\s?a|na|not\s+applicable)(?!\w)", re.IGNORECASE)

NOT_APPLICABLE = "N/A"


class Number(NamedTuple):
    """A number and the end of the scale that it names, as in ``8/10`` or ``80 %``."""

    value: float
    out_of: float | None = None
    percent: bool = False


def read_number(text: str) -> Number | str | None:
    """The number at the beginning of a text, `NOT_APPLICABLE`, or None where it begins with neither.

    Args:
        text: Tidy (see `tidy`), without decoration before the number.

    Raises:
        JudgeError: It is a range or a choice of numbers.

    Examples:
        >>> read_number("8,5 / 10, since"), read_number("N/A"), read_number("eight")
        (Number(value=8.5, out_of=10.0, percent=False), 'N/A', None)
    """
    if _NOT_APPLICABLE.match(text):
        return NOT_APPLICABLE
    if _BETWEEN.match(text):
        raise JudgeError("several numbers", "ambiguous")
    found = _AT_START.match(text)
    if found is None:
        return None
    value = float(found["number"].replace("−", "-").replace(",", "."))
    if found["percent"]:
        return Number(value, 100.0, percent=True)
    rest = text[found.end() :]
    if _ANOTHER.match(rest):
        raise JudgeError("several numbers", "ambiguous")
    out_of = _OUT_OF.match(rest)
    if out_of is None:
        return Number(value)
    if _ANOTHER.match(rest[out_of.end() :]):
        raise JudgeError("several numbers", "ambiguous")
    return Number(value, float(out_of["high"]))


_UNIT = re.compile(rf"\s*(?:分|点|점|points?)?(?:{_D}|[.!])*", re.IGNORECASE)


def read_whole(text: str) -> Number | str | None:
    """The number that is all of a text, decoration aside; None where it is something else.

    Raises:
        JudgeError: It is a range or a choice of numbers.

    Examples:
        >>> read_whole("**8/10**."), read_whole("8 of the 9 points are met")
        (Number(value=8.0, out_of=10.0, percent=False), None)
    """
    text = re.sub(rf"^{_D}+", "", text)
    no_number = _NOT_APPLICABLE.match(text)
    if no_number is not None:
        return NOT_APPLICABLE if _UNIT.fullmatch(text, no_number.end()) else None
    number = _AT_START.match(text)
    if number is None:
        return None
    end = number.end()
    out_of = _OUT_OF.match(text, end)
    another = _ANOTHER.match(text, end)
    if another is not None and _UNIT.fullmatch(text, another.end()):
        raise JudgeError("several numbers", "ambiguous")
    if out_of is not None:
        end = out_of.end()
    return read_number(text) if _UNIT.fullmatch(text, end) else None


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
