"""Whether a response has the wanted sections, in order."""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.data import RewardOutput, Sample
from flux_rewards.errors import ConfigError
from flux_rewards.rewards.text.visible import has_content
from flux_rewards.rewards.text.words import good_and_bad
from flux_rewards.validation import one_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["SectionsReward"]

_BEFORE_HEADING = re.compile(r"[\s#>*_-]{0,12}(?:\d{1,3}[.)]\s{1,4})?[*_]{0,3}")
_AFTER_HEADING = re.compile(r"[*_]{0,3}\s{0,4}(?:[:\uff1a][*_]{0,3}|[#]*\s*$)")


class SectionsReward(RewardFunction):
    r"""(wanted sections that are there in the wanted order) / sections.

    Where some are out of order, as many count as stand in order: for Summary, Method, Result a response with Method,
    Result, Summary scores 2/3. A section's place is where it occurs first.

    Args:
        sections: The headings, or phrases, in order.
        where: ``"heading"``: alone on a line, or at its beginning before a colon, with or without the marks of Markdown
            (``## Summary``, ``**Summary:** ...``, ``2. Summary``); ``"anywhere"``: as a whole phrase; see `Keywords`.
        ordered: False: the order doesn't matter.
        allow_empty: A heading counts even if nothing that prints stands between it and the next of the `sections`.
            Of ``"heading"`` only.
        ignore_case: Whether capitals don't matter.
        **options: Of every reward; see `RewardFunction`.

    Bounds: (0, 1). An empty response scores 0.0. Metadata: ``missing``, the sections that are not there (out of order
    is not missing).

    Raises:
        ConfigError: There are no sections, one is blank or listed twice, or `where` is neither of these.

    Does not see underlined headings (a line of ``===`` below them), and does not judge what the sections say.

    Examples:
        >>> report = SectionsReward(["Summary", "Method", "Result"])
        >>> report(response=["## Summary\nGood.\n## Method\nTwo steps.\n## Result\n7", "Result: 7"]).rewards.round(3)
        array([1.   , 0.333])
    """

    required_fields = ("response",)
    optional_fields = ()
    bounds = (0.0, 1.0)
    example_config = {"sections": ["an", "of", "reply"], "where": "anywhere"}

    def __init__(
        self,
        sections: Sequence[str],
        where: str = "heading",
        ordered: bool = True,
        *,
        allow_empty: bool = False,
        ignore_case: bool = True,
        **options: Unpack[RewardOptions],
    ) -> None:
        super().__init__(**options)
        self.sections = sections
        self.where = one_of(where, "where", self.name, ("heading", "anywhere"))
        self.ordered = ordered
        self.allow_empty = allow_empty
        self.ignore_case = ignore_case
        try:
            self._keywords, _ = good_and_bad(sections, [], self.name, ignore_case=ignore_case)
        except ConfigError as error:
            raise ConfigError(f"sections: {error.args[0]}", reward=self.name) from error
        self._names = [self._folded(" ".join(name.split())) for name in sections]

    def compute_reward(self, sample: Sample) -> RewardOutput:
        """The share of sections in order, and those that are missing."""
        text = sample.response_text
        places = self._headings(text) if self.where == "heading" else self._phrases(text)
        missing = [section for section, place in zip(self.sections, places, strict=True) if place is None]
        found = [place for place in places if place is not None]
        count = _longest_rise(found) if self.ordered else len(found)
        return RewardOutput(count / len(self._names), metadata={"missing": missing})

    def _phrases(self, text: str) -> list[int | None]:
        first: dict[str, int] = {}
        for word in self._keywords.present(text):
            alone, _ = good_and_bad([word], [], self.name, ignore_case=self.ignore_case)
            first[word] = min(start for start, _ in alone.spans(text))
        return [first.get(section) for section in self.sections]

    def _headings(self, text: str) -> list[int | None]:
        lines = text.split("\n")
        headings: list[tuple[int, int, bool]] = []  # line, section, and whether it goes on behind the colon
        for number, line in enumerate(lines):
            heading = self._section_of(line)
            if heading is not None:
                headings.append((number, *heading))
        first: dict[int, int] = {}
        for position, (number, section, goes_on) in enumerate(headings):
            end = headings[position + 1][0] if position + 1 < len(headings) else len(lines)
            if self.allow_empty or goes_on or any(map(has_content, lines[number + 1 : end])):
                first.setdefault(section, number)
        return [first.get(section) for section in range(len(self._names))]

    def _section_of(self, line: str) -> tuple[int, bool] | None:
        before = _BEFORE_HEADING.match(line)
        start = before.end() if before else 0
        # Squeezed, so that whitespace within a heading is any whitespace; no longer than a heading can be.
        rest = self._folded(" ".join(line[start : start + 400].split()))
        for section, name in enumerate(self._names):
            if rest.startswith(name):
                after = _AFTER_HEADING.match(rest, len(name))
                if after is not None:
                    return section, has_content(rest[after.end() :].strip("*_ "))
        return None

    def _folded(self, text: str) -> str:
        return text.casefold() if self.ignore_case else text


def _longest_rise(places: Sequence[int]) -> int:
    """The length of the longest rising subsequence."""
    tops: list[int] = []
    for place in places:
        at = bisect.bisect_left(tops, place)
        tops[at : at + 1] = [place]
    return len(tops)
