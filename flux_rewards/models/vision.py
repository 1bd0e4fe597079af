"""Vision transformers that know no text, such as DINO."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flux_rewards.errors import WeightsError
from flux_rewards.models.features import ImageEncoder
from flux_rewards.models.loading import load_transformers
from flux_rewards.models.placement import device_of, dtype_of
from flux_rewards.models.preprocessing import Preprocessing
from flux_rewards.shared import shared

if TYPE_CHECKING:
    import torch

    from flux_rewards.models.checkpoint import Checkpoint

__all__ = ["open_vision_encoder"]

_OPTIONS: dict[str, dict[str, Any]] = {
    "vit": {"add_pooling_layer": False},  # DINO; the pooler of a ViT is made for classifying
    "dinov2": {},
    "dinov2_with_registers": {},
    "dinov3_vit": {},
}


def open_vision_encoder(checkpoint: Checkpoint, kind: str, *, device: str | None, dtype: str) -> ImageEncoder:
    """The encoder of a checkpoint in transformers' format whose feature is that of the class token.

    Args:
        checkpoint: Configuration, weights and preprocessing.
        kind: The ``model_type`` of its configuration.
        device: See `device_of`.
        dtype: See `dtype_of`.

    Raises:
        WeightsError: It is of another kind, cannot be found, or does not fit.
    """
    if kind not in _OPTIONS:
        known = ", ".join(["clip", *_OPTIONS])
        raise WeightsError(f"{checkpoint.label} is of the kind {kind!r}; known are {known}")
    place, precision = device_of(device), dtype_of(dtype)

    def make() -> ImageEncoder:
        from transformers import AutoModel  # noqa: PLC0415  # seconds

        model = load_transformers(AutoModel, checkpoint, place, precision, **_OPTIONS[kind])
        preprocessing = Preprocessing.of_transformers(checkpoint.path())
        return _ClassToken(model, preprocessing, place, precision, width=model.config.hidden_size)

    return shared(("vision", checkpoint.identity(), place, precision), make)


class _ClassToken(ImageEncoder):
    def tower(self, pixels: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.module(pixel_values=pixels).last_hidden_state
        return states[:, 0]
