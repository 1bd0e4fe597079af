"""Advantages that ask which of a group is better, not by how much.

Arguments, groups, samples without a score and types are as in `flux_rewards.advantages.baselines`.
"""

from __future__ import annotations

import math
from typing import Any

from flux_rewards.advantages.arrays import Array, indicator, namespace
from flux_rewards.advantages.grouped import GroupedRewards, check_options, scaled, word
from flux_rewards.advantages.segments import Segments
from flux_rewards.validation import number

__all__ = ["best_worst", "pass_at_k", "rank"]


def rank(rewards: Any, groups: Any, *, missing: float = math.nan) -> Array:
    """Rank within the group, from -½ (worst) to ½ (best): ``(rank - 1) / (n - 1) - ½``.

    Equal rewards share the mean of their ranks, so that the mean of a group is 0, and each value is the sample's share
    of wins against the others, ties counted half, less ½. Alone in its group a sample gets 0. Unchanged by any
    increasing map of the rewards.

    Args:
        rewards: Rewards, shape (N,).
        groups: Their groups.
        missing: For samples without a score.

    Raises:
        InputError: Rewards or groups cannot be used.
        ConfigError: `missing` is not a number.

    Examples:
        >>> rank([9.0, 1.0, 2.0, 2.0], 4)
        array([ 0.5, -0.5,  0. ,  0. ])
    """
    check_options(missing=missing)
    given = GroupedRewards.of(rewards, groups)
    if len(given.rewards) == 0:
        return given.give(given.rewards, missing)
    xp, segments = namespace(given.rewards), given.segments
    order = segments.order(given.rewards)
    codes, values = segments.codes[order], given.rewards[order]
    position = (xp.ones_like(values)).cumsum(0) - 1
    begins = xp.ones_like(codes)  # a run of equal rewards of one group
    begins[1:] = (codes[1:] != codes[:-1]) | (values[1:] != values[:-1])
    number_of_run = begins.cumsum(0) - 1
    runs = Segments(number_of_run, int(number_of_run[-1]) + 1)
    better_than = xp.zeros_like(values)
    better_than[order] = runs.mean(position) - segments.starts[codes]
    others = xp.where(segments.size > 1, segments.size - 1, 1.0)
    advantages = xp.where(segments.size > 1, better_than / others - 0.5, 0.0)
    return given.give(advantages, missing)


def pass_at_k(
    rewards: Any,
    groups: Any,
    *,
    normalize: bool = True,
    ddof: int = 1,
    eps: float = 1e-6,
    missing: float = math.nan,
) -> Array:
    """The best of a group gets how much it is ahead of the second, the rest 0: only the best counts for pass@k.

    Two equal best ones are not ahead of one another: all get 0. So does a sample alone in its group (verl refuses
    such a group).

    Args:
        rewards: Rewards, shape (N,).
        groups: Their groups.
        normalize: Divide by the standard deviation of the group, plus `eps`.
        ddof: 1 divides the variance by n - 1, 0 by n.
        eps: Added to the standard deviation.
        missing: For samples without a score.

    Raises:
        InputError: Rewards or groups cannot be used.
        ConfigError: An option is out of its range.

    Source: arXiv 2503.19595, as verl's ``grpo_passk``.

    Examples:
        >>> pass_at_k([1.0, 4.0, 2.0], 3, normalize=False)
        array([0., 2., 0.])
    """
    check_options(ddof=ddof, eps=eps, missing=missing)
    given = GroupedRewards.of(rewards, groups)
    segments = given.segments
    order = segments.order(given.rewards)
    several = segments.sizes > 1
    last = (segments.starts + segments.sizes)[several]
    last = (last.long() if hasattr(last, "long") else last.astype(int)) - 1
    best, second = order[last], order[last - 1]
    advantages = namespace(given.rewards).zeros_like(given.rewards)
    ahead = given.rewards[best] - given.rewards[second]
    advantages[best] = scaled(ahead, given.std(ddof)[best], eps, "add") if normalize else ahead
    return given.give(advantages, missing)


def best_worst(
    rewards: Any, groups: Any, *, value: float = 1.0, ties: str = "share", missing: float = math.nan
) -> Array:
    """The best of a group gets `value`, the worst ``-value``, the rest 0; all 0 where all are equal.

    Args:
        rewards: Rewards, shape (N,).
        groups: Their groups.
        value: Greater than 0; FAI-RL uses 2.
        ties: What several best (or worst) ones get: ``"share"`` divides the value among them, so that the mean of the
            group stays 0; ``"all"`` gives it to each.
        missing: For samples without a score.

    Raises:
        InputError: Rewards or groups cannot be used.
        ConfigError: An option is out of its range.

    Examples:
        >>> best_worst([0.0, 5.0, 5.0, 1.0], 4)
        array([-1. ,  0.5,  0.5,  0. ])
    """
    check_options(missing=missing)
    number(value, "value", "", above=0.0)
    word(ties, "ties", ("share", "all"))
    given = GroupedRewards.of(rewards, groups)
    segments = given.segments
    best = indicator(given.rewards == segments.max(given.rewards), given.rewards)
    worst = indicator(given.rewards == segments.min(given.rewards), given.rewards)
    if ties == "share":
        best = best / segments.sum(best)[segments.codes]
        worst = worst / segments.sum(worst)[segments.codes]
    # Where all are equal, each is best and worst at once, and the difference is exactly 0.
    return given.give(value * (best - worst), missing)
