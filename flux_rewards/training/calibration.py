"""From scores to log-odds: Platt scaling and isotonic regression, fitted with scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flux_rewards.errors import ComputeError, MissingDependencyError
from flux_rewards.training.evaluate_statistics import sigmoid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

__all__ = ["METHODS", "Isotonic", "Platt", "fit_isotonic", "fit_isotonic_to_pairs", "fit_platt", "fit_platt_to_pairs"]

METHODS = ("platt", "isotonic")


@dataclass(frozen=True)
class Platt:
    """``log-odds = slope * score + intercept`` (Platt 1999)."""

    slope: float
    intercept: float

    def log_odds(self, scores: Values) -> Values:
        """Log-odds of scores, shape (N,); NaN stays NaN."""
        return self.slope * scores + self.intercept


@dataclass(frozen=True)
class Isotonic:
    """Probabilities that never fall as scores rise, or never rise; straight lines between knots, flat beyond them."""

    scores: Sequence[float]
    probabilities: Sequence[float]

    def log_odds(self, scores: Values) -> Values:
        """Log-odds of scores, shape (N,); NaN stays NaN."""
        chances = np.interp(scores, self.scores, self.probabilities)
        return np.where(np.isnan(scores), np.nan, np.log(chances) - np.log1p(-chances))


def fit_platt(scores: Values, labels: Values) -> Platt:
    """Fit ``P(label = 1) = sigmoid(slope * score + intercept)`` by maximum likelihood.

    With Platt's targets, (N+ + 1) / (N+ + 2) and 1 / (N- + 2), instead of 1 and 0: the slope stays finite where the
    labels can be told apart without a mistake.

    Args:
        scores: Shape (N,).
        labels: Shape (N,), 0 or 1, both there, 1 for those that should score higher.

    Raises:
        ComputeError: They go the other way, or do not vary.
        MissingDependencyError: scikit-learn is not installed.

    Examples:
        >>> round(fit_platt(np.array([-1.0, 1.0]), np.array([0.0, 1.0])).slope, 4)  # log(2), since the target is 2/3
        0.6931
    """
    positive, negative = labels.sum(), (1 - labels).sum()
    targets = np.where(labels == 1, (positive + 1) / (positive + 2), 1 / (negative + 2))
    slope, intercept = _logistic(scores, targets, intercept=True)
    return Platt(slope, intercept)


def fit_platt_to_pairs(chosen: Values, rejected: Values) -> Platt:
    """Fit ``P(chosen wins) = sigmoid(slope * (chosen - rejected))``; the intercept makes 0 of the mean score.

    A difference of scores has no offset, so pairs say nothing of the intercept.

    Args:
        chosen: Scores, shape (N,).
        rejected: Scores, shape (N,).

    Raises:
        ComputeError: Rejected answers have the better scores, or none differ.
        MissingDependencyError: scikit-learn is not installed.

    Examples:
        >>> fitted = fit_platt_to_pairs(np.array([1.0, 2.0]), np.array([0.0, 1.0]))
        >>> round(fitted.slope, 4), round(fitted.intercept, 4)  # log(3), since the target is 3/4
        (1.0986, -1.0986)
    """
    margins = chosen - rejected
    targets = np.full_like(margins, (len(margins) + 1) / (len(margins) + 2))
    slope, _ = _logistic(margins, targets, intercept=False)
    return Platt(slope, -slope * float(np.concatenate([chosen, rejected]).mean()))


def fit_isotonic(scores: Values, labels: Values) -> Isotonic:
    """Fit the monotone steps with the least squared error (pool adjacent violators; Zadrozny and Elkan 2002).

    Probabilities stay within [1 / (N + 2), (N + 1) / (N + 2)], so that log-odds are finite.

    Args:
        scores: Shape (N,).
        labels: Shape (N,), 0 or 1.

    Raises:
        ComputeError: They go the other way, so that the best fit is flat.
        MissingDependencyError: scikit-learn is not installed.

    Examples:
        >>> fitted = fit_isotonic(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.0, 1.0, 0.0, 1.0]))
        >>> [round(value, 3) for value in fitted.probabilities]
        [0.167, 0.5, 0.5, 0.833]
    """
    _sklearn()
    from sklearn.isotonic import IsotonicRegression  # noqa: PLC0415  # optional

    count = len(scores)
    model = IsotonicRegression(y_min=1 / (count + 2), y_max=(count + 1) / (count + 2), out_of_bounds="clip")
    model.fit(scores, labels)
    knots, values = model.X_thresholds_.tolist(), model.y_thresholds_.tolist()
    if len(knots) < 2 or values[0] == values[-1]:
        raise ComputeError(_DISAGREES)
    return Isotonic(tuple(knots), tuple(values))


def fit_isotonic_to_pairs(chosen: Values, rejected: Values) -> Isotonic:
    """Fit a monotone shape, then the slope with which its log-odds tell how often the chosen answer wins.

    Chosen answers are told from rejected ones, each by itself: that gives the shape, and not the scale, since an answer
    meets opponents of all kinds. The scale is that of `fit_platt_to_pairs`.

    Args:
        chosen: Scores, shape (N,).
        rejected: Scores, shape (N,).

    Raises:
        ComputeError: Rejected answers have the better scores, or none differ.
        MissingDependencyError: scikit-learn is not installed.

    Examples:
        >>> fitted = fit_isotonic_to_pairs(np.array([1.0, 2.0, 2.0]), np.array([0.0, 1.0, 0.0]))
        >>> fitted.scores, [round(value, 2) for value in fitted.probabilities]
        ((0.0, 1.0, 2.0), [0.27, 0.5, 0.73])
    """
    shape = fit_isotonic(np.concatenate([chosen, rejected]), np.repeat([1.0, 0.0], len(chosen)))
    slope = fit_platt_to_pairs(shape.log_odds(chosen), shape.log_odds(rejected)).slope
    scaled = sigmoid(slope * shape.log_odds(np.array(shape.scores)))
    return Isotonic(shape.scores, tuple(np.clip(scaled, _LEAST, 1 - _LEAST).tolist()))


_LEAST = 1e-12
"""A probability whose log-odds are finite, and whose complement is not 1."""

_DISAGREES = "the scores do not agree with the preferences or labels, so there is nothing to calibrate"


def _logistic(scores: Values, targets: Values, *, intercept: bool) -> tuple[float, float]:
    """Logistic regression to targets within (0, 1): each score once as a 1 and once as a 0, weighted by the target."""
    _sklearn()
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  # optional

    center = float(scores.mean()) if intercept else 0.0
    scale = float(np.sqrt(np.square(scores - center).mean()))
    if not scale > 0:
        raise ComputeError(_DISAGREES)
    inputs = (scores - center) / scale
    model = LogisticRegression(C=np.inf, fit_intercept=intercept, solver="newton-cholesky", tol=1e-10, max_iter=1000)
    count = len(scores)
    model.fit(
        np.concatenate([inputs, inputs])[:, None],
        np.repeat([1, 0], count),
        sample_weight=np.concatenate([targets, 1 - targets]),
    )
    slope = float(model.coef_[0, 0]) / scale
    if not slope > 0:
        raise ComputeError(f"{_DISAGREES}: the best slope is {slope:.4g}")
    return slope, (float(model.intercept_[0]) if intercept else 0.0) - slope * center


def _sklearn() -> Any:
    try:
        import sklearn  # noqa: PLC0415  # optional
    except ImportError as error:
        raise MissingDependencyError("calibration needs scikit-learn: pip install 'flux_rewards[train]'") from error
    return sklearn
