"""Scores below headings, one for each aspect."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from flux_rewards.errors import JudgeError
from flux_rewards.rewards.judges.verdicts.labelled import the_only_one, values_behind
from flux_rewards.rewards.judges.verdicts.numbers import DECORATION, NOT_APPLICABLE, Number, read_number, read_whole
from flux_rewards.rewards.judges.verdicts.spoken import tidy

__all__ = ["read_sections"]

_D = DECORATION
_SUMMARY = re.compile(rf"^{_D}*summary{_D}*:", re.IGNORECASE | re.MULTILINE)


def read_sections(text: str, headings: Mapping[str, str], may_be_na: Sequence[str] = ()) -> dict[str, float | None]:
    r"""The score behind ``Score:`` below each heading, such as ``1. Text Faithfulness:``.

    Args:
        text: What was said, see `spoken`; what stands below ``# Summary:`` is left out.
        headings: By key, the words of its heading.
        may_be_na: Keys whose score may be "N/A".

    Returns:
        By key, the number, or None for "N/A"; not held against any scale.

    Raises:
        JudgeError: A heading or its score is missing, there are several that differ, or one is "N/A" that may not be.

    Examples:
        >>> read_sections("1. Colour:\n## Score: 3\n2. Form:\n**Score:** [2.5]", {"colour": "Colour", "form": "Form"})
        {'colour': 3.0, 'form': 2.5}
    """
    text = _SUMMARY.split(tidy(text))[0]
    names = "|".join(re.escape(heading).replace(r"\ ", r"\s+") for heading in headings.values())
    heading = re.compile(rf"^{_D}*(?:\d+\s*[.)])?{_D}*(?P<name>{names}){_D}*:", re.IGNORECASE | re.MULTILINE)
    found = list(heading.finditer(text))
    ends = [*(match.start() for match in found[1:]), len(text)]
    scores: dict[str, float | None] = {}
    for key, wanted in headings.items():
        values = []
        for match, end in zip(found, ends, strict=False):
            if " ".join(match["name"].split()).casefold() == wanted.casefold():
                values += values_behind(text[match.end() : end].strip(), "Score", _score)
        if not values:
            raise JudgeError(f"there is no score for {wanted!r}", "missing")
        value = the_only_one([value if isinstance(value, str) else value.value for value in values])
        if value == NOT_APPLICABLE and key not in may_be_na:
            raise JudgeError(f"'N/A' is no score for {wanted!r}")
        scores[key] = None if value == NOT_APPLICABLE else value
    return scores


def _score(text: str, *, alone: bool, aside: str) -> Number | str | None:  # noqa: ARG001  # see `Reader`
    return read_whole(text) if alone else read_number(text)
