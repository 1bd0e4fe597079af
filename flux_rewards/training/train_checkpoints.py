"""What a run that was broken off left behind: its checkpoints, or all of its training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flux_rewards.errors import ConfigError

__all__ = ["begin_run", "end_run", "ended_run", "is_unmeasured", "last_checkpoint", "measured_run", "step_of"]

_RUN_FILE = "run.json"


def begin_run(folder: Path, identity: str) -> None:
    """Note whose checkpoints will be in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, {"identity": identity})


def end_run(folder: Path, identity: str, ended: Mapping[str, Any]) -> None:
    """Note that the training is over and its weights are saved, and what there is to know of it, as JSON holds it."""
    _write(folder, {"identity": identity, "ended": dict(ended)})


def ended_run(folder: Path, identity: str) -> dict[str, Any] | None:
    """What `end_run` noted of the same run; None where its training is not over, or the weights beside it are gone.

    Raises:
        ConfigError: It was another run.
    """
    held = _read(folder)
    if "ended" not in held or not any(folder.parent.glob("*.safetensors")):
        return None
    _check_same(folder, held.get("identity"), identity)
    found: dict[str, Any] = held["ended"]
    return found


def is_unmeasured(folder: Path) -> bool:
    """Whether a training is over, and its measurement was broken off."""
    held = _read(folder)
    return "ended" in held and "measured" not in held


def measured_run(folder: Path) -> None:
    """Note that nothing is left to do."""
    _write(folder, {**_read(folder), "measured": True})


def last_checkpoint(folder: Path, identity: str) -> Path | None:
    """The latest whole checkpoint of the same run; None where there is none.

    Raises:
        ConfigError: The checkpoints are of another run, or nothing says of which.
    """
    # The state is written last, so that a checkpoint that was broken off has none.
    found = [path for path in folder.glob("checkpoint-*") if (path / "trainer_state.json").is_file()]
    if not found:
        return None
    held = _read(folder)
    if "identity" not in held:
        raise ConfigError(f"{folder} holds checkpoints, and no {_RUN_FILE} says of which run; take another output_dir")
    _check_same(folder, held["identity"], identity)
    return max(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The update that a checkpoint was written after.

    Examples:
        >>> step_of(Path("checkpoints/checkpoint-30"))
        30
    """
    return int(checkpoint.name.rpartition("-")[2])


def _check_same(folder: Path, held: Any, identity: str) -> None:
    if held != identity:
        raise ConfigError(
            f"the checkpoints in {folder} are of a run with another model, other pairs or other settings; give the "
            "same ones, or another output_dir"
        )


def _read(folder: Path) -> dict[str, Any]:
    """What is noted; nothing where the file is missing, or no longer whole."""
    try:
        held = json.loads((folder / _RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}


def _write(folder: Path, values: Mapping[str, Any]) -> None:
    """In one piece, for a run may be broken off at any time."""
    part = folder / f"{_RUN_FILE}.part"
    part.write_text(json.dumps(values) + "\n", encoding="utf-8")
    part.replace(folder / _RUN_FILE)
