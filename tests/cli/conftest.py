from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flux_rewards

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[..., Path]:
    """Write objects as the lines of a file."""

    def write(rows: Any, name: str = "samples.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a process of its own that finds the library, and modules in the test's folder."""
    paths = [str(Path(flux_rewards.__file__).parents[1]), str(tmp_path)]
    given = {key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "COLUMNS")}
    return {**given, "PYTHONPATH": os.pathsep.join(paths), "NO_COLOR": "1"}


@pytest.fixture
def flux_rewards_command(tmp_path: Path, environment: dict[str, str]) -> Command:
    """Run the real command in the test's folder."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "flux_rewards", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run
