"""Each trainer's formula, written as its source has it, group by group, against `like=`.

Written out from the published sources, whose packages want environments of their own, a trainer around them, or a GPU;
verl's own functions are called in test_verl.py.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from flux_rewards.advantages import PRESETS, compute_advantages

SIZE = 4
NAN = math.nan


def uniform(seed: int = 0) -> torch.Tensor:
    """Twelve groups of four; one of them constant, one with ties, one nearly so."""
    rewards = torch.tensor(np.random.default_rng(seed).normal(size=(12, SIZE)))
    rewards[3] = 0.25
    rewards[5] = torch.tensor([1.0, 0.0, 1.0, 0.0])
    rewards[7] = torch.tensor([0.0, 0.0, 0.0, 1.0])
    return rewards


def with_gaps() -> torch.Tensor:
    """The same, with samples that have no score: one of a group, all but one, all."""
    rewards = uniform(1)
    rewards[0, 2] = NAN
    rewards[1, 1:] = NAN
    rewards[2] = NAN
    return rewards


def nanstd(values: torch.Tensor, dim: int | None = None) -> torch.Tensor:
    """As TRL's, which the last test compares: with n - 1, of what is not NaN; NaN where fewer than two are left."""
    if dim is None:
        return nanstd(values.flatten(), 0).squeeze()
    count = (~torch.isnan(values)).sum(dim, keepdim=True)
    squares = torch.nansum((values - torch.nanmean(values, dim, keepdim=True)) ** 2, dim, keepdim=True)
    return torch.where(count > 1, (squares / (count - 1)).sqrt(), NAN)


def trl(rewards: torch.Tensor, scale: str) -> torch.Tensor:
    """GRPOTrainer, sum_then_normalize."""
    advantages = rewards - torch.nanmean(rewards, dim=1, keepdim=True)
    if scale != "none":
        advantages = advantages / ((nanstd(rewards, 1) if scale == "group" else nanstd(rewards)) + 1e-4)
    return torch.nan_to_num(advantages, nan=0.0)


def trl_rloo(rewards: torch.Tensor, *, normalize: bool) -> torch.Tensor:
    """RLOOTrainer."""
    count = (~torch.isnan(rewards)).sum(dim=1, keepdim=True)
    advantages = rewards - (torch.nansum(rewards, dim=1, keepdim=True) - rewards) / (count - 1)
    if normalize:
        advantages = (advantages - torch.nanmean(advantages)) / (nanstd(advantages) + 1e-4)
    return torch.nan_to_num(advantages, nan=0.0)


def trl_async(rewards: torch.Tensor) -> torch.Tensor:
    """AsyncGRPO, a group at a time."""
    advantages = np.zeros_like(rewards)
    for row, group in zip(advantages, rewards.numpy(), strict=True):
        scored = ~np.isnan(group)
        if scored.any():
            row[scored] = (group[scored] - group[scored].mean()) / (group[scored].std() + 1e-8)
    return torch.tensor(advantages)


def normalized(rewards: torch.Tensor, eps: float) -> torch.Tensor:
    """OpenRLHF's group_norm, slime's and ms-swift's GRPO."""
    return (rewards - rewards.mean(-1, keepdim=True)) / (rewards.std(-1, keepdim=True) + eps)


def nemo_rl(rewards: torch.Tensor) -> torch.Tensor:
    """NeMo-RL's leave-one-out baseline and standard deviation."""
    baseline, std = torch.zeros_like(rewards), torch.zeros_like(rewards)
    for group, its_baseline, its_std in zip(rewards, baseline, std, strict=True):
        others = 1 - torch.eye(len(group), dtype=group.dtype)
        count = len(group) - 1
        mean, square = others @ group / count, others @ group**2 / count
        its_baseline[:] = mean
        its_std[:] = ((square - mean**2) * (count / (count - 1))).sqrt().nan_to_num(0)
    std[std < 1e-7] = 0.0  # what rounding leaves where the others are all equal
    advantages = rewards - baseline
    advantages[std > 0] = advantages[std > 0] / (std[std > 0] + 1e-6)
    return advantages


def flow_factory(rewards: torch.Tensor, *, global_std: bool) -> torch.Tensor:
    """Flow-Factory's "sum"."""
    advantages = np.zeros_like(rewards)
    values = rewards.numpy()
    for row, group in zip(advantages, values, strict=True):
        row[:] = (group - group.mean()) / max(float(np.std(values if global_std else group)), 1e-6)
    return torch.tensor(advantages)


def flow_grpo(rewards: torch.Tensor, *, global_std: bool) -> torch.Tensor:
    """flow_grpo's PerPromptStatTracker."""
    advantages = np.zeros_like(rewards)
    values = rewards.numpy()
    for row, group in zip(advantages, values, strict=True):
        row[:] = (group - np.mean(group)) / (np.std(values if global_std else group) + 1e-4)
    return torch.tensor(advantages)


def others(rewards: torch.Tensor) -> torch.Tensor:
    """RLOO in OpenRLHF, SkyRL and ms-swift."""
    return rewards - (rewards.sum(-1, keepdim=True) - rewards) / (SIZE - 1)


def max_rl(rewards: torch.Tensor) -> torch.Tensor:
    """SkyRL and prime-rl."""
    mean = rewards.mean(-1, keepdim=True)
    return (rewards - mean) / (mean + 1e-6)


def centred(rewards: torch.Tensor) -> torch.Tensor:
    """Dr. GRPO."""
    return rewards - rewards.mean(-1, keepdim=True)


def by_batch(rewards: torch.Tensor) -> torch.Tensor:
    """ms-swift's scale_rewards batch."""
    return centred(rewards) / (rewards.std() + 1e-4)


CASES: list[tuple[str, str, dict[str, Any], Callable[[torch.Tensor], torch.Tensor], torch.Tensor]] = [
    ("trl", "grpo", {}, lambda r: trl(r, "group"), with_gaps()),
    ("trl", "dr_grpo", {}, lambda r: trl(r, "none"), with_gaps()),
    ("trl", "batch", {}, lambda r: trl(r, "batch"), with_gaps()),
    ("trl", "rloo", {}, lambda r: trl_rloo(r, normalize=False), with_gaps()),
    ("trl", "rloo", {"normalize": True}, lambda r: trl_rloo(r, normalize=True), with_gaps()),
    ("trl_async", "grpo", {}, trl_async, with_gaps()),
    ("openrlhf", "grpo", {}, lambda r: normalized(r, 1e-9), uniform()),
    ("openrlhf", "dr_grpo", {}, centred, uniform()),
    ("openrlhf", "rloo", {}, others, uniform()),
    ("slime", "grpo", {}, lambda r: normalized(r, 1e-6), uniform()),
    ("slime", "dr_grpo", {}, centred, uniform()),
    ("nemo_rl", "grpo", {}, nemo_rl, uniform()),
    ("ms_swift", "grpo", {}, lambda r: normalized(r, 1e-4), uniform()),
    ("ms_swift", "dr_grpo", {}, centred, uniform()),
    ("ms_swift", "batch", {}, by_batch, uniform()),
    ("ms_swift", "rloo", {}, others, uniform()),
    ("nvlabs", "grpo", {}, lambda r: normalized(r, 1e-4), uniform()),
    ("skyrl", "rloo", {}, others, uniform()),
    ("skyrl", "max_rl", {}, max_rl, uniform().abs()),
    ("prime_rl", "dr_grpo", {}, centred, uniform()),
    ("prime_rl", "max_rl", {}, max_rl, uniform().abs()),
    ("flow_factory", "batch", {}, lambda r: flow_factory(r, global_std=True), uniform()),
    ("flow_factory", "grpo", {}, lambda r: flow_factory(r, global_std=False), uniform()),
    ("flow_grpo", "batch", {}, lambda r: flow_grpo(r, global_std=True), uniform()),
    ("flow_grpo", "grpo", {}, lambda r: flow_grpo(r, global_std=False), uniform()),
]


@pytest.mark.parametrize(
    ("trainer", "method", "options", "formula", "rewards"), CASES, ids=[f"{row[0]}-{row[1]}" for row in CASES]
)
def test_formula(
    trainer: str,
    method: str,
    options: dict[str, Any],
    formula: Callable[[torch.Tensor], torch.Tensor],
    rewards: torch.Tensor,
) -> None:
    """Equal to 1e-6, also beside constant groups, ties and gaps."""
    found = compute_advantages(rewards.flatten(), SIZE, method, like=trainer, **options)
    np.testing.assert_allclose(found, formula(rewards).flatten(), rtol=1e-6, atol=1e-6)


def skyrl_by_group(scores: dict[int, list[float]], *, divide: bool) -> list[float]:
    """SkyRL's loop (from an older verl) over ragged groups."""
    found = []
    for rewards in scores.values():
        mean = float(np.mean(rewards)) if len(rewards) > 1 else 0.0
        std = float(np.std(rewards, ddof=1)) if len(rewards) > 1 else 1.0
        found += [(reward - mean) / (std + 1e-6) if divide else reward - mean for reward in rewards]
    return found


@pytest.mark.parametrize(("method", "divide"), [("grpo", True), ("dr_grpo", False)])
def test_skyrl_by_group(method: str, divide: bool) -> None:
    """Ragged groups, singletons among them, which keep their reward."""
    scores = {0: [1.0, 0.0, 0.5], 1: [0.7], 2: [0.2, 0.2], 3: [-2.0], 4: [0.0, 1.0, 0.0, 0.0, 1.0]}
    groups = [group for group, rewards in scores.items() for _ in rewards]
    found = compute_advantages(
        [reward for rewards in scores.values() for reward in rewards], groups, method, like="skyrl"
    )
    np.testing.assert_allclose(found, skyrl_by_group(scores, divide=divide), rtol=1e-6, atol=1e-9)


def test_skyrl_max_rl_keeps_singletons() -> None:
    """As its loop does."""
    assert compute_advantages([0.5, 1.0, 0.0], [0, 1, 1], "max_rl", like="skyrl")[0] == 0.5


def test_prime_rl_length_weighted_mean() -> None:
    """Its length_weighted_mean option is OPO's baseline."""
    rewards, lengths = uniform(2), torch.arange(1, 49).reshape(12, SIZE).double()
    expected = rewards - (rewards * lengths).sum(1, keepdim=True) / lengths.sum(1, keepdim=True)
    found = compute_advantages(rewards.flatten(), SIZE, "opo", like="prime_rl", lengths=lengths.flatten())
    np.testing.assert_allclose(found, expected.flatten(), atol=1e-12)


def trl_gdpo(parts: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """TRL 1.16, normalize_then_sum; parts of shape (N, K)."""
    unscorable = torch.isnan(parts).all(dim=1)
    grouped = parts.view(-1, SIZE, parts.shape[1])
    each = (grouped - torch.nanmean(grouped, dim=1, keepdim=True)) / (nanstd(grouped, 1) + 1e-4)
    total = (each.view(-1, parts.shape[1]) * weights).nansum(dim=1)
    total[unscorable] = NAN
    return torch.nan_to_num((total - torch.nanmean(total)) / (nanstd(total) + 1e-4), nan=0.0)


def nvlabs_gdpo(parts: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The authors' TRL 0.18."""
    filled = torch.nan_to_num(parts)
    total = sum(weights[k] * normalized(filled[:, k].view(-1, SIZE), 1e-4).flatten() for k in range(parts.shape[1]))
    assert isinstance(total, torch.Tensor)
    return (total - total.mean()) / (total.std() + 1e-4)


def nemo_gdpo(parts: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """NeMo-RL with its leave-one-out baseline."""
    total = sum(weights[k] * nemo_rl(parts[:, k].reshape(-1, SIZE)).flatten() for k in range(parts.shape[1]))
    assert isinstance(total, torch.Tensor)
    return (total - total.mean()) / total.std()


def swift_gdpo(parts: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """ms-swift, scale_rewards gdpo."""
    total = torch.zeros(len(parts), dtype=parts.dtype)
    for k in range(parts.shape[1]):
        column = parts[:, k].reshape(-1, SIZE)
        score = (column - torch.nanmean(column, dim=1, keepdim=True)) / (nanstd(column, 1) + 1e-8)
        total += weights[k] * torch.nan_to_num(score, nan=0.0).flatten()
    return (total - total.mean()) / (total.std() + 1e-8)


def flow_factory_gdpo(parts: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Flow-Factory's default."""
    total = np.zeros(len(parts))
    for k in range(parts.shape[1]):
        for start in range(0, len(parts), SIZE):
            group = parts[start : start + SIZE, k].numpy()
            total[start : start + SIZE] += (group - group.mean()) / max(float(group.std()), 1e-6) * float(weights[k])
    return torch.tensor((total - total.mean()) / max(float(total.std()), 1e-6))


def two_parts(*, gaps: bool) -> torch.Tensor:
    """Columns of unlike range, (48, 2)."""
    first = with_gaps() if gaps else uniform()
    second = uniform(5) * 100
    second[2, 1:] = NAN if gaps else 1.0
    second[4, :2] = NAN if gaps else 2.0
    return torch.stack([first.flatten(), second.flatten()], dim=1)


GDPO: list[tuple[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor], bool]] = [
    ("trl", trl_gdpo, True),
    ("nvlabs", nvlabs_gdpo, True),
    ("nemo_rl", nemo_gdpo, False),
    ("ms_swift", swift_gdpo, True),
    ("flow_factory", flow_factory_gdpo, False),
]


@pytest.mark.parametrize(("trainer", "formula", "gaps"), GDPO, ids=[row[0] for row in GDPO])
def test_gdpo(trainer: str, formula: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], gaps: bool) -> None:
    """Its variants, with parts that do not apply where the trainer knows those."""
    parts, weights = two_parts(gaps=gaps), torch.tensor([1.0, 0.3], dtype=torch.float64)
    expected = formula(parts, weights)
    found = compute_advantages(parts, SIZE, "gdpo", like=trainer, weights=weights.tolist())
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    as_mapping = {"a": parts[:, 0].numpy(), "b": parts[:, 1].numpy()}
    again = compute_advantages(as_mapping, SIZE, "gdpo", like=trainer, weights={"b": 0.3, "a": 1.0})
    np.testing.assert_allclose(again, expected, rtol=1e-6, atol=1e-6)


def test_every_preset_is_tested_and_works() -> None:
    """A trainer that is added is added here or in test_verl.py."""
    tested = {(row[0], row[1]) for row in CASES} | {(row[0], "gdpo") for row in GDPO}
    tested |= {("skyrl", "grpo"), ("skyrl", "dr_grpo"), ("prime_rl", "opo")}
    stated = {(trainer, method) for trainer, methods in PRESETS.items() for method in methods if trainer != "verl"}
    assert stated == tested


@pytest.mark.slow
def test_nanstd_is_trls() -> None:
    """The one piece of TRL's formulas that can be called alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        utils = pytest.importorskip("trl.trainer.utils")
    rewards = with_gaps()
    torch.testing.assert_close(nanstd(rewards, 1), utils.nanstd(rewards, dim=1, keepdim=True), equal_nan=True)
    torch.testing.assert_close(nanstd(rewards), utils.nanstd(rewards))
