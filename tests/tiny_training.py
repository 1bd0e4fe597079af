"""Tiny models and preference pairs whose rule is known, to train reward models with in seconds."""

from __future__ import annotations

import random
from typing import Any

import transformers

from flux_rewards.training.preferences import PreferencePair
from flux_rewards.training.preferences_data import PreferenceData

library: Any = transformers  # half of it has no types

WORDS = [*(f"w{number}" for number in range(30)), "good", "?", "which"]
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>", "[CLS]", "[SEP]"]
CHAT_TEMPLATE = "{% for message in messages %}<s> {{ message['role'] }} {{ message['content'] }} </s>{% endfor %}"


def tokenizer(kind: str = "llama", *, chat: bool = False) -> Any:
    """A tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = [*SPECIAL, *WORDS, "user", "assistant"]
    inner = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))  # noqa: S106  # no password
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    options: dict[str, Any] = {"pad_token": "<pad>", "unk_token": "<unk>", "model_max_length": 64}
    if kind == "bert":
        inner.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", words.index("[CLS]")), ("[SEP]", words.index("[SEP]"))],
        )
        options |= {"cls_token": "[CLS]", "sep_token": "[SEP]"}
        options["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    else:
        options |= {"bos_token": "<s>", "eos_token": "</s>"}
    made = library.PreTrainedTokenizerFast(tokenizer_object=inner, **options)
    if chat:
        made.chat_template = CHAT_TEMPLATE
    return made


def config(kind: str = "llama", **changes: Any) -> Any:
    """A configuration of a model that is small enough for a test and large enough for the rule."""
    sizes = {
        "vocab_size": len(SPECIAL) + len(WORDS) + 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        **changes,
    }
    if kind == "bert":
        return library.BertConfig(**sizes)
    own = {"num_key_value_heads": 2, "bos_token_id": 2, "eos_token_id": 3, "head_dim": 16}
    return {"llama": library.LlamaConfig, "qwen3": library.Qwen3Config}[kind](**own, **sizes)


def pairs(count: int, seed: int = 0, **changes: Any) -> PreferenceData:
    """Pairs of which the chosen answer has the word "good" in it, and the other has not."""
    lots = random.Random(seed)
    made = []
    for number in range(count):
        words = [[lots.choice(WORDS[:30]) for _ in range(lots.randint(3, 8))] for _ in range(2)]
        words[0][lots.randrange(len(words[0]))] = "good"
        chosen, rejected = (" ".join(answer) for answer in words)
        prompt = f"which w{number % 30} w{number // 30} w{seed} ?"
        made.append(PreferencePair(prompt, chosen, rejected, **changes))
    return PreferenceData(made, source="made up")
