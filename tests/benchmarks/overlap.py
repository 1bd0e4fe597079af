"""Scoring beside sampling: `RewardBuffer` against the plain thread-pool buffer of today's trainers.

    python tests/benchmarks/overlap.py

The peer is written here from its description: one pool with the sum of all rewards' workers, a task for each batch that
is complete, and `future.result()` in order at the end; it has no limit for each reward, and no time-out. Sleeps stand
for requests, and for sampling on another device. Prints two tables: seconds (median of interleaved rounds) with ratios
to the ideal and to the peer, and how many calls of a reward that is limited to one were in flight.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from rich.console import Console
from rich.table import Table

from flux_rewards import CompositeReward, RewardBuffer, RewardFunction, Sample

ROUNDS = 5
CALLS, CALL_SECONDS, WORKERS = 256, 0.050, 32
STEPS, STEP_SECONDS, SCORE_SECONDS, SAMPLES_A_STEP = 20, 0.100, 0.080, 8


class Slow(RewardFunction):
    """Takes its time, and counts how many calls are in flight."""

    def __init__(self, seconds: float, **options: Any) -> None:
        super().__init__(**options)
        self.seconds = seconds
        self.lock = threading.Lock()
        self.in_flight = 0
        self.most = 0

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        """Sleep."""
        with self.lock:
            self.in_flight += 1
            self.most = max(self.most, self.in_flight)
        time.sleep(self.seconds)
        with self.lock:
            self.in_flight -= 1
        return [float(len(sample.response)) for sample in samples]  # type: ignore[arg-type]


class PlainBuffer:
    """The peer: one pool of the sum of workers, results awaited in order."""

    def __init__(self, rewards: Sequence[Slow]) -> None:
        self.rewards = rewards
        self.pool = ThreadPoolExecutor(sum(reward.num_workers for reward in rewards))
        self.samples: list[Sample] = []
        self.begun = [0] * len(rewards)
        self.futures: list[list[Future[Any]]] = [[] for _ in rewards]

    def add(self, samples: Sequence[Sample]) -> None:
        """Start every batch that is complete."""
        self.samples.extend(samples)
        for number, reward in enumerate(self.rewards):
            size = reward.batch_size or 1
            while len(self.samples) - self.begun[number] >= size:
                batch = self.samples[self.begun[number] : self.begun[number] + size]
                self.futures[number].append(self.pool.submit(reward.compute_rewards, batch))
                self.begun[number] += size

    def finalize(self) -> list[list[float]]:
        """Wait for all of them."""
        return [[value for future in futures for value in future.result()] for futures in self.futures]


def samples(count: int) -> list[Sample]:
    """Responses of all lengths."""
    return [Sample(response="x" * (index % 7)) for index in range(count)]


def many_calls(make: Callable[[list[Slow]], Any]) -> float:
    """Seconds for all calls of one reward."""
    buffer, batch = make([Slow(CALL_SECONDS, batch_size=1, num_workers=WORKERS)]), samples(CALLS)
    started = time.perf_counter()
    buffer.add(batch)
    buffer.finalize()
    return time.perf_counter() - started


def sampling(make: Callable[[list[Slow]], Any]) -> float:
    """Seconds for all steps, whose samples are scored while the next ones are sampled."""
    buffer = make([Slow(SCORE_SECONDS, batch_size=SAMPLES_A_STEP)])
    started = time.perf_counter()
    for _ in range(STEPS):
        time.sleep(STEP_SECONDS)
        buffer.add(samples(SAMPLES_A_STEP))
    buffer.finalize()
    return time.perf_counter() - started


def limited(make: Callable[[list[Slow]], Any]) -> int:
    """The most calls in flight of a reward of one worker, beside one of eight."""
    model, service = Slow(0.005, batch_size=4), Slow(0.005, batch_size=1, num_workers=8)
    buffer = make([model, service])
    buffer.add(samples(128))
    buffer.finalize()
    return model.most


def ours(rewards: list[Slow]) -> RewardBuffer:
    """A buffer of the library."""
    return RewardBuffer(CompositeReward([(reward, 1.0) for reward in rewards]))


def main() -> None:
    """Time it."""
    makers: dict[str, Callable[[list[Slow]], Any]] = {"RewardBuffer": ours, "plain pool": PlainBuffer}
    cases = {
        f"{CALLS} calls of {CALL_SECONDS * 1000:.0f} ms, {WORKERS} workers": (
            many_calls,
            CALLS * CALL_SECONDS / WORKERS,
        ),
        f"{STEPS} steps of {STEP_SECONDS * 1000:.0f} ms, {SCORE_SECONDS * 1000:.0f} ms rewards": (
            sampling,
            STEPS * STEP_SECONDS,
        ),
    }
    table = Table("what", "buffer", "seconds", "ideal", "ratio to it", "ratio to the peer", title=f"{ROUNDS} rounds")
    for what, (case, ideal) in cases.items():
        seconds: dict[str, list[float]] = {name: [] for name in makers}
        for _ in range(ROUNDS):
            for name, make in makers.items():
                seconds[name].append(case(make))
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        for name, median in medians.items():
            ratio, to_peer = median / ideal, median / medians["plain pool"]
            table.add_row(what, name, f"{median:.3f}", f"{ideal:.2f}", f"{ratio:.3f}", f"{to_peer:.3f}")
    console = Console()
    console.print(table)
    flights = Table("buffer", "most calls in flight of a reward with num_workers=1")
    for name, make in makers.items():
        flights.add_row(name, str(max(limited(make) for _ in range(ROUNDS))))
    console.print(flights)


if __name__ == "__main__":
    main()
