"""train_reward_model: from preference pairs to a directory that `RewardModelReward` reads."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import ConfigError, brief
from flux_rewards.fingerprint import fingerprint
from flux_rewards.models.placement import device_of
from flux_rewards.models.reward_model_file import REWARD_MODEL_FILE, RewardModelFile
from flux_rewards.training.model_card import model_card
from flux_rewards.training.settings import TrainingSettings
from flux_rewards.training.train_accuracy import HeldOut, held_out_accuracy
from flux_rewards.training.train_checkpoints import is_unmeasured, measured_run
from flux_rewards.training.train_data import Parts, TokenPairs, check_pairs, encode_pairs, format_for, parts_of
from flux_rewards.training.train_models import Start, check_start, open_start
from flux_rewards.training.train_state import as_found, import_trainer
from flux_rewards.training.trainer import Run, precision_of, run_training

if TYPE_CHECKING:
    from flux_rewards.models.text_format import TextFormat
    from flux_rewards.rewards.learned.reward_model import RewardModelReward
    from flux_rewards.training.preferences import PreferencePair
    from flux_rewards.training.preferences_data import PreferenceData

__all__ = ["TrainedRewardModel", "train_reward_model"]

_CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class TrainedRewardModel:
    """What `train_reward_model` made.

    Attributes:
        path: The directory: weights, tokenizer, ``reward_model.json`` and a model card.
        format: How it reads prompt and response.
        facts: About data, settings and result, as ``reward_model.json`` has them under ``training``.
        held_out: Agreement with the held-out pairs, beside that of the length alone; None where nothing was held out.
        run: The training itself.

    Examples:
        >>> from flux_rewards.models.text_format import TextFormat
        >>> run = Run(steps=12, best_step=None, loss=0.61, seconds=40.0, log=[])
        >>> trained = TrainedRewardModel(Path("quality"), TextFormat("chat"), {"pairs": {"trained_on": 90}}, None, run)
        >>> print(trained)
        quality: 90 pairs, 12 steps, nothing held out
        >>> trained.accuracy is None, trained.format.template
        (True, 'chat')
    """

    path: Path
    format: TextFormat
    facts: Mapping[str, Any]
    held_out: HeldOut | None
    run: Run

    @property
    def accuracy(self) -> float | None:
        """Share of the held-out pairs whose chosen answer scores higher, ties half; None where nothing was held out."""
        return None if self.held_out is None else self.held_out.accuracy

    def reward(self, **options: Any) -> RewardModelReward:
        """The reward that scores with it; `options` are those of `RewardModelReward`."""
        from flux_rewards.rewards.learned.reward_model import RewardModelReward  # noqa: PLC0415  # seconds

        return RewardModelReward(str(self.path), **options)

    def __str__(self) -> str:
        accuracy = "nothing held out" if self.held_out is None else str(self.held_out)
        pairs = self.facts["pairs"]
        told = {
            "too_long": "too long, left out",
            "alike_as_tokens": "the same as tokens, left out",
            "cut": "cut",
            "control_tokens_set_apart": "control tokens made plain text",
        }
        left_out = ", ".join(f"{pairs[name]} {what}" for name, what in told.items() if pairs.get(name))
        trained = f"{pairs['trained_on']} pairs" + (f" ({left_out})" if left_out else "")
        return f"{self.path}: {trained}, {self.run.steps} steps, {accuracy}"


def train_reward_model(
    model: Any,
    pairs: PreferenceData | Iterable[PreferencePair],
    eval_pairs: PreferenceData | Iterable[PreferencePair] | None = None,
    output_dir: str | os.PathLike[str] = "reward_model",
    settings: TrainingSettings | None = None,
    *,
    tokenizer: Any = None,
    revision: str | None = None,
    resume: bool = False,
    progress: bool = True,
) -> TrainedRewardModel:
    """Train a model to score chosen answers above rejected ones, measure it on held-out pairs, and save it.

    The loss of a pair is ``-log sigmoid(r(chosen) - r(rejected) - margin)``, of the model of Bradley and Terry; the
    margin is that of Llama 2 (arXiv:2307.09288, eq. 2), 0 where the pairs have none. With ``center_rewards`` c,
    ``c (r(chosen) + r(rejected))²`` is added. TRL's `RewardTrainer` computes it; the texts become tokens here, by the
    `TextFormat` that is saved beside the weights, so that scoring reads what training read.

    Args:
        model: A hub id or a directory: a reward model, or a language model, which gets a new head; a
            `PretrainedConfig` of transformers, for a model from scratch; or a sequence classifier with one output in
            memory, of which a copy is trained.
        pairs: To learn from; texts or conversations. None may be the same on both sides. Pairs without a prompt are
            refused, unless they were read with ``columns={"prompt": None}``, or are ``PreferenceData(pairs,
            no_prompts=True)``: a prompt that was not found would be learned without.
        eval_pairs: To measure with in the end, and for nothing else. None: a share of the prompts of `pairs` is held
            out; see `TrainingSettings`.
        output_dir: Where the model goes; must be empty or missing, unless `resume`.
        settings: All else. None for the defaults.
        tokenizer: A tokenizer of transformers, or where there is one. None for the model's own.
        revision: Branch, tag or commit of `model` on the hub.
        resume: Go on from the last checkpoint in `output_dir`, where a run with the same arguments was broken off, be
            it in the training or in the measurement after it.
        progress: Show a bar on stderr, where that is a terminal.

    Returns:
        Where the model is, and how well it agrees with the held-out pairs.

    Raises:
        ConfigError: A setting, the model, or the directory cannot be used. All that can be known before the model is
            loaded is said before.
        InputError: Pairs that nothing can be learned from, whose prompts were not found, or texts that the format has
            no place for.
        WeightsError: The model cannot be found, or is not whole.
        MissingDependencyError: An extra is missing: ``pip install "flux_rewards[train]"``.
        ComputeError: The loss is not finite.

    The process's random generators, environment, loggers and backends are as before when it returns. One training runs
    at a time in a process. On several GPUs: ``accelerate launch`` your script, which then runs in each process; process
    0 writes. A warning is issued where prompts of `eval_pairs` are among `pairs`.

    Does not train on images or videos, and does not run code that comes with a checkpoint.

    Examples:
        >>> train_reward_model("Qwen/Qwen3-0.6B", [], settings=TrainingSettings(learning_rate=0))
        Traceback (most recent call last):
        ...
        flux_rewards.errors.ConfigError: learning_rate must be a finite number > 0 and <= 1, found 0
    """
    settings = TrainingSettings() if settings is None else settings
    given: Any = settings
    if not isinstance(given, TrainingSettings):
        raise ConfigError(f"settings must be TrainingSettings, found {brief(given)}")
    data = check_pairs(pairs)
    parts = parts_of(data, None if eval_pairs is None else check_pairs(eval_pairs, "eval_pairs"), settings)
    folder = _checked_folder(output_dir, resume=resume)
    import_trainer()
    check_start(model, tokenizer, revision, settings)
    device = device_of(settings.device)
    if parts.shared:
        warnings.warn(
            f"{parts.shared} prompts of eval_pairs are among pairs: the accuracy will flatter",
            UserWarning,
            stacklevel=2,
        )
    with as_found(settings.seed):
        start = open_start(model, tokenizer, revision, settings, precision_of(settings, device))
        format_ = format_for(settings, data, start.tokenizer, start.longest, encoder=start.encoder)
        tokens = encode_pairs(parts.train, format_, start.tokenizer, settings)
        for said in tokens.warnings(format_):
            warnings.warn(said, UserWarning, stacklevel=2)
        watched = None
        if parts.validation is not None:
            watched = encode_pairs(parts.validation, format_, start.tokenizer, settings, "validation pairs")
        cut = 0  # encoded now, for what cannot be read must not be found after the training
        if parts.test is not None:
            whole = replace(settings, long_pairs="cut", use_margin=False)
            cut = encode_pairs(parts.test, format_, start.tokenizer, whole, "held-out pairs").cut
        run = run_training(
            start,
            tokens,
            watched,
            settings,
            folder / _CHECKPOINTS,
            device=device,
            identity=_identity(start, tokens, watched, settings),
            resume=resume,
            save=lambda trainer, network: _save_weights(trainer, network, folder, start.base, settings),
            progress=progress,
        )
    start.network = None  # its memory is needed for the measurement
    facts = _facts(start, parts, tokens, settings, run)
    held_out = None
    if run.main:
        log = "".join(f"{json.dumps(entry)}\n" for entry in run.log)
        (folder / "training_log.jsonl").write_text(log, encoding="utf-8")
        RewardModelFile(format_, training=facts).save(folder)
        if parts.test is not None:
            held_out = held_out_accuracy(
                str(folder), parts.train, parts.test, cut=cut, device=str(device), seed=settings.seed
            )
            facts["held_out"] = held_out.to_dict()
            RewardModelFile(format_, training=facts).save(folder)
        (folder / "README.md").write_text(model_card(folder.name, format_, facts), encoding="utf-8")
        if settings.keep_checkpoints:
            measured_run(folder / _CHECKPOINTS)
        else:
            shutil.rmtree(folder / _CHECKPOINTS, ignore_errors=True)
    return TrainedRewardModel(folder, format_, facts, held_out, run)


def _checked_folder(output_dir: str | os.PathLike[str], *, resume: bool) -> Path:
    folder = Path(output_dir)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"output_dir {folder} is a file")
    if (folder / REWARD_MODEL_FILE).is_file():
        if not is_unmeasured(folder / _CHECKPOINTS):
            raise ConfigError(f"output_dir {folder} holds a trained model; take another directory, or remove it")
        if not resume:
            raise ConfigError(
                f"output_dir {folder} holds a model whose measurement was broken off; set resume to measure it, or "
                "take another directory"
            )
    held = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    if held and not resume:
        raise ConfigError(
            f"output_dir {folder} is not empty ({', '.join(held[:5])}); set resume to go on with a run that was broken "
            "off, or take another directory"
        )
    return folder


def _save_weights(
    trainer: Any, network: Any, folder: Path, base: tuple[str, str | None] | None, settings: TrainingSettings
) -> None:
    if settings.lora is not None and settings.lora.merge:
        if trainer.is_world_process_zero():
            network.merge_and_unload().save_pretrained(folder)
            trainer.processing_class.save_pretrained(folder)
        return
    trainer.save_model(str(folder))  # in all processes: weights may be spread over them
    if not trainer.is_world_process_zero():
        return
    (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle, which nobody needs
    adapter = folder / "adapter_config.json"
    if base is not None and adapter.is_file():
        named = {"base_model_name_or_path": base[0], "revision": base[1]}
        adapter.write_text(json.dumps({**json.loads(adapter.read_text("utf-8")), **named}, indent=2) + "\n", "utf-8")


def _identity(start: Start, tokens: TokenPairs, watched: TokenPairs | None, settings: TrainingSettings) -> str:
    """What decides the course of a training: the model's name and shape, the tokens and the settings."""
    columns = [tokens.columns(), None if watched is None else watched.columns()]
    unimportant = ("keep_checkpoints", "device")
    choices = {name: value for name, value in settings.to_dict().items() if name not in unimportant}
    config = start.network.config.to_dict()
    shape = {
        name: str(config[name]) for name in sorted(config) if name not in ("_name_or_path", "transformers_version")
    }
    return hashlib.sha256(fingerprint([start.label, shape, columns, choices])).hexdigest()


def _facts(start: Start, parts: Parts, tokens: TokenPairs, settings: TrainingSettings, run: Run) -> dict[str, Any]:
    """What there is to know about the model later, as JSON holds it."""
    margins = tokens.margins
    return {
        "base_model": start.label,
        "drawn_anew": start.drawn,
        "left_over": len(start.left_over),
        "pairs": {
            "source": parts.train.source,
            "trained_on": len(tokens),
            "too_long": tokens.too_long,
            "alike_as_tokens": tokens.alike,
            "cut": tokens.cut,
            "control_tokens_set_apart": tokens.set_apart,
            "with_margin": 0 if margins is None else len(margins),
            "without_prompt": parts.train.without_prompt,
            "validation": 0 if parts.validation is None else len(parts.validation),
            "held_out": 0 if parts.test is None else len(parts.test),
            "held_out_prompts_trained_on": parts.shared,
            "left_out_before": dict(parts.train.notes),
        },
        "settings": settings.to_dict(),
        "steps": run.steps,
        "best_step": run.best_step,
        "final_loss": run.loss,
        "seconds": round(run.seconds, 1),
        "held_out": None,
        "versions": {
            name: str(getattr(importlib.import_module(name), "__version__", "?"))
            for name in ("torch", "transformers", "trl", "peft", "accelerate")
        },
    }
