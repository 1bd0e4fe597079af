"""How well a reward agrees with preferences: the numbers, and the table that shows them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import ConfigError, close_match
from flux_rewards.training.evaluate_tables import bars, cell, text_table
from flux_rewards.training.prompts import count_of_prompts

if TYPE_CHECKING:
    from flux_rewards.training.evaluate_statistics import Accuracy, Calibration

__all__ = ["Margins", "PreferenceReport", "section_scores"]


@dataclass(frozen=True)
class Margins:
    """By how much the chosen answer scores higher, in the reward's own units.

    Attributes:
        mean: Mean margin.
        std: Standard deviation (of the population).
        counts: Histogram: pairs a bin.
        edges: Edges of the bins, one more than `counts`; the last bin holds both of its edges.
    """

    mean: float
    std: float
    counts: tuple[int, ...]
    edges: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {"mean": self.mean, "std": self.std, "counts": list(self.counts), "edges": list(self.edges)}


@dataclass(frozen=True)
class PreferenceReport:
    """How well a reward agrees with preferences. ``print`` shows it as tables.

    Only pairs of which both answers have a score are counted; what was left out is said.

    Attributes:
        reward: The reward's name.
        pairs: Pairs that were given.
        failed: Of these, pairs of which an answer could not be scored.
        not_applicable: Pairs to which the reward does not apply.
        reasons: Why pairs failed: reason to count, the most frequent first.
        accuracy: Of all pairs that are left.
        subsets: By the key that was asked for, in the order of the pairs.
        margins: None where no pair is left.
        calibration: Of ``sigmoid(margin)``; None where no pair is left.
        longer_wins: What always preferring the longer answer would have, over the same pairs; None without texts.
        length_correlation: Pearson's, of the differences of scores and of lengths, pairs in both orders; None where one
            is always 0.
        parts: What each part of the reward says by itself, before its weight.
        confidence: Of the intervals.
        prompts: Different prompts of the pairs that are counted, of those that are known.
        without_prompt: Of the pairs that are counted, those whose prompt is not known. The intervals take each for one
            of a prompt of its own, and are too narrow where it is not.
    """

    reward: str
    pairs: int
    failed: int
    not_applicable: int
    accuracy: Accuracy
    reasons: Mapping[str, int] = field(default_factory=dict)
    subsets: Mapping[str, Accuracy] = field(default_factory=dict)
    margins: Margins | None = None
    calibration: Calibration | None = None
    longer_wins: Accuracy | None = None
    length_correlation: float | None = None
    parts: Mapping[str, PreferenceReport] = field(default_factory=dict)
    confidence: float = 0.95
    prompts: int = 0
    without_prompt: int = 0

    @property
    def macro_strict(self) -> float | None:
        """Mean over the subsets of their strict accuracy: each counts the same, however small."""
        found = [subset.strict for subset in self.subsets.values() if subset.strict is not None]
        return math.fsum(found) / len(found) if found else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON; None where there is no number."""
        return {
            "reward": self.reward,
            "pairs": self.pairs,
            "prompts": self.prompts if self.prompts or not self.without_prompt else None,
            "without_prompt": self.without_prompt,
            "failed": self.failed,
            "not_applicable": self.not_applicable,
            "reasons": dict(self.reasons),
            "accuracy": self.accuracy.to_dict(),
            "subsets": {name: subset.to_dict() for name, subset in self.subsets.items()},
            "macro_strict": self.macro_strict,
            "margins": None if self.margins is None else self.margins.to_dict(),
            "calibration": None if self.calibration is None else dict(self.calibration.to_dict()),
            "longer_wins": None if self.longer_wins is None else self.longer_wins.to_dict(),
            "length_correlation": self.length_correlation,
            "parts": {name: part.to_dict() for name, part in self.parts.items()},
            "confidence": self.confidence,
        }

    def __str__(self) -> str:
        blocks = [self._head(), self._accuracies(), self._facts()]
        if self.margins is not None:
            blocks.append(f"margins\n{bars(self.margins.counts, self.margins.edges)}")
        return "\n\n".join(block for block in blocks if block)

    def _head(self) -> str:
        left_out = f"({self.not_applicable} not applicable, {self.failed} failed)"
        used = f"{self.accuracy.pairs} of {self.pairs} pairs, {count_of_prompts(self.prompts, self.without_prompt)}"
        lines = [f"{self.reward}: {used} {left_out}"]
        lines += [f"  {count} failed: {reason}" for reason, count in list(self.reasons.items())[:5]]
        return "\n".join(lines)

    def _accuracies(self) -> str:
        rows = [("all", self.accuracy)]
        rows += [(f"  {name}", subset) for name, subset in self.subsets.items()]
        rows += [(f"part {name}", part.accuracy) for name, part in self.parts.items()]
        rows += [("longer answer", self.longer_wins)] if self.longer_wins is not None else []
        percent = f"{self.confidence:.0%}"
        header = ["accuracy", "pairs", "ties", "tie = loss", percent, "tie = half", percent]
        cells = [
            [
                name,
                str(found.pairs),
                str(found.ties),
                cell(found.strict),
                _span(found.strict_interval),
                cell(found.half),
                _span(found.half_interval),
            ]
            for name, found in rows
        ]
        return text_table(header, [*cells, ["chance", "", "", "", "", "0.500", ""]])

    def _facts(self) -> str:
        rows = []
        if self.macro_strict is not None:
            rows.append(["mean of subsets (tie = loss)", cell(self.macro_strict)])
        if self.calibration is not None:
            rows += [["ECE", cell(self.calibration.ece)], ["Brier", cell(self.calibration.brier)]]
        if self.margins is not None:
            rows.append(["mean margin", f"{self.margins.mean:.4g}"])
        if self.longer_wins is not None:
            rows.append(["correlation with length", cell(self.length_correlation)])
        return text_table(["measure", "value"], rows) if rows else ""


def _span(interval: tuple[float, float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.3f} .. {interval[1]:.3f}"


def section_scores(
    report: PreferenceReport,
    sections: Mapping[str, Sequence[str]],
    counts: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Scores of sections of subsets, as RewardBench has them: means of strict accuracies, weighted by counts.

    RewardBench (Lambert et al. 2024) counts some subsets otherwise than they are large, such as ``math-prm`` with 984
    so that it weighs as much as all of the code; `counts` says so. Its overall score is the mean of the sections.

    Args:
        report: Of `evaluate_preferences` with ``by``.
        sections: Section to the subsets that it has.
        counts: Subset to its weight; the number of its pairs where it has none.

    Raises:
        ConfigError: A subset that the report has not, or that has no scored pair.

    Examples:
        >>> from flux_rewards.training.evaluate_statistics import Accuracy
        >>> easy, hard = Accuracy(3, 0, 1, 4), Accuracy(1, 1, 0, 2)
        >>> report = PreferenceReport("r", 6, 0, 0, Accuracy(4, 1, 1, 6), subsets={"easy": easy, "hard": hard})
        >>> round(section_scores(report, {"chat": ["easy", "hard"]})["chat"], 4)
        0.6667
    """
    found: dict[str, float] = {}
    for section, names in sections.items():
        weighted = []
        for name in names:
            subset = report.subsets.get(name)
            if subset is None or subset.strict is None:
                known = ", ".join(report.subsets) or "none"
                raise ConfigError(
                    f"section {section!r}: no subset {name!r} with scored pairs{close_match(name, report.subsets)}; "
                    f"the report has {known}"
                )
            weighted.append((subset.strict, (counts or {}).get(name, subset.pairs)))
        total = math.fsum(weight for _, weight in weighted)
        if total <= 0:
            raise ConfigError(f"section {section!r}: has no subsets, or none with a weight")
        found[section] = math.fsum(score * weight for score, weight in weighted) / total
    return found
