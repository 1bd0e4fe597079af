"""Encoders by name, whatever the format of their checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flux_rewards.errors import WeightsError
from flux_rewards.models.checkpoint import Checkpoint
from flux_rewards.models.configuration import model_type
from flux_rewards.models.open_clip_model import CONFIG_FILE, OPEN_CLIP_WEIGHTS, open_open_clip_folder
from flux_rewards.models.transformers_clip import open_transformers_clip
from flux_rewards.models.vision import open_vision_encoder

if TYPE_CHECKING:
    from flux_rewards.models.dual_encoder import DualEncoder
    from flux_rewards.models.features import ImageEncoder

__all__ = ["encoder_checkpoints", "open_dual_encoder", "open_image_encoder"]

_OPEN_CLIP = ("hf-hub:", "local-dir:")  # as open_clip itself writes them


def encoder_checkpoints(name: str, revision: str | None) -> Sequence[Checkpoint]:
    """The files that an encoder of that name needs."""
    weights = OPEN_CLIP_WEIGHTS if str(name).startswith(_OPEN_CLIP) else True
    return (Checkpoint(_plain(name), revision=revision, weights=weights),)


def open_dual_encoder(
    name: str, revision: str | None, *, device: str | None, dtype: str, processor: str | None = None
) -> DualEncoder:
    """Both towers of a checkpoint in transformers' or in open_clip's format.

    Args:
        name: A hub id or path. Where both formats are there, transformers' is read; ``"hf-hub:..."`` and
            ``"local-dir:..."`` ask for open_clip's.
        revision: Branch, tag or commit on the hub.
        device: See `device_of`.
        dtype: See `dtype_of`.
        processor: A hub id or path of tokenizer and preprocessing, where a checkpoint in transformers' format has none.

    Raises:
        WeightsError: It cannot be found, is in neither format, or does not fit.
    """
    (checkpoint,) = encoder_checkpoints(name, revision)
    if not str(name).startswith(_OPEN_CLIP) and checkpoint.has("config.json"):
        prepare = checkpoint if processor is None else Checkpoint(processor, weights=False)
        return open_transformers_clip(checkpoint, prepare, device=device, dtype=dtype)
    if checkpoint.has(CONFIG_FILE):
        return open_open_clip_folder(checkpoint, device=device, dtype=dtype)
    raise WeightsError(f"{checkpoint.label} has neither config.json (transformers) nor {CONFIG_FILE} (open_clip)")


def open_image_encoder(name: str, revision: str | None, *, device: str | None, dtype: str) -> ImageEncoder:
    """The image tower of a CLIP checkpoint, or a vision transformer such as DINO.

    Args:
        name: As for `open_dual_encoder`.
        revision: As for `open_dual_encoder`.
        device: As for `open_dual_encoder`.
        dtype: As for `open_dual_encoder`.

    Raises:
        WeightsError: It cannot be found, is of no known kind, or does not fit.
    """
    (checkpoint,) = encoder_checkpoints(name, revision)
    if not str(name).startswith(_OPEN_CLIP) and checkpoint.has("config.json"):
        kind = model_type(checkpoint)
        if kind != "clip":
            return open_vision_encoder(checkpoint, kind, device=device, dtype=dtype)
    return open_dual_encoder(name, revision, device=device, dtype=dtype)


def _plain(name: str) -> str:
    name = str(name)  # it may be a Path
    for prefix in _OPEN_CLIP:
        name = name.removeprefix(prefix)
    return name
