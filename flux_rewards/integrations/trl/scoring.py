"""From a call of TRL to samples, and from a batch of rewards to what TRL takes and logs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from flux_rewards.base import RewardFunction
from flux_rewards.buffer import RewardBuffer
from flux_rewards.composite import CompositeReward
from flux_rewards.errors import ConfigError, brief, close_match
from flux_rewards.executor import default_executor
from flux_rewards.integrations.columns import REFERENCES, Columns
from flux_rewards.integrations.distributed import DistributedGroups
from flux_rewards.integrations.trl.log import Log, numbers_of
from flux_rewards.validation import number
from flux_rewards.wrappers.mask_errors import MaskErrors
from flux_rewards.wrappers.wrapper import Wrapper

if TYPE_CHECKING:
    from flux_rewards.data import RewardBatch, Sample
    from flux_rewards.integrations.trl.groups import GroupLayout

__all__ = ["DEFAULT_FIELDS", "Scoring", "weighted_sum_of"]

DEFAULT_FIELDS = {
    "prompts": "prompt",
    "completions": "response",
    "completion_ids": "token_ids",
    **REFERENCES,
    "images": "condition_images",
    "image": "condition_images",
}
"""Field of a sample by TRL's columns; of several columns for one field the first that is there."""

_CALLBACKS = ("trainer_state", "log_metric", "log_extra")

Schedule = Callable[[Any], Mapping[str, float]]
"""From TRL's ``trainer_state`` (``global_step``, ``max_steps``, ``epoch``) to the weights that change, by part."""


def weighted_sum_of(reward: RewardFunction) -> CompositeReward | None:
    """The composite whose weighted sum of parts the reward is, None where it is something else.

    Wrappers that change how a composite runs, and not what it says, are looked through.

    Examples:
        >>> from flux_rewards import CompositeReward, GroupRank, LengthReward, MaskErrors
        >>> composite = CompositeReward([(LengthReward(target=2), 0.5)])
        >>> weighted_sum_of(MaskErrors(composite)) is composite, weighted_sum_of(GroupRank(composite))
        (True, None)
    """
    while isinstance(reward, Wrapper):
        transparent = type(reward).combine is Wrapper.combine
        if not transparent and not (isinstance(reward, MaskErrors) and reward.on_error is None):
            return None
        reward = reward.reward
    return reward if type(reward) is CompositeReward else None


class Scoring:
    """Scores TRL's batches: all parts of a reward together, concurrently.

    Args:
        reward: The reward.
        separate: Whether its parts are functions of their own to TRL, which then weighs and logs them.
        fields: Column by field, for `Columns`.
        layout: Of the groups.
        distributed: Whether groups that straddle processes are gathered.
        timeout: Seconds for a batch.
        schedule: Weights by the state of the training.

    Raises:
        ConfigError: An argument that cannot be used.
    """

    def __init__(
        self,
        reward: RewardFunction,
        *,
        separate: bool,
        fields: Mapping[str, str | None] | None,
        layout: GroupLayout,
        distributed: bool,
        timeout: float | None,
        schedule: Schedule | None,
    ) -> None:
        if not isinstance(reward, RewardFunction):
            raise ConfigError(
                f"TRL: expected a reward of this library, found {brief(reward)}; make an object of a class, wrap a "
                "function in FunctionReward, and several rewards in a CompositeReward"
            )
        self.reward = reward
        self.separate = separate
        self.columns = Columns(DEFAULT_FIELDS, fields, "TRL", reward)
        self.layout = layout
        self.distributed = distributed
        self.timeout = timeout if timeout is None else number(timeout, "TRL: timeout", "", above=0.0)
        self.schedule = schedule
        if schedule is not None and (weighted_sum_of(reward) is None or not callable(schedule)):
            raise ConfigError(
                "TRL: a schedule is a function of trainer_state that returns weights by part, for a reward that is a "
                f"CompositeReward; found {brief(schedule)} for {brief(reward)}"
            )
        self.log = Log(reward, separate=separate)

    def samples(self, columns: Mapping[str, Any]) -> list[Sample]:
        """The samples of one call.

        Raises:
            ConfigError: A group is not whole.
            InputError: A column that the user named is not there.
        """
        count = len(columns["completions"])
        self._check_weights(columns)
        told = {name: value for name, value in columns.items() if name not in _CALLBACKS}
        samples = self.columns.samples(told, count)
        if self.reward.scope != "group":
            return samples
        gathering = DistributedGroups(self.reward) if self.distributed else None
        rank, ranks = (gathering.rank, gathering.ranks) if gathering is not None else (0, 1)
        return self.layout.with_ids(samples, columns, rank=rank, ranks=ranks)

    def _check_weights(self, columns: Mapping[str, Any]) -> None:
        """TRL takes weights from its configuration only: forgotten there, the policy would learn another reward."""
        trainer = getattr(columns.get("log_metric"), "__self__", None)
        arguments = getattr(trainer, "args", None)
        composite = weighted_sum_of(self.reward) if self.separate else None
        if composite is None or getattr(arguments, "reward_weights", ()) is not None:
            return
        if any(weight != 1.0 for weight in composite.weights.values()):
            raise ConfigError(
                f"TRL: the weights of the parts are {list(composite.weights.values())}, and the trainer has none; pass "
                "the second value of reward_funcs as GRPOConfig(reward_weights=...)"
            )

    def score(self, columns: Mapping[str, Any]) -> dict[str, list[float | None]]:
        """The scores of one call, by the name of the function; in this thread and on others."""
        if self.distributed:
            size = (
                self.layout.size(columns)
                if self.reward.scope == "group" and "group_id" not in self.columns.given
                else None
            )
            gathered = DistributedGroups(self.reward, group_size=size, timeout=self.timeout)
            batch = gathered.score(lambda: self.samples(columns))
        else:
            with RewardBuffer(self.reward) as buffer:  # rewards with async_reward=False stay in this thread
                buffer.add(self.samples(columns))
                batch = buffer.finalize(timeout=self.timeout)
        return self._told(batch, columns)

    async def score_async(self, columns: Mapping[str, Any]) -> dict[str, list[float | None]]:
        """The same on the executor's threads only, while the caller's event loop goes on."""
        samples = self.samples(columns)
        pending = default_executor().submit(self.reward, samples, timeout=self.timeout)
        try:
            batch = await pending
        except BaseException:
            pending.cancel()
            raise
        return self._told(batch, columns)

    def _told(self, batch: RewardBatch, columns: Mapping[str, Any]) -> dict[str, list[float | None]]:
        weights: dict[str, float] = {}
        if self.schedule is not None:
            weights = self._scheduled(self.schedule, columns.get("trainer_state"))
            batch = _weighed(batch, weights)
        self.log(batch, weights, columns.get("log_metric"), columns.get("log_extra"))
        if not self.separate:
            return {self.reward.name: numbers_of(batch.rewards)}
        # A sample of which a part failed is left out whole: a partial outage must not bias its group.
        lost = list(batch.errors)
        scores: dict[str, list[float | None]] = {}
        for name, part in batch.parts.items():
            values = part.rewards.copy()
            values[lost] = np.nan
            scores[name] = numbers_of(values)
        return scores

    def _scheduled(self, schedule: Schedule, state: Any) -> dict[str, float]:
        composite = weighted_sum_of(self.reward)
        if composite is None or state is None:
            raise ConfigError("TRL: the weights go by trainer_state, and this trainer passes none; leave out schedule")
        weights = dict(composite.weights)
        for name, weight in schedule(state).items():
            if name not in weights:
                raise ConfigError(f"TRL: the schedule has a weight for {name!r}, no part{close_match(name, weights)}")
            weights[name] = number(weight, f"TRL: the scheduled weight of {name!r}", "")
        return weights


def _weighed(batch: RewardBatch, weights: Mapping[str, float]) -> RewardBatch:
    """The sum of the same parts with other weights."""
    one = _Known()
    composite = CompositeReward({name: (one, weight) for name, weight in weights.items()})
    total = composite.combine([batch.parts[name] for name in weights], ())
    return total.with_stats(batch.stats)


class _Known(RewardFunction):
    """Stands for a part whose scores are there."""

    def compute_reward(self, sample: Sample) -> None:
        raise NotImplementedError
