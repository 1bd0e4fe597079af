"""Adapters (LoRA) in peft's format, merged into the model that they were trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import MissingDependencyError, WeightsError
from flux_rewards.models.checkpoint import Checkpoint
from flux_rewards.models.weights import check_keys, read_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["adapted", "base_of"]

_CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_INSIDE = "base_model.model."
_HEADS = ("score.weight", "classifier.weight", "classifier.out_proj.weight")
_OF_A_CAUSAL_MODEL = "lm_head."  # what a head of its own takes the place of


def base_of(checkpoint: Checkpoint) -> Checkpoint | None:
    """The model that an adapter was trained on; None for a checkpoint that is a whole model.

    Raises:
        WeightsError: The adapter's configuration cannot be read, or names none.
    """
    if not checkpoint.has(_CONFIG):
        return None
    path = checkpoint.part(_CONFIG).path()
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        name = held["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} does not say which model it adapts: {type(error).__name__}: {error}") from error
    if not isinstance(name, str) or not name:
        raise WeightsError(f"{path} does not say which model it adapts; set base_model_name_or_path")
    return Checkpoint(name, revision=held.get("revision"))


def adapted(auto: Any, adapter: Checkpoint) -> Any:
    """What loads a model as `auto` does, such as ``AutoModelForCausalLM``, with an adapter merged into it.

    Raises:
        MissingDependencyError: peft is not installed.
    """
    try:
        import peft  # noqa: PLC0415  # seconds
    except ImportError as error:
        raise MissingDependencyError(
            f'{adapter.label} is an adapter (LoRA), which needs peft: pip install "flux_rewards[train]"'
        ) from error
    return _Adapted(auto, adapter, peft)


class _Adapted:
    """Loads a base model, and merges an adapter into it: every tensor of the one and the other, or none."""

    def __init__(self, auto: Any, adapter: Checkpoint, peft: Any) -> None:
        self._auto = auto
        self._adapter = adapter
        self._peft = peft

    def from_pretrained(self, folder: Path, **options: Any) -> tuple[Any, Mapping[str, Any]]:
        """As `from_pretrained` of transformers, with ``output_loading_info=True``."""
        own = self._adapter.path()
        file = next((own / name for name in _WEIGHTS if (own / name).is_file()), None)
        if file is None:
            raise WeightsError(f"{self._adapter.label} holds none of {', '.join(_WEIGHTS)}")
        tensors = read_tensors(file)
        heads = {name.removeprefix(_INSIDE): tensor for name, tensor in tensors.items() if "lora_" not in name}
        rows = next((len(heads[name]) for name in _HEADS if name in heads), None)
        if rows is not None and "CausalLM" not in self._auto.__name__:
            options["num_labels"] = rows  # the base knows nothing of the adapter's head
        model, found = self._auto.from_pretrained(folder, **options)
        merged = self._merged(model, own, tensors)
        found["missing_keys"] = {name for name in found["missing_keys"] if name not in heads}
        found["mismatched_keys"] = {entry for entry in found["mismatched_keys"] if entry[0] not in heads}
        if heads:
            found["unexpected_keys"] = {
                name for name in found["unexpected_keys"] if not name.startswith(_OF_A_CAUSAL_MODEL)
            }
        return merged, found

    def _merged(self, model: Any, own: Path, tensors: Mapping[str, Any]) -> Any:
        config = self._peft.PeftConfig.from_pretrained(str(own))
        config.inference_mode = True
        with_adapter = self._peft.get_peft_model(model, config)
        # Left to itself, peft asks the hub whether the vocabulary has grown.
        embeds = any("embed" in name and "lora_" not in name for name in tensors)
        expected = self._peft.get_peft_model_state_dict(with_adapter, save_embedding_layers=embeds)
        check_keys(
            self._adapter.label,
            type(model).__name__,
            missing=sorted(expected.keys() - tensors.keys()),
            unexpected=sorted(tensors.keys() - expected.keys()),
            misshaped=[
                f"{name} {tuple(tensors[name].shape)} for {tuple(expected[name].shape)}"
                for name in sorted(expected.keys() & tensors.keys())
                if tensors[name].shape != expected[name].shape
            ],
        )
        self._peft.set_peft_model_state_dict(with_adapter, dict(tensors))
        return with_adapter.merge_and_unload()
