"""How close a response comes to a wanted length."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.validation import number, one_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flux_rewards.data import Sample

__all__ = ["LengthReward"]

_UNITS = ("auto", "tokens", "words", "characters")


class LengthReward(RewardFunction):
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

    required_fields = ("response",)
    optional_fields = ("token_ids",)
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
        super().__init__(**options)
        if tolerance is None:
            number(target, "target", self.name, above=0)
        else:
            number(target, "target", self.name, low=0)
            number(tolerance, "tolerance", self.name, above=0)
        self.target = target
        self.tolerance = tolerance
        self.unit = one_of(unit, "unit", self.name, _UNITS)
        self.shape = one_of(shape, "shape", self.name, ("linear", "gaussian"))
        if unit == "tokens":
            self.required_fields = ("token_ids",)

    def compute_reward(self, sample: Sample) -> float:
        """One score, from the length alone."""
        tolerance = self.target if self.tolerance is None else self.tolerance
        distance = abs(self._length(sample) - self.target) / tolerance
        if self.shape == "linear":
            return max(0.0, 1.0 - distance)
        return math.exp(-0.5 * distance * distance)

    def _length(self, sample: Sample) -> int:
        if self.unit in ("auto", "tokens") and sample.token_ids is not None:
            return len(sample.token_ids)
        text = sample.response_text
        return len(text) if self.unit == "characters" else len(text.split())
