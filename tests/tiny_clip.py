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
    merges: Any = [tuple(merge) if isinstance(merge, list) else tuple(merge.split()) for merge in state["merges"]]
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
    state: dict[str, torch.Tensor] = model.state_dict()
    return state


def open_clip_folder(folder: Path, *, size: int = 32, seed: int = 0) -> Path:
    """A directory as open_clip pushes it to the hub."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    preprocessing = {
        "size": size,
        "mode": "RGB",
        "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.26862954, 0.26130258, 0.27577711],
        "interpolation": "bicubic",
        "resize_mode": "squash",
        "fill_color": 0,
    }
    config = {"model_cfg": open_clip_architecture(size), "preprocess_cfg": preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    state = {name: tensor.contiguous() for name, tensor in open_clip_state(size, seed).items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder


def hps(folder: Path, *, size: int = 32, file: str = "HPS_v2.1_compressed.pt") -> Path:
    """A file as xswu/HPSv2 has it, and the architecture that it fits, in ``architecture.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"epoch": 1, "state_dict": open_clip_state(size)}, folder / file)
    (folder / "architecture.json").write_text(json.dumps(open_clip_architecture(size)))
    return folder


def dino(folder: Path, kind: str = "dinov2") -> Path:
    """A vision transformer with its preprocessing, of the first or the second version of DINO."""
    from transformers import AutoConfig, AutoModel, BitImageProcessor, ViTImageProcessor

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28}
    options = {"patch_size": 14, "mlp_ratio": 2} if kind == "dinov2" else {"patch_size": 7, "intermediate_size": 64}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModel.from_config(
            AutoConfig.for_model(kind, **sizes, **options), **({"add_pooling_layer": False} if kind == "vit" else {})
        )
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    if kind == "dinov2":
        processor: Any = BitImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28})
    else:
        processor = ViTImageProcessor(size={"height": 28, "width": 28}, resample=3)
    processor.save_pretrained(folder)
    return folder


def aesthetic_head(folder: Path, width: int = 16, name: str = "sac+logos+ava1-l14-linearMSE.pth") -> Path:
    """A head as the aesthetic predictor's author saved it."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {0: (1024, width), 2: (128, 1024), 4: (64, 128), 6: (16, 64), 7: (1, 16)}
    generator = torch.Generator().manual_seed(0)
    state = {}
    for layer, (out, into) in sizes.items():
        state[f"layers.{layer}.weight"] = torch.randn(out, into, generator=generator) / into**0.5
        state[f"layers.{layer}.bias"] = torch.randn(out, generator=generator)
    torch.save(state, folder / name)
    return folder / name
