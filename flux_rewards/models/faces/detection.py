"""Where the faces of a frame are: SCRFD, run by onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flux_rewards.errors import MissingDependencyError, WeightsError
from flux_rewards.media import unit_range
from flux_rewards.models.placement import device_of
from flux_rewards.shared import shared

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from flux_rewards.models.checkpoint import Checkpoint

__all__ = ["STRIDES", "Face", "FaceDetector", "open_face_detector"]

STRIDES = (8, 16, 32)
"""Of the detector's three levels, in pixels of its input."""

_ANCHORS = 2  # at every cell of a level
_WIDTHS = (1, 4, 10)  # of an anchor's score, distances to the sides of its box, and way to the five points
_AWAY = np.array([-1, -1, 1, 1], dtype=np.float32)  # from the cell to left, top, right, bottom


class Face(NamedTuple):
    """A face in a frame; coordinates are those of the frame's pixels, whose centres are at whole numbers.

    Args:
        box: (4,) float32: left, top, right, bottom.
        score: 0 to 1.
        points: (5, 2) float32, x and y: left eye, right eye, nose, left and right corner of the mouth, as seen.
    """

    box: NDArray[np.float32]
    score: float
    points: NDArray[np.float32]

    @property
    def area(self) -> float:
        """Of the box, in square pixels."""
        left, top, right, bottom = (float(side) for side in self.box)
        return (right - left) * (bottom - top)


class FaceDetector:
    """SCRFD with five points (``scrfd_10g_bnkps.onnx``), as insightface runs it.

    A frame is resized (bilinear, its ratio kept) into the top left corner of a black square, and goes in as RGB,
    ``(x - 127.5) / 128``. For each of the strides 8, 16 and 32 the graph gives scores, then for each the distances to
    the sides of the box, then for each the ways to five points, two anchors a cell, in units of the stride.

    Args:
        session: An onnxruntime session of such a graph.
        label: Its file, for messages.

    Raises:
        WeightsError: The graph has other inputs or outputs.

    Source: Guo et al. 2021 (arXiv 2105.04714); deepinsight/insightface.

    Has no gradient, and detects at one size: a face that fills most of a frame is found better at a smaller one.
    """

    def __init__(self, session: Any, label: str) -> None:
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or len(outputs) != len(_WIDTHS) * len(STRIDES):
            raise WeightsError(
                f"{label} is no SCRFD with five points: expected 1 input (N, 3, H, W) and 9 outputs (scores, boxes "
                f"and points at strides 8, 16, 32), found {len(inputs)} and {len(outputs)}; take a file whose name "
                "ends in kps, such as scrfd_10g_bnkps.onnx"
            )
        self._session = session
        self._label = label
        self._input = inputs[0].name
        batch, _, height, width = inputs[0].shape
        # Most exports have no axis for the batch in what they give.
        self._batched = not isinstance(batch, int) and all(
            len(output.shape) == 3 and not isinstance(output.shape[0], int) for output in outputs
        )
        self._size = (height, width) if isinstance(height, int) and isinstance(width, int) else None

    def largest(
        self, frames: Sequence[torch.Tensor], *, threshold: float = 0.5, overlap: float = 0.4, size: int = 640
    ) -> list[Face | None]:
        """The face with the largest box in each frame, or None; see `detect`."""
        found = self.detect(frames, threshold=threshold, overlap=overlap, size=size)
        return [max(faces, key=lambda face: face.area, default=None) for faces in found]

    def detect(
        self, frames: Sequence[torch.Tensor], *, threshold: float = 0.5, overlap: float = 0.4, size: int = 640
    ) -> list[list[Face]]:
        """The faces of each frame, the surest first. All frames go in at once where the graph has a batch axis.

        Args:
            frames: (3, H, W) each, RGB, uint8 or float in [0, 1], on any device; sizes may differ.
            threshold: The lowest score of a face.
            overlap: Of two boxes whose intersection over union is above it, the surer one stays.
            size: Side of the square, in pixels, a multiple of 32; not used where the graph fixes its own.

        Raises:
            WeightsError: The graph gives other shapes than a detector does.
        """
        square = self._size or (size, size)
        at_once = len(frames) if self._batched else 1
        faces: list[list[Face]] = []
        for start in range(0, len(frames), at_once):
            blob, scales = _letterboxed(frames[start : start + at_once], square)
            outputs = self._run(blob)
            faces += [
                _faces([output[row] for output in outputs], square, scale, threshold, overlap)
                for row, scale in enumerate(scales)
            ]
        return faces

    def _run(self, blob: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The nine outputs, each (N, anchors, 1, 4 or 10)."""
        count, _, height, width = blob.shape
        cells = [(height // stride) * (width // stride) * _ANCHORS for stride in STRIDES]
        outputs = []
        for index, output in enumerate(self._session.run(None, {self._input: blob})):
            wanted = (count, cells[index % len(STRIDES)], _WIDTHS[index // len(STRIDES)])
            if output.shape not in (wanted, wanted[1:] if count == 1 else wanted):
                found = f"output {index} is {output.shape} for {count} frames of {height}x{width}"
                raise WeightsError(f"{self._label} is no SCRFD with five points: {found}, expected {wanted}")
            outputs.append(output.reshape(wanted))
        return outputs


def open_face_detector(checkpoint: Checkpoint, *, device: str | None) -> FaceDetector:
    """The detector of an ONNX file, shared by all who name it.

    Args:
        checkpoint: The file.
        device: See `device_of`. On a CUDA device the detector runs there only with the package onnxruntime-gpu;
            without it, on the CPU.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        WeightsError: The file cannot be found, is no ONNX, or is no such detector.
    """
    place = device_of(device)
    path = checkpoint.path()

    def make() -> FaceDetector:
        try:
            import onnxruntime  # noqa: PLC0415  # an extra
        except ImportError as error:
            raise MissingDependencyError(
                'faces are detected by onnxruntime, which is not installed: pip install "flux_rewards[face]"'
            ) from error
        providers: list[Any] = ["CPUExecutionProvider"]
        if place.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": place.index or 0}))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors alone: old exports draw pages of warnings
        try:
            session = onnxruntime.InferenceSession(path, options, providers=providers)
        except Exception as error:
            raise WeightsError(f"{checkpoint.label} cannot be read as ONNX: {_first_line(error)}") from error
        return FaceDetector(session, checkpoint.label)

    return shared(("face detector", checkpoint.identity(), str(place)), make)


def _letterboxed(frames: Sequence[torch.Tensor], square: tuple[int, int]) -> tuple[NDArray[np.float32], list[float]]:
    """The input of the graph, and for each frame how much it was scaled."""
    import torch  # noqa: PLC0415  # loaded already

    height, width = square
    canvas = torch.full((len(frames), 3, height, width), -127.5 / 128, dtype=torch.float32, device=frames[0].device)
    scales = []
    for row, frame in enumerate(frames):
        ratio = frame.shape[1] / frame.shape[2]
        tall = ratio > height / width
        inner = (height, max(1, int(height / ratio))) if tall else (max(1, int(width * ratio)), width)
        resized = torch.nn.functional.interpolate(
            unit_range(frame.detach())[None], inner, mode="bilinear", align_corners=False
        )
        levels = resized.mul_(255).add_(0.5).floor_()  # whole ones, as the original has
        canvas[row, :, : inner[0], : inner[1]] = levels[0].sub_(127.5).div_(128)
        scales.append(inner[0] / frame.shape[1])
    return canvas.cpu().numpy(), scales


def _faces(
    outputs: Sequence[NDArray[np.float32]], square: tuple[int, int], scale: float, threshold: float, overlap: float
) -> list[Face]:
    """The faces of one frame, from the graph's nine outputs for it."""
    found = []
    for level, stride in enumerate(STRIDES):
        scores, sides, ways = (outputs[level + len(STRIDES) * kind] for kind in range(len(_WIDTHS)))
        kept = np.flatnonzero(scores[:, 0] >= threshold)
        cells = kept // _ANCHORS
        columns = square[1] // stride
        centres = np.stack([cells % columns, cells // columns], axis=1).astype(np.float32) * stride
        boxes = np.concatenate([centres, centres], axis=1) + sides[kept] * _AWAY * stride
        points = centres[:, None] + ways[kept].reshape(-1, 5, 2) * stride
        found.append((boxes / np.float32(scale), scores[kept, 0], points / np.float32(scale)))
    boxes, scores, points = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(-scores, kind="stable")
    boxes, scores, points = boxes[order], scores[order], points[order]
    return [Face(boxes[row], float(scores[row]), points[row]) for row in _apart(boxes, overlap)]


def _apart(boxes: NDArray[np.float32], overlap: float) -> list[int]:
    """Which boxes stay, the surest of those that overlap. A box reaches to the far edge of its last pixel."""
    areas = (boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1)
    left = np.arange(len(boxes))
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(int(best))
        near, far = np.maximum(boxes[best, :2], boxes[left, :2]), np.minimum(boxes[best, 2:], boxes[left, 2:])
        shared_area = np.maximum(far - near + 1, 0).prod(axis=1)
        left = left[shared_area / (areas[best] + areas[left] - shared_area) <= overlap]
    return kept


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
