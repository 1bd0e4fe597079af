"""Advantages that are a reward less a baseline of its group, divided by a standard deviation or not.

Every function takes the same first two arguments and the same two last options:

- ``rewards``: a `RewardBatch`, or one number a sample, shape (N,), as list, array or tensor. NaN and None are samples
  without a score; they take no part in any mean or standard deviation.
- ``groups``: which of them answer one prompt: one hashable id a reward, an integer array or tensor, the list of
  samples, or a whole number n for consecutive groups of n. Groups may be of unequal size.
- ``singleton``: what the only scored sample of a group gets: ``"zero"``, since it is compared with nothing, or
  ``"reward"``, its reward as it is (verl, SkyRL).
- ``missing``: the number that a sample without a score gets; NaN unless given.

Tensors give tensors of the same type on the same device, computed in float64 without a gradient; everything else gives
float64 arrays. A group whose rewards are all equal gets exactly 0. Infinity is an `InputError`.
"""

from __future__ import annotations

import math
from typing import Any

from flux_rewards.advantages.arrays import Array, indicator, lengths_of, namespace
from flux_rewards.advantages.grouped import GroupedRewards, check_options, scaled, standardized, word
from flux_rewards.errors import ConfigError, InputError

__all__ = ["batch", "dr_grpo", "grpo", "max_rl", "opo", "rloo"]


def grpo(
    rewards: Any,
    groups: Any,
    *,
    ddof: int = 1,
    eps: float = 1e-4,
    eps_rule: str = "add",
    leave_one_out: bool = False,
    singleton: str = "zero",
    missing: float = math.nan,
) -> Array:
    """Z-score within the group: ``(reward - mean) / (std + eps)``.

    Args:
        rewards: Rewards, shape (N,).
        groups: Their groups.
        ddof: 1 divides the variance by n - 1, 0 by n.
        eps: Keeps the divisor from 0; 1e-4 in TRL, 1e-6 in verl, 1e-9 in OpenRLHF.
        eps_rule: ``"add"``: std + eps; ``"max"``: max(std, eps) (Flow-Factory); ``"variance"``: sqrt(var + eps).
        leave_one_out: Mean and standard deviation of the others of the group only; where those are all equal, the
            difference is not divided (NeMo-RL).
        singleton: ``"zero"``, or ``"reward"``: as against a mean of 0 and a standard deviation of 1.
        missing: For samples without a score.

    Raises:
        InputError: Rewards or groups cannot be used; the message says which.
        ConfigError: An option is out of its range.

    Source: GRPO (arXiv 2402.03300).

    Examples:
        >>> grpo([1.0, 2.0, 3.0, 5.0], ["a", "a", "a", "b"], eps=0.0)
        array([-1.,  0.,  1.,  0.])
    """
    check_options(ddof=ddof, eps=eps, eps_rule=eps_rule, singleton=singleton, missing=missing)
    given = GroupedRewards.of(rewards, groups)
    if leave_one_out:
        advantages = _against_others(given, ddof, eps, eps_rule)
    else:
        advantages = scaled(given.deviations, given.std(ddof), eps, eps_rule)
    ones = given.rewards * 0.0 + 1.0
    alone = scaled(given.rewards, ones, eps, eps_rule)
    return given.give(given.with_singletons(advantages, singleton, alone), missing)


def dr_grpo(rewards: Any, groups: Any, *, singleton: str = "zero", missing: float = math.nan) -> Array:
    """The reward less the mean of its group, not divided by anything.

    Args:
        rewards: Rewards, shape (N,).
        groups: Their groups.
        singleton: ``"zero"`` or ``"reward"``.
        missing: For samples without a score.

    Raises:
        InputError: Rewards or groups cannot be used.
        ConfigError: An option is out of its range.

    Source: Dr. GRPO (arXiv 2503.20783); the length normalization that it also drops is the loss's business.

    Examples:
        >>> dr_grpo([1.0, 2.0, 6.0], 3)
        array([-2., -1.,  3.])
    """
    check_options(singleton=singleton, missing=missing)
    given = GroupedRewards.of(rewards, groups)
    return given.give(given.with_singletons(given.deviations, singleton), missing)


def rloo(
    rewards: Any,
    groups: Any,
    *,
    normalize: bool = False,
    ddof: int = 1,
    eps: float = 1e-4,
    singleton: str = "zero",
    missing: float = math.nan,
) -> Array:
    """The reward less the mean of the others of its group.

    Args:
        rewards: Rewards, shape (N,).
        groups: Their groups.
        normalize: Then a z-score over the whole batch, as TRL's ``normalize_advantages``.
        ddof: Of that z-score.
        eps: Of that z-score.
        singleton: ``"zero"`` or ``"reward"``.
        missing: For samples without a score.

    Raises:
        InputError: Rewards or groups cannot be used.
        ConfigError: An option is out of its range.

    Source: RLOO (arXiv 2402.14740).

    Examples:
        >>> rloo([0.0, 0.0, 3.0], 3)
        array([-1.5, -1.5,  3. ])
    """
    check_options(ddof=ddof, eps=eps, singleton=singleton, missing=missing)
    given = GroupedRewards.of(rewards, groups)
    advantages = given.with_singletons(_less_others(given), singleton)
    if normalize:
        # A lone sample has no baseline and so no advantage: it stays out of the z-score, as in TRL.
        compared = given.segments.size > (1 if singleton == "zero" else 0)
        advantages[compared] = standardized(advantages[compared], ddof=ddof, eps=eps, eps_rule="add")
    return given.give(advantages, missing)


def batch(
    rewards: Any,
    groups: Any,
    *,
    center: str = "group",
    ddof: int = 1,
    eps: float = 1e-4,
    eps_rule: str = "add",
    missing: float = math.nan,
) -> Array:
    """The reward less the mean of its group, over the standard deviation of all rewards of the batch.

    Args:
        rewards: Rewards, shape (N,).
        groups: Their groups.
        center: ``"group"``, or ``"batch"`` for a z-score over the whole batch, without groups.
        ddof: 1 divides the variance by N - 1, 0 by N.
        eps: Keeps the divisor from 0.
        eps_rule: ``"add"``, ``"max"`` or ``"variance"``, as in `grpo`.
        missing: For samples without a score.

    Raises:
        InputError: Rewards or groups cannot be used.
        ConfigError: An option is out of its range.

    Source: TRL's ``scale_rewards="batch"``, after Lite PPO (arXiv 2508.08221).

    Examples:
        >>> batch([0.0, 2.0, 10.0, 10.0], 2, ddof=0, eps=0.0).round(3)
        array([-0.22,  0.22,  0.  ,  0.  ])
    """
    check_options(ddof=ddof, eps=eps, eps_rule=eps_rule, missing=missing)
    word(center, "center", ("group", "batch"))
    given = GroupedRewards.of(rewards, groups)
    if len(given.rewards) == 0:
        return given.give(given.rewards, missing)
    overall = given.rewards - given.rewards[0]
    overall = overall - overall.mean()
    free = max(len(overall) - ddof, 1)
    std = namespace(overall).sqrt((overall * overall).sum() / free)
    return given.give(scaled(given.deviations if center == "group" else overall, std, eps, eps_rule), missing)


def max_rl(
    rewards: Any, groups: Any, *, eps: float = 1e-6, singleton: str = "zero", missing: float = math.nan
) -> Array:
    """The reward less the mean of its group, over that mean: rare successes count for more.

    Args:
        rewards: Rewards >= 0, shape (N,); successes as 0 and 1 as a rule.
        groups: Their groups.
        eps: Added to the mean.
        singleton: ``"zero"`` or ``"reward"``.
        missing: For samples without a score.

    Raises:
        InputError: A reward is negative, or rewards or groups cannot be used.
        ConfigError: An option is out of its range.

    Source: MaxRL (arXiv 2602.02710), as in SkyRL and prime-rl.

    Examples:
        >>> max_rl([1.0, 0.0, 0.0, 0.0], 4, eps=0.0)
        array([ 3., -1., -1., -1.])
    """
    check_options(eps=eps, singleton=singleton, missing=missing)
    given = GroupedRewards.of(rewards, groups)
    if bool((given.rewards < 0).any()):
        raise InputError(
            "max_rl divides by the mean reward of a group, so rewards must be >= 0, found "
            f"{float(given.rewards.min())}; shift them, or use another method"
        )
    mean = given.segments.mean(given.rewards)
    advantages = scaled(given.deviations, mean, eps, "add")
    return given.give(given.with_singletons(advantages, singleton), missing)


def opo(rewards: Any, groups: Any, lengths: Any = None, *, singleton: str = "zero", missing: float = math.nan) -> Array:
    """The reward less the mean of its group, weighted by length: ``reward - sum(L * reward) / sum(L)``.

    Args:
        rewards: Rewards, shape (N,).
        groups: Their groups.
        lengths: Tokens of each response, shape (N,), or a mask of them, shape (N, T).
        singleton: ``"zero"`` or ``"reward"``.
        missing: For samples without a score.

    Raises:
        InputError: All scored responses of a group are empty, or rewards, groups or lengths cannot be used.
        ConfigError: There are no lengths, or an option is out of its range.

    Source: OPO (arXiv 2505.23585).

    Examples:
        >>> opo([1.0, 0.0], 2, lengths=[30, 10])
        array([ 0.25, -0.75])
    """
    check_options(singleton=singleton, missing=missing)
    if lengths is None:
        raise ConfigError("opo weighs the baseline by length: give lengths=..., the tokens of each response")
    given = GroupedRewards.of(rewards, groups)
    weights = lengths_of(lengths, len(given.scored), given.form)[given.scored]
    total = given.segments.mean(weights)
    if bool((total == 0).any()):
        raise InputError("all scored responses of a group have the length 0, so their weighted mean does not exist")
    baseline = given.segments.mean(given.shifted * weights) / total
    return given.give(given.with_singletons(given.shifted - baseline, singleton), missing)


def _less_others(given: GroupedRewards) -> Array:
    """Each reward less the mean of the others of its group; 0 where there are none."""
    size = given.segments.size
    return given.deviations * size / namespace(size).where(size > 1, size - 1, 1.0)


def _against_others(given: GroupedRewards, ddof: int, eps: float, eps_rule: str) -> Array:
    """Each reward against mean and standard deviation of the others of its group."""
    xp, size, segments = namespace(given.rewards), given.segments.size, given.segments
    others = xp.where(size > 1, size - 1, 1.0)
    # Sum of squared deviations of the others from their own mean; what is left of it where they are all equal is
    # rounding, so that is found by comparing instead.
    squares = given.squares - given.deviations**2 * size / others
    lowest = indicator(given.rewards == segments.min(given.rewards), given.rewards)
    highest = indicator(given.rewards == segments.max(given.rewards), given.rewards)
    others_lowest = segments.sum(lowest)[segments.codes] - lowest
    others_highest = segments.sum(highest)[segments.codes] - highest
    varied = (others_lowest < size - 1) & (others_highest < size - 1)
    free = xp.where(others > ddof, others - ddof, 1.0)
    std = xp.sqrt(xp.where(varied & (squares > 0), squares, 0.0) / free)
    difference = _less_others(given)
    return xp.where(std > 0, scaled(difference, std, eps, eps_rule), difference)
