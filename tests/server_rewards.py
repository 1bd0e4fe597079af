"""Rewards that test servers serve: importable by name, so that a process of its own can make them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flux_rewards import RewardBatch, RewardFunction, RewardOutput, Sample
from flux_rewards.errors import ConfigError, InputError
from flux_rewards.media.images import to_pil

GATE_SECONDS = 30.0


def wait_until_there(path: Path, seconds: float = GATE_SECONDS) -> None:
    """Until a file is there: how a test lets another process go on."""
    end = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > end:
            raise TimeoutError(f"nobody made {path.name}")
        time.sleep(0.005)


class Notes(RewardFunction):
    """The number of characters of each response; writes into a folder what happens, and waits where it is told to.

    A file ``calls`` in the folder has a line for each call: the process, and the responses. A sample whose metadata
    hold ``"gate"`` lets its call wait until the file of that name is there; ``"raise"`` makes it fail; ``"broken"`` is
    a mistake of the whole reward.
    """

    required_fields = ("response",)
    optional_fields: Sequence[str] | None = ("prompt", "metadata", "image", "group_id", "reference")

    def __init__(self, folder: str, **options: Any) -> None:
        super().__init__(**options)
        self.folder = folder

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        self.note(samples)
        for sample in samples:
            if sample.metadata.get("broken"):
                raise ConfigError("the scale of /srv/secret/models is wrong")
            if "gate" in sample.metadata:
                wait_until_there(Path(self.folder, sample.metadata["gate"]))
        return [self.row(sample) for sample in samples]

    def note(self, samples: Sequence[Sample]) -> None:
        """Write a line, in one piece."""
        line = f"{os.getpid()} {' '.join(str(sample.response) for sample in samples)}\n"
        with Path(self.folder, "calls").open("a") as calls:
            calls.write(line)

    def row(self, sample: Sample) -> Any:
        """A score, or the failure that was asked for."""
        kind = sample.metadata.get("raise")
        if kind == "input":
            return InputError("expected something else", field="response")
        if kind == "path":
            return FileNotFoundError(2, "No such file or directory", sample.metadata["path"])
        if kind == "text":
            return RuntimeError(sample.metadata["text"])
        return RewardOutput(float(len(str(sample.response))), metadata={"told": sample.metadata.get("tell")})


class GatedPrompts(Notes):
    """The number of characters of each prompt, once the file ``gate`` is there."""

    required_fields = ("prompt",)
    optional_fields = ()

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        self.note([Sample(response=sample.prompt) for sample in samples])
        wait_until_there(Path(self.folder, "gate"))
        return [float(len(sample.prompt_text)) for sample in samples]


class GroupNotes(Notes):
    """The mean number of characters of the group, and in the metadata its size."""

    scope = "group"
    optional_fields = Notes.optional_fields

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        self.note(samples)
        for sample in samples:
            if "gate" in sample.metadata:
                wait_until_there(Path(self.folder, sample.metadata["gate"]))
        mean = float(np.mean([len(str(sample.response)) for sample in samples]))
        return [RewardOutput(mean, metadata={"size": len(samples)}) for _ in samples]


class SlowToLoad(Notes):
    """Loads until the file ``loaded`` is there, in the folder."""

    def load(self) -> None:
        Path(self.folder, "loading").touch()
        wait_until_there(Path(self.folder, "loaded"))


class CannotLoad(RewardFunction):
    """Has no weights: an error of the library, or any other."""

    def __init__(self, library: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.library = library

    def load(self) -> None:
        if self.library:
            raise ConfigError("there are no weights in /srv/secret/models/clip.pt")
        raise RuntimeError("no weights in /srv/secret/models/clip.pt")

    def compute_reward(self, sample: Sample) -> float:
        raise AssertionError("a server that failed to load must not score")


class Brightness(RewardFunction):
    """The mean of an image's values, 0 to 255."""

    required_fields = ("image",)
    optional_fields: Sequence[str] | None = ("prompt", "response", "video", "condition_images", "condition_videos")

    def compute_reward(self, sample: Sample) -> float:
        return float(np.asarray(sample.image, dtype=np.float64).mean())


class Likeness(RewardFunction):
    """How far an image's values are from those of another, in the mean."""

    required_fields = ("reference",)
    optional_fields = ("image",)
    reference_is_media = True

    def compute_reward(self, sample: Sample) -> float:
        one, other = (np.asarray(to_pil(image), dtype=np.float64) for image in (sample.image, sample.reference))
        return float(np.abs(one - other).mean())


class Everything(RewardFunction):
    """Looks at every field, and scores 1: what it is sent must be readable."""

    def compute_reward(self, sample: Sample) -> float:
        for field in ("image", "video", "condition_images", "condition_videos"):
            getattr(sample, field)
        if sample.prompt is not None:
            len(sample.prompt)
        return 1.0


class Parted(RewardFunction):
    """A score with parts, token rewards and metadata of every kind that JSON has not."""

    required_fields = ("response",)

    def compute_rewards(self, samples: Sequence[Sample]) -> RewardBatch:
        count = len(samples)
        return RewardBatch(
            np.arange(count, dtype=np.float64),
            [np.array([0.5, 1.5])] * count,
            [{"size": (1, 2), "array": np.array([1.0, np.nan]), "bytes": b"\x00"} for _ in samples],
            parts={"twice": RewardBatch(2 * np.arange(count, dtype=np.float64))},
        )
