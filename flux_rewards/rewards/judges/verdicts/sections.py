"""Scores below headings, one for each aspect."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from flux_rewards.errors import JudgeError
from flux_rewards.rewards.judges.verdicts.labelled import LINE_START, the_only_one, values_behind
from flux_rewards.rewards.judges.verdicts.numbers import (
    DECORATION,
    NOT_APPLICABLE,
    Number,
    on_scale,
    read_number,
    read_whole,
)
from flux_rewards.rewards.judges.verdicts.scale import Scale
from flux_rewards.rewards.judges.verdicts.spoken import tidy

__all__ = ["read_sections"]

_D = DECORATION
_SUMMARY = re.compile(rf"summary{_D}*:", re.IGNORECASE)


def read_sections(
    text: str, headings: Mapping[str, str], scale: Scale, may_be_na: Sequence[str] = ()
) -> dict[str, float | None]:
    r"""The score behind ``Score:`` below each heading, such as ``1. Text Faithfulness:``.

    Args:
        text: What was said, see `spoken`; what stands below ``# Summary:`` is left out.
        headings: By key, the words of its heading.
        scale: Of all scores. One that is less than 1/2 beyond its ends is cut to them.
        may_be_na: Keys whose score may be "N/A".

    Returns:
        By key, the number, or None for "N/A".

    Raises:
        JudgeError: A heading or its score is missing, there are several that differ, one is "N/A" that may not be, or
            is not on the scale.

    Examples:
        >>> headings = {"colour": "Colour", "form": "Form"}
        >>> read_sections("1. Colour:\n## Score: 3\n2. Form:\n**Score:** [2.5]", headings, Scale(1, 4))
        {'colour': 3.0, 'form': 2.5}
    """
    blocks = _blocks(tidy(text), headings)
    scores: dict[str, float | None] = {}
    for key, heading in headings.items():
        values = [value for block in blocks[key] for value in values_behind(block, "Score", _score)]
        if not values:
            raise JudgeError(f"there is no score for {heading!r}", "missing")
        value = the_only_one([value if isinstance(value, str) else value.value for value in values])
        if value == NOT_APPLICABLE:
            if key not in may_be_na:
                raise JudgeError(f"'N/A' is no score for {heading!r}")
            scores[key] = None
            continue
        wider = Scale(scale.low - 0.5, scale.high + 0.5)
        for number in values:
            on_scale(Number(number.value), wider)
            if number.percent or number.out_of not in (None, scale.high):
                raise JudgeError(f"{heading!r} is scored on another scale than {scale}", "out_of_range")
        scores[key] = min(max(value, scale.low), scale.high)
    return scores


def _blocks(text: str, headings: Mapping[str, str]) -> dict[str, list[str]]:
    """By key, what stands below its heading, as often as that is there."""
    names = {key: rf"{_D}+".join(re.escape(word) for word in heading.split()) for key, heading in headings.items()}
    patterns = {key: re.compile(rf"{name}{_D}*:", re.IGNORECASE) for key, name in names.items()}
    blocks: dict[str, list[list[str]]] = {key: [] for key in headings}
    below: list[str] = []  # what stands above the first heading
    for line in text.split("\n"):
        start = LINE_START.match(line)
        begin = start.end() if start else 0
        if _SUMMARY.match(line, begin):
            break
        for key, pattern in patterns.items():
            heading = pattern.match(line, begin)
            if heading is not None:
                below = [line[heading.end() :]]
                blocks[key].append(below)
                break
        else:
            below.append(line)
    return {key: ["\n".join(lines) for lines in found] for key, found in blocks.items()}


def _score(text: str, *, alone: bool, aside: str) -> Number | str | None:  # noqa: ARG001  # see `Reader`
    return read_whole(text) if alone else read_number(text)
