"""Values a token: returns, placement, broadcasting, whitening."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from flux_rewards import RewardBatch
from flux_rewards.advantages import (
    at_last_token,
    broadcast,
    masked_whiten,
    reinforce_plus_plus,
    reinforce_plus_plus_baseline,
    returns,
)
from flux_rewards.errors import FluxRewardsError

NAN = math.nan
# Padded on the right, on the left, and with a hole.
MASK = [[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 1]]
KINDS: list[Callable[..., Any]] = [np.array, torch.tensor]


def numbers(values: Any) -> list[Any]:
    """Arrays and tensors as lists."""
    return values.tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", KINDS)
def test_at_the_last_token(kind: Callable[..., Any]) -> None:
    """The last that counts, wherever the padding is."""
    expected = [[0, 1, 0, 0], [0, 0, 0, 2], [0, 0, 0, 3]]
    assert numbers(at_last_token(kind([1.0, 2.0, 3.0]), kind(MASK))) == expected
    assert numbers(at_last_token(kind([1.0, 2.0]), lengths=kind([1, 3]))) == [[1, 0, 0], [0, 0, 2]]


@pytest.mark.parametrize("kind", KINDS)
def test_broadcast(kind: Callable[..., Any]) -> None:
    """Nothing but 0 outside, even beside NaN."""
    found = broadcast(kind([1.0, -2.0, NAN]), kind(MASK))
    expected = [[1, 1, 0, 0], [0, 0, -2, -2], [NAN, 0, NAN, NAN]]
    np.testing.assert_array_equal(np.asarray(found), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_returns(kind: Callable[..., Any]) -> None:
    """Worked by hand at a discount of ½; a token that does not count is passed over."""
    rewards = kind([[1.0, 2.0, 9.0, 9.0], [9.0, 9.0, 0.0, 4.0], [1.0, 9.0, 0.0, 8.0]])
    assert numbers(returns(rewards, 0.5, mask=kind(MASK))) == [[2, 2, 0, 0], [0, 0, 2, 4], [3, 0, 4, 8]]
    assert numbers(returns(rewards, mask=kind(MASK))) == [[3, 2, 0, 0], [0, 0, 4, 4], [9, 0, 8, 8]]
    assert numbers(returns(rewards, 0.0, mask=kind(MASK))) == [[1, 2, 0, 0], [0, 0, 0, 4], [1, 0, 0, 8]]
    assert numbers(returns(kind([[1.0, 1.0, 1.0]]), 0.5)) == [[1.75, 1.5, 1.0]]


def test_ragged_returns() -> None:
    """Rows of any length, none at all, and those of a batch."""
    rows = [np.array([0.0, 0.0, 1.0]), None, np.array([]), np.array([2.0])]
    found = returns(rows, 0.5)
    assert [None if row is None else row.tolist() for row in found] == [[0.25, 0.5, 1.0], None, [], [2.0]]
    batch = RewardBatch(np.array([1.0, 2.0, 0.0, 0.0]), token_rewards=[rows[0], rows[3], None, None])
    assert [None if row is None else row.tolist() for row in returns(batch)] == [[1.0, 1.0, 1.0], [2.0], None, None]
    tensors = returns([torch.tensor([1.0, 1.0]), torch.tensor([1.0])], 0.5)
    assert [row.tolist() for row in tensors] == [[1.5, 1.0], [1.0]]
    assert tensors[0].dtype == torch.float32


def test_undiscounted_returns_start_at_the_total() -> None:
    """Against a plain loop, at every discount."""
    generator = np.random.default_rng(0)
    rewards, mask = generator.normal(size=(5, 9)), generator.random((5, 9)) < 0.7
    for discount in (1.0, 0.99, 0.3):
        expected = np.zeros_like(rewards)
        for row in range(5):
            ahead = 0.0
            for step in reversed(range(9)):
                if mask[row, step]:
                    ahead = rewards[row, step] + discount * ahead
                    expected[row, step] = ahead
        np.testing.assert_allclose(returns(rewards, discount, mask=mask), expected, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_whitening(kind: Callable[..., Any]) -> None:
    """Over what counts alone: 1, 3, 5, 7 have the mean 4 and the variance 20 / 3, or 5."""
    values, mask = kind([[1.0, 3.0, 99.0], [NAN, 5.0, 7.0]]), kind([[1, 1, 0], [0, 1, 1]])
    deviations = np.array([[-3.0, -1.0, 0.0], [0.0, 1.0, 3.0]])
    np.testing.assert_allclose(masked_whiten(values, mask, eps=0.0), deviations / math.sqrt(20 / 3), atol=1e-6)
    biased = masked_whiten(values, mask, eps=0.0, unbiased=False)
    np.testing.assert_allclose(biased, deviations / math.sqrt(5), atol=1e-6)
    floored = masked_whiten(values, mask, eps=10.0, eps_rule="max")
    np.testing.assert_allclose(floored, deviations / 10, atol=1e-6)
    kept = masked_whiten(values, mask, eps=0.0, keep_mean=True)
    np.testing.assert_allclose(kept, (deviations / math.sqrt(20 / 3) + 4) * np.array([[1, 1, 0], [0, 1, 1]]), atol=1e-6)


def test_whitening_without_a_score() -> None:
    """It stays NaN, and the rest is as without it."""
    found = masked_whiten([[1.0, 3.0], [NAN, NAN]], [[1, 1], [1, 0]])
    np.testing.assert_allclose(found[0], masked_whiten([[1.0, 3.0]], [[1, 1]])[0])
    np.testing.assert_array_equal(found[1], [NAN, 0.0])
    filled = reinforce_plus_plus_baseline([1.0, 0.0, NAN], ["a", "a", "b"], [[1, 1]] * 3, missing=0.0)
    np.testing.assert_allclose(filled, [[math.sqrt(0.75)] * 2, [-math.sqrt(0.75)] * 2, [0.0, 0.0]], atol=1e-6)


def clamped(values: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The global normalization of NeMo-RL and OpenRLHF: the variance is cut off below."""
    mean = (values * mask).sum() / mask.sum()
    variance = ((values - mean) ** 2 * mask).sum() / mask.sum()
    whitened: np.ndarray[Any, Any] = (values - mean) / math.sqrt(max(variance, 1e-8)) * mask
    return whitened


@pytest.mark.parametrize("spread", [1.0, 1e-5])
def test_reinforce_plus_plus_of_nemo_rl(spread: float) -> None:
    """Its baseline form, at ordinary and at tiny differences."""
    rewards, mask = np.array([0.0, 1.0, 3.0, 4.0]) * spread, np.array([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 1]])
    centred = (rewards - np.repeat([0.5, 3.5], 2) * spread)[:, None] * np.ones((4, 3))
    found = reinforce_plus_plus_baseline(rewards, 2, mask, unbiased=False, eps=1e-4, eps_rule="max")
    np.testing.assert_allclose(found, clamped(centred, mask), atol=1e-9)


def test_dense_and_sparse_rewards_agree() -> None:
    """One reward a sample is that reward at its last token."""
    mask = np.array(MASK)
    sparse = reinforce_plus_plus([1.0, 2.0, 4.0], mask, discount=0.5)
    np.testing.assert_array_equal(sparse, reinforce_plus_plus(at_last_token([1.0, 2.0, 4.0], mask), mask, discount=0.5))


def test_the_type_follows_the_mask() -> None:
    """Rewards of a batch, which are NumPy, meet masks of a policy, which are not."""
    batch, mask = RewardBatch(np.array([1.0, 2.0, 3.0])), torch.tensor(MASK, dtype=torch.bool)
    for found in (at_last_token(batch, mask), broadcast(batch.rewards, mask), reinforce_plus_plus(batch, mask)):
        assert found.dtype == torch.float32
    assert reinforce_plus_plus_baseline(batch, [0, 0, 0], mask).dtype == torch.float32
    assert broadcast(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), mask).dtype == torch.float64
    assert isinstance(broadcast([1.0, 2.0, 3.0], MASK), np.ndarray)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: at_last_token([1.0], [[0, 0]]), "sample 0.*no token"),
        (lambda: at_last_token([1.0], lengths=[0]), "sample 0.*no token"),
        (lambda: at_last_token([1.0]), "either mask"),
        (lambda: at_last_token([1.0], [[1]], lengths=[1]), "either mask"),
        (lambda: broadcast([1.0, 2.0], [[1, 1]]), r"shape \(2, T\), found \(1, 2\)"),
        (lambda: broadcast([1.0, 2.0], [1, 1]), r"found \(2,\)"),
        (lambda: returns([[1.0]], 1.5), "discount"),
        (lambda: returns([[1.0], [0.0, NAN]]), "sample 1.*NaN"),
        (lambda: returns(np.array([[1.0, math.inf]])), "sample 0.*infinity"),
        (lambda: returns([[1.0]], mask=[[1]]), "no mask"),
        (lambda: returns(np.array([[1.0]]), mask=[[1, 1]]), r"shape \(1, 1\), found \(1, 2\)"),
        (lambda: returns(RewardBatch(np.array([1.0]))), "no token rewards"),
        (lambda: masked_whiten([[1.0, 2.0]], [[0, 0]]), "0 tokens count"),
        (lambda: masked_whiten([[1.0, 2.0]], [[1, 0]]), "no unbiased standard deviation"),
        (lambda: masked_whiten([[1.0, 2.0]], [[1, 1]], eps=-1.0), "eps"),
        (lambda: reinforce_plus_plus([NAN, 1.0], [[1], [1]]), "NaN"),
    ],
)
def test_what_cannot_be_used(call: Callable[[], Any], message: str) -> None:
    """Errors say which sample, and what was expected."""
    with pytest.raises(FluxRewardsError, match=message):
        call()
