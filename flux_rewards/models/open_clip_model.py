"""CLIP checkpoints in open_clip's format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import ConfigError, MissingDependencyError, WeightsError
from flux_rewards.models.dual_encoder import DualEncoder
from flux_rewards.models.placement import device_of, dtype_of, frozen
from flux_rewards.models.preprocessing import Preprocessing
from flux_rewards.models.weights import blank, load_exactly, read_tensors
from flux_rewards.shared import shared

if TYPE_CHECKING:
    import torch

    from flux_rewards.models.checkpoint import Checkpoint

__all__ = ["CONFIG_FILE", "OPEN_CLIP_WEIGHTS", "open_clip_architecture", "open_open_clip", "open_open_clip_folder"]

CONFIG_FILE = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def open_clip_architecture(name: str) -> dict[str, Any]:
    """The architecture of that name, such as ``"ViT-H-14"``, or of the JSON file of that path.

    Raises:
        ConfigError: There is none.

    Examples:
        >>> open_clip_architecture("ViT-H-14")["embed_dim"]
        1024
    """
    if name.endswith(".json"):
        try:
            found = json.loads(Path(name).expanduser().read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(f"{name} is no readable open_clip architecture: {error}") from error
        return dict(found.get("model_cfg", found))
    known = _open_clip().get_model_config(name)
    if known is None:
        raise ConfigError(f"open_clip knows no architecture {name!r}; open_clip.list_models() lists them")
    return dict(known)


def open_open_clip(
    weights: Checkpoint,
    architecture: Mapping[str, Any],
    preprocessing: Preprocessing,
    *,
    device: str | None,
    dtype: str,
    under: str | None = None,
) -> DualEncoder:
    """The dual encoder of an open_clip architecture and a file of weights for it.

    Args:
        weights: The file.
        architecture: open_clip's ``model_cfg``.
        preprocessing: What it was trained on.
        device: See `device_of`.
        dtype: See `dtype_of`.
        under: The entry of the file that holds the tensors.

    Raises:
        WeightsError: It cannot be found, or does not fit.
    """
    place, precision = device_of(device), dtype_of(dtype)
    file = weights.path()
    key = ("open_clip", weights.identity(), json.dumps(architecture, sort_keys=True), preprocessing, place, precision)

    def make() -> DualEncoder:
        model, tokenizer = _built(architecture)
        load_exactly(model, read_tensors(file, under=under), weights.label)
        module, width = frozen(model, place, precision), architecture["embed_dim"]
        return _OpenClip(module, preprocessing, place, precision, width=width, tokenizer=tokenizer)

    return shared(key, make)


def open_open_clip_folder(source: Checkpoint, *, device: str | None, dtype: str) -> DualEncoder:
    """The dual encoder of a repository or directory with an ``open_clip_config.json``.

    Raises:
        WeightsError: It cannot be found, or does not fit.
    """
    config = json.loads(source.part(CONFIG_FILE).path().read_text())
    architecture = config["model_cfg"]
    vision = architecture.get("vision_cfg", {})
    size = vision.get("image_size", 224)
    preprocessing = Preprocessing.of_open_clip(config.get("preprocess_cfg") or {}, image_size=size)
    return open_open_clip(source.first_of(OPEN_CLIP_WEIGHTS), architecture, preprocessing, device=device, dtype=dtype)


def _built(architecture: Mapping[str, Any]) -> tuple[torch.nn.Module, Any]:
    """The module, still without its weights, and its tokenizer."""
    _open_clip()
    from open_clip.model import CLIP, CustomTextCLIP  # noqa: PLC0415
    from open_clip.tokenizer import SimpleTokenizer  # noqa: PLC0415

    config = dict(architecture)
    text = config.get("text_cfg", {})
    foreign = text.get("hf_model_name") or text.get("hf_tokenizer_name")
    if foreign:
        raise WeightsError(
            f"the text tower needs {foreign} of transformers, and only open_clip's own are known here: "
            "use a checkpoint in transformers' format"
        )
    custom = config.pop("custom_text", False) or "multimodal_cfg" in config
    if "multimodal_cfg" in config:
        raise WeightsError("CoCa models are not known here")
    with blank():
        model: torch.nn.Module = (CustomTextCLIP if custom else CLIP)(**config)
    context = text.get("context_length", 77)
    options = text.get("tokenizer_kwargs", {})
    return model, SimpleTokenizer(context_length=context, **options)


class _OpenClip(DualEncoder):
    def __init__(
        self,
        model: Any,
        preprocessing: Preprocessing,
        device: torch.device,
        dtype: torch.dtype,
        *,
        width: int,
        tokenizer: Any,
    ) -> None:
        scale = float(model.logit_scale.float().exp())
        super().__init__(model, preprocessing, device, dtype, width=width, logit_scale=scale)
        self._tokenizer = tokenizer

    def tower(self, pixels: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.module.encode_image(pixels)  # type: ignore[operator]
        return features

    def text_tower(self, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
        features: torch.Tensor = self.module.encode_text(tokens["text"])  # type: ignore[operator]
        return features

    def tokenize(self, texts: Sequence[str]) -> tuple[dict[str, torch.Tensor], list[int]]:
        tokens = self._tokenizer(list(texts))
        room = tokens.shape[1] - 2  # for the marks of begin and end
        cut = [max(len(self._tokenizer.encode(text)) - room, 0) for text in texts]
        return {"text": tokens}, cut


def _open_clip() -> Any:
    try:
        import open_clip  # noqa: PLC0415  # seven seconds
    except Exception as error:
        raise MissingDependencyError(
            f"open_clip cannot be imported ({type(error).__name__}: {error}); run `pip install open_clip_torch` with a "
            "torchvision that fits the installed torch"
        ) from error
    return open_clip
