"""Images on their way to an encoder."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from flux_rewards.views import position_of

if TYPE_CHECKING:
    import torch

    from flux_rewards.data import Sample
    from flux_rewards.models.features import ImageEncoder

__all__ = ["encode_in_batches", "image_keys"]


def image_keys(samples: Sequence[Sample], field: str = "image") -> list[Hashable] | None:
    """What tells the images of a batch apart for all its rewards, or None where the samples are no batch's."""
    positions = [position_of(sample) for sample in samples]
    return None if None in positions else [(field, position) for position in positions]


def encode_in_batches(
    model: ImageEncoder, pixels: torch.Tensor, batch_size: int | None, *, checkpointing: bool
) -> torch.Tensor:
    """Unit features (N, D) with a gradient to the pixels, so many images at a time."""
    import torch  # noqa: PLC0415  # loaded already

    parts = torch.split(pixels, batch_size or len(pixels))
    return torch.cat([model.encode(part, checkpointing=checkpointing) for part in parts])
