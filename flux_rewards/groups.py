"""Rewards relative to the group: samples that answer the same prompt are compared with one another.

Groups go by `Sample.group_id`, or by equal prompt and condition media; never by position. A sample whose reward is
NaN takes no part: it stays NaN, and the others are compared without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from flux_rewards.combinator import UnaryCombinator
from flux_rewards.data import RewardBatch
from flux_rewards.grouping import split_groups
from flux_rewards.validation import number, one_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from flux_rewards.base import RewardFunction
    from flux_rewards.data import Sample

    Values = NDArray[np.float64]

__all__ = ["BestOfGroup", "GroupCenter", "GroupNormalize", "GroupRank", "GroupTransform", "LeaveOneOut"]


class GroupTransform(UnaryCombinator, abstract=True):
    """Base of rewards relative to the group. A subclass overrides `apply_to_group`.

    Does not keep token rewards: a comparison of samples has no dense view.
    """

    group_wise: ClassVar[bool] = True

    def apply_to_group(self, rewards: Values) -> Values:
        """The transformed rewards of one group, shape (n,), n >= 1, none of them NaN."""
        raise NotImplementedError

    def combine(self, batches: Sequence[RewardBatch], samples: Sequence[Sample]) -> RewardBatch:
        """Transform each group's scores; NaN and failures stay."""
        (batch,) = batches
        values = np.full(len(batch), np.nan)
        scored = ~np.isnan(batch.rewards)
        for positions in split_groups(samples):
            group = np.array(positions)[scored[positions]]
            if len(group):
                values[group] = self.apply_to_group(batch.rewards[group])
        return RewardBatch(values, None, batch.metadata, dict(batch.errors), {self.reward.name: batch})


class GroupRank(GroupTransform):
    """Rank within the group, from 0 (worst) to 1 (best): ``(rank - 1) / (n - 1)``; 0.5 in a group of one.

    Unchanged by any increasing map of the reward. With mean ranks a sample's value is its win rate against the
    rest of its group, ties counted half.

    Args:
        reward: The reward that is ranked.
        ties: What equal rewards get: ``"mean"`` of the ranks that they take up, the ``"min"`` or the ``"max"``. Ranks
            by position, as ``argsort`` gives them, would be noise, and are not offered.
        centered: Subtract 0.5, so that the mean of a group is 0.
        name: What it is called.

    Examples:
        >>> from flux_rewards import FunctionReward
        >>> rank = GroupRank(FunctionReward(lambda s: len(s.response)))
        >>> rank(prompt=["q"] * 4, response=["a", "bb", "cc", "dddd"]).rewards
        array([0. , 0.5, 0.5, 1. ])
    """

    def __init__(
        self, reward: RewardFunction, ties: str = "mean", *, centered: bool = False, name: str | None = None
    ) -> None:
        super().__init__(reward, name=name)
        self.ties = one_of(ties, "ties", self.name, ("mean", "min", "max"))
        self.centered = centered
        self.bounds = (-0.5, 0.5) if centered else (0.0, 1.0)

    def apply_to_group(self, rewards: Values) -> Values:
        """Rank."""
        shift = 0.5 if self.centered else 0.0
        if len(rewards) == 1:
            return np.array([0.5 - shift])
        ordered = np.sort(rewards)
        first = np.searchsorted(ordered, rewards, side="left")  # how many are worse
        last = np.searchsorted(ordered, rewards, side="right") - 1  # how many are no better, but for itself
        rank = {"mean": (first + last) / 2, "min": first, "max": last}[self.ties]
        return np.asarray(rank / (len(rewards) - 1) - shift)


class GroupNormalize(GroupTransform):
    """Z-score within the group: ``(reward - mean) / (std + epsilon)``; 0 in a group of one.

    Args:
        reward: The reward that is normalized.
        ddof: 1 divides the variance by n - 1 (TRL, verl, OpenRLHF), 0 by n (Flow-Factory).
        epsilon: Added to the standard deviation; 1e-4 as in TRL and GDPO, 1e-6 in verl.
        name: What it is called.

    Source: the group advantage of GRPO (arXiv 2402.03300).

    Examples:
        >>> from flux_rewards import FunctionReward
        >>> z = GroupNormalize(FunctionReward(lambda s: len(s.response)), epsilon=0.0)
        >>> z(prompt=["q"] * 3, response=["a", "bb", "ccc"]).rewards
        array([-1.,  0.,  1.])
    """

    def __init__(
        self, reward: RewardFunction, *, ddof: int = 1, epsilon: float = 1e-4, name: str | None = None
    ) -> None:
        super().__init__(reward, name=name)
        self.ddof = int(number(ddof, "ddof", self.name, low=0, high=1))
        self.epsilon = number(epsilon, "epsilon", self.name, low=0.0)

    def apply_to_group(self, rewards: Values) -> Values:
        """Normalize."""
        if len(rewards) == 1 or (rewards == rewards[0]).all():
            return np.zeros(len(rewards))  # exactly, where rounding of the mean would leave a trace
        return np.asarray((rewards - rewards.mean()) / (rewards.std(ddof=self.ddof) + self.epsilon))


class GroupCenter(GroupTransform):
    """The reward less its group's mean; 0 in a group of one.

    Source: Dr. GRPO (arXiv 2503.20783), which leaves the standard deviation out.

    Examples:
        >>> from flux_rewards import FunctionReward
        >>> center = GroupCenter(FunctionReward(lambda s: len(s.response)))
        >>> center(prompt=["q", "q", "r"], response=["a", "ccc", "dd"]).rewards
        array([-1.,  1.,  0.])
    """

    def apply_to_group(self, rewards: Values) -> Values:
        """Subtract the mean."""
        if (rewards == rewards[0]).all():
            return np.zeros(len(rewards))
        return np.asarray(rewards - rewards.mean())


class LeaveOneOut(GroupTransform):
    """The reward less the mean of the others in its group; 0 in a group of one.

    Equals ``n / (n - 1)`` times `GroupCenter`. Source: RLOO (arXiv 2402.14740).

    Examples:
        >>> from flux_rewards import FunctionReward
        >>> rloo = LeaveOneOut(FunctionReward(lambda s: len(s.response)))
        >>> rloo(prompt=["q"] * 3, response=["a", "a", "dddd"]).rewards
        array([-1.5, -1.5,  3. ])
    """

    def apply_to_group(self, rewards: Values) -> Values:
        """Subtract the mean of the others."""
        count = len(rewards)
        if count == 1 or (rewards == rewards[0]).all():
            return np.zeros(count)
        return np.asarray(rewards - (rewards.sum() - rewards) / (count - 1))


class BestOfGroup(GroupTransform):
    """1 for the best of its group, 0 for the rest.

    Args:
        reward: The reward that is compared.
        ties: What several best ones get: ``"share"`` divides the 1 among them, ``"all"`` gives it to each.
        name: What it is called.

    Examples:
        >>> from flux_rewards import FunctionReward
        >>> best = BestOfGroup(FunctionReward(lambda s: len(s.response)))
        >>> best(prompt=["q"] * 4, response=["a", "cc", "cc", "b"]).rewards
        array([0. , 0.5, 0.5, 0. ])
    """

    def __init__(self, reward: RewardFunction, ties: str = "share", *, name: str | None = None) -> None:
        super().__init__(reward, name=name)
        self.ties = one_of(ties, "ties", self.name, ("share", "all"))
        self.bounds = (0.0, 1.0)
        self.higher_is_better = True

    def apply_to_group(self, rewards: Values) -> Values:
        """Find the best."""
        best = (rewards == rewards.max()).astype(np.float64)
        return np.asarray(best / best.sum()) if self.ties == "share" else best
