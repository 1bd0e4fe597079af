"""A whole batch, for trainers that know numbers only."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards.base import RewardFunction
from flux_rewards.contract import Scored
from flux_rewards.errors import ConfigError, brief
from flux_rewards.wrappers.mask_errors import MaskErrors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from flux_rewards.data import RewardBatch, Sample
    from flux_rewards.integrations.numbers import Numbers

__all__ = ["batch_numbers", "check_reward", "part_numbers"]


def check_reward(reward: RewardFunction, adapter: str, *, groups: str = "") -> None:
    """Raise unless it is a reward that the adapter can serve.

    Args:
        reward: What is given.
        adapter: Whose it is, for messages.
        groups: Why a reward of groups cannot be served, and what to do instead; empty where it can.

    Raises:
        ConfigError: It is no reward, or one of groups.

    Examples:
        >>> from flux_rewards import LengthReward
        >>> check_reward(LengthReward(4), "mine")
    """
    if not isinstance(reward, RewardFunction):
        raise ConfigError(f"{adapter}: expected a reward, found {brief(reward)}; {_way_out(reward)}")
    if groups and reward.scope == "group":
        raise ConfigError(f"compares the samples of a group, and {groups}", reward=reward.name)


def _way_out(found: Any) -> str:
    if isinstance(getattr(found, "train", None), RewardFunction):  # what load_rewards returns
        return "it holds two: give its .train, or .eval"
    if isinstance(found, (str, os.PathLike)):
        return "give load_rewards(path).train"
    if isinstance(found, type):
        return f"give an object of it, {found.__name__}(...)"
    return "wrap a function in FunctionReward, several rewards in CompositeReward"


def batch_numbers(
    reward: RewardFunction, samples: Sequence[Sample], numbers: Numbers
) -> tuple[RewardBatch, list[float]]:
    """What the reward says, and the number of each sample for the trainer; computed in the calling thread.

    Raises:
        FluxRewardsError: A sample failed, or the reward does not apply to it, and `numbers` has no number for that.

    Examples:
        >>> from flux_rewards import FunctionReward, Sample
        >>> from flux_rewards.integrations.numbers import Numbers
        >>> inverse = FunctionReward(lambda sample: 1 / len(sample.response))
        >>> batch_numbers(inverse, [Sample(response="ab"), Sample(response="")], Numbers(None, -1.0, "mine"))[1]
        [0.5, -1.0]
    """
    scorer = reward if numbers.on_error is None else MaskErrors(reward, max_failure_rate=1.0)
    batch = scorer(samples)
    return batch, numbers(Scored(batch, {}))


def part_numbers(batch: RewardBatch, numbers: Numbers) -> Mapping[str, NDArray[np.float64]]:
    """What each part said, by name: (N,), with the numbers that were given by name, and NaN where there are none.

    Examples:
        >>> from flux_rewards import RewardBatch
        >>> from flux_rewards.integrations.numbers import Numbers
        >>> part = RewardBatch([0.5, float("nan")])
        >>> part_numbers(RewardBatch([0.5, 1.0], parts={"brief": part}), Numbers(-10.0, None, "mine"))
        {'brief': array([  0.5, -10. ])}
    """
    found: dict[str, NDArray[np.float64]] = {}
    for name, part in batch.parts.items():
        values = part.rewards.copy()
        for rows, number in ((part.not_applicable, numbers.not_applicable), (part.failed, numbers.on_error)):
            if number is not None:
                values[rows] = number
        found[name] = values
    return found
