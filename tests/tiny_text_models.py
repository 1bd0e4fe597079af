"""Tiny random language models of real architectures, in the real file formats."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tiny_vlm import library, randomised, trained

WORDS = (
    "Yes No yes no + - good bad very great awful because therefore the a answer is are was what of and maybe step 1 2 "
    "3 4 5 6 7 8 9 0 . , ! ? : = * / ( ) user assistant system think plus two three four so we get"
)
CHAT_TEMPLATE = (
    "{{ bos_token }}{% if tools %}<|start|>tools\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|end|>\n"
    "{% endif %}{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] or '' }}"
    "{% for call in message.get('tool_calls') or [] %}<call>{{ call['function'] | tojson }}</call>{% endfor %}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
SPECIAL = ("<pad>", "<s>", "</s>", "<|start|>", "<|end|>")
BERT_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def llama_tokenizer(*, chat: bool = True, padding: str | None = "<pad>") -> Any:
    """A byte-level BPE that puts ``<s>`` first, with a chat template that writes it itself."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    vocab, merges = trained(list(SPECIAL), WORDS)
    plain = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    first = ("<s>", vocab["<s>"])
    plain.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[first])
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": padding}
    tokenizer = library.PreTrainedTokenizerFast(tokenizer_object=plain, **special)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|start|>", "<|end|>"]})
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def sentencepiece_tokenizer(*words: str) -> Any:
    """As of Llama 2 and Mistral: a space before each text, bytes for what it doesn't know, ``<s>`` first."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    plain = Tokenizer(models.BPE(byte_fallback=True))
    plain.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    trainer = trainers.BpeTrainer(vocab_size=2000, special_tokens=special, show_progress=False)
    known = [*WORDS.split(), *words]
    plain.train_from_iterator([*known, *(f" {word}" for word in known)] * 9, trainer)
    held = json.loads(plain.to_str())["model"]
    merges = [tuple(merge) for merge in held["merges"]]
    tokenizer = library.LlamaTokenizer(vocab=held["vocab"], merges=merges, legacy=True, add_bos_token=True)
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    return tokenizer


def bert_tokenizer(length: int = 64) -> Any:
    """WordPiece, ``[CLS] a [SEP] b [SEP]``, the second with token type 1."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    letters = [chr(code) for code in range(33, 127)]
    pieces = [*BERT_SPECIAL, *dict.fromkeys([*WORDS.lower().split(), *letters, *(f"##{letter}" for letter in letters)])]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    unknown = {"unk_token": "[UNK]"}
    plain = Tokenizer(models.WordPiece(vocab, **unknown))
    plain.normalizer = normalizers.BertNormalizer(lowercase=True)
    plain.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    plain.decoder = decoders.WordPiece()
    special = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]"}
    ends = [("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])]
    plain.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    return library.PreTrainedTokenizerFast(
        tokenizer_object=plain,
        **unknown,
        **special,
        model_max_length=length,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def decoder_config(kind: str, tokenizer: Any, **settings: Any) -> Any:
    """``"Llama"`` or ``"Qwen3"``, of two layers."""
    return getattr(library, f"{kind}Config")(
        **{
            "vocab_size": len(tokenizer) + 3,  # real ones are padded, too
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": 512,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            **settings,
        }
    )


def bert_config(tokenizer: Any, **settings: Any) -> Any:
    """BERT of two layers."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return library.BertConfig(
        **{"vocab_size": len(tokenizer), "max_position_embeddings": 64, "pad_token_id": 0, **sizes, **settings}
    )


def saved(folder: Path, kind: str, config: Any, tokenizer: Any, seed: int = 0) -> Path:
    """Weights, configuration and tokenizer, as transformers saves them; `kind` such as ``LlamaForCausalLM``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = randomised(getattr(transformers, kind)(config), seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def reward_model(folder: Path, kind: str = "Llama", *, seed: int = 0, **settings: Any) -> Path:
    """A decoder with one output, as TRL trains it."""
    tokenizer = llama_tokenizer()
    config = decoder_config(kind, tokenizer, **{"num_labels": 1, **settings})
    return saved(folder, f"{kind}ForSequenceClassification", config, tokenizer, seed)


def sentencepiece_causal(folder: Path) -> Path:
    """A causal model that reads as Mistral does, and knows Math-Shepherd's tag."""
    tokenizer = sentencepiece_tokenizer("Step", "ки", "+", "-")
    return saved(folder, "LlamaForCausalLM", decoder_config("Llama", tokenizer), tokenizer)


def causal(folder: Path, kind: str = "Llama", *, chat: bool = True, seed: int = 0, **settings: Any) -> Path:
    """A chat model."""
    tokenizer = llama_tokenizer(chat=chat)
    return saved(folder, f"{kind}ForCausalLM", decoder_config(kind, tokenizer, **settings), tokenizer, seed)


def token_classifier(folder: Path, kind: str = "Llama", *, seed: int = 0, **settings: Any) -> Path:
    """Two labels at every token, as TRL's PRM trainer makes it."""
    tokenizer = llama_tokenizer()
    config = decoder_config(kind, tokenizer, **{"num_labels": 2, **settings})
    return saved(folder, f"{kind}ForTokenClassification", config, tokenizer, seed)


def classifier(folder: Path, *labels: str, seed: int = 0, **settings: Any) -> Path:
    """A BERT that classifies texts; sentiment by default."""
    tokenizer = bert_tokenizer()
    names = dict(enumerate(labels or ("NEGATIVE", "POSITIVE")))
    config = bert_config(
        tokenizer, id2label=names, label2id={name: number for number, name in names.items()}, **settings
    )
    return saved(folder, "BertForSequenceClassification", config, tokenizer, seed)


def roberta(folder: Path, *, seed: int = 0) -> Path:
    """A RoBERTa, which counts positions from behind its padding token."""
    tokenizer = bert_tokenizer(10**6)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = library.RobertaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=34, pad_token_id=0, num_labels=1, **sizes
    )
    return saved(folder, "RobertaForSequenceClassification", config, tokenizer, seed)


def reward_model_config(folder: Path) -> dict[str, Any]:
    """Write a tiny checkpoint, and return the parameters of a `RewardModelReward` that uses it."""
    return {"model_name_or_path": str(reward_model(folder / "reward_model")), "device": "cpu"}


def classifier_config(folder: Path) -> dict[str, Any]:
    """The same for a `ClassifierReward`."""
    path = classifier(folder / "classifier", "calm", "toxic", "insult")
    return {"model_name_or_path": str(path), "labels": {"toxic": -1.0, "insult": -0.5}, "device": "cpu"}


def sentiment_config(folder: Path) -> dict[str, Any]:
    """The same for a `SentimentReward`."""
    return {"model_name_or_path": str(classifier(folder / "sentiment")), "device": "cpu"}


def process_config(folder: Path) -> dict[str, Any]:
    """The same for a `ProcessReward`."""
    path = token_classifier(folder / "process")
    return {"model_name_or_path": str(path), "separator": " ", "device": "cpu"}


def generative_config(folder: Path) -> dict[str, Any]:
    """The same for a `GenerativeScore`."""
    return {"model_name_or_path": str(causal(folder / "generative")), "device": "cpu", "dtype": "float32"}
