"""Scoring beside sampling: `RewardBuffer` against the plain thread-pool buffer of today's trainers.

    python tests/benchmarks/overlap.py

The peer is written here from its description: one pool with the sum of all rewards' workers, a task for each batch that
is complete, and `future.result()` in order at the end; it has no limit for each reward, and no time-out. Sleeps stand
for requests, and for sampling on another device. Prints three tables: seconds of many short calls; seconds of steps
that sample and score (medians and maxima of interleaved rounds, as ratios to what is ideal and to the peer); and how
many calls of a reward that bears one at a time were in flight beside those of a service.
"""

from __future__ import annotations

import functools
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from rich.console import Console
from rich.table import Table

from flux_rewards import CompositeReward, RewardBuffer, RewardFunction, Sample

ROUNDS = 5
CALLS, CALL_SECONDS, WORKERS = 256, 0.050, 32
STEPS, STEP_SECONDS, SCORE_SECONDS, SAMPLES_A_STEP = 20, 0.100, 0.080, 8
MIXED_SAMPLES, MIXED_SECONDS, MIXED_WORKERS = 128, 0.005, 8
PEER = "plain pool"


class Flights:
    """Counts the calls that are in flight."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.now = 0
        self.most = 0

    def __enter__(self) -> int:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            return self.now

    def __exit__(self, *_exc: object) -> None:
        with self.lock:
            self.now -= 1


class Service(RewardFunction):
    """A request for each sample."""

    required_fields = ("response",)

    def __init__(self, seconds: float, **options: Any) -> None:
        super().__init__(**options)
        self.seconds = seconds
        self.flights = Flights()

    def compute_reward(self, sample: Sample) -> float:
        """Wait for the answer."""
        with self.flights:
            time.sleep(self.seconds)
        return float(len(sample.response))  # type: ignore[arg-type]


class Model(RewardFunction):
    """A model that is given a batch, and must not be given another one meanwhile."""

    required_fields = ("response",)

    def __init__(self, seconds: float, **options: Any) -> None:
        super().__init__(**options)
        self.seconds = seconds
        self.flights = Flights()

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        """Compute, alone."""
        with self.flights as in_flight:
            time.sleep(self.seconds)
            if in_flight > 1:
                raise RuntimeError(f"{in_flight} calls at once")
        return [float(len(sample.response)) for sample in samples]  # type: ignore[arg-type]


class Buffer(Protocol):
    """What a trainer uses."""

    def add(self, samples: Sequence[Sample]) -> None:
        """Take samples in."""

    def finalize(self) -> Any:
        """Give the totals of all samples, and begin anew."""


Make = Callable[[Sequence[RewardFunction]], Buffer]


class PlainBuffer:
    """The peer: one pool of the sum of workers, results awaited in order."""

    def __init__(self, rewards: Sequence[RewardFunction]) -> None:
        self.rewards = rewards
        self.pool = ThreadPoolExecutor(sum(reward.num_workers for reward in rewards))
        self.clear()

    def clear(self) -> None:
        """Begin a step."""
        self.samples: list[Sample] = []
        self.begun = [0] * len(self.rewards)
        self.futures: list[list[Future[Any]]] = [[] for _ in self.rewards]

    def add(self, samples: Sequence[Sample]) -> None:
        """Start every batch that is complete."""
        self.samples.extend(samples)
        for number, reward in enumerate(self.rewards):
            size = reward.batch_size or 1
            while len(self.samples) - self.begun[number] >= size:
                batch = self.samples[self.begun[number] : self.begun[number] + size]
                self.futures[number].append(self.pool.submit(reward.compute_rewards, batch))
                self.begun[number] += size

    def finalize(self) -> Any:
        """Wait for all of them."""
        try:
            return np.sum([np.concatenate([future.result() for future in futures]) for futures in self.futures], axis=0)
        finally:
            self.clear()


class ScoreAfterwards:
    """The library's plain call, when all is sampled: no overlap."""

    def __init__(self, rewards: Sequence[RewardFunction]) -> None:
        self.reward = total_of(rewards)
        self.samples: list[Sample] = []

    def add(self, samples: Sequence[Sample]) -> None:
        """Only keep them."""
        self.samples.extend(samples)

    def finalize(self) -> Any:
        """Score."""
        samples, self.samples = self.samples, []
        return self.reward(samples)


def total_of(rewards: Sequence[RewardFunction]) -> CompositeReward:
    """Their sum."""
    return CompositeReward([(reward, 1.0) for reward in rewards])


def ours(rewards: Sequence[RewardFunction]) -> RewardBuffer:
    """A buffer of the library."""
    return RewardBuffer(total_of(rewards))


MAKERS: dict[str, Make] = {"RewardBuffer": ours, PEER: PlainBuffer}


def texts(count: int, first: int = 0) -> list[Sample]:
    """Responses of many lengths."""
    return [Sample(response="x" * (index % 7)) for index in range(first, first + count)]


def many_calls(buffer: Buffer) -> None:
    """All calls of one reward."""
    buffer.add(texts(CALLS))
    assert_totals(buffer.finalize(), CALLS)


def sample_and_score(buffer: Buffer | None) -> None:
    """All steps; without a buffer, what the sampling alone takes."""
    for step in range(STEPS):
        time.sleep(STEP_SECONDS)
        batch = texts(SAMPLES_A_STEP, step * SAMPLES_A_STEP)
        if buffer is not None:
            buffer.add(batch)
    if buffer is not None:
        assert_totals(buffer.finalize(), STEPS * SAMPLES_A_STEP)


def assert_totals(result: Any, count: int, parts: int = 1) -> None:
    """A fast wrong answer is none: this is part of what is timed, for all alike."""
    expected = [parts * (index % 7) for index in range(count)]
    np.testing.assert_array_equal(getattr(result, "rewards", result), expected)


def timed(runs: dict[str, Callable[[], None]]) -> dict[str, list[float]]:
    """Seconds of interleaved rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def compared(title: str, seconds: dict[str, list[float]], reference: tuple[str, float]) -> Table:
    """A row for each."""
    what, ideal = reference
    columns = ("median, s", "longest, s", f"ratio to {what}", f"ratio to the {PEER}")
    table = Table("buffer", title=title)
    for column in columns:
        table.add_column(column, justify="right")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        ratios = (f"{median / ideal:.3f}", f"{median / medians[PEER]:.3f}")
        table.add_row(name, f"{median:.3f}", f"{max(seconds[name]):.3f}", *ratios)
    return table


def calls_table() -> Table:
    """Many short calls at once."""
    ideal = CALLS * CALL_SECONDS / WORKERS
    runs: dict[str, Callable[[], None]] = {
        name: functools.partial(many_calls, make([Service(CALL_SECONDS, num_workers=WORKERS)]))
        for name, make in MAKERS.items()
    }
    title = f"{CALLS} calls of {CALL_SECONDS * 1000:.0f} ms, {WORKERS} workers, {ROUNDS} rounds"
    return compared(title, timed(runs), (f"the ideal {ideal:.1f} s", ideal))


def steps_table() -> Table:
    """Steps whose samples are scored while the next ones are sampled."""
    runs: dict[str, Callable[[], None]] = {
        name: functools.partial(sample_and_score, make([Model(SCORE_SECONDS, batch_size=SAMPLES_A_STEP)]))
        for name, make in {**MAKERS, "scored afterwards": ScoreAfterwards}.items()
    }
    seconds = timed({"sampling alone": functools.partial(sample_and_score, None), **runs})
    sizes = f"{STEPS} steps of {STEP_SECONDS * 1000:.0f} ms, then {SCORE_SECONDS * 1000:.0f} ms of scoring each"
    least = 1 + SCORE_SECONDS / (STEPS * STEP_SECONDS)
    title = f"{sizes}, {ROUNDS} rounds; the last one's scoring cannot overlap, so {least:.2f} is the least"
    return compared(title, seconds, ("the sampling", statistics.median(seconds["sampling alone"])))


def mixed_table() -> Table:
    """A reward that bears one call at a time, beside one that bears several."""
    columns = ("most calls of the model (limit 1)", f"of the service (limit {MIXED_WORKERS})", "rounds that failed")
    title = f"a model of one worker beside a service of {MIXED_WORKERS}, {ROUNDS} rounds"
    table = Table("buffer", title=title)
    for column in columns:
        table.add_column(column, justify="right")
    for name, make in MAKERS.items():
        most, failed = [0, 0], 0
        for _ in range(ROUNDS):
            model = Model(MIXED_SECONDS, batch_size=4)
            service = Service(MIXED_SECONDS, num_workers=MIXED_WORKERS)
            buffer = make([model, service])
            buffer.add(texts(MIXED_SAMPLES))
            try:
                totals = buffer.finalize()
            except RuntimeError:
                failed += 1
            else:
                assert_totals(totals, MIXED_SAMPLES, parts=2)
            if isinstance(buffer, PlainBuffer):
                buffer.pool.shutdown()  # the calls that a failed step leaves behind are in flight, too
            most = [max(most[0], model.flights.most), max(most[1], service.flights.most)]
        table.add_row(name, *map(str, most), f"{failed} of {ROUNDS}")
    return table


def main() -> None:
    """Measure and print."""
    console = Console(width=110)
    for table in (calls_table, steps_table, mixed_table):
        console.print(table())


if __name__ == "__main__":
    main()
