"""Verdicts in JSON: plain, in a code fence, or amid prose."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import JudgeError, brief
from flux_rewards.rewards.judges.verdicts.labelled import LINE_START
from flux_rewards.rewards.judges.verdicts.numbers import NOT_APPLICABLE, on_scale, read_whole, undecorated
from flux_rewards.rewards.judges.verdicts.spoken import tidy

if TYPE_CHECKING:
    from flux_rewards.rewards.judges.verdicts.scale import Scale

__all__ = ["entry_of", "find_object", "folded", "score_of"]


class _Pairs(dict[str, Any]):
    """A JSON object that remembers which keys came twice, folded."""

    twice: frozenset[str] = frozenset()


def _paired(pairs: list[tuple[str, Any]]) -> _Pairs:
    found = _Pairs(pairs)
    names = [folded(name) for name, _ in pairs]
    found.twice = frozenset(name for name in names if names.count(name) > 1)
    return found


_NEXT = re.compile(r'\\.|["{}]', re.DOTALL)
_DECODER = json.JSONDecoder(object_pairs_hook=_paired, strict=False)  # line ends in strings are common


def folded(name: str) -> str:
    """A key as it is compared: case, spaces, hyphens and underscores make no difference.

    Examples:
        >>> folded("Text-Faithfulness ") == folded("text_faithfulness")
        True
    """
    return re.sub(r"[\s_\-]+", "", name).casefold()


def find_object(text: str, keys: Sequence[str]) -> Mapping[str, Any]:
    """The one JSON object of a text that has any of the keys.

    Args:
        text: What was said.
        keys: Whatever their case and separators. Where one stands in something broken, that is not passed over.

    It begins a line, or stands behind a colon, and nothing follows it, but for words behind a code fence: a quoted one
    would be followed by the judge's own.

    Raises:
        JudgeError: There is none, there are several that differ in those keys, it is broken, or amid a sentence.

    Examples:
        >>> find_object('Here: {"score": 8}', ["score"])
        {'score': 8}
    """
    wanted = {folded(key) for key in keys}
    spelled = "|".join(r"[\s_\-]?".join(map(re.escape, name)) for name in sorted(wanted))
    names = re.compile(rf"(?<!\w)(?:{spelled})[\"'\\]*\s*:", re.IGNORECASE)
    found: list[Mapping[str, Any]] = []
    others = False
    end = 0
    for start, end, part in _objects(text):  # noqa: B007  # the last end is looked at
        if isinstance(part, str):
            if names.search(part):
                raise JudgeError("its JSON is broken")
        elif wanted.isdisjoint(map(folded, part)):
            others = True
        else:
            line = text[:start].rpartition("\n")[2].rstrip(" *`[(")
            if LINE_START.fullmatch(line) is None and not line.endswith(":"):
                raise JudgeError("its JSON stands amid a sentence", "ambiguous")
            found.append(part)
    if not found:
        message = f"there is no JSON object with {', '.join(keys)}"
        raise JudgeError(message, "missing" if others else "unreadable")
    behind = undecorated(text[end:].replace("\n", " "))
    fenced = text[end:].lstrip().startswith("```")  # a pleasantry may follow
    if behind and (not fenced or re.search(r"\d", behind)):
        raise JudgeError("text follows its JSON", "ambiguous")
    deciding = [{folded(name): value for name, value in entry.items() if folded(name) in wanted} for entry in found]
    if any(other != deciding[0] for other in deciding):
        raise JudgeError(f"there are {len(found)} JSON objects that differ", "ambiguous")
    return found[0]


def entry_of(found: Mapping[str, Any], key: str) -> Any:
    """The value of a key, whatever its case and separators.

    Raises:
        JudgeError: The key is not there, or comes twice.

    Examples:
        >>> entry_of({"Text Clarity": 3}, "text_clarity")
        3
    """
    values = [value for name, value in found.items() if folded(name) == folded(key)]
    if len(values) > 1 or folded(key) in getattr(found, "twice", ()):
        raise JudgeError(f"{key!r} is there twice", "ambiguous")
    if not values:
        raise JudgeError(f"{key!r} is missing", "missing")
    return values[0]


def score_of(value: Any, scale: Scale, key: str, *, allow_na: bool = False) -> float | None:
    """A score as JSON holds it: a number, a text that is one, or null or "N/A".

    Returns:
        The number; None where it does not apply.

    Raises:
        JudgeError: It is something else, or not on the scale.

    Examples:
        >>> from flux_rewards.rewards.judges.verdicts.scale import Scale
        >>> score_of("8/10", Scale(1, 10), "score"), score_of(None, Scale(1, 10), "score", allow_na=True)
        (8.0, None)
    """
    if isinstance(value, str):
        number = read_whole(tidy(value))
        if number is not None and not isinstance(number, str):
            return on_scale(number, scale)
        value = None if number == NOT_APPLICABLE else value
    if value is None and allow_na:
        return None
    if isinstance(value, int) and abs(value) > 1e300:  # more than a float holds
        value = math.inf
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise JudgeError(f"{key!r} is {brief(value)}, not a number")
    if not scale.low <= value <= scale.high:
        raise JudgeError(f"{key!r} is {value:g}, which is not on a scale of {scale}", "out_of_range")
    return float(value)


def _objects(text: str) -> Iterator[tuple[int, int, _Pairs | str]]:
    """Where the outermost objects are, and, as text, what looks like one and is broken; nothing within is looked at."""
    start = text.find("{")
    while start >= 0:
        try:
            found, end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = _end_of_braces(text, start)
            yield start, end, text[start:end]
        else:
            yield start, end, found
        start = text.find("{", end)


def _end_of_braces(text: str, start: int) -> int:
    """Where the braces that open here are closed, those in strings aside; the end of the text where they are not."""
    depth, in_string, position = 0, False, start
    while position < len(text):
        found = _NEXT.search(text, position)
        if found is None:
            break
        position = found.end()
        if found[0] == '"':
            in_string = not in_string
        elif found[0][0] != "\\" and not in_string:
            depth += 1 if found[0] == "{" else -1
            if depth == 0:
                return position
    return len(text)
