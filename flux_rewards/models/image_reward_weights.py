"""The official files of ImageReward, read into modules of transformers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import WeightsError
from flux_rewards.models.weights import check_keys, read_tensors

if TYPE_CHECKING:
    import torch

__all__ = ["load_image_reward_network"]

_HEAD = {"0": 1024, "2": 128, "4": 64, "6": 16, "7": 1}  # the numbers between were dropouts; nothing else was between
_HEAD_WIDTH = 64  # of the image encoder's attention, at every size of ViT
_DEPTHS = {768: 12, 1024: 24}  # of BLIP's two image encoders; a file without the last layers must not pass for another
_VISION, _TEXT = "blip.visual_encoder.", "blip.text_encoder."
_UNUSED = {  # of BLIP's pretraining, and a buffer of old versions of BERT
    "blip.vision_proj.weight",
    "blip.vision_proj.bias",
    "blip.text_proj.weight",
    "blip.text_proj.bias",
    "blip.text_encoder.embeddings.position_ids",
}
_OFFICIAL = (
    ("vision.embeddings.class_embedding", _VISION + "cls_token"),
    ("vision.embeddings.position_embedding", _VISION + "pos_embed"),
    ("vision.embeddings.patch_embedding.", _VISION + "patch_embed.proj."),
    ("vision.encoder.layers.", _VISION + "blocks."),
    ("vision.post_layernorm.", _VISION + "norm."),
    (".self_attn.projection.", ".attn.proj."),
    (".self_attn.", ".attn."),
    (".layer_norm", ".norm"),
    ("text.", _TEXT),
    ("head.", "mlp.layers."),
)


def load_image_reward_network(weights: Path, med_config: Path) -> torch.nn.ModuleDict:
    """The two encoders and the head, ``vision``, ``text`` and ``head``, on the CPU, in the precision of the file.

    Sizes are those of the tensors and of the configuration, but for the head's, which are those of the paper, and for
    the heads of the image encoder's attention, which are 64 wide.

    Args:
        weights: ``ImageReward.pt``.
        med_config: ``med_config.json``, BERT's configuration. Its ``encoder_width`` is that of another image encoder,
            and is not read.

    Raises:
        WeightsError: Tensors are missing, unexpected or misshaped, by their official names.
    """
    given = {name.removeprefix("module."): tensor for name, tensor in read_tensors(weights).items()}
    tensors = {name: tensor for name, tensor in given.items() if name not in _UNUSED}
    network = _empty_network(_vision_config(tensors, weights), _text_config(tensors, med_config, weights))
    _fill(network, tensors, weights)
    return network


def _official(name: str) -> str:
    """The name of a tensor in the official file."""
    for ours, theirs in _OFFICIAL:
        name = name.replace(ours, theirs, 1)
    return name


def _empty_network(vision: Mapping[str, Any], text: Mapping[str, Any]) -> torch.nn.ModuleDict:
    """The modules without weights, on the meta device: nothing is drawn, and no memory taken."""
    import torch  # noqa: PLC0415  # only those who load pay for it
    from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel  # noqa: PLC0415

    widths = [int(text["hidden_size"]), *_HEAD.values()]
    with torch.device("meta"):
        head = torch.nn.Sequential()
        for place, name in enumerate(_HEAD):
            head.add_module(name, torch.nn.Linear(widths[place], widths[place + 1]))
        network = torch.nn.ModuleDict(
            {
                "vision": BlipVisionModel(BlipVisionConfig(**vision)),
                "text": BlipTextModel(BlipTextConfig(**text), add_pooling_layer=False),
                "head": head,
            }
        )
    embeddings: Any = network["text"].embeddings
    embeddings.position_ids = torch.arange(int(text["max_position_embeddings"]))[None]  # a buffer that no file holds
    return network


def _fill(network: torch.nn.ModuleDict, tensors: Mapping[str, torch.Tensor], origin: Path) -> None:
    """Every tensor of the network, from those by official names, and none left over."""
    own = network.state_dict()
    names = {_official(name): name for name in own}
    check_keys(
        str(origin),
        "ImageReward",
        missing=[name for name in names if name not in tensors],
        unexpected=[name for name in tensors if name not in names],
        misshaped=[
            f"{name} {tuple(tensors[name].shape)} for {tuple(own[ours].shape)}"
            for name, ours in names.items()
            if name in tensors and tensors[name].shape != own[ours].shape
        ],
    )
    network.load_state_dict({names[name]: tensor for name, tensor in tensors.items()}, assign=True)


def _vision_config(tensors: Mapping[str, torch.Tensor], origin: Path) -> dict[str, Any]:
    """What the tensors say about the image encoder, in transformers' words."""
    width, _, patch, _ = _shape(tensors, _VISION + "patch_embed.proj.weight", 4, origin)
    _, tokens, _ = _shape(tensors, _VISION + "pos_embed", 3, origin)
    inner, _ = _shape(tensors, _VISION + "blocks.0.mlp.fc1.weight", 2, origin)
    side = math.isqrt(max(tokens - 1, 0))
    if side * side != tokens - 1 or width % _HEAD_WIDTH:
        raise WeightsError(
            f"{origin} holds no image encoder of BLIP: expected one token and a square of patches, and a width that is "
            f"a multiple of {_HEAD_WIDTH}; found {tokens} tokens, {width} wide"
        )
    blocks = [int(name.split(".")[3]) for name in tensors if name.startswith(_VISION + "blocks.")]
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": _DEPTHS.get(width, max(blocks) + 1),
        "num_attention_heads": width // _HEAD_WIDTH,
        "image_size": side * patch,
        "patch_size": patch,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,  # timm's, not the default of transformers
        "attention_dropout": 0.0,
    }


def _text_config(tensors: Mapping[str, torch.Tensor], med_config: Path, origin: Path) -> dict[str, Any]:
    """What the configuration says about the text encoder, in transformers' words."""
    try:
        said = json.loads(med_config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{med_config} cannot be read as JSON: {error}") from error
    kept = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "max_position_embeddings",
        "hidden_act",
        "layer_norm_eps",
    )
    if absent := [name for name in kept if name not in said]:
        raise WeightsError(f"{med_config} is no configuration of BERT: it lacks {', '.join(absent)}")
    return {
        **{name: said[name] for name in kept},
        "encoder_hidden_size": _shape(tensors, _VISION + "pos_embed", 3, origin)[2],
        "is_decoder": True,  # gives every layer its attention to the image; whether text is causal is asked elsewhere
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": None,
        "sep_token_id": None,
    }


def _shape(tensors: Mapping[str, torch.Tensor], name: str, ndim: int, origin: Path) -> tuple[int, ...]:
    if name not in tensors:
        check_keys(str(origin), "ImageReward", missing=[name])
    shape = tuple(tensors[name].shape)
    if len(shape) != ndim:
        check_keys(str(origin), "ImageReward", misshaped=[f"{name} {shape}, which has not {ndim} dimensions"])
    return shape
