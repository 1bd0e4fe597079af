"""`Cached` in a file: hits a second, and what is left when its writers are killed.

    python tests/benchmarks/cache.py

The peer is a table of JSON in SQLite that is asked for one sample after the other, as caches of judges often are; it
checks, orders and counts nothing. The first table has hits a second (median and least of interleaved rounds, each with
a new object on the same file). Then a process that writes scores is killed at random 50 times, and every score that is
kept is compared with its own recomputation.
"""

from __future__ import annotations

import functools
import hashlib
import json
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from flux_rewards import Cached, RewardBatch, RewardFunction, Sample

SAMPLES = 20_000
BATCHES = (8, 256, 4096)
ROUNDS = 7
KILLS = 50
KILL_SECONDS = (0.05, 0.4)
WRITTEN_AT_ONCE = 20
PEER = "one by one, plain table"


class Hash(RewardFunction):
    """A number that follows from the text, so that a wrong one is seen."""

    required_fields = ("prompt", "response")
    optional_fields = ()

    def compute_reward(self, sample: Sample) -> float:
        """Hash."""
        text = f"{sample.prompt}\n{sample.response}"
        return float(int(hashlib.sha256(text.encode()).hexdigest()[:12], 16))


class OneByOne:
    """The peer."""

    def __init__(self, path: Path) -> None:
        self.reward = Hash()
        self.connection = sqlite3.connect(path)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("CREATE TABLE IF NOT EXISTS scores (key TEXT PRIMARY KEY, value TEXT)")

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        """Ask for each."""
        with self.connection:
            return [self.score(sample) for sample in samples]

    def score(self, sample: Sample) -> float:
        """From the table, or computed and kept."""
        key = hashlib.sha256(json.dumps([sample.prompt, sample.response]).encode()).hexdigest()
        row = self.connection.execute("SELECT value FROM scores WHERE key = ?", (key,)).fetchone()
        if row is not None:
            return float(json.loads(row[0])["reward"])
        value = self.reward.compute_reward(sample)
        self.connection.execute("INSERT INTO scores VALUES (?, ?)", (key, json.dumps({"reward": value})))
        return value


def numbered(first: int, end: int) -> list[Sample]:
    """Small texts, each another one."""
    return [Sample(f"question {index}", f"because of {index}, therefore {index * 7}") for index in range(first, end)]


def expected(samples: Sequence[Sample]) -> list[float]:
    """Their scores, computed."""
    return [Hash().compute_reward(sample) for sample in samples]


def known(batch: RewardBatch) -> int:
    """How many of its scores came from the cache."""
    return batch.stats["Hash"].cache_hits


def in_batches(reward: Callable[[Sequence[Sample]], Any], samples: Sequence[Sample], size: int) -> float:
    """Seconds to score all."""
    started = time.perf_counter()
    for start in range(0, len(samples), size):
        reward(samples[start : start + size])
    return time.perf_counter() - started


def hits_table(folder: Path) -> Table:
    """How many a second, where all are known."""
    samples = numbered(0, SAMPLES)
    file, plain, in_memory = folder / "scores.sqlite", folder / "plain.sqlite", Cached(Hash())
    contenders: dict[str, Callable[[], Callable[[Sequence[Sample]], Any]]] = {
        PEER: functools.partial(OneByOne, plain),
        "Cached": lambda: Cached(Hash(), file),
        "Cached, num_workers=32": lambda: Cached(Hash(num_workers=32), file),
        "Cached, with a size limit": lambda: Cached(Hash(), file, max_bytes=2**30),
        "Cached, in memory (the same object)": lambda: in_memory,
    }
    for make in contenders.values():
        make()(samples)  # written now, where nobody has yet
        answer = make()(samples)
        np.testing.assert_array_equal(answer.rewards if isinstance(answer, RewardBatch) else answer, expected(samples))
        assert not isinstance(answer, RewardBatch) or known(answer) == SAMPLES
    rates: dict[tuple[str, int], list[float]] = {(name, size): [] for size in BATCHES for name in contenders}
    for _ in range(ROUNDS):
        for (name, size), values in rates.items():
            values.append(SAMPLES / in_batches(contenders[name](), samples, size))
    table = Table("what", title=f"hits a second, {SAMPLES} small texts, {ROUNDS} interleaved rounds")
    for column in ("samples a call", "median", "least", "ratio to the peer"):
        table.add_column(column, justify="right")
    for (name, size), values in rates.items():
        median, peer = statistics.median(values), statistics.median(rates[PEER, size])
        table.add_row(name, str(size), f"{median:,.0f}", f"{min(values):,.0f}", f"{median / peer:.2f}")
    return table


def write_for_ever(path: str, first: int) -> None:
    """What the processes do that are killed: write, and say up to where all is kept."""
    reward = Cached(Hash(num_workers=2, batch_size=5), path)  # two threads, several scores a transaction
    for start in range(first, sys.maxsize, WRITTEN_AT_ONCE):
        reward(numbered(start, start + WRITTEN_AT_ONCE))
        print(start + WRITTEN_AT_ONCE, flush=True)


def written_until_killed(file: Path, first: int, seconds: float) -> int:
    """Where a process came to that began at `first`, and was killed so long after its first scores."""
    command = [sys.executable, __file__, "write", str(file), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        told = [writer.stdout.readline()]
        time.sleep(seconds)
        writer.send_signal(signal.SIGKILL)
        told += writer.stdout
    assert writer.returncode == -signal.SIGKILL, f"the writer ended by itself: {writer.returncode}"
    return max(int(line) for line in told if line.endswith("\n"))  # the last line may be torn, too


def kills_table(folder: Path) -> Table:
    """What is left."""
    file, generator = folder / "killed.sqlite", random.Random()
    acknowledged = 0
    for _ in range(KILLS):
        acknowledged = written_until_killed(file, acknowledged, generator.uniform(*KILL_SECONDS))
    connection = sqlite3.connect(file)
    (integrity,) = connection.execute("PRAGMA integrity_check").fetchone()
    (entries,) = connection.execute("SELECT count(*) FROM entry").fetchone()
    connection.close()
    reward = Cached(Hash(), file)
    told, rest = numbered(0, acknowledged), numbered(acknowledged, acknowledged + WRITTEN_AT_ONCE)
    batches = [
        (samples, reward(samples)) for samples in (told, rest)
    ]  # the last writer may have kept more than it told
    wrong = sum(int(np.sum(batch.rewards != np.array(expected(samples)))) for samples, batch in batches)
    title = f"a writer is killed {KILL_SECONDS[0]:g} to {KILL_SECONDS[1]:g} s after its first scores; another goes on"
    table = Table(title=title)
    found = {
        "kills": KILLS,
        "integrity_check": integrity,
        "scores in the file": entries,
        "told to be kept": acknowledged,
        "of those missing": acknowledged - known(batches[0][1]),
        "compared": sum(known(batch) for _, batch in batches),
        "wrong": wrong,
    }
    for column in found:
        table.add_column(column, justify="right")
    table.add_row(*map(str, found.values()))
    return table


def main() -> None:
    """Measure both."""
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as folder:
        console.print(hits_table(Path(folder)))
        console.print(kills_table(Path(folder)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["write"]:
        write_for_ever(sys.argv[2], int(sys.argv[3]))
    else:
        main()
