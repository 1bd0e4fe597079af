"""Whether, or how often, a regular expression matches a response."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Any

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.errors import ConfigError, brief
from flux_rewards.validation import one_of, whole_number

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flux_rewards.data import Sample

__all__ = ["RegexReward", "compiled"]


class RegexReward(RewardFunction):
    r"""min(1, matches / count): 1.0 where the pattern matches often enough, else the part that is there.

    Args:
        pattern: A regular expression, as Python writes them. Flags go inside: ``(?m)`` lets ``^`` and ``$`` match
            at each line, ``(?s)`` lets ``.`` match newlines.
        mode: ``"search"``: it may match anywhere; ``"fullmatch"``: it must match the whole response.
        count: Matches wanted, none overlapping another. Of ``"search"`` only.
        ignore_case: Whether capitals don't matter.
        **options: Of every reward; see `RewardFunction`. ``scale=-1`` makes a penalty of it.

    Bounds: (0, 1); with ``count=1`` only these two values. An empty response scores 0.0, unless the pattern matches
    nothing at all, as ``a*`` does, which matches everywhere.

    Raises:
        ConfigError: `pattern` is no regular expression, or a parameter is out of its range.

    Does not limit the time that a pattern takes: one such as ``(a+)+$`` can take forever on some texts.

    Examples:
        >>> RegexReward(r"[0-9]+ apples")(response=["There are 12 apples.", "Some apples."]).rewards
        array([1., 0.])
        >>> steps = RegexReward(r"(?m)^[0-9]+[.] ", count=3)
        >>> steps(response=["1. Add.\n2. Halve.\n3. Round.", "1. Guess."]).rewards.round(3)
        array([1.   , 0.333])
    """

    required_fields = ("response",)
    optional_fields = ()
    bounds = (0.0, 1.0)
    example_config = {"pattern": "[0-9]+"}

    def __init__(
        self,
        pattern: str,
        mode: str = "search",
        count: int = 1,
        ignore_case: bool = False,
        **options: Unpack[RewardOptions],
    ) -> None:
        super().__init__(**options)
        self.pattern = pattern
        self.mode = one_of(mode, "mode", self.name, ("search", "fullmatch"))
        self.count = whole_number(count, "count", self.name, low=1)
        self.ignore_case = ignore_case
        if mode == "fullmatch" and count > 1:
            raise ConfigError(
                f"count must be 1 with mode='fullmatch', since a whole response matches once, found {count}",
                reward=self.name,
            )
        self._compiled = compiled(pattern, self.name, re.IGNORECASE if ignore_case else 0)

    def compute_reward(self, sample: Sample) -> float:
        """The part of the wanted matches that is there."""
        text = sample.response_text
        if self.mode == "fullmatch":
            return float(self._compiled.fullmatch(text) is not None)
        return sum(1 for _ in islice(self._compiled.finditer(text), self.count)) / self.count


def compiled(pattern: Any, reward: str, flags: int) -> re.Pattern[str]:
    """The pattern as a regular expression, or a `ConfigError` that says where it is wrong.

    Examples:
        >>> compiled("a+", "regex", re.IGNORECASE).pattern
        'a+'
    """
    if not isinstance(pattern, str):
        raise ConfigError(f"pattern must be text, found {brief(pattern)}", reward=reward)
    try:
        return re.compile(pattern, flags)
    except re.error as error:
        raise ConfigError(f"pattern {brief(pattern)} is no regular expression: {error}", reward=reward) from error
