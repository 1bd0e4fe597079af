"""The example of reward feedback learning: what it trains for rises."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent.parent / "examples" / "reward_feedback.py"


@pytest.mark.slow
def test_the_reward_rises() -> None:
    """From one mean to a clearly higher one, on prompts and seeds that stay the same; warnings are errors."""
    command = [sys.executable, "-W", "error", str(EXAMPLE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(r"mean reward before (\S+), after (\S+)", done.stdout.splitlines()[-1])
    assert found is not None, done.stdout
    before, after = map(float, found.groups())
    assert after > before + 0.1
