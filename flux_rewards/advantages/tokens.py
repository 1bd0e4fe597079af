"""From rewards and advantages a sample to values a token, and from token rewards to returns.

Masks have the shape (N, T): nonzero where a token of the response counts. Padding may lie left, right, or in between,
as the words of a tool do. Results are 0 where the mask is. Their type follows the mask, or the padded token rewards: an
array gives float64 arrays, a tensor gives tensors on its device.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from flux_rewards.advantages.arrays import Array, Form, check_finite, namespace, values_of
from flux_rewards.advantages.masks import form_of, mask_of, right_padded
from flux_rewards.data import RewardBatch
from flux_rewards.errors import ConfigError, InputError, brief
from flux_rewards.validation import number

__all__ = ["at_last_token", "broadcast", "returns"]


def returns(token_rewards: Any, discount: float = 1.0, *, mask: Any = None) -> Any:
    """The discounted sum of what is still to come: ``G[t] = r[t] + discount * G[t + 1]``.

    Args:
        token_rewards: One row a sample: a list of rows of any length (None for no row), a `RewardBatch` with
            token rewards, or a padded array or tensor of shape (N, T).
        discount: In [0, 1]. A token that does not count is passed over, not discounted.
        mask: Of padded rows, shape (N, T); all count by default.

    Returns:
        Rows as they came: a list of float64 arrays (or tensors, or None), or an array or tensor of shape (N, T).

    Raises:
        InputError: Token rewards are not finite numbers, or the mask has another shape.
        ConfigError: `discount` is out of its range, the batch has no token rewards, or ragged rows have a mask.

    Examples:
        >>> returns([[0.0, 0.0, 1.0], [2.0]], discount=0.5)
        [array([0.25, 0.5 , 1.  ]), array([2.])]
    """
    number(discount, "discount", "", low=0.0, high=1.0)
    if isinstance(token_rewards, RewardBatch):
        if token_rewards.token_rewards is None:
            raise ConfigError("this batch has no token rewards; its reward gives one value a response")
        token_rewards = token_rewards.token_rewards
    if getattr(token_rewards, "ndim", 1) == 2:
        form = Form.of(token_rewards)
        values = form.take(token_rewards, "token rewards")
        counted = values == values if mask is None else mask_of(mask, form, tuple(values.shape))  # noqa: PLR0124
        values = namespace(values).where(counted, values, 0.0)
        _check_rows(values)
        return form.give(_discounted(values, counted, discount))
    if mask is not None:
        raise ConfigError("rows of unequal length need no mask; pass a padded array of shape (N, T) with one")
    rows = list(token_rewards)
    forms = [Form.of(row) for row in rows]
    taken = [None if row is None else np.asarray(Form().take(row, "token rewards")) for row in rows]
    longest = max((len(row) for row in taken if row is not None), default=0)
    padded, filled = np.zeros((len(rows), longest)), np.zeros((len(rows), longest), dtype=np.bool_)
    for position, row in enumerate(taken):
        if row is not None:
            padded[position, : len(row)], filled[position, : len(row)] = row, True
    _check_rows(padded)
    summed = _discounted(padded, filled, discount)
    return [
        None if row is None else form.give(form.take(summed[position, : len(row)].copy(), "token rewards"))
        for position, (row, form) in enumerate(zip(taken, forms, strict=True))
    ]


def at_last_token(rewards: Any, mask: Any = None, *, lengths: Any = None) -> Array:
    """Each reward at the last token of its response, 0 at the others, shape (N, T).

    Args:
        rewards: A `RewardBatch`, or shape (N,). NaN stays NaN, at that token.
        mask: Shape (N, T).
        lengths: Instead of a mask: tokens of each response, shape (N,), right-padded to the longest.

    Raises:
        InputError: A response has no token that counts, or shapes do not fit.
        ConfigError: Neither or both of `mask` and `lengths` are given.

    Examples:
        >>> at_last_token([0.5, 2.0], [[0, 1, 1], [1, 1, 0]])
        array([[0. , 0. , 0.5],
               [0. , 2. , 0. ]])
    """
    if (mask is None) == (lengths is None):
        raise ConfigError("give either mask=..., of shape (N, T), or lengths=..., of shape (N,)")
    form = form_of(rewards, lengths if mask is None else mask)
    values, _ = values_of(rewards, "rewards", form)
    counted = right_padded(lengths, len(values), form) if mask is None else mask_of(mask, form, (len(values), None))
    without = ~counted.any(1)
    if bool(without.any()):
        row = int(without.nonzero()[0].reshape(-1)[0])
        raise InputError("no token of this response counts, so there is none to hold its reward", index=row)
    xp = namespace(values)
    position = (counted * 1).cumsum(1)
    last = counted & (position == position[:, -1:])
    return form.give(xp.where(last, values[:, None], 0.0))


def broadcast(advantages: Any, mask: Any) -> Array:
    """Each advantage at every token of its response, 0 elsewhere, shape (N, T).

    Args:
        advantages: Shape (N,). NaN stays NaN, at the response's tokens; give the method ``missing=0.0`` for 0.
        mask: Shape (N, T).

    Raises:
        InputError: Shapes do not fit.

    Does not divide by the length: what a response weighs in the loss is the loss's business.

    Examples:
        >>> broadcast([0.5, -1.0], [[0, 1, 1], [1, 1, 0]])
        array([[ 0. ,  0.5,  0.5],
               [-1. , -1. ,  0. ]])
    """
    form = form_of(advantages, mask)
    values, _ = values_of(advantages, "advantages", form)
    counted = mask_of(mask, form, (len(values), None))
    return form.give(namespace(values).where(counted, values[:, None], 0.0))


def _check_rows(values: Array) -> None:
    if math.prod(values.shape) == 0:
        return
    check_finite(values, "token rewards")
    unknown = namespace(values).isnan(values).any(1)
    if bool(unknown.any()):
        row = int(unknown.nonzero()[0].reshape(-1)[0])
        raise InputError(f"token rewards must be numbers, found NaN in {brief(values[row])}", index=row)


def _discounted(values: Array, counted: Array, discount: float) -> Array:
    """Sums from the right over the tokens that count; `values` are 0 elsewhere."""
    xp = namespace(values)
    if discount == 1.0:
        return xp.where(counted, xp.flip(xp.flip(values, (1,)).cumsum(1), (1,)), 0.0)
    result = xp.zeros_like(values)
    running = xp.zeros_like(values.sum(1))
    for step in reversed(range(values.shape[1])):
        running = xp.where(counted[:, step], values[:, step] + discount * running, running)
        result[:, step] = running
    return xp.where(counted, result, 0.0)
