"""A penalty that sets in shortly before the longest response that is allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flux_rewards.errors import ConfigError
from flux_rewards.rewards.text.length import LengthFunction
from flux_rewards.validation import number

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flux_rewards.base import RewardOptions

__all__ = ["SoftOverlongPunishment"]


class SoftOverlongPunishment(LengthFunction):
    """0 up to ``max_length - soft_punish_cache``, then falling in a straight line, to -1 at `max_length`.

    ``max(lowest, min(0, (max_length - soft_punish_cache - length) / soft_punish_cache))``

    Args:
        max_length: The greatest length that is allowed, in `unit`: TRL's ``max_completion_len``.
        soft_punish_cache: For how long before `max_length` it falls, in `unit`. At most `max_length`. With 0 there
            is no slope: 0 up to `max_length`, `lowest` beyond.
        lowest: The least value, not above 0. -1 is the published one, and TRL's and OpenRLHF's; None lets it fall for
            ever, as verl, NeMo-RL and ms-swift do.
        unit: ``"tokens"``: of `Sample.token_ids`; ``"words"``: what whitespace separates; ``"characters"``: code
            points; ``"auto"``: tokens where the sample has `token_ids`, else words.
        **options: Of every reward; see `RewardFunction`. ``scale`` is what others call the penalty factor.

    Bounds: (lowest, 0); none with ``lowest=None``. An empty response scores 0.0.

    Raises:
        ConfigError: A parameter is out of its range, or there is neither a slope nor a least value.

    Does not tokenize, and does not know whether a response was cut off. Source: equation 13 of DAPO (arXiv 2503.14476).

    Examples:
        >>> punish = SoftOverlongPunishment(100, soft_punish_cache=20)
        >>> punish(response=["word " * count for count in (80, 90, 100, 200)]).rewards
        array([ 0. , -0.5, -1. , -1. ])
    """

    example_config = {"max_length": 16, "soft_punish_cache": 8}

    def __init__(
        self,
        max_length: float,
        soft_punish_cache: float,
        lowest: float | None = -1.0,
        unit: str = "auto",
        **options: Unpack[RewardOptions],
    ) -> None:
        least = lowest if lowest is None else number(lowest, "lowest", self.name, high=0)
        self.bounds = None if least is None else (least, 0.0)  # before the base rescales them
        super().__init__(unit, **options)
        number(max_length, "max_length", self.name, above=0)
        number(soft_punish_cache, "soft_punish_cache", self.name, low=0, high=max_length)
        if lowest is None and soft_punish_cache == 0:
            raise ConfigError("lowest=None needs a soft_punish_cache above 0 to fall along, found 0", reward=self.name)
        self.max_length = max_length
        self.soft_punish_cache = soft_punish_cache
        self.lowest = lowest

    def worth(self, length: int) -> float:
        """Equation 13, with another least value where one is given."""
        beyond = length - (self.max_length - self.soft_punish_cache)
        if beyond <= 0:
            return 0.0
        if self.soft_punish_cache == 0:
            return float(self.lowest or 0.0)
        penalty = -beyond / self.soft_punish_cache
        return penalty if self.lowest is None else max(float(self.lowest), penalty)
