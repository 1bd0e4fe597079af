"""Verdicts behind a label, as in ``Score: 8``; and those that need none."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from flux_rewards.errors import JudgeError
from flux_rewards.rewards.judges.verdicts.numbers import (
    DECORATION,
    NOT_APPLICABLE,
    Number,
    on_scale,
    read_number,
    read_whole,
    undecorated,
)
from flux_rewards.rewards.judges.verdicts.spoken import tidy

if TYPE_CHECKING:
    from flux_rewards.rewards.judges.verdicts.scale import Scale

__all__ = ["LINE_START", "Reader", "bracketed", "last_line", "read_rating", "the_only_one", "values_behind"]

_D = DECORATION
LINE_START = re.compile(r"(?:[^\w\n]|_)*(?:\d{1,3}[.)][ \t]+(?:[^\w\n]|_)*)?")
"""Bullets, numbers, emoji, Markdown: what may stand before a label."""

_BEHIND = rf"(?!\w)[*_`\"' ]*(?:[(\[](?P<aside>[^()\[\]\n]{{1,40}})[)\]])?{_D}*[:=]{_D}*"
_STRONG = ("final", "overall", "total")
_QUOTES = "\"'`“”„«»‹›‘"
_BOXED = re.compile(
    r"\\boxed\s?\{([^{}\n]*)\}|<(?:score|rating)>\s{0,8}([^<>\n]*?)\s{0,8}</(?:score|rating)>", re.IGNORECASE
)
_BRACKETED = re.compile(
    rf"(?:.*\b(?:rating|score|verdict|choice|winner|judge?ment|decision)\b{_D}*:)?{_D}*?\[\[([^\[\]]*)\]\](?:{_D}|\.)*",
    re.IGNORECASE,
)
_TAGS = re.compile(r"</?(?:b|strong|em|i|u|p|br|span|code|h[1-6]|li) ?/?>", re.IGNORECASE)
_RANGE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:-|–|—|to|/)\s*(\d+(?:\.\d+)?)\s*", re.IGNORECASE)


class Reader(Protocol):
    """Reads a verdict at the beginning of a line, or, `alone`, where it is all of it; None where there is none.

    `aside` is what stood in parentheses after the label.
    """

    def __call__(self, text: str, *, alone: bool, aside: str) -> Any:
        """The verdict, or None."""


class _Candidate(NamedTuple):
    line: int
    strong: bool
    amid: bool
    quoted: bool
    value: Any


def values_behind(text: str, label: str, read: Reader, *, last: bool = False) -> list[Any]:
    r"""What stands behind a label: its words, perhaps a parenthesis, then ``:`` or ``=``, then the verdict.

    A label stands at the beginning of a line; a "final", "overall" or "total" one also amid a line, but not in quotes.
    A final verdict stands above plain ones before it: not above one that follows, nor, amid a line, above any. What is
    quoted, by ``>`` or in quotes, counts only where all of the text is. A label with nothing behind it that can be
    read is passed over: the instruction may be repeated.

    Args:
        text: Tidy.
        label: One or more words, whatever the case.
        read: Reads the verdict.
        last: Whether one of them must be in the last line that says anything: words behind a verdict may take it back.

    Returns:
        The verdicts that decide.

    Raises:
        JudgeError: They cannot be read, or words follow them.

    Examples:
        >>> def read(text, *, alone, aside):
        ...     return text
        >>> values_behind("Score: 3\n**Overall score:** 4", "Score", read)
        ['4']
    """
    found = list(_candidates(text, label, read))
    if not all(_is_quoted(line, len(line) - len(undecorated(line))) for line in text.split("\n") if undecorated(line)):
        found = [candidate for candidate in found if not candidate.quoted]
    final = max((at for at, candidate in enumerate(found) if candidate.strong and not candidate.amid), default=None)
    if final is not None:
        found = [candidate for at, candidate in enumerate(found) if candidate.strong or at > final]
    for candidate in found:
        if isinstance(candidate.value, JudgeError):
            raise candidate.value
    if found and last and any(map(undecorated, text.split("\n")[max(candidate.line for candidate in found) + 1 :])):
        raise JudgeError(f"words follow the line '{label}: ...', which may take it back", "ambiguous")
    return [candidate.value for candidate in found]


def _candidates(text: str, label: str, read: Reader) -> Iterator[_Candidate]:
    words = rf"{_D}+".join(re.escape(word) for word in label.split())
    is_strong = label.split(maxsplit=1)[0].lower() in _STRONG
    strong = re.compile(
        rf"(?<!\w){words}{_BEHIND}" if is_strong else rf"(?<!\w)(?:{'|'.join(_STRONG)}){_D}+{words}{_BEHIND}",
        re.IGNORECASE,
    )
    plain = re.compile(rf"{words}{_BEHIND}", re.IGNORECASE)
    lines = text.split("\n")
    for number, line in enumerate(lines):
        start = LINE_START.match(line)
        begin = start.end() if start else 0
        at_start = strong.match(line, begin) or plain.match(line, begin)
        if at_start is not None:
            value, skipped = _value(lines, number, at_start, read)
            if value is not None:
                found = strong.match(line, begin) is not None
                yield _Candidate(number + skipped, found, False, _is_quoted(line, begin), value)
                continue
        for amid in strong.finditer(line, begin + 1):
            value, skipped = _value(lines, number, amid, read)
            if value is not None:
                quoted = line[: amid.start()].rstrip(" *")[-1:] in [*_QUOTES]
                yield _Candidate(number + skipped, True, True, quoted, value)


def _value(lines: Sequence[str], number: int, label: re.Match[str], read: Reader) -> tuple[Any, int]:
    """The verdict behind a label, and how many lines below."""
    behind, below = lines[number][label.end() :], 0
    while not undecorated(behind) and number + below + 1 < len(lines):  # on the next line that has anything
        below += 1
        behind = undecorated(lines[number + below])
    try:
        return read(behind, alone=below > 0, aside=label["aside"] or ""), below
    except JudgeError as error:
        return error, below


def _is_quoted(line: str, begin: int) -> bool:
    before = line[:begin]
    in_quotes = "{" not in before and any(mark in _QUOTES for mark in before)  # a brace: a key of JSON
    return ">" in before or (in_quotes and line.rstrip(" .,*")[-1:] in [*_QUOTES])


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


def last_line(text: str) -> str:
    r"""The last line that says anything.

    Examples:
        >>> last_line("Well.\n[[8]]\n```")
        '[[8]]'
    """
    return next((line for line in reversed(text.split("\n")) if undecorated(line)), "")


def read_rating(
    text: str, scale: Scale, label: str = "Score", *, allow_na: bool = False, labelled: bool = False, last: bool = True
) -> float | None:
    r"""The number that a text gives behind its label; without any label, boxed in its last line, or alone.

    Args:
        text: What was said, see `spoken`.
        scale: Where the number must lie.
        label: What stands before it.
        allow_na: Whether it may be "N/A".
        labelled: Whether the label must be there.
        last: Whether it must be in the last line.

    Returns:
        The number; None for "N/A".

    Raises:
        JudgeError: There is none, there are several, or it is not on the scale.

    Examples:
        >>> from flux_rewards.rewards.judges.verdicts.scale import Scale
        >>> read_rating("Of 3 criteria 2 are met.\n**Score:** 7/10", Scale(1, 10))
        7.0
    """
    text = _TAGS.sub("", _BOXED.sub(lambda found: f" {found[1] or found[2] or ''} ", tidy(text)))
    values = values_behind(text, label, functools.partial(_number, scale=scale), last=last)
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
    if number is not None and ends is not None and (float(ends[1]), float(ends[2])) != (scale.low, scale.high):
        raise JudgeError(f"it is a score on a scale of {aside}, not of {scale}", "out_of_range")
    return number


def _unlabelled(text: str) -> Iterator[str]:
    inside = bracketed(text)
    if inside is not None:
        yield inside
    lines = [line for line in text.split("\n") if undecorated(line)]
    if len(lines) == 1:
        yield lines[0]


def bracketed(text: str) -> str | None:
    """What stands in double brackets at the end: as the last line, or behind a word such as "Rating:".

    Examples:
        >>> bracketed("It is fine. Rating: [[6]]"), bracketed("It says [[6]]")
        ('6', None)
    """
    found = _BRACKETED.fullmatch(last_line(text))
    return found[1].strip() if found else None


def _named(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
