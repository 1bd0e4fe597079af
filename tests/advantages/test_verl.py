"""verl 0.9.1's own functions, in an environment that has it: rewards at the last token, ragged groups, masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from flux_rewards.advantages import (
    at_last_token,
    compute_advantages,
    masked_whiten,
    reinforce_plus_plus,
    reinforce_plus_plus_baseline,
    returns,
)

core_algos: Any = pytest.importorskip("verl.trainer.ppo.core_algos", reason="verl wants an environment of its own")
torch_functional: Any = pytest.importorskip("verl.utils.torch_functional")
AlgoConfig: Any = pytest.importorskip("verl.trainer.config").AlgoConfig

N, T = 60, 7


def rollouts(seed: int = 0) -> tuple[torch.Tensor, np.ndarray[Any, Any], torch.Tensor]:
    """Rewards, group ids of which some have one sample, and response masks padded on the right."""
    generator = np.random.default_rng(seed)
    rewards = torch.tensor(generator.integers(0, 5, N) / 4, dtype=torch.float64)
    index = np.array([f"uid-{group}" for group in generator.integers(0, 14, N)], dtype=object)
    index[:3] = ["alone-0", "alone-1", "alone-2"]
    rewards[10:14], index[10:14] = 0.1, "constant"
    lengths = torch.tensor(generator.integers(1, T + 1, N))
    return rewards, index, (torch.arange(T) < lengths[:, None]).double()


def first_tokens(values: torch.Tensor) -> torch.Tensor:
    """An outcome advantage is the same at each token; every response has one at least."""
    return values[:, 0]


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("grpo", "compute_grpo_outcome_advantage"),
        ("grpo", "compute_grpo_vectorized_outcome_advantage"),
        ("rloo", "compute_rloo_outcome_advantage"),
        ("opo", "compute_opo_outcome_advantage"),
    ],
)
def test_outcome_advantages(method: str, name: str) -> None:
    """Equal to 1e-6, singletons and constant groups among them."""
    rewards, index, mask = rollouts()
    dense = at_last_token(rewards, mask)
    expected, _ = getattr(core_algos, name)(dense.clone(), mask, index)
    options: dict[str, Any] = {"lengths": mask} if method == "opo" else {}
    found = compute_advantages(rewards, index, method, like="verl", **options)
    kept = torch.ones(N, dtype=torch.bool)
    if "vectorized" in name:  # computes in float32, where a constant group leaves a trace of rounding
        kept[10:14] = False
    torch.testing.assert_close(found[kept], first_tokens(expected).double()[kept], rtol=1e-6, atol=1e-6)


def test_without_std() -> None:
    """norm_adv_by_std_in_grpo=False is Dr. GRPO."""
    rewards, index, mask = rollouts(1)
    expected, _ = core_algos.compute_grpo_outcome_advantage(
        at_last_token(rewards, mask), mask, index, norm_adv_by_std_in_grpo=False
    )
    found = compute_advantages(rewards, index, "dr_grpo", like="verl")
    torch.testing.assert_close(found, first_tokens(expected), rtol=1e-6, atol=1e-6)


def test_vectorized_rloo_differs_for_singletons() -> None:
    """There a sample alone in its group gets 0, as everywhere here by default."""
    rewards, index, mask = rollouts(2)
    expected, _ = core_algos.compute_rloo_vectorized_outcome_advantage(at_last_token(rewards, mask), mask, index)
    torch.testing.assert_close(compute_advantages(rewards, index, "rloo"), first_tokens(expected), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("normalize", [True, False])
def test_pass_at_k(normalize: bool) -> None:
    """Groups of two at least: verl refuses others."""
    rewards, _, mask = rollouts(3)
    index = np.repeat(np.arange(N // 4), 4)
    expected, _ = core_algos.compute_grpo_passk_outcome_advantage(
        at_last_token(rewards, mask), mask, index, config=AlgoConfig(norm_adv_by_std_in_grpo=normalize)
    )
    found = compute_advantages(rewards, index, "pass_at_k", like="verl", normalize=normalize)
    torch.testing.assert_close(found, first_tokens(expected), rtol=1e-6, atol=1e-6)


def test_gdpo() -> None:
    """Two parts of unlike range; whitened over tokens, so that long responses count for more."""
    rewards, index, mask = rollouts(4)
    other = torch.tensor(np.random.default_rng(9).integers(0, 100, N), dtype=torch.float64)
    parts = {"correct": rewards.numpy(), "short": other.numpy()}
    config: dict[str, Any] = {"gdpo_reward_keys": ["correct", "short"], "gdpo_reward_weights": [1.0, 0.3]}
    prompts = torch.zeros(N, 2)
    tensors = {"prompts": prompts, "attention_mask": torch.cat([torch.ones(N, 2), mask], dim=1).long()}
    expected, _ = core_algos.compute_gdpo_outcome_advantage(
        at_last_token(rewards, mask), mask, index, config=config, non_tensor_batch=parts, batch=tensors
    )
    found = compute_advantages(
        {name: torch.tensor(column) for name, column in parts.items()},
        index,
        "gdpo",
        like="verl",
        weights=config["gdpo_reward_weights"],
        lengths=mask,
    )
    torch.testing.assert_close(found, first_tokens(expected).double(), rtol=1e-6, atol=1e-6)


def with_holes(mask: torch.Tensor) -> torch.Tensor:
    """A mask with observation tokens in the middle; the first token stays."""
    holes = mask.clone()
    holes[::3, 2] = 0
    return holes


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_reinforce_plus_plus(gamma: float) -> None:
    """Returns and their whitening, over masks with holes."""
    rewards, _, mask = rollouts(5)
    mask = with_holes(mask)
    dense = at_last_token(rewards, mask)
    expected, summed = core_algos.compute_reinforce_plus_plus_outcome_advantage(
        dense, mask, config=AlgoConfig(gamma=gamma)
    )
    torch.testing.assert_close(returns(dense, gamma, mask=mask), summed, rtol=1e-9, atol=1e-9)
    found = reinforce_plus_plus(rewards, mask, discount=gamma)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(reinforce_plus_plus(dense, mask, discount=gamma), found)


def test_reinforce_plus_plus_baseline() -> None:
    """Group mean first, then whitening."""
    rewards, index, mask = rollouts(6)
    expected, _ = core_algos.compute_reinforce_plus_plus_baseline_outcome_advantage(
        at_last_token(rewards, mask), mask, index
    )
    found = reinforce_plus_plus_baseline(rewards, index, mask, singleton="reward")
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("keep_mean", [False, True])
def test_masked_whiten(keep_mean: bool) -> None:
    """There numbers are left at tokens that do not count; here they are 0."""
    _, _, mask = rollouts(7)
    values = torch.tensor(np.random.default_rng(1).normal(3.0, 2.0, size=(N, T)))
    expected = torch_functional.masked_whiten(values, mask, shift_mean=not keep_mean) * mask
    torch.testing.assert_close(masked_whiten(values, mask, keep_mean=keep_mean), expected, rtol=1e-6, atol=1e-6)
