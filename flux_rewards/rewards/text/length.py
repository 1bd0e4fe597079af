"""What the length of a response is worth: near a target, within a range, or as it is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.errors import ConfigError
from flux_rewards.rewards.text.units import checked_unit, fields_of, length_of
from flux_rewards.validation import number, one_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flux_rewards.data import Sample

__all__ = ["LengthFunction", "LengthRange", "LengthReward", "ResponseLength"]

_SHAPES = ("linear", "gaussian")


class LengthFunction(RewardFunction, abstract=True):
    """Base of rewards that are a function of the response's length. A subclass overrides `worth`.

    Args:
        unit: ``"tokens"``: of `Sample.token_ids`; ``"words"``: what whitespace separates; ``"characters"``: code
            points; ``"auto"``: tokens where the sample has `token_ids`, else words.
        **options: Of every reward; see `RewardFunction`.

    Examples:
        >>> class Even(LengthFunction):
        ...     def worth(self, length):
        ...         return float(length % 2 == 0)
        >>> Even()(response=["one two", "one"]).rewards
        array([1., 0.])
    """

    required_fields = ("response",)
    optional_fields = ("token_ids",)

    def __init__(self, unit: str = "auto", **options: Unpack[RewardOptions]) -> None:
        super().__init__(**options)
        self.unit = checked_unit(unit, self.name)
        self.required_fields = fields_of(unit)

    def worth(self, length: int) -> float:
        """The score of a response of this length, in `unit`."""
        raise NotImplementedError

    def compute_reward(self, sample: Sample) -> float:
        """One score, from the length alone."""
        return self.worth(length_of(sample, self.unit))


class ResponseLength(LengthFunction):
    """The length of the response, as it is: to be logged, to be scaled, or for other rewards to build on.

    ``scale=-0.001`` makes it a penalty of one for every thousand tokens.

    Args:
        unit: ``"tokens"``: of `Sample.token_ids`; ``"words"``: what whitespace separates; ``"characters"``: code
            points; ``"auto"``: tokens where the sample has `token_ids`, else words.
        **options: Of every reward; see `RewardFunction`.

    Not bounded above. An empty response has the length 0.

    Raises:
        ConfigError: `unit` is not one of these.

    Does not tokenize, and does not tell one token from another: padding in `token_ids` counts.

    Examples:
        >>> ResponseLength("words")(response=["one two three", ""]).rewards
        array([3., 0.])
    """

    example_config = {"unit": "words"}

    def worth(self, length: int) -> float:
        """The length."""
        return float(length)


class LengthReward(LengthFunction):
    """1.0 at a wanted length, falling to 0 on both sides.

    With d = |length - target|:

    - ``"linear"``: max(0, 1 - d / tolerance). Nothing is left at a distance of `tolerance`.
    - ``"gaussian"``: exp(-½ (d / tolerance)²). 0.61 is left at a distance of `tolerance`, and always something.

    Args:
        target: The wanted length, in `unit`. Greater than 0; with a `tolerance` of its own, 0 is possible too.
        tolerance: How fast it falls, in `unit`; `target` by default, so that an empty response scores 0 when linear.
        unit: ``"tokens"``: of `Sample.token_ids`; ``"words"``: what whitespace separates; ``"characters"``: code
            points; ``"auto"``: tokens where the sample has `token_ids`, else words.
        shape: ``"linear"`` or ``"gaussian"``.
        **options: Of every reward; see `RewardFunction`.

    Bounds: (0, 1). An empty response has the length 0, and is scored like any other.

    Raises:
        ConfigError: A parameter is out of its range.

    Does not tokenize, and does not tell one token from another: padding in `token_ids` counts. Text in a script
    without spaces is one word; use tokens or characters there.

    Examples:
        >>> LengthReward(4)(response=["one two three four", "one two three", "", "word " * 20]).rewards
        array([1.  , 0.75, 0.  , 0.  ])
        >>> LengthReward(9, tolerance=3, unit="characters", shape="gaussian")(response=["x" * 9, "x" * 12]).rewards
        array([1.        , 0.60653066])
    """

    bounds = (0.0, 1.0)
    example_config = {"target": 400}

    def __init__(
        self,
        target: float,
        tolerance: float | None = None,
        unit: str = "auto",
        shape: str = "linear",
        **options: Unpack[RewardOptions],
    ) -> None:
        super().__init__(unit, **options)
        if tolerance is None:
            number(target, "target", self.name, above=0)
        else:
            number(target, "target", self.name, low=0)
            number(tolerance, "tolerance", self.name, above=0)
        self.target = target
        self.tolerance = tolerance
        self.shape = one_of(shape, "shape", self.name, _SHAPES)

    def worth(self, length: int) -> float:
        """What is left at this distance from the target."""
        tolerance = self.target if self.tolerance is None else self.tolerance
        return _left_at(abs(length - self.target) / tolerance, self.shape)


class LengthRange(LengthFunction):
    """1.0 within a range of lengths, falling to 0 on both sides of it.

    With d the distance from the nearer end of the range, and 0 within it, falling as `LengthReward` does:
    max(0, 1 - d / tolerance) when linear, exp(-½ (d / tolerance)²) when Gaussian.

    Args:
        min_length: The least length that scores 1.0, in `unit`; None for any.
        max_length: The greatest, in `unit`; None for any.
        tolerance: How fast it falls outside, in `unit`. By default `min_length` below the range, so that an empty
            response scores 0 when linear, and `max_length` above, so that twice that length does.
        unit: ``"tokens"``: of `Sample.token_ids`; ``"words"``: what whitespace separates; ``"characters"``: code
            points; ``"auto"``: tokens where the sample has `token_ids`, else words.
        shape: ``"linear"`` or ``"gaussian"``.
        **options: Of every reward; see `RewardFunction`.

    Bounds: (0, 1). An empty response has the length 0, and is scored like any other.

    Raises:
        ConfigError: Neither end is given, the ends are in the wrong order, or a parameter is out of its range.

    Does not tokenize; see `LengthReward`, which is the range of one length.

    Examples:
        >>> LengthRange(2, 4)(response=["one", "one two", "one two three four", "word " * 6, "word " * 8]).rewards
        array([0.5, 1. , 1. , 0.5, 0. ])
        >>> LengthRange(max_length=4, tolerance=1)(response=["", "word " * 4, "word " * 5]).rewards
        array([1., 1., 0.])
    """

    bounds = (0.0, 1.0)
    example_config = {"min_length": 100, "max_length": 400}

    def __init__(
        self,
        min_length: float | None = None,
        max_length: float | None = None,
        tolerance: float | None = None,
        unit: str = "auto",
        shape: str = "linear",
        **options: Unpack[RewardOptions],
    ) -> None:
        super().__init__(unit, **options)
        if min_length is None and max_length is None:
            raise ConfigError("needs min_length or max_length, found neither", reward=self.name)
        if min_length is not None:
            number(min_length, "min_length", self.name, low=0)
        if max_length is not None and tolerance is None:
            number(max_length, "max_length", self.name, above=0)
        elif max_length is not None:
            number(max_length, "max_length", self.name, low=0)
        if min_length is not None and max_length is not None and min_length > max_length:
            raise ConfigError(
                f"min_length must not be above max_length, found {min_length} and {max_length}", reward=self.name
            )
        if tolerance is not None:
            number(tolerance, "tolerance", self.name, above=0)
        self.min_length = min_length
        self.max_length = max_length
        self.tolerance = tolerance
        self.shape = one_of(shape, "shape", self.name, _SHAPES)

    def worth(self, length: int) -> float:
        """What is left at this distance from the range."""
        if self.min_length is not None and length < self.min_length:
            distance, tolerance = self.min_length - length, self.tolerance or self.min_length
        elif self.max_length is not None and length > self.max_length:
            distance, tolerance = length - self.max_length, self.tolerance or self.max_length
        else:
            return 1.0
        return _left_at(distance / tolerance, self.shape)


def _left_at(distance: float, shape: str) -> float:
    """Of 1.0, at a distance in tolerances."""
    return max(0.0, 1.0 - distance) if shape == "linear" else math.exp(-0.5 * distance * distance)
