"""Verdicts behind a label, as in ``Score: 8``; and those that need none."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from flux_rewards.errors import JudgeError
from flux_rewards.rewards.judges.verdicts.numbers import (
    DECORATION,
    NOT_APPLICABLE,
    Number,
    on_scale,
    read_number,
    read_whole,
)
from flux_rewards.rewards.judges.verdicts.spoken import tidy

if TYPE_CHECKING:
    from flux_rewards.rewards.judges.verdicts.scale import Scale

__all__ = ["Reader", "read_rating", "the_only_one", "values_behind"]

_D = DECORATION
_ASIDE = r"[*_`\"' ]*(?:[(\[](?P<aside>[^()\[\]\n]{1,40})[)\]])?"  # the scale, say: "Score (1-10): 8"
_BEHIND = rf"(?!\w){_ASIDE}{_D}*?[:=](?P<gap>{_D}*)"
_LINE_START = r"^(?:[^\w\n]|_|\d+[.)]\s)*"  # bullets, numbers, emoji, Markdown
_STRONG = ("final", "overall", "total")
_MARKED = re.compile(r"\\boxed\s*\{([^{}]*)\}|<(?:score|rating)>([^<>]*)</(?:score|rating)>", re.IGNORECASE)
_TAGS = re.compile(r"</?(?:b|strong|em|i|u|p|br|span|code|h[1-6]|li)\s*/?>", re.IGNORECASE)
_BRACKETS = re.compile(r"\[\[([^\[\]]*)\]\]")
_RANGE = re.compile(r"\s*(?P<low>\d+(?:\.\d+)?)\s*(?:-|–|—|to|/)\s*(?P<high>\d+(?:\.\d+)?)\s*", re.IGNORECASE)


class Reader(Protocol):
    """Reads a verdict at the beginning of a text, or, `alone`, where it is the whole text; None where there is none.

    `aside` is what stood in parentheses after the label.
    """

    def __call__(self, text: str, *, alone: bool, aside: str) -> Any:
        """The verdict, or None."""


def values_behind(text: str, label: str, read: Reader) -> list[Any]:
    r"""What stands behind a label: its words, perhaps a parenthesis, then ``:`` or ``=``, then the verdict.

    A "final", "overall" or "total" label stands above a plain one. It may stand amid a line, but not in quotes there,
    and then a plain one that says otherwise is not passed over; a plain one stands at the beginning of a line. A label
    with nothing behind it that can be read is passed over: the instruction may be repeated.

    Args:
        text: Tidy.
        label: One or more words, whatever the case.
        read: Reads the verdict.

    Returns:
        The verdicts behind the strongest label that has any.

    Examples:
        >>> read = lambda text, *, alone, aside: text
        >>> values_behind("Score: 3\n**Overall score:** 4", "Score", read)
        ['4']
    """
    words = rf"{_D}+".join(re.escape(word) for word in label.split())
    strong = words if label.split(maxsplit=1)[0].lower() in _STRONG else rf"(?:{'|'.join(_STRONG)}){_D}+{words}"
    at_start = _found(rf"{_LINE_START}{strong}{_BEHIND}", text, read)
    if at_start:
        return at_start
    amid = _found(rf"(?<![\w\"'`“”„«‘]){strong}{_BEHIND}", text, read)
    return amid + _found(rf"{_LINE_START}{words}{_BEHIND}", text, read)


def _found(pattern: str, text: str, read: Reader) -> list[Any]:
    values = []
    for found in re.finditer(pattern, text, re.IGNORECASE | re.MULTILINE):
        line = text[found.end() :].partition("\n")[0]
        value = read(line, alone="\n" in found["gap"], aside=found["aside"] or "")
        if value is not None:
            values.append(value)
    return values


def the_only_one(values: Sequence[Any]) -> Any:
    """The value that all agree on.

    Raises:
        JudgeError: They differ.

    Examples:
        >>> the_only_one([8, 8])
        8
    """
    if any(value != values[0] for value in values):
        raise JudgeError(f"several verdicts that differ: {', '.join(dict.fromkeys(map(_named, values)))}", "ambiguous")
    return values[0]


def read_rating(
    text: str, scale: Scale, label: str = "Score", *, allow_na: bool = False, labelled: bool = False
) -> float | None:
    r"""The number that a text gives behind its label, or, without any label, boxed or alone.

    Args:
        text: What was said, see `spoken`.
        scale: Where the number must lie.
        label: What stands before it.
        allow_na: Whether it may be "N/A".
        labelled: Whether the label must be there.

    Returns:
        The number; None for "N/A".

    Raises:
        JudgeError: There is none, there are several, or it is not on the scale.

    Examples:
        >>> from flux_rewards.rewards.judges.verdicts.scale import Scale
        >>> read_rating("Of 3 criteria 2 are met.\n**Score:** 7/10", Scale(1, 10))
        7.0
    """
    text = _TAGS.sub("", _MARKED.sub(lambda found: f"[[{found[1] or found[2] or ''}]]", tidy(text)))
    values = values_behind(text, label, functools.partial(_number, scale=scale))
    if not values and not labelled:
        values = [value for value in map(read_whole, _unlabelled(text)) if value is not None]
    if not values:
        raise JudgeError(f"there is no line '{label}: <number>'", "missing" if labelled else "unreadable")
    distinct = the_only_one([value if isinstance(value, str) else value.value for value in values])
    if distinct == NOT_APPLICABLE:
        if not allow_na:
            raise JudgeError("'N/A' is no score here")
        return None
    return next(on_scale(value, scale) for value in sorted(values, key=lambda value: value.out_of is None))


def _number(text: str, *, alone: bool, aside: str, scale: Scale) -> Number | str | None:
    number = read_whole(text) if alone else read_number(text)
    ends = _RANGE.fullmatch(aside)
    if number is not None and ends is not None and (float(ends["low"]), float(ends["high"])) != (scale.low, scale.high):
        raise JudgeError(f"it is a score on a scale of {aside}, not of {scale}", "out_of_range")
    return number


def _unlabelled(text: str) -> Iterator[str]:
    yield from _BRACKETS.findall(text)
    yield text


def _named(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
