"""What the library adds to five trivial rewards, against a bare loop over the same five functions.

    python tests/benchmarks/overhead.py

Prints one table: microseconds per sample and part (median of interleaved rounds), and the ratio to the bare loop. The
loop calls each function once a sample and sums with the weights; it checks, names, orders and records nothing.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from flux_rewards import CompositeReward, RewardFunction, Sample

SAMPLES = 4096
ROUNDS = 21


def length(sample: Sample) -> float:
    """Characters."""
    return float(len(sample.response))  # type: ignore[arg-type]


def ends_well(sample: Sample) -> float:
    """Whether it ends with a full stop."""
    return 1.0 if sample.response[-1] == "." else 0.0  # type: ignore[index]


def matches(sample: Sample) -> float:
    """Whether it is the reference."""
    return 1.0 if sample.response == sample.reference else 0.0


def has_digit(sample: Sample) -> float:
    """Whether there is a four in it."""
    return 1.0 if "4" in sample.response else 0.0  # type: ignore[operator]


def constant(sample: Sample) -> float:
    """Nothing at all."""
    return 0.5


FUNCTIONS: list[Callable[[Sample], float]] = [length, ends_well, matches, has_digit, constant]
WEIGHTS = [0.1, 1.0, 2.0, -0.5, 1.0]


def by_batch(function: Callable[[Sample], float]) -> RewardFunction:
    """A reward that overrides `compute_rewards`."""

    class ByBatch(RewardFunction):
        required_fields = ("response",)
        name = function.__name__

        def compute_rewards(self, samples: Sequence[Sample]) -> Any:
            return [function(sample) for sample in samples]

    return ByBatch()


def by_sample(function: Callable[[Sample], float]) -> RewardFunction:
    """A reward that overrides `compute_reward`."""

    class BySample(RewardFunction):
        required_fields = ("response",)
        name = function.__name__

        def compute_reward(self, sample: Sample) -> float:
            return function(sample)

    return BySample()


def bare_loop(samples: Sequence[Sample]) -> list[float]:
    """What a script does by hand."""
    return [
        sum(weight * function(sample) for function, weight in zip(FUNCTIONS, WEIGHTS, strict=True))
        for sample in samples
    ]


def bare_columns(samples: Sequence[Sample]) -> Any:
    """The same by column: the least that a composite could do with these functions."""
    columns = [[function(sample) for sample in samples] for function in FUNCTIONS]
    return np.array(WEIGHTS) @ np.array(columns)


def score(reward: RewardFunction, samples: Sequence[Sample]) -> Any:
    """What a trainer calls."""
    return reward(samples).rewards


def main() -> None:
    """Measure and print."""
    samples = [Sample(f"p{i // 8}", f"response number {i}.", reference=f"response number {i}.") for i in range(SAMPLES)]
    composites = {
        "composite, compute_rewards": CompositeReward(
            [(by_batch(f), w) for f, w in zip(FUNCTIONS, WEIGHTS, strict=True)]
        ),
        "composite, compute_reward": CompositeReward(
            [(by_sample(f), w) for f, w in zip(FUNCTIONS, WEIGHTS, strict=True)]
        ),
    }
    runs: dict[str, Callable[[], Any]] = {
        "bare loop, by sample": lambda: bare_loop(samples),
        "bare loop, by column": lambda: bare_columns(samples),
        **{name: functools.partial(score, reward, samples) for name, reward in composites.items()},
    }
    expected = bare_loop(samples)
    for name, run in runs.items():
        np.testing.assert_allclose(run(), expected, err_msg=name)

    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)

    table = Table(title=f"{SAMPLES} samples, {len(FUNCTIONS)} rewards, median of {ROUNDS} interleaved rounds")
    for column in ("what", "us per sample and part", "ratio to the bare loop", "added to it, us"):
        table.add_column(column, justify="left" if column == "what" else "right")
    per_call = {name: statistics.median(times) / (SAMPLES * len(FUNCTIONS)) * 1e6 for name, times in seconds.items()}
    base = per_call["bare loop, by sample"]
    for name, cost in per_call.items():
        table.add_row(name, f"{cost:.3f}", f"{cost / base:.2f}", f"{cost - base:+.3f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
