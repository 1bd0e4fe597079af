"""The head of the LAION aesthetic predictor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flux_rewards.models.placement import device_of, dtype_of, frozen
from flux_rewards.models.weights import blank, load_exactly, read_tensors
from flux_rewards.shared import shared

if TYPE_CHECKING:
    import torch

    from flux_rewards.models.checkpoint import Checkpoint

__all__ = ["open_aesthetic_head"]


def open_aesthetic_head(checkpoint: Checkpoint, width: int, *, device: str | None) -> torch.nn.Module:
    """The head, (N, width) float32 to (N, 1): five linear layers with nothing between them but dropout.

    Args:
        checkpoint: The file, in torch's format, as the original predictor saved it.
        width: Of the features that it is fed.
        device: See `device_of`.

    Raises:
        WeightsError: It cannot be found, or does not fit.
    """
    place, file = device_of(device), checkpoint.path()

    def make() -> torch.nn.Module:
        from torch import nn  # noqa: PLC0415  # seconds

        with blank():
            predictor = nn.Module()
            predictor.layers = nn.Sequential(
                *(nn.Linear(width, 1024), nn.Dropout(0.2), nn.Linear(1024, 128), nn.Dropout(0.2)),
                *(nn.Linear(128, 64), nn.Dropout(0.1), nn.Linear(64, 16), nn.Linear(16, 1)),
            )
        load_exactly(predictor, read_tensors(file), checkpoint.label)
        return frozen(predictor.layers, place, dtype_of("float32"))

    return shared(("aesthetic", checkpoint.identity(), width, place), make)
