"""Tiny random CLIP checkpoints of the real architectures, in the real file formats."""

import json
from pathlib import Path
from typing import Any

import torch

WORDS = (
    "a photo of the cat dog sitting on red chair in green field under blue sky with ocean wave house tree person "
    "holding small glass painting style digital art beautiful landscape mountain 0 1 2 3 4 5 6 7 8 9"
)


def tokenizer(folder: Path, context: int = 77) -> None:
    """A CLIP tokenizer with a small vocabulary of its own, saved as transformers saves it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    trained = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))  # noqa: S106
    trained.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        end_of_word_suffix="</w>",
        initial_alphabet=list("abcdefghijklmnopqrstuvwxyz0123456789.,!?'\"-"),
    )
    trained.train_from_iterator([WORDS, *("abcdefghijklmnopqrstuvwxyz.,!?'\"-")], trainer)
    state = json.loads(trained.to_str())["model"]
    vocab = state["vocab"]
    merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split()) for merge in state["merges"]]
    CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=context).save_pretrained(folder)


def transformers_clip(folder: Path, *, seed: int = 0, size: int = 32, projection: int = 16, **vision: Any) -> Path:
    """A CLIPModel with its tokenizer and preprocessing."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer(folder)
    ids = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    config = CLIPConfig(
        text_config={
            "vocab_size": len(ids),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 77,
            "projection_dim": projection,
            "bos_token_id": ids["<|startoftext|>"],
            "eos_token_id": ids["<|endoftext|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": size,
            "patch_size": 8,
            "projection_dim": projection,
            **vision,
        },
        projection_dim=projection,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPModel(config)
        for parameter in model.parameters():  # the usual initialisation is so small that all images look alike
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.15)
    model.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size}).save_pretrained(folder)
    return folder


def open_clip_architecture(size: int = 32) -> dict[str, Any]:
    """A small ViT and a small text tower, as open_clip's ``model_cfg`` writes them."""
    return {
        "embed_dim": 16,
        "vision_cfg": {"image_size": size, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }


def open_clip_state(size: int = 32, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights for it."""
    from open_clip.model import CLIP

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIP(**open_clip_architecture(size))
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.1)
    return model.state_dict()
