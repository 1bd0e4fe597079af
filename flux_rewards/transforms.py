"""Pure functions of one reward, sample by sample: `Scale`, `Clip`, `Normalize`, `Threshold`, `Map`.

Each keeps NaN and failures as they are, and what its reward said in `RewardBatch.parts`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from flux_rewards.callables import resolve_callable
from flux_rewards.combinator import UnaryCombinator
from flux_rewards.data import RewardBatch
from flux_rewards.errors import ConfigError, brief
from flux_rewards.validation import interval, number

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from numpy.typing import NDArray

    from flux_rewards.base import RewardFunction
    from flux_rewards.data import Sample

    Values = NDArray[np.float64]

__all__ = ["Clip", "Map", "Normalize", "Scale", "Threshold", "Transform"]


class Transform(UnaryCombinator, abstract=True):
    """Base of transforms. A subclass overrides `apply`, and `apply_to_tokens` where it has a dense view."""

    def apply(self, rewards: Values) -> Values:
        """The transformed rewards, shape (N,), float64; NaN must stay NaN."""
        raise NotImplementedError

    def apply_to_tokens(self, tokens: Values) -> Values | None:  # noqa: ARG002
        """The transformed values of one sample's tokens, or None where the transform has no dense view."""
        return None

    def combine(self, batches: Sequence[RewardBatch], samples: Sequence[Sample]) -> RewardBatch:  # noqa: ARG002
        """Transform what applies; keep NaN and failures."""
        (batch,) = batches
        tokens = batch.token_rewards
        dense = (
            None if tokens is None else [None if row is None else self.apply_to_tokens(row.copy()) for row in tokens]
        )
        if dense is not None and all(row is None for row in dense):
            dense = None
        return RewardBatch(
            self.apply(batch.rewards.copy()), dense, list(batch.metadata), dict(batch.errors), {self.reward.name: batch}
        )

    def _bound(self) -> None:
        """Derive the bounds of a monotonic transform from those of its reward."""
        if self.reward.bounds is not None:
            low, high = sorted(self.apply(np.array(self.reward.bounds)).tolist())
            self.bounds = (low, high)


class Scale(Transform):
    """``factor * reward + offset``. Token rewards are multiplied by `factor`.

    Args:
        reward: The reward to scale.
        factor: What it is multiplied by.
        offset: What is then added; not spread over tokens.
        name: What it is called.

    Examples:
        >>> from flux_rewards import FunctionReward, Sample
        >>> Scale(FunctionReward(lambda s: 4.0), factor=0.5, offset=1.0)([Sample()]).rewards
        array([3.])
    """

    example_config: ClassVar = {**Transform.example_config, "factor": 0.5}

    def __init__(
        self, reward: RewardFunction, factor: float = 1.0, offset: float = 0.0, *, name: str | None = None
    ) -> None:
        super().__init__(reward, name=name)
        self.factor = number(factor, "factor", self.name)
        self.offset = number(offset, "offset", self.name)
        self.higher_is_better = reward.higher_is_better == (self.factor >= 0)
        self._bound()

    def apply(self, rewards: Values) -> Values:
        """Multiply and add."""
        return rewards * self.factor + self.offset

    def apply_to_tokens(self, tokens: Values) -> Values:
        """Multiply."""
        return tokens * self.factor

    def fold(self, scores: Sequence[torch.Tensor]) -> torch.Tensor:
        """Multiply and add."""
        return scores[0] * self.factor + self.offset


class Clip(Transform):
    """The reward cut to [low, high]. Token rewards are cut one by one.

    Args:
        reward: The reward to clip.
        low: Least value; None for no limit.
        high: Greatest value; None for no limit.
        name: What it is called.

    Examples:
        >>> from flux_rewards import FunctionReward, Sample
        >>> Clip(FunctionReward(lambda s: 4.0), low=-1.0, high=1.0)([Sample()]).rewards
        array([1.])
    """

    example_config: ClassVar = {**Transform.example_config, "low": 0.0, "high": 0.5}

    def __init__(
        self,
        reward: RewardFunction,
        low: float | None = None,
        high: float | None = None,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(reward, name=name)
        self.low = -math.inf if low is None else number(low, "low", self.name)
        self.high = math.inf if high is None else number(high, "high", self.name)
        if (low is None and high is None) or self.low >= self.high:
            raise ConfigError(f"needs low < high, at least one given, found low={low}, high={high}", reward=self.name)
        if low is not None and high is not None:
            self.bounds = (self.low, self.high)
        self._bound()

    def apply(self, rewards: Values) -> Values:
        """Cut to the limits."""
        return np.clip(rewards, self.low, self.high)

    def apply_to_tokens(self, tokens: Values) -> Values:
        """Cut to the limits."""
        return self.apply(tokens)

    def fold(self, scores: Sequence[torch.Tensor]) -> torch.Tensor:
        """Cut to the limits; no gradient beyond them."""
        return scores[0].clamp(self.low, self.high)


class Normalize(Transform):
    """The reward mapped from known bounds to [0, 1]: ``(reward - low) / (high - low)``.

    Token rewards are divided by ``high - low``.

    Args:
        reward: The reward to normalize.
        bounds: (low, high) of the reward; its own `bounds` by default.
        name: What it is called.

    Raises:
        ConfigError: The reward states no bounds, and none are given.

    Does not estimate bounds from data and does not clip: a value outside given bounds leaves [0, 1].

    Examples:
        >>> from flux_rewards import FunctionReward, Sample
        >>> Normalize(FunctionReward(lambda s: 4.0), bounds=(1, 5))([Sample()]).rewards
        array([0.75])
    """

    def __init__(
        self, reward: RewardFunction, bounds: tuple[float, float] | None = None, *, name: str | None = None
    ) -> None:
        super().__init__(reward, name=name)
        known = reward.bounds if bounds is None else bounds
        if known is None:
            raise ConfigError(
                f"{reward.name} states no bounds; pass bounds=(low, high), or use GroupNormalize",
                reward=self.name,
            )
        self.low, self.high = interval(known, "bounds", self.name)
        self._bound()

    def apply(self, rewards: Values) -> Values:
        """Map the bounds to 0 and 1."""
        return (rewards - self.low) / (self.high - self.low)

    def apply_to_tokens(self, tokens: Values) -> Values:
        """Divide by the width of the bounds."""
        return tokens / (self.high - self.low)

    def fold(self, scores: Sequence[torch.Tensor]) -> torch.Tensor:
        """Map the bounds to 0 and 1."""
        return (scores[0] - self.low) / (self.high - self.low)


class Threshold(Transform):
    """1 where the reward is at least `at_least`, else 0 (or the two values given).

    Args:
        reward: The reward to compare.
        at_least: The threshold; it counts as reached.
        above: Value where it is reached.
        below: Value where it is not.
        name: What it is called.

    Does not keep token rewards: a threshold has no dense view.

    Examples:
        >>> from flux_rewards import FunctionReward
        >>> Threshold(FunctionReward(lambda s: len(s.response)), at_least=2)(response=["a", "ab"]).rewards
        array([0., 1.])
    """

    example_config: ClassVar = {**Transform.example_config, "at_least": 0.5}

    def __init__(
        self,
        reward: RewardFunction,
        at_least: float,
        *,
        above: float = 1.0,
        below: float = 0.0,
        name: str | None = None,
    ) -> None:
        super().__init__(reward, name=name)
        self.at_least = number(at_least, "at_least", self.name)
        self.above = number(above, "above", self.name)
        self.below = number(below, "below", self.name)
        self.bounds = (min(self.above, self.below), max(self.above, self.below))
        self.higher_is_better = reward.higher_is_better == (self.above >= self.below)

    def apply(self, rewards: Values) -> Values:
        """Compare with the threshold."""
        return np.where(np.isnan(rewards), np.nan, np.where(rewards >= self.at_least, self.above, self.below))


class Map(Transform):
    """``function(reward)``, for any function of one number.

    Args:
        reward: The reward to map.
        function: Takes and returns a float; or its dotted path, ``"math.exp"``. None means does not apply.
        bounds: (low, high) of the function's values, where known.
        name: What it is called.

    Does not call the function for samples to which the reward does not apply, and keeps no token rewards. A function
    that raises, or returns NaN or infinity, has failed for that sample.

    Examples:
        >>> from flux_rewards import FunctionReward, Sample
        >>> Map(FunctionReward(lambda s: 3.0), lambda value: value**2)([Sample()]).rewards
        array([9.])
    """

    example_config: ClassVar = {**Transform.example_config, "function": "math.exp"}

    def __init__(
        self,
        reward: RewardFunction,
        function: Callable[[float], float | None] | str,
        *,
        bounds: tuple[float, float] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(reward, name=name)
        self.function = function
        self.bounds = None if bounds is None else interval(bounds, "bounds", self.name)
        if not callable(function) and not isinstance(function, str):
            raise ConfigError(f"function must be callable or a dotted path, found {brief(function)}", reward=self.name)

    def combine(self, batches: Sequence[RewardBatch], samples: Sequence[Sample]) -> RewardBatch:  # noqa: ARG002
        """Map what applies; record what fails."""
        (batch,) = batches
        function = resolve_callable(self.function, self.name)
        values = np.full(len(batch), np.nan)
        errors = dict(batch.errors)
        for index in np.flatnonzero(~np.isnan(batch.rewards)).tolist():
            value = float(batch.rewards[index])
            try:
                mapped = function(value)
                if mapped is not None:
                    values[index] = float(mapped)
                    if not math.isfinite(values[index]):
                        raise ValueError(f"the function returned {mapped} for {value}")  # noqa: TRY301
            except Exception as error:  # noqa: BLE001  # recorded; the executor raises it unless it is masked
                values[index] = np.nan
                errors[index] = f"{type(error).__name__}: {error}"
        return RewardBatch(values, None, batch.metadata, dict(sorted(errors.items())), {self.reward.name: batch})
