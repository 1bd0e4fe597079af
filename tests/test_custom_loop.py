"""The hand-written training loop learns, and learns the same twice."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

EXAMPLE = Path(__file__).parent.parent / "examples" / "custom_loop.py"


@pytest.mark.slow
def test_the_reward_rises() -> None:
    """From what chance gives to mostly right answers; as a user runs it, with warnings as errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLE)], capture_output=True, text=True, timeout=170, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    first, last = (float(word) for word in lines[-1].removeprefix("mean reward ").split(" in ")[0].split(" -> "))
    assert first < 0.2
    assert last > 0.7


def test_seeds_are_fixed() -> None:
    """The same seed gives the same rewards, another one others; the global generator is left alone."""
    train = runpy.run_path(str(EXAMPLE))["train"]
    state = torch.random.get_rng_state()
    first = train(steps=3)
    assert train(steps=3) == first
    assert train(steps=3, seed=1) != first
    assert torch.equal(torch.random.get_rng_state(), state)
