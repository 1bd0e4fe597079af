"""How well a trained model agrees with pairs that it has not seen, beside what the length alone would say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flux_rewards.rewards.learned.reward_model import RewardModelReward
from flux_rewards.training.checks import lengths_of
from flux_rewards.training.evaluate import evaluate_preferences
from flux_rewards.training.prompts import count_of_prompts

if TYPE_CHECKING:
    from flux_rewards.training.evaluate_report import PreferenceReport
    from flux_rewards.training.preferences_data import PreferenceData

__all__ = ["HeldOut", "held_out_accuracy"]


@dataclass(frozen=True)
class HeldOut:
    """Agreement with held-out pairs. Accuracies are in [0, 1], with ties half right; chance is 0.5.

    Attributes:
        report: All of it, as `evaluate_preferences` has it, of the model as it was saved.
        rule: ``"longer"`` or ``"shorter"``: which answers are chosen more often in the pairs trained on.
        cut: Pairs of which a side was longer than the model reads, and scored in part.
    """

    report: PreferenceReport
    rule: str
    cut: int = 0

    @property
    def accuracy(self) -> float:
        """Share whose chosen answer scores higher."""
        return float(self.report.accuracy.half or 0.0)

    @property
    def interval(self) -> tuple[float, float] | None:
        """In which it lies with 95% confidence, by the bootstrap over prompts; None for fewer than two prompts."""
        return self.report.accuracy.half_interval

    @property
    def length_accuracy(self) -> float:
        """That of preferring answers by `rule`, in characters."""
        longer = float(self.report.longer_wins.half or 0.0) if self.report.longer_wins is not None else 0.5
        return longer if self.rule == "longer" else 1.0 - longer

    @property
    def length_interval(self) -> tuple[float, float] | None:
        """In which that lies."""
        found = None if self.report.longer_wins is None else self.report.longer_wins.half_interval
        if found is None or self.rule == "longer":
            return found
        return 1.0 - found[1], 1.0 - found[0]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the whole report."""
        return {
            "pairs": self.report.accuracy.pairs,
            "prompts": self.report.prompts if self.report.prompts or not self.report.without_prompt else None,
            "without_prompt": self.report.without_prompt,
            "accuracy": self.accuracy,
            "interval": None if self.interval is None else list(self.interval),
            "length_rule": self.rule,
            "length_accuracy": self.length_accuracy,
            "length_interval": None if self.length_interval is None else list(self.length_interval),
            "cut": self.cut,
            "report": self.report.to_dict(),
        }

    def __str__(self) -> str:
        found = self.report
        told = count_of_prompts(found.prompts, found.without_prompt)
        joint = ", " if told == "prompts unknown" else " of "
        return (
            f"accuracy {self.accuracy:.3f}{_span(self.interval)} on {found.accuracy.pairs} held-out pairs{joint}{told} "
            f"(chance 0.500; {self.rule} answer {self.length_accuracy:.3f}{_span(self.length_interval)})"
        )


def held_out_accuracy(
    path: str,
    train: PreferenceData,
    test: PreferenceData,
    *,
    cut: int = 0,
    device: str | None = None,
    seed: int = 0,
) -> HeldOut:
    """Load a saved model as anybody would, and compare its scores of both sides of each pair.

    Args:
        path: Its directory.
        train: Pairs that it was trained on, to learn from which length is chosen more often.
        test: Pairs that it was not trained on.
        cut: Pairs of which a side is longer than it reads.
        device: Where it runs.
        seed: Of the bootstrap.
    """
    reward = RewardModelReward(path, device=device)
    try:
        report = evaluate_preferences(reward, test, seed=seed)
    finally:
        reward.close()
    ahead = [(chosen > rejected) - (chosen < rejected) for chosen, rejected in lengths_of(train).values()]
    return HeldOut(report, "longer" if sum(ahead) >= 0 else "shorter", cut)


def _span(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]"
