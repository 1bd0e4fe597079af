"""Whose a face is: ArcFace, its ONNX graph turned into a torch module so that it has a gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flux_rewards.errors import MissingDependencyError, WeightsError
from flux_rewards.models.faces.alignment import CROP_SIZE
from flux_rewards.models.placement import device_of, dtype_of, frozen, mixed_precision
from flux_rewards.models.weights import blank
from flux_rewards.shared import shared

if TYPE_CHECKING:
    import torch

    from flux_rewards.models.checkpoint import Checkpoint

__all__ = ["FaceEmbedder", "open_face_embedder"]


class FaceEmbedder:
    """ArcFace (``glintr100.onnx``) on aligned crops. Safe to call from several threads.

    Crops go in as RGB, ``(x - 127.5) / 127.5``, or as 0 to 255 where the graph itself begins by subtracting and
    multiplying, as the oldest exports do.

    Args:
        module: The graph as a frozen torch module, on its device: (N, 3, 112, 112) to (N, D).
        device: Where the module is.
        dtype: In which its weights are held.
        takes_levels: Whether it takes 0 to 255.
        label: Its file, for messages.

    Source: Deng et al. 2019 (arXiv 1801.07698); deepinsight/insightface.
    """

    def __init__(
        self, module: torch.nn.Module, device: torch.device, dtype: torch.dtype, *, takes_levels: bool, label: str
    ) -> None:
        self.module = module
        self.device = device
        self.dtype = dtype
        self.takes_levels = takes_levels
        self._label = label

    def encode(self, crops: torch.Tensor, *, checkpointing: bool = False) -> torch.Tensor:
        """Unit features of crops, with a gradient where they want one.

        Args:
            crops: (N, 3, 112, 112), RGB, float in [0, 1].
            checkpointing: Keep no activations for the backward pass; compute them again there.

        Returns:
            (N, D), float32 (float64 from a module of that), on the model's device.

        Raises:
            WeightsError: The graph gives something else.
        """
        import torch  # noqa: PLC0415  # loaded already
        from torch.utils.checkpoint import checkpoint  # noqa: PLC0415

        prepared = crops.to(self.device, torch.promote_types(self.dtype, torch.float32))
        prepared = (prepared * 255 if self.takes_levels else prepared * 2 - 1).to(self.dtype)
        with mixed_precision(self.device, self.dtype):
            if checkpointing and torch.is_grad_enabled() and prepared.requires_grad:
                features = checkpoint(self.module, prepared, use_reentrant=False, preserve_rng_state=False)
            else:
                features = self.module(prepared)
        if features.ndim != 2 or len(features) != len(crops):
            raise WeightsError(
                f"{self._label} gives {tuple(features.shape)} for {len(crops)} crops, expected ({len(crops)}, D); "
                "take a graph of any batch size"
            )
        return torch.nn.functional.normalize(features.to(torch.promote_types(self.dtype, torch.float32)), dim=-1)


def open_face_embedder(checkpoint: Checkpoint, *, device: str | None, dtype: str) -> FaceEmbedder:
    """The embedder of an ONNX file, shared by all who name it.

    Args:
        checkpoint: The file.
        device: See `device_of`.
        dtype: See `dtype_of`.

    Raises:
        MissingDependencyError: onnx2torch is not installed.
        WeightsError: The file cannot be found, is no ONNX, or is no such graph.
    """
    place, precision = device_of(device), dtype_of(dtype)
    path = checkpoint.path()

    def make() -> FaceEmbedder:
        try:
            import onnx  # noqa: PLC0415  # an extra
            import onnx2torch  # noqa: PLC0415
        except ImportError as error:
            raise MissingDependencyError(
                'face embeddings need onnx2torch, which is not installed: pip install "flux_rewards[face]"'
            ) from error
        label = checkpoint.label
        try:
            model = onnx.load(path)
        except Exception as error:  # protobuf's, of several kinds
            raise WeightsError(f"{label} cannot be read as ONNX: {type(error).__name__}") from error
        _check(model.graph, label)
        try:
            with blank():  # all of it comes from the file
                module = onnx2torch.convert(model)
        except Exception as error:
            raise WeightsError(f"{label} cannot be turned into a torch module: {error}") from error
        return FaceEmbedder(
            frozen(module, place, precision), place, precision, takes_levels=_takes_levels(model.graph), label=label
        )

    return shared(("face embedder", checkpoint.identity(), str(place), precision), make)


def _check(graph: Any, label: str) -> None:
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]  # old exports list weights there, too
    shapes = [[axis.dim_value or None for axis in value.type.tensor_type.shape.dim] for value in inputs]
    wanted = [3, CROP_SIZE, CROP_SIZE]
    if len(shapes) != 1 or shapes[0][1:] != wanted or len(graph.output) != 1:
        raise WeightsError(
            f"{label} is no ArcFace: expected 1 input (N, 3, 112, 112) and 1 output (N, D), found inputs {shapes} and "
            f"{len(graph.output)} outputs"
        )


def _takes_levels(graph: Any) -> bool:
    """Whether the graph normalises its input itself: what it does first is to subtract, then to multiply."""
    weights = {tensor.name for tensor in graph.initializer}
    value, operations = next(entry.name for entry in graph.input if entry.name not in weights), []
    for _ in range(2):
        users = [node for node in graph.node if value in node.input]
        if len(users) != 1:
            return False
        operations.append(users[0].op_type)
        value = users[0].output[0]
    return operations == ["Sub", "Mul"]
