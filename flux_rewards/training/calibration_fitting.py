"""Fitting a calibration to what a reward says of pairs or of labelled samples, and judging the fit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flux_rewards.errors import ComputeError, InputError, brief
from flux_rewards.grouping import group_keys, has_group
from flux_rewards.training.calibration import (
    Isotonic,
    Platt,
    fit_isotonic,
    fit_isotonic_to_pairs,
    fit_platt,
    fit_platt_to_pairs,
)
from flux_rewards.training.evaluate_scores import score_pairs, score_samples
from flux_rewards.training.evaluate_statistics import (
    Calibration,
    brier_score,
    calibration_of,
    expected_calibration_error,
    sigmoid,
)
from flux_rewards.training.preferences import prompt_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flux_rewards.base import RewardFunction
    from flux_rewards.data import Sample
    from flux_rewards.training.preferences import PreferencePair

    Values = NDArray[np.float64]
    Rows = NDArray[np.intp]

__all__ = ["FitOptions", "Fitted", "fit_to_labels", "fit_to_pairs"]

Fitted = Platt | Isotonic


@dataclass(frozen=True)
class FitOptions:
    """How a calibration is fitted; see `Calibrated.fit`."""

    method: str = "platt"
    folds: int = 5
    batch_size: int = 256
    max_failure_rate: float = 0.0


def fit_to_pairs(
    reward: RewardFunction, pairs: Sequence[PreferencePair], how: FitOptions
) -> tuple[Fitted, dict[str, Any]]:
    """The fit to all pairs that have two scores, and the facts of it.

    Raises:
        InputError: There are none.
        ComputeError: The reward does not agree with them.
    """
    scores = score_pairs(reward, pairs, batch_size=how.batch_size, max_failure_rate=how.max_failure_rate)
    kept = np.flatnonzero(scores.scored)
    _check_some(len(kept), len(pairs), reward)
    chosen, rejected = scores.chosen[kept], scores.rejected[kept]

    def fit(rows: Rows) -> Fitted:
        fit_one = fit_platt_to_pairs if how.method == "platt" else fit_isotonic_to_pairs
        return fit_one(chosen[rows], rejected[rows])

    def margins(fitted: Fitted, rows: Rows) -> Values:
        return fitted.log_odds(chosen[rows]) - fitted.log_odds(rejected[rows])

    fitted = fit(np.arange(len(kept)))
    clusters = [prompt_key(pairs[position]) for position in kept.tolist()]
    held_out = _held_out(clusters, how.folds, fit, margins)
    before = calibration_of(chosen - rejected)
    after = None if held_out is None else calibration_of(held_out)
    return _turned(fitted, reward), _facts("pairs", reward, (len(kept), len(pairs)), before, after)


def fit_to_labels(
    reward: RewardFunction, samples: Sequence[Sample], labels: Sequence[Any], how: FitOptions
) -> tuple[Fitted, dict[str, Any]]:
    """The fit to all samples that have a score, and the facts of it.

    Raises:
        InputError: Labels that are not one a sample, are not 0 or 1, or are all the same.
        ComputeError: The reward does not agree with them.
    """
    truths = _checked(labels, len(samples))
    scored = score_samples(reward, samples, batch_size=how.batch_size, max_failure_rate=how.max_failure_rate)
    kept = np.flatnonzero(~np.isnan(scored))
    _check_some(len(kept), len(samples), reward)
    scores, truths = scored[kept], truths[kept]
    _check_both_kinds(truths, reward)

    def fit(rows: Rows) -> Fitted:
        if len(set(truths[rows].tolist())) < 2:
            raise ComputeError("labels of one kind only")
        return (fit_platt if how.method == "platt" else fit_isotonic)(scores[rows], truths[rows])

    def chances(fitted: Fitted, rows: Rows) -> Values:
        return sigmoid(fitted.log_odds(scores[rows]))

    fitted = fit(np.arange(len(kept)))
    held_out = _held_out(_clusters([samples[position] for position in kept.tolist()]), how.folds, fit, chances)
    bounds = reward.bounds
    as_given = bounds is not None and bounds[0] >= 0 and bounds[1] <= 1 and reward.higher_is_better
    before = _judged(scores if as_given else sigmoid(scores), truths)
    after = None if held_out is None else _judged(held_out, truths)
    return _turned(fitted, reward), _facts("labels", reward, (len(kept), len(samples)), before, after)


def _turned(fitted: Fitted, reward: RewardFunction) -> Fitted:
    """Scores were turned so that more is better; the fit is for the reward as it is."""
    if reward.higher_is_better:
        return fitted
    if isinstance(fitted, Platt):
        return Platt(-fitted.slope, fitted.intercept)
    return Isotonic(tuple(-score for score in reversed(fitted.scores)), tuple(reversed(fitted.probabilities)))


def _held_out(
    clusters: Sequence[Any], folds: int, fit: Callable[[Rows], Fitted], predict: Callable[[Fitted, Rows], Values]
) -> Values | None:
    """What is predicted for each row by a fit to the other folds; None where that cannot be fitted."""
    names = sorted(set(clusters), key=lambda name: hashlib.sha256(repr(name).encode()).digest())
    if len(names) < 2:
        return None
    fold = {name: number % folds for number, name in enumerate(names)}
    folds_of = np.array([fold[name] for name in clusters])
    predicted = np.full(len(clusters), np.nan)
    try:
        for number in range(min(folds, len(names))):
            held = np.flatnonzero(folds_of == number)
            predicted[held] = predict(fit(np.flatnonzero(folds_of != number)), held)
    except ComputeError:
        return None
    return predicted


def _clusters(samples: Sequence[Sample]) -> list[Any]:
    keys = group_keys(samples)
    return [key if has_group(sample) else index for index, (sample, key) in enumerate(zip(samples, keys, strict=True))]


def _judged(chances: Values, truths: Values) -> Calibration:
    return Calibration(expected_calibration_error(chances, truths), brier_score(chances, truths))


def _facts(
    target: str, reward: RewardFunction, kept_of: tuple[int, int], before: Calibration | None, after: Calibration | None
) -> dict[str, Any]:
    kept, given = kept_of
    facts: dict[str, Any] = {"target": target, "reward": reward.name, "count": kept, "left_out": given - kept}
    for measure in ("ece", "brier"):
        for when, found in (("before", before), ("after", after)):
            facts[f"{measure}_{when}"] = None if found is None else getattr(found, measure)
    return facts


def _checked(labels: Sequence[Any], count: int) -> Values:
    if len(labels) != count:
        raise InputError(f"{len(labels)} labels for {count} samples; give one a sample")
    for index, label in enumerate(labels):
        if label not in (0, 1):
            raise InputError(f"a label is 0 or 1, found {brief(label)}", index=index)
    return np.array([float(label) for label in labels])


def _check_some(kept: int, given: int, reward: RewardFunction) -> None:
    if not kept:
        raise InputError(f"none of {given} has a score, so there is nothing to fit", reward=reward.name)


def _check_both_kinds(truths: Values, reward: RewardFunction) -> None:
    if len(set(truths.tolist())) < 2:
        raise InputError(f"all labels are {truths[0]:g}; a fit needs both kinds", reward=reward.name)
