"""From frames to features of faces: detection, alignment and embedding, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from flux_rewards.media import unit_range
from flux_rewards.models.faces.alignment import crop_faces, similarity

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from flux_rewards.models.faces.detection import FaceDetector
    from flux_rewards.models.faces.embedding import FaceEmbedder

__all__ = ["Detection", "FaceModel", "Faces"]


class Detection(NamedTuple):
    """What counts as a face; see `FaceDetector.detect`."""

    size: int = 640
    threshold: float = 0.5
    overlap: float = 0.4


class Faces(NamedTuple):
    """The largest faces of some frames.

    Args:
        features: (K, D), float32, unit length: one for each frame that has a face.
        found: For each frame, whether it has one.
    """

    features: torch.Tensor
    found: list[bool]

    def split(self, lengths: Sequence[int]) -> list[torch.Tensor]:
        """The features of each sample, from its number of frames."""
        ends = np.cumsum(lengths).tolist()
        counts = [sum(self.found[end - length : end]) for end, length in zip(ends, lengths, strict=True)]
        return list(self.features.split(counts))  # torch's own


class FaceModel(NamedTuple):
    """A detector and an embedder. Safe to call from several threads."""

    detector: FaceDetector
    embedder: FaceEmbedder

    def faces(
        self,
        frames: Sequence[torch.Tensor] | torch.Tensor,
        detection: Detection,
        batch_size: int,
        *,
        checkpointing: bool = False,
    ) -> Faces:
        """The largest face of each frame, with a gradient to the pixels where they want one.

        Where a face is has no gradient: its crop is taken at a fixed place.

        Args:
            frames: (3, H, W) each, RGB, uint8 or float in [0, 1], of any sizes; or a batch of float (N, 3, H, W).
            detection: What counts as a face.
            batch_size: Frames on the device at once.
            checkpointing: See `FaceEmbedder.encode`.
        """
        import torch  # noqa: PLC0415  # loaded already

        features, found = [], []
        parts: Sequence[Sequence[torch.Tensor] | torch.Tensor] = (
            torch.split(frames, batch_size)  # its gradient is put together once, that of slices for each
            if isinstance(frames, torch.Tensor)
            else [frames[start : start + batch_size] for start in range(0, len(frames), batch_size)]
        )
        for part in parts:
            batch = (
                part.to(self.embedder.device)
                if isinstance(part, torch.Tensor)
                else [frame.to(self.embedder.device) for frame in part]
            )
            largest = self.detector.largest([frame.detach() for frame in batch], **detection._asdict())
            transforms = [None if face is None else similarity(face.points) for face in largest]
            found += [transform is not None for transform in transforms]
            placed = {row: transform for row, transform in enumerate(transforms) if transform is not None}
            if placed:
                features.append(self.embedder.encode(_crops(batch, placed), checkpointing=checkpointing))
        return Faces(
            torch.cat(features) if features else torch.empty(0, 1, dtype=torch.float32, device=self.embedder.device),
            found,
        )


def _crops(frames: Sequence[torch.Tensor] | torch.Tensor, transforms: dict[int, NDArray[np.float64]]) -> torch.Tensor:
    """The crops of some frames, by their rows."""
    import torch  # noqa: PLC0415  # loaded already

    if isinstance(frames, torch.Tensor):  # one node of the graph for all: each would have a gradient of all frames
        chosen = frames[list(transforms)]
        precise = chosen.to(torch.promote_types(chosen.dtype, torch.float32))
        return crop_faces(precise, np.stack(list(transforms.values())))
    return torch.cat([crop_faces(unit_range(frames[row])[None], one[None]) for row, one in transforms.items()])
