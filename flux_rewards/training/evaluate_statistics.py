"""Numbers about margins: accuracy with an interval by prompt, calibration, correlation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[np.float64]
    Interval = tuple[float, float]

__all__ = [
    "Accuracy",
    "Calibration",
    "Resampling",
    "accuracy_of",
    "brier_score",
    "calibration_of",
    "correlation",
    "expected_calibration_error",
    "sigmoid",
]


@dataclass(frozen=True)
class Resampling:
    """How intervals are drawn.

    Attributes:
        resamples: Bootstrap samples; 0 for no intervals.
        confidence: Of the intervals, in (0, 1).
        seed: Of the resampling.
    """

    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0


@dataclass(frozen=True)
class Accuracy:
    """How often the chosen answer has the higher score.

    Attributes:
        wins: Pairs whose chosen answer scores higher.
        ties: Pairs whose answers score the same.
        losses: All other pairs with two scores.
        prompts: Different prompts among them; a pair whose prompt is not known counts as one of a prompt of its own.
        strict_interval: Of `strict`; None where there are fewer than two prompts.
        half_interval: Of `half`; likewise, and where all pairs tie.
    """

    wins: int
    ties: int
    losses: int
    prompts: int
    strict_interval: Interval | None = None
    half_interval: Interval | None = None

    @property
    def pairs(self) -> int:
        """Pairs with two scores."""
        return self.wins + self.ties + self.losses

    @property
    def strict(self) -> float | None:
        """Share of wins: a tie is a loss, as in RewardBench."""
        return self.wins / self.pairs if self.pairs else None

    @property
    def half(self) -> float | None:
        """Share of wins, where a tie is half a win, as if it were broken by a coin."""
        return (self.wins + self.ties / 2) / self.pairs if self.pairs else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "pairs": self.pairs,
            "prompts": self.prompts,
            "wins": self.wins,
            "ties": self.ties,
            "losses": self.losses,
            "strict": self.strict,
            "strict_interval": None if self.strict_interval is None else list(self.strict_interval),
            "half": self.half,
            "half_interval": None if self.half_interval is None else list(self.half_interval),
        }


def accuracy_of(margins: Values, prompts: Sequence[Any], resampling: Resampling) -> Accuracy:
    """Accuracy of margins, with a percentile bootstrap over prompts.

    Pairs of one prompt are not independent, so whole prompts are drawn (Field and Welsh 2007). Where every prompt says
    the same, each draw would say it too, and the interval is that of Clopper and Pearson (1934) for as many prompts.

    Args:
        margins: Shape (N,), no NaN.
        prompts: N keys.
        resampling: How.

    Examples:
        >>> found = accuracy_of(np.array([0.5, 0.0, -1.0, 2.0]), "aabb", Resampling(0))
        >>> found.wins, found.ties, found.strict, found.half
        (2, 1, 0.5, 0.625)
    """
    wins, ties = margins > 0, margins == 0
    numbers: dict[Any, int] = {}
    clusters = np.array([numbers.setdefault(key, len(numbers)) for key in prompts], dtype=np.intp)
    strict, half = (
        _interval(values, clusters, len(numbers), resampling) for values in (wins.astype(np.float64), wins + 0.5 * ties)
    )
    counts = int(wins.sum()), int(ties.sum())
    return Accuracy(*counts, len(margins) - sum(counts), len(numbers), strict, half)


def _interval(values: Values, clusters: NDArray[np.intp], count: int, how: Resampling) -> Interval | None:
    if count < 2 or how.resamples < 1:
        return None
    tail = (1 - how.confidence) / 2
    if np.ptp(values) == 0:
        if values[0] == 0.5:  # all tie: nothing varies, and nothing is sure
            return None
        reach = 1 - tail ** (1 / count)
        return (1 - reach, 1.0) if values[0] else (0.0, reach)
    sums = np.bincount(clusters, weights=values, minlength=count)
    sizes = np.bincount(clusters, minlength=count).astype(np.float64)
    generator = np.random.default_rng(how.seed)
    step = max(1, 2_000_000 // count)  # draws at once: a bound on memory
    means = []
    for start in range(0, how.resamples, step):
        drawn = generator.integers(count, size=(min(step, how.resamples - start), count))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def sigmoid(values: Values) -> Values:
    """``1 / (1 + exp(-x))``, without overflow.

    Examples:
        >>> sigmoid(np.array([-1000.0, 0.0, 1000.0]))
        array([0. , 0.5, 1. ])
    """
    small = np.exp(-np.abs(values))
    return np.where(values >= 0, 1.0, small) / (1.0 + small)


def brier_score(probabilities: Values, labels: Values) -> float:
    """Mean squared difference of probability and label (Brier 1950); 0.25 is what 0.5 for all would have.

    Examples:
        >>> brier_score(np.array([0.8, 0.5]), np.array([1.0, 0.0]))
        0.145
    """
    return float(np.square(probabilities - labels).mean())


def expected_calibration_error(confidences: Values, correct: Values, *, low: float = 0.0, bins: int = 10) -> float:
    """Mean gap between how sure and how right, over bins of equal width in [low, 1] (Naeini et al. 2015).

    Args:
        confidences: Shape (N,), in [low, 1].
        correct: Shape (N,): 1 where right, 0 where wrong, 0.5 for a tie.
        low: The least confidence there can be: 0.5 for the likelier of two.
        bins: How many; each holds its lower edge, the last one both.

    Examples:
        >>> round(expected_calibration_error(np.array([0.9, 0.9, 0.6, 0.6]), np.array([1, 1, 1, 0]), low=0.5), 3)
        0.1
    """
    places = np.clip(((confidences - low) / (1.0 - low) * bins).astype(np.intp), 0, bins - 1)
    gaps = np.bincount(places, weights=correct - confidences, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidences))


@dataclass(frozen=True)
class Calibration:
    """Whether ``sigmoid(margin)`` is how often the chosen answer wins (Bradley and Terry 1952).

    Attributes:
        ece: Expected calibration error of the likelier answer, ten bins in [0.5, 1]; 0 is best.
        brier: Mean of ``(1 - sigmoid(margin)) ** 2``; 0 is best, 0.25 is what equal scores have.
    """

    ece: float
    brier: float

    def to_dict(self) -> Mapping[str, float]:
        """Plain data, ready for JSON."""
        return {"ece": self.ece, "brier": self.brier}


def calibration_of(margins: Values) -> Calibration | None:
    """Calibration of margins, shape (N,), no NaN; None where there are none.

    Examples:
        >>> calibration_of(np.array([0.0, 0.0]))
        Calibration(ece=0.0, brier=0.25)
    """
    if not len(margins):
        return None
    chosen = sigmoid(margins)
    correct = np.where(margins == 0, 0.5, margins > 0)
    ece = expected_calibration_error(np.maximum(chosen, 1 - chosen), correct, low=0.5)
    return Calibration(ece, brier_score(chosen, np.ones_like(chosen)))


def correlation(first: Values, second: Values) -> float | None:
    """Pearson's correlation of two differences, each pair taken in both orders; None where one is always 0.

    A pair's two orders give d and -d, whose mean is 0: nothing is subtracted, so that what is systematic, such as
    chosen answers that are all longer, counts.

    Examples:
        >>> correlation(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0]))
        1.0
        >>> correlation(np.array([6.0, 6.0]), np.array([6.0, 6.0]))
        1.0
    """
    scale = float(np.sqrt(np.square(first).sum() * np.square(second).sum()))
    return float(np.clip((first * second).sum() / scale, -1.0, 1.0)) if scale > 0 else None
