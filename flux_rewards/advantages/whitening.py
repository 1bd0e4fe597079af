"""Normalizing over the tokens of a batch: PPO's whitening, and REINFORCE++ on top of it.

Masks and types are as in `flux_rewards.advantages.tokens`.
"""

from __future__ import annotations

import math
from typing import Any

from flux_rewards.advantages.arrays import Array, check_finite, namespace, values_of
from flux_rewards.advantages.baselines import dr_grpo
from flux_rewards.advantages.grouped import check_options, standardized
from flux_rewards.advantages.masks import form_of, mask_of
from flux_rewards.advantages.tokens import at_last_token, broadcast, returns
from flux_rewards.errors import InputError

__all__ = ["masked_whiten", "reinforce_plus_plus", "reinforce_plus_plus_baseline"]


def masked_whiten(
    values: Any,
    mask: Any,
    *,
    eps: float = 1e-8,
    eps_rule: str = "variance",
    unbiased: bool = True,
    keep_mean: bool = False,
) -> Array:
    """Values less their mean over all tokens that count, over their standard deviation; 0 elsewhere.

    Args:
        values: Shape (N, T). NaN at a token that counts takes no part and stays NaN.
        mask: Shape (N, T).
        eps: Keeps the divisor from 0.
        eps_rule: ``"variance"``: sqrt(var + eps) (PPO, TRL, verl); ``"max"``: max(std, eps), which with 1e-4 is
            OpenRLHF's and NeMo-RL's ``var.clamp(min=1e-8)``; ``"add"``: std + eps.
        unbiased: Divide the variance by the number of tokens less one (verl); else by their number (OpenRLHF).
        keep_mean: Add the mean again.

    Raises:
        InputError: Shapes do not fit, values are infinite, no token counts, or only one does and `unbiased` is set.
        ConfigError: An option is out of its range.

    Examples:
        >>> masked_whiten([[1.0, 3.0], [5.0, 9.0]], [[1, 1], [1, 0]], eps=0.0)
        array([[-1.,  0.],
               [ 1.,  0.]])
    """
    check_options(eps=eps, eps_rule=eps_rule)
    form = form_of(values, mask)
    given = form.take(values, "values")
    xp = namespace(given)
    counted = mask_of(mask, form, tuple(given.shape))
    given = xp.where(counted, given, 0.0)
    if len(given):
        check_finite(given, "values")
    known = counted & ~xp.isnan(given)
    tokens = int(known.sum())
    if tokens <= int(unbiased):
        raise InputError(
            f"{tokens} tokens count, which have no {'unbiased ' if unbiased and tokens else ''}standard deviation; "
            "whiten a larger batch"
        )
    result = given + 0.0
    result[known] = standardized(given[known], ddof=int(unbiased), eps=eps, eps_rule=eps_rule, keep_mean=keep_mean)
    return form.give(result)


def reinforce_plus_plus(
    rewards: Any,
    mask: Any,
    *,
    discount: float = 1.0,
    eps: float = 1e-8,
    eps_rule: str = "variance",
    unbiased: bool = True,
) -> Array:
    """Returns of every token, whitened over all tokens of the batch, shape (N, T).

    Args:
        rewards: One a sample, shape (N,), which counts at the last token; or one a token, shape (N, T), from which a
            KL penalty may be subtracted already.
        mask: Shape (N, T).
        discount: In [0, 1].
        eps: As in `masked_whiten`.
        eps_rule: As in `masked_whiten`.
        unbiased: As in `masked_whiten`.

    Raises:
        InputError: Shapes do not fit, or there is a sample without a score: leave it out of the batch first.
        ConfigError: An option is out of its range.

    Source: REINFORCE++ (arXiv 2501.03262).

    Examples:
        >>> reinforce_plus_plus([1.0, 0.0], [[1, 1], [1, 1]], unbiased=False, eps=0.0)
        array([[ 1.,  1.],
               [-1., -1.]])
    """
    form = form_of(rewards, mask)
    counted = form.take(mask, "mask")
    if getattr(rewards, "ndim", 1) == 2:
        dense = form.take(rewards, "rewards")
    else:
        dense = at_last_token(values_of(rewards, form=form)[0], counted)
    summed = returns(dense, discount, mask=counted)
    return form.give(masked_whiten(summed, counted, eps=eps, eps_rule=eps_rule, unbiased=unbiased))


def reinforce_plus_plus_baseline(
    rewards: Any,
    groups: Any,
    mask: Any,
    *,
    eps: float = 1e-8,
    eps_rule: str = "variance",
    unbiased: bool = True,
    singleton: str = "zero",
    missing: float = math.nan,
) -> Array:
    """The reward less the mean of its group at every token, whitened over all tokens of the batch, shape (N, T).

    Args:
        rewards: A `RewardBatch`, or shape (N,).
        groups: Their groups, as in `flux_rewards.advantages.dr_grpo`.
        mask: Shape (N, T).
        eps: As in `masked_whiten`.
        eps_rule: As in `masked_whiten`.
        unbiased: As in `masked_whiten`.
        singleton: What the only scored sample of a group gets before whitening: ``"zero"`` or ``"reward"`` (verl).
        missing: What the tokens of samples without a score get; they take no part.

    Raises:
        InputError: Rewards, groups or mask cannot be used.
        ConfigError: An option is out of its range.

    Source: REINFORCE++-baseline (arXiv 2501.03262).

    Examples:
        >>> reinforce_plus_plus_baseline([1.0, 0.0], 2, [[1, 1], [1, 1]], unbiased=False, eps=0.0)
        array([[ 1.,  1.],
               [-1., -1.]])
    """
    check_options(missing=missing)
    form = form_of(rewards, mask)
    centered = dr_grpo(values_of(rewards, form=form)[0], groups, singleton=singleton)
    counted = form.take(mask, "mask")
    whitened = masked_whiten(broadcast(centered, counted), counted, eps=eps, eps_rule=eps_rule, unbiased=unbiased)
    return form.give(namespace(whitened).where(namespace(whitened).isnan(whitened), missing, whitened))
