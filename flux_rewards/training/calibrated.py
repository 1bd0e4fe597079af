"""A reward whose numbers mean something: log-odds or probabilities."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from flux_rewards.errors import ConfigError, InputError, brief
from flux_rewards.training.calibration import METHODS, Isotonic, Platt
from flux_rewards.training.calibration_fitting import FitOptions, fit_to_labels, fit_to_pairs
from flux_rewards.training.evaluate_statistics import sigmoid
from flux_rewards.training.preferences import PreferencePair
from flux_rewards.transforms import Transform
from flux_rewards.validation import number, one_of, whole_number

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from flux_rewards.base import RewardFunction
    from flux_rewards.data import Sample

    Values = NDArray[np.float64]

__all__ = ["Calibrated"]

_FORMAT = "flux_rewards.calibration"


class Calibrated(Transform):
    """A reward turned into log-odds or probabilities, with numbers that `Calibrated.fit` found.

    - ``"platt"``: log-odds are ``slope * score + intercept``.
    - ``"isotonic"``: probabilities by straight lines between knots, flat beyond the outer ones; any monotone shape.

    Of the output ``"logit"``, differences are log-odds that one answer beats the other, the scale on which
    `evaluate_preferences` judges calibration and on which rewards can be added. ``"probability"`` is its sigmoid, in
    [0, 1]: that an answer is good, where it was fitted to labels; that it beats an average answer, where to pairs.
    Token rewards are not kept.

    Args:
        reward: The reward.
        method: ``"platt"`` or ``"isotonic"``.
        slope: For ``"platt"``; below 0 exactly where less of the reward is better.
        intercept: For ``"platt"``.
        scores: For ``"isotonic"``: knots, rising.
        probabilities: For ``"isotonic"``: of each knot, in (0, 1), all rising, or falling where less is better.
        output: ``"logit"`` or ``"probability"``.
        facts: What it was fitted on, and how well; decides no score.
        name: What it is called.

    Raises:
        ConfigError: A parameter that does not fit the method or the reward.

    Does not change which of two answers is preferred, save that ``"isotonic"`` makes ties of what lies on one step.

    Examples:
        >>> from flux_rewards import FunctionReward
        >>> length = FunctionReward(lambda sample: float(len(sample.response)), name="length")
        >>> Calibrated(length, slope=0.5, intercept=-1.0, output="probability")(response=["xx", "x" * 40]).rewards
        array([0.5       , 0.99999999])
    """

    neutral_parameters: ClassVar[Sequence[str]] = (*Transform.neutral_parameters, "facts")
    example_config: ClassVar = {**Transform.example_config, "slope": 2.0, "intercept": -1.0}

    def __init__(
        self,
        reward: RewardFunction,
        *,
        method: str = "platt",
        slope: float | None = None,
        intercept: float = 0.0,
        scores: Sequence[float] | None = None,
        probabilities: Sequence[float] | None = None,
        output: str = "logit",
        facts: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(reward, name=name)
        self.method = one_of(method, "method", self.name, METHODS)
        self.slope, self.intercept = slope, number(intercept, "intercept", self.name)
        self.scores, self.probabilities = scores, probabilities
        self.output = one_of(output, "output", self.name, ("logit", "probability"))
        self.facts = facts
        self._fitted = self._platt() if method == "platt" else self._isotonic()
        self.higher_is_better = True  # a probability of being good, whatever the reward's direction
        if self.output == "probability":
            self.bounds = (0.0, 1.0)
        self._bound()

    def _platt(self) -> Platt:
        if self.scores is not None or self.probabilities is not None:
            raise ConfigError("scores and probabilities are for method='isotonic'", reward=self.name)
        if self.slope is None:
            raise ConfigError("method='platt' needs slope=...; Calibrated.fit(...) finds it", reward=self.name)
        slope = number(self.slope, "slope", self.name)
        if not (slope > 0 if self.reward.higher_is_better else slope < 0):
            more = "more" if self.reward.higher_is_better else "less"
            raise ConfigError(
                f"{more} of {self.reward.name} is better, and slope={slope:g} says otherwise", reward=self.name
            )
        return Platt(slope, self.intercept)

    def _isotonic(self) -> Isotonic:
        if self.slope is not None:
            raise ConfigError("slope is for method='platt'", reward=self.name)
        given: tuple[Any, Any] = (self.scores, self.probabilities)
        if not all(
            isinstance(values, Sequence) and not isinstance(values, str) and len(values) > 1 for values in given
        ):
            raise ConfigError("method='isotonic' needs scores and probabilities, two knots at least", reward=self.name)
        knots = [number(value, "scores", self.name) for value in self.scores or ()]
        chances = [number(value, "probabilities", self.name, above=0.0) for value in self.probabilities or ()]
        if len(knots) != len(chances):
            raise ConfigError(f"{len(knots)} scores and {len(chances)} probabilities; give one each", reward=self.name)
        if max(chances) >= 1.0:
            raise ConfigError(f"probabilities must be below 1, found {max(chances)}", reward=self.name)
        steps = np.diff(chances) if self.reward.higher_is_better else -np.diff(chances)
        if (np.diff(knots) <= 0).any() or (steps < 0).any():
            order = "rise" if self.reward.higher_is_better else "fall"
            raise ConfigError(
                f"scores must rise from knot to knot, and probabilities {order} or stay", reward=self.name
            )
        return Isotonic(tuple(knots), tuple(chances))

    def apply(self, rewards: Values) -> Values:
        """Log-odds or probabilities."""
        found = self._fitted.log_odds(rewards)
        return found if self.output == "logit" else sigmoid(found)

    @property
    def differentiable(self) -> bool:  # type: ignore[override]  # not an author's choice here
        """Where the reward is, and there are no steps."""
        return self.method == "platt" and super().differentiable

    def fold(self, scores: Sequence[torch.Tensor]) -> torch.Tensor:
        """As `apply`, with a gradient."""
        assert isinstance(self._fitted, Platt)  # noqa: S101  # `differentiable` says so
        found = scores[0] * self._fitted.slope + self._fitted.intercept
        return found if self.output == "logit" else found.sigmoid()

    @classmethod
    def fit(
        cls,
        reward: RewardFunction,
        data: Sequence[PreferencePair] | Sequence[Sample],
        *,
        labels: Sequence[Any] | None = None,
        method: str = "platt",
        output: str | None = None,
        folds: int = 5,
        batch_size: int = 256,
        max_failure_rate: float = 0.0,
        name: str | None = None,
    ) -> Calibrated:
        """Fit to pairs, or to samples with labels, that the reward was not trained on.

        To pairs, ``"platt"`` fits the slope to differences (Bradley-Terry). ``"isotonic"`` finds the shape by telling
        chosen answers from rejected ones, each by itself, for which scores of different prompts must be comparable, and
        then the scale to differences.

        `facts` tell how well: ``ece_before`` and ``brier_before`` of the reward's own numbers; ``ece_after`` and
        ``brier_after`` from folds by prompt, each judged by a fit to the others; None where there are too few prompts.

        Args:
            reward: The reward; trained weights stay as they are.
            data: Pairs, or samples.
            labels: For samples: 1 or True for a good one, 0 or False for another; one a sample.
            method: ``"platt"`` or ``"isotonic"``.
            output: ``"logit"`` (the default for pairs) or ``"probability"`` (for labels).
            folds: For the numbers of `facts`; at least 2.
            batch_size: Answers scored at once, about.
            max_failure_rate: As for `evaluate_preferences`; what has no score is left out and counted.
            name: What it is called.

        Raises:
            InputError: Too little data, or labels of one kind only.
            ComputeError: The reward does not agree with the data, so that the best fit is flat or the wrong way round.
            MissingDependencyError: scikit-learn is not installed.

        Examples:
            >>> from flux_rewards import FunctionReward
            >>> length = FunctionReward(lambda sample: float(len(sample.response)), name="length")
            >>> pairs = [PreferencePair(f"{n}?", *(("long", "no") if n % 4 else ("no", "long"))) for n in range(400)]
            >>> fitted = Calibrated.fit(length, pairs)
            >>> round(fitted.slope, 2)  # a margin of 2 wins three times of four: log(3) / 2 = 0.549
            0.55
        """
        one_of(method, "method", cls.__name__, METHODS)
        whole_number(folds, "folds", cls.__name__, low=2)
        kinds = {isinstance(entry, PreferencePair) for entry in data}
        if len(kinds) != 1 or (labels is None) != (True in kinds):
            raise InputError("expected pairs, or samples with labels, one a sample", reward=cls.__name__)
        how = FitOptions(method, folds, batch_size, max_failure_rate)
        if labels is None:
            fitted, facts = fit_to_pairs(reward, cast("Sequence[PreferencePair]", data), how)
        else:
            fitted, facts = fit_to_labels(reward, cast("Sequence[Sample]", data), labels, how)
        found: dict[str, Any] = (
            {"slope": fitted.slope, "intercept": fitted.intercept}
            if isinstance(fitted, Platt)
            else {"scores": list(fitted.scores), "probabilities": list(fitted.probabilities)}
        )
        output = output or ("logit" if labels is None else "probability")
        return cls(reward, method=method, output=output, facts=facts, name=name, **found)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the numbers as JSON, without the reward, for `from_file`."""
        names = ("method", "slope", "intercept", "scores", "probabilities", "output", "facts")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.method == "isotonic":
            given.update(scores=list(self.scores or ()), probabilities=list(self.probabilities or ()))
            del given["intercept"]
        text = json.dumps({"format": _FORMAT, "version": 1, **given}, indent=2, allow_nan=False)
        Path(path).write_text(f"{text}\n", encoding="utf-8")

    @classmethod
    def from_file(cls, reward: RewardFunction, path: str | os.PathLike[str], *, name: str | None = None) -> Calibrated:
        """Read what `save` wrote, for the same reward.

        Raises:
            ConfigError: The file is no calibration, or of a later version.
        """
        try:
            given = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{os.fspath(path)}: cannot be read as a calibration: {error}") from error
        if not isinstance(given, dict) or given.pop("format", None) != _FORMAT or given.pop("version", None) != 1:
            raise ConfigError(f"{os.fspath(path)}: expected a file of Calibrated.save, found {brief(given)}")
        try:
            return cls(reward, name=name, **given)
        except TypeError as error:
            raise ConfigError(f"{os.fspath(path)}: {error}") from error
