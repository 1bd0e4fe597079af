"""`Cached` in a file: hits a second, and what is left when its writers are killed.

    python tests/benchmarks/cache.py

The peer is a table of JSON in SQLite that is asked for one sample after the other, as caches of judges often are. The
first table has hits a second (median of interleaved rounds, each with a new object on the same file). Then a process
that writes scores is killed at random 50 times, and every score that is kept is compared with its own recomputation.
"""

from __future__ import annotations

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

from rich.console import Console
from rich.table import Table

from flux_rewards import Cached, RewardFunction, Sample

SAMPLES = 20_000
ROUNDS = 7
KILLS = 50


class Hash(RewardFunction):
    """A number that follows from the text, so that a wrong one is seen."""

    required_fields = ("response",)
    optional_fields = ()

    def compute_reward(self, sample: Sample) -> float:
        """Hash."""
        return float(int(hashlib.sha256(str(sample.response).encode()).hexdigest()[:12], 16))


class OneByOne:
    """The peer."""

    def __init__(self, path: Path) -> None:
        self.reward = Hash()
        self.connection = sqlite3.connect(path)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("CREATE TABLE IF NOT EXISTS scores (key TEXT PRIMARY KEY, value TEXT)")

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        """Ask for each."""
        return [self.score(sample) for sample in samples]

    def score(self, sample: Sample) -> float:
        """From the table, or computed and kept."""
        key = hashlib.sha256(json.dumps({"reward": "Hash", "response": sample.response}).encode()).hexdigest()
        row = self.connection.execute("SELECT value FROM scores WHERE key = ?", (key,)).fetchone()
        if row is not None:
            return float(json.loads(row[0])["reward"])
        value = self.reward.compute_reward(sample)
        with self.connection:
            self.connection.execute("INSERT INTO scores VALUES (?, ?)", (key, json.dumps({"reward": value})))
        return value


def hits(folder: Path) -> Table:
    """How many a second."""
    samples = [Sample(f"question {index}", f"because of {index}, therefore {index * 7}") for index in range(SAMPLES)]
    file, plain = folder / "scores.sqlite", folder / "plain.sqlite"
    in_memory = Cached(Hash())
    contenders: dict[str, tuple[Callable[[], Callable[[Sequence[Sample]], object]], int]] = {
        "one by one, batches of 256": (lambda: OneByOne(plain), 256),
        "Cached, batches of 256": (lambda: Cached(Hash(), file), 256),
        "Cached, batches of 4096": (lambda: Cached(Hash(), file), 4096),
        "Cached, 32 workers, batches of 256": (lambda: Cached(Hash(num_workers=32), file), 256),
        "Cached, with a size limit, batches of 256": (lambda: Cached(Hash(), file, max_bytes=2**30), 256),
        "Cached in memory, batches of 256": (lambda: in_memory, 256),
    }
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for make, _ in contenders.values():
        make()(samples)  # write, or know them already
    for _ in range(ROUNDS):
        for name, (make, size) in contenders.items():
            reward = make()
            started = time.perf_counter()
            for start in range(0, SAMPLES, size):
                reward(samples[start : start + size])
            rates[name].append(SAMPLES / (time.perf_counter() - started))
    table = Table("what", "hits a second", "ratio to the peer", title=f"{SAMPLES} small texts, {ROUNDS} rounds")
    peer = statistics.median(rates["one by one, batches of 256"])
    for name, values in rates.items():
        table.add_row(name, f"{statistics.median(values):,.0f}", f"{statistics.median(values) / peer:.2f}")
    return table


def write_for_ever(path: str, first: int) -> None:
    """What the processes do that are killed: tell what is surely kept."""
    reward = Cached(Hash(num_workers=2), path)
    for start in range(first, sys.maxsize, 20):
        reward([Sample(response=str(number)) for number in range(start, start + 20)])
        print(start + 20, flush=True)


def kills(folder: Path) -> Table:
    """What is left."""
    file = folder / "killed.sqlite"
    generator = random.Random(0)
    told = 0
    for _ in range(KILLS):
        command = [sys.executable, __file__, "write", str(file), str(told)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            told = max(told, int(writer.stdout.readline()))
            time.sleep(generator.random() * 0.3)
            writer.send_signal(signal.SIGKILL)
            told = max([told, *(int(line) for line in writer.stdout if line.endswith("\n"))])
    connection = sqlite3.connect(file)
    (integrity,) = connection.execute("PRAGMA integrity_check").fetchone()
    connection.close()
    reward, samples = Cached(Hash(), file), [Sample(response=str(number)) for number in range(told + 1000)]
    kept = reward.store.stats().entries
    batch = reward(samples)
    right = [Hash().compute_reward(sample) for sample in samples]
    wrong = sum(value != expected for value, expected in zip(batch.rewards.tolist(), right, strict=True))
    table = Table("kills", "integrity", "scores kept", "told to be kept", "of those found", "wrong")
    found = batch.stats["Hash"].cache_hits
    table.add_row(str(KILLS), str(integrity), str(kept), str(told), str(min(found, told)), str(wrong))
    return table


def main() -> None:
    """Measure both."""
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        console.print(hits(Path(folder)))
        console.print(kills(Path(folder)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["write"]:
        write_for_ever(sys.argv[2], int(sys.argv[3]))
    else:
        main()
