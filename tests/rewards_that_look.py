"""Rewards that tell in their metadata what they were given: importable, so that they pickle and can be configured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from flux_rewards import ComputeError, InputError, JudgeError, RemoteError, RewardFunction, RewardOutput, Sample
from flux_rewards.data import FIELDS
from flux_rewards.fingerprint import fingerprint


class Seen(RewardFunction):
    """What its author's code sees of each field: kind, shape and a digest of the content, whatever the media form.

    Args:
        form: The form in which media arrive.
    """

    optional_fields = FIELDS

    def __init__(self, form: str = "pil", **options: Any) -> None:
        super().__init__(**options)
        self.form = form
        self.media_form = form

    def compute_reward(self, sample: Sample) -> RewardOutput:
        seen = {field: told(getattr(sample, field)) for field in FIELDS}
        return RewardOutput(int.from_bytes(fingerprint(seen)[:4], "big") / 7, metadata=seen)


def told(value: Any) -> Any:
    """A value in words: its kind, its make and a digest."""
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, [told(item) for item in value]]
    if isinstance(value, Mapping):
        return [type(value).__name__, [[told(key), told(item)] for key, item in value.items()]]
    if isinstance(value, Image.Image):  # the class tells only which file it was read from
        return ["image", value.mode, fingerprint(value).hex()[:16]]
    make = [str(getattr(value, name)) for name in ("shape", "dtype", "device") if hasattr(value, name)]
    return [type(value).__name__, make, fingerprint(value).hex()[:16]]


class Fails(RewardFunction):
    """Scores, does not apply or fails, each in all the ways there are, as the sample's prompt says."""

    required_fields = ("prompt",)
    optional_fields = ()
    batch_size = 3

    def compute_reward(self, sample: Sample) -> float | RewardOutput | None:
        wanted = str(sample.prompt)
        if wanted in FAILURES:
            raise FAILURES[wanted]
        return {
            "none": None,
            "infinite": float("inf"),
            "nan": float("nan"),
            "error": RewardOutput(0.5, error="it is said to have failed", metadata={"kept": (1, 2)}),
            "parts": RewardOutput(0.25, parts={"one": 1 / 3, "other": None}),
            "tokens": RewardOutput(-0.0, token_rewards=[0.1, 1e-300, -0.0], metadata={"raw": np.float32(0.1)}),
        }.get(wanted, 1 / 3)


FAILURES: dict[str, Exception] = {
    "input": InputError("expected something else", field="prompt"),
    "input elsewhere": InputError("expected another reference", field="reference", index=0),
    "compute": ComputeError("no"),
    "remote": RemoteError("busy", retryable=True, retry_after=0.5, status=503),
    "judge": JudgeError("no number", "out_of_range", retryable=True),
    "value": ValueError("not a number"),
    "zero": ZeroDivisionError("division by zero"),
    "connection": ConnectionResetError("reset by peer"),
    "empty": RuntimeError(),
    "text": KeyError("a 'quoted' \u00fcml\u00e4ut \U0001f680 <html>"),
}


class Whole(RewardFunction):
    """Fails for a whole call, as a model that runs out of memory does; no sample is to blame."""

    required_fields = ("prompt",)
    optional_fields = ()

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        raise MemoryError("out of memory")


class Members(RewardFunction):
    """Who is in the group, in order: prompts as metadata."""

    scope = "group"
    required_fields = ("response",)
    optional_fields = ("prompt",)

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        names = [str(sample.response) for sample in samples]
        return [RewardOutput(len(samples) + place / 8, metadata={"with": names}) for place in range(len(samples))]


class Upside(RewardFunction):
    """A reward of which less is better, in bounds."""

    required_fields = ("response",)
    optional_fields = ()
    higher_is_better = False
    bounds = (0.0, 100.0)

    def compute_reward(self, sample: Sample) -> float:
        return min(100.0, float(len(str(sample.response))))


LOOKING = {form: Seen(form) for form in ("pil", "float", "pixels")}
_random = np.random.default_rng(5)
PIXELS = _random.integers(0, 256, size=(6, 10, 3), dtype=np.uint8)
FLOATS = _random.random((6, 10, 3))
GRAY = _random.integers(0, 2**16, size=(6, 10), dtype=np.uint16)
