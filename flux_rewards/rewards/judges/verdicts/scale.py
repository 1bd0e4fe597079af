"""The scale of a score, and what becomes of a number on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flux_rewards.errors import ConfigError
from flux_rewards.validation import interval, one_of

__all__ = ["Scale"]

SCALINGS = ("unit", "/high", "raw")


@dataclass(frozen=True)
class Scale:
    """A scale from its worst to its best number.

    Attributes:
        low: The worst.
        high: The best.
        scaling: What a score becomes: ``"unit"``: ``(score - low) / (high - low)``; ``"/high"``: ``score / high``;
            ``"raw"``: the score.

    Examples:
        >>> Scale(1, 5).scaled(4), Scale(1, 5, "/high").bounds, str(Scale(1, 5))
        (0.75, (0.2, 1.0), '1 to 5')
    """

    low: float
    high: float
    scaling: str = "unit"

    @staticmethod
    def of(value: Any, scaling: Any, reward: str, parameter: str = "score_range") -> Scale:
        """Check what a constructor was given.

        Raises:
            ConfigError: It is no pair (low, high), or the scaling is unknown.
        """
        low, high = interval(value, parameter, reward)
        if scaling == "/high" and high <= 0:
            raise ConfigError(f"scaling '/high' needs a {parameter} that ends above 0, found {value}", reward=reward)
        return Scale(low, high, one_of(scaling, "scaling", reward, SCALINGS))

    def scaled(self, score: float) -> float:
        """What a score becomes."""
        if self.scaling == "unit":
            return (score - self.low) / (self.high - self.low)
        return score / self.high if self.scaling == "/high" else score

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest of that."""
        low, high = sorted((self.scaled(self.low), self.scaled(self.high)))
        return low, high

    @property
    def whole_numbers(self) -> Sequence[int] | None:
        """The numbers on the scale that are one digit each; None where it has others at its ends."""
        ends_are_digits = self.low.is_integer() and self.high.is_integer() and self.low >= 0 and self.high <= 9
        return range(int(self.low), int(self.high) + 1) if ends_are_digits else None

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"
