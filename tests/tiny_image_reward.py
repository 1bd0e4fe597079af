"""ImageReward's published architecture, written plainly, and tiny random checkpoints of it in the official format.

Sources: Xu et al., "ImageReward" (2023); Li et al., "BLIP" (2022); Dosovitskiy et al., "ViT" (2021); Devlin et al.,
"BERT" (2019). The names of the tensors are those of the official `ImageReward.pt`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import conv2d, embedding, gelu, interpolate, layer_norm

WORDS = ("a", "an", "the", "photo", "painting", "of", "red", "blue", "cat", "dog", "two", "on", "beach", "bird", "sea")
LONG_PROMPT = "a painting of two red bird on the beach , " * 5
"""52 tokens with [CLS] and [SEP]: 17 more than the model reads."""

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Sizes:
    """Of BLIP's image encoder (its heads are 64 wide) and of BERT."""

    image: int = 64
    patch: int = 16
    width: int = 128
    blocks: int = 2
    vocabulary: int = 0
    positions: int = 40
    hidden: int = 32
    layers: int = 2
    heads: int = 4
    inner: int = 48


OFFICIAL = Sizes(224, 16, 1024, 24, 30524, 512, 768, 12, 12, 3072)
"""ViT-L/16 and BERT base."""


def vocabulary() -> list[str]:
    """Word pieces: special tokens, words, letters, punctuation."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, ",", *letters, *(f"##{one}" for one in letters)]
    return list(dict.fromkeys(pieces))


TINY = Sizes(vocabulary=len(vocabulary()) + 2)


def official_shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Every tensor that decides a score, by its official name."""
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, before: int, after: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (after, before), (after,)

    def norm(name: str, width: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (width,), (width,)

    vision, width = "blip.visual_encoder", sizes.width
    shapes[f"{vision}.cls_token"] = (1, 1, width)
    shapes[f"{vision}.pos_embed"] = (1, (sizes.image // sizes.patch) ** 2 + 1, width)
    shapes[f"{vision}.patch_embed.proj.weight"] = (width, 3, sizes.patch, sizes.patch)
    shapes[f"{vision}.patch_embed.proj.bias"] = (width,)
    for block in (f"{vision}.blocks.{index}" for index in range(sizes.blocks)):
        norm(f"{block}.norm1", width)
        linear(f"{block}.attn.qkv", width, 3 * width)
        linear(f"{block}.attn.proj", width, width)
        norm(f"{block}.norm2", width)
        linear(f"{block}.mlp.fc1", width, 4 * width)
        linear(f"{block}.mlp.fc2", 4 * width, width)
    norm(f"{vision}.norm", width)

    text, hidden = "blip.text_encoder", sizes.hidden
    shapes[f"{text}.embeddings.word_embeddings.weight"] = (sizes.vocabulary, hidden)
    shapes[f"{text}.embeddings.position_embeddings.weight"] = (sizes.positions, hidden)
    norm(f"{text}.embeddings.LayerNorm", hidden)
    for layer in (f"{text}.encoder.layer.{index}" for index in range(sizes.layers)):
        for attention, of_others in (("attention", hidden), ("crossattention", width)):
            linear(f"{layer}.{attention}.self.query", hidden, hidden)
            linear(f"{layer}.{attention}.self.key", of_others, hidden)
            linear(f"{layer}.{attention}.self.value", of_others, hidden)
            linear(f"{layer}.{attention}.output.dense", hidden, hidden)
            norm(f"{layer}.{attention}.output.LayerNorm", hidden)
        linear(f"{layer}.intermediate.dense", hidden, sizes.inner)
        linear(f"{layer}.output.dense", sizes.inner, hidden)
        norm(f"{layer}.output.LayerNorm", hidden)

    linear("mlp.layers.0", hidden, 1024)  # 1, 3 and 5 are dropouts
    linear("mlp.layers.2", 1024, 128)
    linear("mlp.layers.4", 128, 64)
    linear("mlp.layers.6", 64, 16)
    linear("mlp.layers.7", 16, 1)
    return shapes


def unused_shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """What official files hold beside: the projections of BLIP's pretraining, a buffer of old versions of BERT."""
    return {
        "blip.vision_proj.weight": (256, sizes.width),
        "blip.vision_proj.bias": (256,),
        "blip.text_proj.weight": (256, sizes.hidden),
        "blip.text_proj.bias": (256,),
        "blip.text_encoder.embeddings.position_ids": (1, sizes.positions),
    }


def random_state(sizes: Sizes = TINY, seed: int = 0) -> dict[str, Tensor]:
    """Random weights, large enough that every tensor matters to a score."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for name, shape in {**official_shapes(sizes), **unused_shapes(sizes)}.items():
        drawn = torch.randn(shape, generator=generator)
        if "norm" in name.lower():
            state[name] = 0.2 * drawn + (1.0 if name.endswith("weight") else 0.0)
        elif "embedding" in name or name.endswith(("cls_token", "pos_embed")):
            state[name] = 0.7 * drawn
        else:
            state[name] = drawn * (1.0 / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 0.2)
    filters = "blip.visual_encoder.patch_embed.proj.weight"  # smooth, as trained ones are; white ones amplify rounding
    state[filters] = state[filters].unfold(2, 4, 4).unfold(3, 4, 4)[..., 0, 0]
    state[filters] = interpolate(state[filters], size=(sizes.patch, sizes.patch), mode="bilinear")
    state["blip.text_encoder.embeddings.position_ids"] = torch.arange(sizes.positions)[None]
    return state


# The network, by the book


def linear(x: Tensor, state: State, name: str) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def norm(x: Tensor, state: State, name: str, eps: float) -> Tensor:
    return layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def attend(queries: Tensor, keys: Tensor, values: Tensor, heads: int, seen: Tensor | None = None) -> Tensor:
    """Softmax attention, one head after the other; `seen` (N, length) is 1 for the keys that count."""
    outputs = []
    for query, key, value in zip(*(part.chunk(heads, dim=-1) for part in (queries, keys, values)), strict=True):
        scores = query @ key.transpose(1, 2) / math.sqrt(query.shape[-1])
        if seen is not None:
            scores = scores.masked_fill(seen[:, None] == 0, -torch.inf)
        outputs.append(scores.softmax(dim=-1) @ value)
    return torch.cat(outputs, dim=-1)


def image_tokens(state: State, pixels: Tensor, sizes: Sizes) -> Tensor:
    """ViT, normalised before each part and at the end; all tokens."""
    vision = "blip.visual_encoder"
    weight, bias = state[f"{vision}.patch_embed.proj.weight"], state[f"{vision}.patch_embed.proj.bias"]
    patches = conv2d(pixels, weight, bias, stride=sizes.patch).flatten(2).transpose(1, 2)
    x = torch.cat([state[f"{vision}.cls_token"].expand(len(pixels), -1, -1), patches], dim=1)
    x = x + state[f"{vision}.pos_embed"]
    for block in (f"{vision}.blocks.{index}" for index in range(sizes.blocks)):
        fused = linear(norm(x, state, f"{block}.norm1", 1e-6), state, f"{block}.attn.qkv")
        queries, keys, values = fused.chunk(3, dim=-1)
        x = x + linear(attend(queries, keys, values, sizes.width // 64), state, f"{block}.attn.proj")
        inner = gelu(linear(norm(x, state, f"{block}.norm2", 1e-6), state, f"{block}.mlp.fc1"))
        x = x + linear(inner, state, f"{block}.mlp.fc2")
    return norm(x, state, f"{vision}.norm", 1e-6)


def text_tokens(state: State, ids: Tensor, seen: Tensor, image: Tensor, sizes: Sizes) -> Tensor:
    """BERT without token types, normalised after each part; each token attends to all others, then to the image."""
    text = "blip.text_encoder"
    words = embedding(ids, state[f"{text}.embeddings.word_embeddings.weight"])
    places = state[f"{text}.embeddings.position_embeddings.weight"][: ids.shape[1]]
    x = norm(words + places, state, f"{text}.embeddings.LayerNorm", 1e-12)
    for layer in (f"{text}.encoder.layer.{index}" for index in range(sizes.layers)):
        for attention, others, counted in (("attention", None, seen), ("crossattention", image, None)):
            of = f"{layer}.{attention}"
            source = x if others is None else others
            queries = linear(x, state, f"{of}.self.query")
            keys, values = (linear(source, state, f"{of}.self.{part}") for part in ("key", "value"))
            found = attend(queries, keys, values, sizes.heads, counted)
            x = norm(x + linear(found, state, f"{of}.output.dense"), state, f"{of}.output.LayerNorm", 1e-12)
        inner = gelu(linear(x, state, f"{layer}.intermediate.dense"))
        x = norm(x + linear(inner, state, f"{layer}.output.dense"), state, f"{layer}.output.LayerNorm", 1e-12)
    return x


def reference_scores(state: State, pixels: Tensor, ids: Tensor, seen: Tensor, sizes: Sizes = TINY) -> Tensor:
    """(N,): ImageReward of preprocessed pixels and of token ids."""
    x = text_tokens(state, ids, seen, image_tokens(state, pixels, sizes), sizes)[:, 0]
    for index in (0, 2, 4, 6, 7):
        x = linear(x, state, f"mlp.layers.{index}")
    return (x[:, 0] - 0.16717362830052426) / 1.0333394966054072


# What goes in


def pil_pixels(images: Sequence[Image.Image], size: int) -> Tensor:
    """The official preprocessing, in PIL: shorter side to `size`, bicubic; centre; CLIP's mean and deviation."""
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    rows = []
    for image in images:
        short = min(image.size)
        width, height = (int(size * side / short) for side in image.size)
        left, top = round((width - size) / 2.0), round((height - size) / 2.0)
        resized = image.resize((width, height), Image.Resampling.BICUBIC)
        cut = resized.crop((left, top, left + size, top + size)).convert("RGB")
        values = torch.frombuffer(bytearray(cut.tobytes()), dtype=torch.uint8).view(size, size, 3) / 255
        rows.append(((values - mean) / deviation).permute(2, 0, 1))
    return torch.stack(rows)


def official_tokens(prompts: Sequence[str], folder: Path) -> tuple[Tensor, Tensor]:
    """Ids and mask from transformers' own tokenizer, set up as the official package does."""
    from transformers import BertTokenizer

    tokenizer = BertTokenizer.from_pretrained(str(folder))
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    tokenizer.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
    found = tokenizer(list(prompts), padding="max_length", truncation=True, max_length=35, return_tensors="pt")
    return found["input_ids"], found["attention_mask"]


# On disk


def med_config(sizes: Sizes) -> dict[str, Any]:
    """What `med_config.json` says. Its `encoder_width` is that of another image encoder, as in the official one."""
    return {
        "architectures": ["BertModel"],
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": sizes.hidden,
        "initializer_range": 0.02,
        "intermediate_size": sizes.inner,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": sizes.positions,
        "model_type": "bert",
        "num_attention_heads": sizes.heads,
        "num_hidden_layers": sizes.layers,
        "pad_token_id": 0,
        "type_vocab_size": 2,
        "vocab_size": sizes.vocabulary,
        "encoder_width": 768,
        "add_cross_attention": True,
    }


def save(folder: Path, state: State | None = None, sizes: Sizes = TINY) -> Path:
    """Write `ImageReward.pt` and `med_config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(dict(random_state(sizes) if state is None else state), folder / "ImageReward.pt")
    (folder / "med_config.json").write_text(json.dumps(med_config(sizes)), encoding="utf-8")
    return folder


def save_tokenizer(folder: Path) -> Path:
    """An uncased BERT tokenizer as the hub holds it."""
    from transformers import BertTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary()), encoding="utf-8")
    BertTokenizer.from_pretrained(str(folder)).save_pretrained(str(folder))
    return folder


def config(folder: Path) -> dict[str, Any]:
    """Write a tiny checkpoint and tokenizer, and return the parameters of an `ImageReward` that uses them."""
    small = replace(TINY, image=32)
    return {
        "model_name_or_path": str(save(folder / "image_reward", sizes=small)),
        "tokenizer": str(save_tokenizer(folder / "bert")),
        "device": "cpu",
    }
