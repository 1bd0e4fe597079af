"""Tiny random chat models that see images, of real architectures and in the real file formats."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers

library: Any = transformers  # half of it has no types

WORDS = (
    "Yes No yes no a the an of in on under red blue green cat dog bird sea beach ocean wave very old photo painting "
    "and with Does this figure show Please answer or user assistant system You are helpful . , ! ? \" ' : ( ) { } < > "
    "| What is + 0 1 2 3 4 5 6 7 8 9"
)
QWEN_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | upper }}: "
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }} {% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
QWEN_TOKENS = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
]
QWEN_PLAIN_TOKENS = ["<tool_call>", "</tool_call>"]  # added, and not special


def trained(special: list[str], words: str = WORDS) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a byte-level BPE in which every word of `words`, with a space or not, is one token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*words.split(), words] * 2, trainer)
    state = json.loads(tokenizer.to_str())["model"]
    return state["vocab"], [tuple(merge) for merge in state["merges"]]


def randomised(model: Any, seed: int) -> Any:
    """The usual initialisation is so small that all images look alike."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            fan_in = parameter[0].numel()
            parameter.data = torch.randn(parameter.shape, generator=generator) * (1.5 / fan_in**0.5)
    return model


def qwen_tokenizer() -> Any:
    """Qwen2's, with a small vocabulary of its own."""
    vocab, merges = trained([])
    special = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    tokenizer = library.Qwen2Tokenizer(vocab=vocab, merges=merges, **special)
    tokenizer.add_special_tokens({"additional_special_tokens": QWEN_TOKENS})
    tokenizer.add_tokens(QWEN_PLAIN_TOKENS)
    return tokenizer


def qwen2_5_vl(folder: Path, *, seed: int = 0, tied: bool = False) -> Path:
    """Qwen2.5-VL: images of any size, rotary positions in three directions."""
    tokenizer = qwen_tokenizer()
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in QWEN_TOKENS}
    pixels = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 16}
    processor = library.Qwen2_5_VLProcessor(
        library.Qwen2VLImageProcessor(size=pixels),
        tokenizer,
        library.Qwen2VLVideoProcessor(size=pixels),
        chat_template=QWEN_TEMPLATE,
    )
    config = library.Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer) + 5,  # the real one is padded, too
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "tie_word_embeddings": tied,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": 32,
            "window_size": 56,
            "fullatt_block_indexes": [1],
            "patch_size": 14,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=tied,
    )
    return saved(library.Qwen2_5_VLForConditionalGeneration, config, processor, folder, seed)


def llava_tokenizer(*special_tokens: str) -> Any:
    """A byte-level BPE that puts a token of its own first, as LLaMA's do."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    vocab, merges = trained(["<unk>", "<s>", "</s>", "<pad>"])
    plain = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    first = ("<s>", vocab["<s>"])
    plain.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[first])
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    tokenizer = library.PreTrainedTokenizerFast(tokenizer_object=plain, **special)
    tokenizer.add_tokens(["<image>", *special_tokens], special_tokens=True)
    return tokenizer


def llava_processor(*special_tokens: str, image_processor: str = "CLIPImageProcessor") -> Any:
    """Crops images to a square of 28."""
    return library.LlavaProcessor(
        getattr(library, image_processor)(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        llava_tokenizer(*special_tokens),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE,
    )


def llava(folder: Path, *special_tokens: str, seed: int = 0) -> Path:
    """LLaVA 1.5: a CLIP tower and a LLaMA."""
    processor = llava_processor(*special_tokens)
    config = library.LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
            "projection_dim": 16,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": len(processor.tokenizer),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 512,
            "pad_token_id": processor.tokenizer.pad_token_id,
        },
        image_token_id=processor.image_token_id,
        vision_feature_select_strategy="default",
    )
    return saved(library.LlavaForConditionalGeneration, config, processor, folder, seed)


def saved(kind: Any, config: Any, processor: Any, folder: Path, seed: int) -> Path:
    """Weights, configuration and processor, as transformers saves them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = randomised(kind(config), seed)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def config(folder: Path) -> dict[str, Any]:
    """Write a tiny checkpoint, and return the parameters of a `VQAScore` that uses it."""
    return {"model_name_or_path": str(qwen2_5_vl(folder / "vlm")), "device": "cpu", "dtype": "float32"}
