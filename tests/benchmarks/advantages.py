"""Group z-scores of 65,536 rewards in ragged groups, against the loop over groups that trainers run.

    python tests/benchmarks/advantages.py

Prints one table: milliseconds (median of interleaved rounds), and how many times faster each is than the loop over a
dict. Where verl is installed its own two functions run on the same rewards, one token a response. Ids are integers
unless a row says otherwise; with texts, most of the time goes into hashing 65,536 of them, here as in the loop.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from flux_rewards.advantages import gdpo, grpo, rank

REWARDS = 65_536
MEAN_SIZE = 8
ROUNDS = 7


def loop(rewards: Any, groups: Any) -> Any:
    """Collect each group's rewards in a dict, then mean and standard deviation group by group."""
    scores: dict[Any, list[float]] = defaultdict(list)
    for reward, group in zip(rewards, groups, strict=True):
        scores[group].append(reward)
    mean = {group: np.mean(of_group) if len(of_group) > 1 else 0.0 for group, of_group in scores.items()}
    std = {group: np.std(of_group, ddof=1) if len(of_group) > 1 else 1.0 for group, of_group in scores.items()}
    return np.array(
        [(reward - mean[group]) / (std[group] + 1e-6) for reward, group in zip(rewards, groups, strict=True)]
    )


def contenders(rewards: Any, ids: Any) -> dict[str, Callable[[], Any]]:
    """What is measured, the loop first; all but the last two give the same numbers."""
    numbers = np.unique(ids, return_inverse=True)[1]
    tensor, its_numbers = torch.tensor(rewards), torch.tensor(numbers)
    texts = ids.tolist()
    options: dict[str, Any] = {"eps": 1e-6, "singleton": "reward"}
    runs: dict[str, Callable[[], Any]] = {
        "loop over groups (numpy, dict)": lambda: loop(rewards, numbers),
        "loop, ids as texts": lambda: loop(rewards, texts),
        "grpo": lambda: grpo(rewards, numbers, **options),
        "grpo, ids as texts": lambda: grpo(rewards, texts, **options),
        "grpo, tensors on the CPU": lambda: grpo(tensor, its_numbers, **options),
    }
    if importlib.util.find_spec("verl") is not None:
        from verl.trainer.ppo import core_algos  # type: ignore[import-not-found, unused-ignore]

        column, mask = tensor[:, None], torch.ones(len(tensor), 1, dtype=tensor.dtype)
        runs["verl, compute_grpo_outcome_advantage"] = lambda: core_algos.compute_grpo_outcome_advantage(
            column.clone(), mask, ids
        )[0][:, 0]
        runs["verl, grpo_vectorized"] = lambda: core_algos.compute_grpo_vectorized_outcome_advantage(column, mask, ids)[
            0
        ][:, 0]
    runs["rank"] = lambda: rank(rewards, numbers)
    runs["gdpo of 3 parts"] = lambda: gdpo(np.stack([rewards, -rewards, rewards**2], axis=1), numbers, [1.0] * 3)
    return runs


def main() -> None:
    """Measure and print."""
    generator = np.random.default_rng(0)
    ids = np.array([f"uid-{group:08x}" for group in generator.integers(0, REWARDS // MEAN_SIZE, REWARDS)], dtype=object)
    rewards = generator.normal(size=REWARDS)
    runs = contenders(rewards, ids)
    expected = loop(rewards, ids)
    for name, run in runs.items():
        if name.startswith(("rank", "gdpo")):
            run()
        else:
            tolerance = {"loop": 0.0, "grpo": 1e-9}.get(name[:4], 1e-4)  # verl computes partly in float32
            np.testing.assert_allclose(np.asarray(run()), expected, rtol=tolerance, atol=tolerance, err_msg=name)

    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)

    groups = len(set(ids.tolist()))
    table = Table(title=f"{REWARDS} rewards in {groups} ragged groups, median of {ROUNDS} interleaved rounds")
    for column in ("what", "ms", "times the loop's speed"):
        table.add_column(column, justify="left" if column == "what" else "right")
    median = {name: statistics.median(times) * 1e3 for name, times in seconds.items()}
    base = next(iter(median.values()))
    for name, cost in median.items():
        table.add_row(name, f"{cost:.2f}", f"{base / cost:.1f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
