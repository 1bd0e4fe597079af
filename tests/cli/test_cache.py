"""``--cache`` and ``flux-rewards cache``: what is kept, what goes on, and what is refused."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., subprocess.CompletedProcess[str]]

SCORERS = """
import time

def slow(sample):
    with open("asked.txt", "a") as file:
        file.write(sample.response + "\\n")
    time.sleep(0.02)
    return len(sample.response)
"""

REWARDS = """
rewards:
  - {name: slow, reward_model: function, function: scorers.slow, fields: [response]}
  - {name: brief, reward_model: length, weight: 0.5, target: 1}
"""


@pytest.fixture
def files(tmp_path: Path, jsonl: Callable[..., Path]) -> Path:
    """A configuration, its function and samples in the test's folder."""
    (tmp_path / "scorers.py").write_text(SCORERS, encoding="utf-8")
    (tmp_path / "rewards.yaml").write_text(REWARDS, encoding="utf-8")
    jsonl([{"response": "x" * (index + 1)} for index in range(100)])
    return tmp_path


def asked(folder: Path) -> list[str]:
    return (folder / "asked.txt").read_text(encoding="utf-8").splitlines()


SCORE = ("score", "rewards.yaml", "samples.jsonl", "-o", "rows.jsonl", "--cache", "scores.sqlite")


def test_a_second_run_computes_nothing(files: Path, flux_rewards_command: Command) -> None:
    """It writes the same rows, and says where they come from."""
    first = flux_rewards_command(*SCORE)
    assert first.stdout.splitlines()[-1] == "0 scores were known from scores.sqlite"
    rows = (files / "rows.jsonl").read_bytes()
    second = flux_rewards_command(*SCORE)
    assert (second.returncode, second.stderr) == (0, "")
    assert second.stdout.splitlines()[-1] == "200 scores were known from scores.sqlite"
    assert (files / "rows.jsonl").read_bytes() == rows
    assert len(asked(files)) == 100


def test_a_killed_run_goes_on_where_it_stopped(files: Path, flux_rewards_command: Command) -> None:
    """Only what was not kept is computed, whatever the size of a batch, and the rows are those of an unbroken run."""
    broken = subprocess.Popen([sys.executable, "-m", "flux_rewards", *SCORE], cwd=files, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not (files / "asked.txt").exists() or len(asked(files)) < 30:
        assert time.monotonic() < until
        time.sleep(0.01)
    broken.send_signal(signal.SIGKILL)
    broken.wait(60)
    assert not (files / "rows.jsonl").exists()
    before = len(asked(files))
    done = flux_rewards_command(*SCORE)
    assert done.returncode == 0
    again = len(asked(files)) - before
    # What was written last may be lost: those of the last twentieth of a second.
    assert 100 - before <= again <= 100 - before + 10
    rows = [json.loads(line) for line in (files / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["parts"]["slow"] for row in rows] == list(range(1, 101))


def test_a_cache_is_looked_at_and_emptied(files: Path, flux_rewards_command: Command) -> None:
    """How many scores, how large; and how many went."""
    flux_rewards_command(*SCORE)
    shown = flux_rewards_command("cache", "stats", "scores.sqlite")
    name, scores, size, on_disk = shown.stdout.splitlines()[-1].split()
    assert (name, scores) == ("scores.sqlite", "200")
    assert int(size) == 200 * (32 + 9)  # a digest and a tagged float
    assert int(on_disk) >= int(size)
    cleared = flux_rewards_command("cache", "clear", "scores.sqlite")
    assert cleared.stdout == "200 scores removed from scores.sqlite\n"
    assert flux_rewards_command("cache", "stats", "scores.sqlite").stdout.splitlines()[-1].split()[1] == "0"


@pytest.mark.parametrize("command", ["stats", "clear"])
def test_what_is_no_cache_is_left_alone(files: Path, flux_rewards_command: Command, command: str) -> None:
    """A missing file is not made, and another program's is not touched."""
    missing = flux_rewards_command("cache", command, "missing.sqlite")
    assert (missing.returncode, missing.stderr) == (1, "error: missing.sqlite: no such file\n")
    assert not (files / "missing.sqlite").exists()
    with sqlite3.connect(files / "other.sqlite") as other:
        other.execute("CREATE TABLE kept (x)")
    other.close()
    before = (files / "other.sqlite").read_bytes()
    refused = flux_rewards_command("cache", command, "other.sqlite")
    assert refused.returncode == 1
    assert "another program" in refused.stderr
    assert (files / "other.sqlite").read_bytes() == before


def test_a_cache_cannot_be_one_of_the_other_files(files: Path, flux_rewards_command: Command) -> None:
    """Nothing is overwritten, and nothing scored."""
    for name in ("samples.jsonl", "rewards.yaml"):
        done = flux_rewards_command(*SCORE[:-1], name)
        assert done.returncode == 1
        assert name in done.stderr
    assert flux_rewards_command(*SCORE[:-1], "rows.jsonl").returncode == 1
    assert not (files / "asked.txt").exists()
