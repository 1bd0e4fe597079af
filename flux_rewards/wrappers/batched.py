"""Batches of another size."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from flux_rewards.validation import whole_number
from flux_rewards.wrappers.wrapper import Wrapper

if TYPE_CHECKING:
    from flux_rewards.base import RewardFunction

__all__ = ["Batched"]


class Batched(Wrapper):
    """Every leaf of a reward receives at most `batch_size` samples a call, in this tree and not in others.

    Args:
        reward: The reward to cut into batches.
        batch_size: Samples a call; overrides `RewardFunction.batch_size`. Group-scoped leaves still get whole groups.
        name: What it is called.

    Examples:
        >>> from flux_rewards import FunctionReward, Sample
        >>> sizes = FunctionReward(lambda samples: [len(samples)] * len(samples), call="batch")
        >>> Batched(sizes, batch_size=2)([Sample()] * 3).rewards
        array([2., 2., 1.])
    """

    example_config: ClassVar = {**Wrapper.example_config, "batch_size": 16}

    def __init__(self, reward: RewardFunction, batch_size: int, *, name: str | None = None) -> None:
        super().__init__(reward, name=name)
        self.leaf_batch_size = whole_number(batch_size, "batch_size", self.label, low=1)
