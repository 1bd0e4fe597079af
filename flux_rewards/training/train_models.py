"""The model that training starts from, with a head of one score."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import ConfigError, FluxRewardsError, MissingDependencyError, WeightsError, brief
from flux_rewards.models.adapters import base_of
from flux_rewards.models.checkpoint import Checkpoint
from flux_rewards.models.text_models import SEQUENCE, longest_text, read_tokenizer
from flux_rewards.models.weights import check_keys
from flux_rewards.training.settings import ALL_LINEAR

if TYPE_CHECKING:
    import torch

    from flux_rewards.training.settings import LoraSettings, TrainingSettings

__all__ = ["Start", "check_start", "open_start"]


@dataclass
class Start:
    """A model before its training.

    Attributes:
        network: With one output; an adapter around it where one is trained.
        tokenizer: With a padding token.
        label: What reports call it.
        drawn: Weights that the checkpoint does not have, drawn by the seed.
        left_over: Tensors of the checkpoint that are not used, such as another head.
        longest: Tokens that it reads at most; None where nobody says.
        encoder: Whether it sees all tokens at once, as BERT does.
        base: How an adapter names the model that it adapts, and its revision: a hub id, or a directory as a whole
            path, for the reader may be elsewhere. None for a model in memory.
    """

    network: Any
    tokenizer: Any
    label: str
    drawn: list[str]
    left_over: list[str]
    longest: int | None
    encoder: bool
    base: tuple[str, str | None] | None = None


def check_start(model: Any, tokenizer: Any, revision: str | None, settings: TrainingSettings) -> None:
    """What can be said against a model before it is loaded.

    Raises:
        ConfigError: It is none that training can start from, or not with these settings.
        MissingDependencyError: bitsandbytes is needed, and not installed.
    """
    named = isinstance(model, (str, os.PathLike))
    if not named and not hasattr(model, "num_labels"):
        raise ConfigError(
            "model must be a hub id, a directory, a configuration of transformers, or a sequence classifier made of "
            f"one, found {brief(model)}"
        )
    if named and settings.quantization is not None:
        _check_quantization(settings.quantization)
    if named and base_of(Checkpoint(os.fspath(model), revision=revision)) is not None:
        raise ConfigError(f"{model} is an adapter (LoRA); merge it into its base model, save that, and train that")
    if not named:
        if tokenizer is None:
            raise ConfigError("a model in memory does not say what its tokenizer is; pass tokenizer=")
        if hasattr(model, "peft_config"):
            raise ConfigError("model has an adapter already; merge it, or pass the base model and settings.lora")
        if hasattr(model, "forward") and model.num_labels != 1:
            raise ConfigError(f"a reward model has one output, this one {model.num_labels}; make it with num_labels=1")
        if settings.quantization is not None:
            raise ConfigError("a model in memory is not quantized any more; pass its hub id or directory")
        if settings.lora is not None and not settings.lora.merge:
            raise ConfigError(
                "an adapter is saved beside the name of its base model, and a model in memory has none: save it with "
                "save_pretrained and pass the directory, or set lora.merge"
            )


def _check_quantization(kind: str) -> None:
    import torch  # noqa: PLC0415  # only those who train pay for it

    try:
        import bitsandbytes  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: F401, PLC0415
    except ImportError as error:
        raise MissingDependencyError(
            f"quantization={kind!r} needs bitsandbytes, which runs on NVIDIA GPUs: pip install bitsandbytes"
        ) from error
    if not torch.cuda.is_available():
        raise ConfigError(f"quantization={kind!r} needs a GPU, and torch sees none")


def open_start(
    model: Any, tokenizer: Any, revision: str | None, settings: TrainingSettings, precision: torch.dtype
) -> Start:
    """Load, or copy, what training starts from. What it lacks is drawn from torch's generator.

    Args:
        model: As `train_reward_model` takes it.
        tokenizer: As `train_reward_model` takes it.
        revision: Branch, tag or commit on the hub.
        settings: Checked.
        precision: In which frozen weights are held.

    Raises:
        WeightsError: The checkpoint cannot be found or read, or is not whole.
        ConfigError: The tokenizer is another model's, or has no padding token; or no layer has the names of
            `lora.targets`.
    """
    import transformers  # noqa: PLC0415  # seconds

    drawn: list[str] = []
    left_over: list[str] = []
    base: tuple[str, str | None] | None = None
    folder: str | None = None
    if isinstance(model, (str, os.PathLike)):
        checkpoint = Checkpoint(os.fspath(model), revision=revision)
        words = _tokenizer(tokenizer, checkpoint)  # the smaller part first
        network, drawn, left_over = _loaded(getattr(transformers, SEQUENCE), checkpoint, settings, precision)
        label = checkpoint.label
        folder = str(checkpoint.path().resolve())
        base = (folder, None) if checkpoint.is_local else (checkpoint.source, revision)
    else:
        words = _tokenizer(tokenizer, None)
        if hasattr(model, "forward"):
            network = copy.deepcopy(model)
            label = f"a {type(model).__name__} in memory"
        else:
            config = copy.deepcopy(model)
            config.num_labels = 1
            network = getattr(transformers, SEQUENCE).from_config(config)
            label = f"a {type(network).__name__} made from its configuration"
        network = network.float()
    _pad(network, words, label)
    longest, encoder = longest_text(network, words), _is_encoder(network)
    if settings.lora is not None:
        others = [name for name in left_over if not name.startswith("lm_head.")]
        if others and not settings.lora.merge:
            raise ConfigError(
                f"{label} has a head of another kind ({others[0]}), beside which an adapter cannot be loaded; set "
                "lora.merge"
            )
        network = _with_adapter(network, settings.lora, drawn)
        # Meanwhile the directory: at each checkpoint peft looks at the base's configuration, on the hub if need be.
        network.peft_config["default"].base_model_name_or_path = folder
        if settings.quantization is None:
            for parameter in network.parameters():
                if parameter.requires_grad:
                    parameter.data = parameter.data.float()  # small steps are lost in a half precision
    return Start(network, words, label, drawn, left_over, longest, encoder, base)


def _tokenizer(given: Any, checkpoint: Checkpoint | None) -> Any:
    if given is None:
        assert checkpoint is not None  # noqa: S101  # checked before
        return read_tokenizer(checkpoint, checkpoint)
    if isinstance(given, (str, os.PathLike)):
        other = Checkpoint(os.fspath(given), weights=False)
        return read_tokenizer(other, other)
    return copy.deepcopy(given)


def _loaded(
    auto: Any, checkpoint: Checkpoint, settings: TrainingSettings, precision: torch.dtype
) -> tuple[Any, list[str], list[str]]:
    import torch  # noqa: PLC0415  # loaded already

    options: dict[str, Any] = {"dtype": precision if settings.lora is not None else torch.float32}
    if settings.quantization is not None:
        from transformers import BitsAndBytesConfig  # noqa: PLC0415

        four = settings.quantization == "4bit"
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=four,
            load_in_8bit=not four,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=precision,
        )
        options["device_map"] = {"": int(os.environ.get("LOCAL_RANK", "0"))}
    try:
        network, found = auto.from_pretrained(
            checkpoint.path(),
            num_labels=1,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are told below, by name
            **options,
        )
    except (FluxRewardsError, ImportError):
        raise
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), "")
        raise WeightsError(f"{checkpoint.label} cannot be loaded ({type(error).__name__}: {first})") from error
    inner = f"{network.base_model_prefix}."
    missing, unexpected = sorted(found["missing_keys"]), sorted(found["unexpected_keys"])
    head = [name for name in missing if not name.startswith(inner) or ".pooler." in f".{name}"]
    others = [name for name in unexpected if not name.startswith(inner) or ".pooler." in f".{name}"]
    check_keys(
        checkpoint.label,
        type(network).__name__,
        missing=[name for name in missing if name not in head],
        unexpected=[name for name in unexpected if name not in others],
        misshaped=[f"{name} {tuple(held)} for {tuple(own)}" for name, held, own in sorted(found["mismatched_keys"])],
    )
    return network, head, others


def _pad(network: Any, tokenizer: Any, label: str) -> None:
    """Settle what texts are padded with: a decoder finds the end of a text by what its configuration says."""
    size = network.get_input_embeddings().num_embeddings
    if len(tokenizer) > size:
        raise ConfigError(f"the tokenizer has {len(tokenizer)} tokens, {label} {size}: it is another model's")
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ConfigError(f"the tokenizer of {label} has no padding token and no end of text; set its pad_token")
        tokenizer.pad_token = tokenizer.eos_token
    network.config.get_text_config().pad_token_id = tokenizer.pad_token_id


def _is_encoder(network: Any) -> bool:
    """Whether a head reads a token at the front, and pairs of texts are told apart, as in BERT."""
    return not hasattr(network, "score") and hasattr(network, "classifier")


def _with_adapter(network: Any, lora: LoraSettings, drawn: list[str]) -> Any:
    import peft  # noqa: PLC0415  # seconds
    import torch  # noqa: PLC0415

    inner = network.base_model_prefix
    heads = [
        name for name, child in network.named_children() if name != inner and any(True for _ in child.parameters())
    ]
    if any(".pooler." in f".{name}" for name in drawn) and "pooler" not in heads:
        heads.append("pooler")
    targets = lora.targets if lora.targets == ALL_LINEAR else list(lora.targets)
    config = peft.LoraConfig(
        task_type="SEQ_CLS",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        modules_to_save=heads,
    )
    try:
        return peft.get_peft_model(network, config)
    except ValueError as error:
        if "arget modules" not in str(error):
            raise
        kinds = (torch.nn.Linear,)
        known = {name.rpartition(".")[2] for name, layer in network.named_modules() if isinstance(layer, kinds)}
        raise ConfigError(
            f"lora.targets {targets} match no layer of the model; its linear layers are {', '.join(sorted(known))}"
        ) from error
