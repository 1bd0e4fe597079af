"""CLIP checkpoints in transformers' format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import WeightsError
from flux_rewards.models.configuration import model_type
from flux_rewards.models.dual_encoder import DualEncoder
from flux_rewards.models.loading import load_transformers
from flux_rewards.models.placement import device_of, dtype_of
from flux_rewards.models.preprocessing import Preprocessing
from flux_rewards.shared import shared

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from flux_rewards.models.checkpoint import Checkpoint

__all__ = ["open_transformers_clip"]

_TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))


def open_transformers_clip(
    weights: Checkpoint, processor: Checkpoint, *, device: str | None, dtype: str
) -> DualEncoder:
    """The dual encoder of a `CLIPModel` checkpoint.

    Args:
        weights: Configuration and weights.
        processor: Tokenizer and preprocessing; often the same.
        device: See `device_of`.
        dtype: See `dtype_of`.

    Raises:
        WeightsError: It cannot be found, or does not fit.
    """
    place, precision = device_of(device), dtype_of(dtype)
    key = ("transformers clip", weights.identity(), processor.identity(), place, precision)

    def make() -> DualEncoder:
        from transformers import AutoModel  # noqa: PLC0415  # seconds

        folder = processor.path()
        if (kind := model_type(weights)) != "clip":  # SigLIP, for one, wants other padding, and has a bias
            raise WeightsError(f"{weights.label} is of the kind {kind!r}; expected a CLIPModel, of the kind 'clip'")
        model = load_transformers(AutoModel, weights, place, precision)
        tokenizer = _tokenizer(folder, processor.label, model.config.text_config)
        return _TransformersClip(model, Preprocessing.of_transformers(folder), place, precision, tokenizer)

    return shared(key, make)


def _tokenizer(folder: Path, origin: str, text: Any) -> Any:
    """The tokenizer of a folder, checked: without its files transformers makes an empty one, and says nothing."""
    from transformers import AutoTokenizer  # noqa: PLC0415  # seconds

    if not any(all((folder / file).is_file() for file in files) for files in _TOKENIZERS):
        raise WeightsError(
            f"{origin} holds no tokenizer (tokenizer.json, or vocab.json and merges.txt): name the checkpoint that it "
            "was trained from as processor_name_or_path"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise WeightsError(f"the tokenizer of {origin} cannot be read: {type(error).__name__}: {error}") from error
    if len(tokenizer) > text.vocab_size:
        raise WeightsError(
            f"the tokenizer of {origin} has {len(tokenizer)} tokens, the model {text.vocab_size}: it is another model's"
        )
    # The feature is taken at the end of the text: at that token, or in old configurations (2) at the highest id.
    end = tokenizer.eos_token_id
    if end != (text.vocab_size - 1 if text.eos_token_id == 2 else text.eos_token_id):
        raise WeightsError(f"the tokenizer of {origin} ends texts with {end}, which the model does not know as the end")
    return tokenizer


class _TransformersClip(DualEncoder):
    def __init__(
        self,
        model: Any,
        preprocessing: Preprocessing,
        device: torch.device,
        dtype: torch.dtype,
        tokenizer: Any,
    ) -> None:
        scale = float(model.logit_scale.float().exp())
        super().__init__(model, preprocessing, device, dtype, width=model.config.projection_dim, logit_scale=scale)
        self._tokenizer = tokenizer
        self._context: int = model.config.text_config.max_position_embeddings

    def tower(self, pixels: torch.Tensor) -> torch.Tensor:
        return _pooled(self.module.get_image_features(pixel_values=pixels))  # type: ignore[operator]

    def text_tower(self, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
        return _pooled(self.module.get_text_features(**tokens))  # type: ignore[operator]

    def tokenize(self, texts: Sequence[str]) -> tuple[dict[str, torch.Tensor], list[int]]:
        whole = self._tokenizer(list(texts), verbose=False)["input_ids"]
        kept = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=self._context, return_tensors="pt"
        )
        tokens = {name: kept[name] for name in ("input_ids", "attention_mask") if name in kept}
        return tokens, [max(len(ids) - self._context, 0) for ids in whole]


def _pooled(features: Any) -> torch.Tensor:
    """Transformers 5 gives an output object, 4 a tensor."""
    pooled: torch.Tensor = getattr(features, "pooler_output", features)
    return pooled
