"""How a reward model is trained: every choice, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from flux_rewards.errors import ConfigError, brief, close_match
from flux_rewards.models.text_format import TextFormat
from flux_rewards.validation import number, one_of, whole_number

__all__ = ["ALL_LINEAR", "LoraSettings", "TrainingSettings"]

ALL_LINEAR = "all-linear"
_PRECISIONS = ("auto", "float32", "bfloat16", "float16")
_SCHEDULES = ("linear", "cosine", "constant", "constant_with_warmup")


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685): small matrices are trained beside frozen weights.

    The head, which says the score, is trained whole in any case.

    Args:
        rank: Of the matrices.
        alpha: What they are scaled by, over the rank.
        dropout: Of what they read.
        targets: The names of the layers that get them, such as ``["q_proj", "v_proj"]``; ``"all-linear"`` for all.
        merge: Save the whole model with the matrices added in, not the adapter beside the name of its base.

    Raises:
        ConfigError: A value cannot be used.

    Examples:
        >>> LoraSettings(rank=8, targets=["q_proj", "v_proj"]).alpha
        32
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    targets: str | Sequence[str] = ALL_LINEAR
    merge: bool = False

    def __post_init__(self) -> None:
        whole_number(self.rank, "lora.rank", "", low=1)
        whole_number(self.alpha, "lora.alpha", "", low=1)
        number(self.dropout, "lora.dropout", "", low=0, high=0.99)
        _switch(self.merge, "lora.merge")
        given: Any = self.targets
        named = isinstance(given, (list, tuple)) and given and all(isinstance(name, str) and name for name in given)
        if given != ALL_LINEAR and not named:
            raise ConfigError(
                f"lora.targets must be {ALL_LINEAR!r} or names of layers such as ['q_proj', 'v_proj'], found "
                f"{brief(given)}"
            )


@dataclass(frozen=True)
class TrainingSettings:
    r"""How a reward model is trained. Each value is checked here, and what contradicts another is refused.

    Args:
        learning_rate: The highest one, reached after the warm-up. 1e-4 suits adapters; 1e-5 the whole of a large model.
        epochs: How often each pair is seen; fractions are possible.
        max_steps: Stop after so many updates, whatever `epochs` says; None for all.
        batch_size: Pairs of one step on one device.
        accumulation: Steps whose gradients make one update.
        schedule: How the learning rate falls: ``"linear"``, ``"cosine"``, ``"constant"``, ``"constant_with_warmup"``.
        warmup: Share of the updates in which the learning rate rises, in [0, 1).
        weight_decay: Of AdamW.
        max_grad_norm: Gradients longer than this are shortened.
        use_margin: Whether the pairs' margins enter the loss; see `train_reward_model`. They must be of about the
            scale of a difference of two scores.
        center_rewards: How strongly scores are drawn towards zero (Eisenstein et al. 2023, arXiv:2312.09244, eq. 2;
            they use 0.01). None for not at all.
        dropout: Leave the model's dropout on. Off by default: both responses should meet the same network.
        format: How prompt and response become tokens. None: the tokenizer's chat template where it has one; else, for
            an encoder, the pair of texts; else ``"{prompt}\n{response}{eos_token}"``. Without a `max_length` of its own
            it gets that of this class.
        max_length: Tokens of prompt and response at most, special ones included. None for 1024, or fewer where the
            model reads fewer.
        long_pairs: What happens to pairs of which one side is longer: ``"leave_out"`` (told in the report), ``"cut"``
            or ``"error"``.
        precision: ``"float32"``, ``"bfloat16"`` or ``"float16"``: in what the forward pass multiplies; ``"auto"``:
            bfloat16 on a GPU that has it, float16 on another one, float32 on the CPU. Sums, and the weights that are
            trained, are float32.
        quantization: ``"4bit"`` (NF4) or ``"8bit"``: how the frozen weights are held, by bitsandbytes, on a GPU. Needs
            `lora`.
        gradient_checkpointing: Compute activations twice and keep few of them. None: on a GPU.
        lora: Train an adapter; None for the whole model.
        device: ``"cpu"``, or ``"cuda"``; None for CUDA where there is one. Which one is the launcher's business.
        seed: Of the head, the order of the pairs, the dropout, and what is held out.
        held_out: Share of the pairs that is kept back, by prompt, to measure accuracy on, where no `eval_pairs` are
            given. 0 for none.
        validation: Share of the pairs that is kept back, by prompt, to watch the training with: for early stopping and
            for the best step. They are not those that the reported accuracy is measured on, which decide nothing.
        evaluate_every: Updates between two looks at the validation pairs, and two checkpoints; None for each epoch.
        patience: End after so many looks without a lower loss. None: never early; then and only then may `validation`
            be 0.
        keep_best: Save the weights of the look with the lowest loss, not the last ones. None: where there is a
            validation.
        save_every: Updates between two checkpoints; None for each epoch, or as `evaluate_every`.
        keep_checkpoints: Leave them where they are in the end.

    Raises:
        ConfigError: A value cannot be used, or not with another one.

    Examples:
        >>> TrainingSettings(learning_rate=1e-5, epochs=2).batch_size
        8
        >>> TrainingSettings(patience=3)
        Traceback (most recent call last):
        ...
        flux_rewards.errors.ConfigError: patience needs pairs to look at; set validation, such as 0.1
    """

    learning_rate: float = 1e-4
    epochs: float = 1.0
    max_steps: int | None = None
    batch_size: int = 8
    accumulation: int = 1
    schedule: str = "linear"
    warmup: float = 0.05
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    use_margin: bool = True
    center_rewards: float | None = None
    dropout: bool = False
    format: TextFormat | None = None
    max_length: int | None = None
    long_pairs: str = "leave_out"
    precision: str = "auto"
    quantization: str | None = None
    gradient_checkpointing: bool | None = None
    lora: LoraSettings | None = None
    device: str | None = None
    seed: int = 0
    held_out: float = 0.1
    validation: float = 0.0
    evaluate_every: int | None = None
    patience: int | None = None
    keep_best: bool | None = None
    save_every: int | None = None
    keep_checkpoints: bool = False

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_choices()
        self._check_looks()
        self._check_memory()
        own = None if self.format is None else self.format.max_length
        if own is not None and self.max_length not in (None, own):
            raise ConfigError(f"max_length is {self.max_length}, and that of format {own}; give one of them")

    def _check_numbers(self) -> None:
        number(self.learning_rate, "learning_rate", "", above=0, high=1)
        number(self.epochs, "epochs", "", above=0)
        for name in ("batch_size", "accumulation"):
            whole_number(getattr(self, name), name, "", low=1)
        for name in ("max_steps", "evaluate_every", "patience", "save_every"):
            if getattr(self, name) is not None:
                whole_number(getattr(self, name), name, "", low=1)
        for name in ("warmup", "held_out", "validation"):
            if number(getattr(self, name), name, "", low=0) >= 1:
                raise ConfigError(f"{name} is a share, at least 0 and less than 1; found {getattr(self, name)!r}")
        number(self.weight_decay, "weight_decay", "", low=0)
        number(self.max_grad_norm, "max_grad_norm", "", above=0)
        if self.center_rewards is not None:
            number(self.center_rewards, "center_rewards", "", above=0)
        if self.max_length is not None:
            whole_number(self.max_length, "max_length", "", low=4)
        if whole_number(self.seed, "seed", "", low=0) >= 2**32:
            raise ConfigError(f"seed must be less than 2**32, as numpy has it, found {self.seed}")

    def _check_choices(self) -> None:
        one_of(self.schedule, "schedule", "", _SCHEDULES)
        one_of(self.long_pairs, "long_pairs", "", ("leave_out", "cut", "error"))
        one_of(self.precision, "precision", "", _PRECISIONS)
        if self.quantization is not None:
            one_of(self.quantization, "quantization", "", ("4bit", "8bit"))
        for name in ("use_margin", "dropout", "keep_checkpoints"):
            _switch(getattr(self, name), name)
        for name in ("gradient_checkpointing", "keep_best"):
            if getattr(self, name) is not None:
                _switch(getattr(self, name), name)
        for name, kind in (("format", TextFormat), ("lora", LoraSettings)):
            if not isinstance(getattr(self, name), (kind, type(None))):
                raise ConfigError(f"{name} must be a {kind.__name__}, found {brief(getattr(self, name))}")
        device: Any = self.device
        if device is not None and (not isinstance(device, str) or device.split(":")[0] not in ("cpu", "cuda")):
            raise ConfigError(f"device must be 'cpu', 'cuda' or None, found {brief(device)}")
        if device is not None and ":" in device:
            raise ConfigError(
                f"device is {device!r}; the trainer takes the first GPU that it sees: set CUDA_VISIBLE_DEVICES, or "
                "start with `accelerate launch`"
            )

    def _check_looks(self) -> None:
        """What watches the training must have pairs to look at."""
        for name in ("patience", "keep_best", "evaluate_every"):
            if getattr(self, name) and not self.validation:
                raise ConfigError(f"{name} needs pairs to look at; set validation, such as 0.1")
        if self.patience is not None and self.keep_best is False:
            raise ConfigError("patience ends at a step that is worse than the best one; leave keep_best on")
        if self.keeps_best and self.save_every is not None:
            raise ConfigError("the best step is one that was looked at and saved: set evaluate_every, not save_every")
        if self.held_out + self.validation >= 1:
            raise ConfigError(f"held_out and validation leave nothing to train on: {self.held_out} + {self.validation}")
        if self.schedule == "constant" and self.warmup not in (0, TrainingSettings.warmup):
            raise ConfigError("a constant schedule has no warm-up; use 'constant_with_warmup'")

    def _check_memory(self) -> None:
        """What is rounded cannot be trained."""
        if self.precision == "float16" and self.device == "cpu":
            raise ConfigError("float16 is not trained on the CPU; use precision='float32' or 'bfloat16'")
        if self.quantization is None:
            return
        if self.lora is None:
            raise ConfigError(f"weights held in {self.quantization} cannot be trained; set lora")
        if self.lora.merge:
            raise ConfigError(f"an adapter is not merged into weights held in {self.quantization}: they are rounded")
        if self.device == "cpu":
            raise ConfigError(f"quantization={self.quantization!r} needs a GPU, and device is 'cpu'")

    @property
    def keeps_best(self) -> bool:
        """Whether the weights of the best look are kept."""
        return bool(self.validation) if self.keep_best is None else self.keep_best

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a file; `from_dict` makes the settings again.

        Examples:
            >>> settings = TrainingSettings(lora=LoraSettings(targets=["q_proj"]), format=TextFormat("pair"))
            >>> TrainingSettings.from_dict(settings.to_dict()) == settings
            True
        """
        held = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        if self.format is not None:
            held["format"] = self.format.to_dict()
        if self.lora is not None:
            held["lora"] = asdict(self.lora)
        return held

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingSettings:
        """Settings from plain values, as a YAML or JSON file holds them; what is left out has its default.

        Raises:
            ConfigError: A key is unknown, or a value cannot be used.

        Examples:
            >>> TrainingSettings.from_dict({"lora": {"rank": 4}, "format": {"template": "chat"}}).lora.rank
            4
            >>> TrainingSettings.from_dict({"learning_rat": 1e-4})
            Traceback (most recent call last):
            ...
            flux_rewards.errors.ConfigError: settings have no 'learning_rat' (did you mean 'learning_rate'?)
        """
        made: dict[str, Any] = dict(_known(values, cls, "settings"))
        for name, kind in (("format", TextFormat), ("lora", LoraSettings)):
            if isinstance(made.get(name), Mapping):
                made[name] = kind(**_known(made[name], kind, name))
        return cls(**made)


def _known(values: Any, kind: Any, what: str) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{what} must be a mapping of names to values, found {brief(values)}")
    known = [entry.name for entry in fields(kind)]
    for name in values:
        if name not in known:
            hint = close_match(name, known) if isinstance(name, str) else ""
            raise ConfigError(f"{what} have no {name!r}{hint}")
    return dict(values)


def _switch(value: Any, name: str) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be True or False, found {brief(value)}")
