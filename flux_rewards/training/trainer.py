"""TRL's RewardTrainer, set up from `TrainingSettings` and run."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import ComputeError
from flux_rewards.training.train_checkpoints import begin_run, end_run, ended_run, last_checkpoint, step_of
from flux_rewards.training.train_state import import_trainer

if TYPE_CHECKING:
    import torch

    from flux_rewards.training.settings import TrainingSettings
    from flux_rewards.training.train_data import TokenPairs
    from flux_rewards.training.train_models import Start

__all__ = ["Run", "precision_of", "run_training"]


@dataclass(frozen=True)
class Run:
    """What happened in a training.

    Attributes:
        steps: Updates that were made.
        best_step: The update whose weights were kept; None where the last one's were.
        loss: Mean loss of the training.
        seconds: It took, of this run.
        log: What was written down on the way: a mapping each time, with ``step`` and ``loss``, or ``eval_loss``.
        resumed_at: The update that it went on from; None where it began anew.
        main: Whether this process is the one that writes.
    """

    steps: int
    best_step: int | None
    loss: float
    seconds: float
    log: list[dict[str, Any]] = field(repr=False)
    resumed_at: int | None = None
    main: bool = True


def precision_of(settings: TrainingSettings, device: torch.device) -> torch.dtype:
    """In what the forward pass multiplies.

    Examples:
        >>> import torch
        >>> from flux_rewards.training.settings import TrainingSettings
        >>> precision_of(TrainingSettings(), torch.device("cpu"))
        torch.float32
    """
    import torch  # noqa: PLC0415  # loaded by those who train

    if settings.precision != "auto":
        found = getattr(torch, settings.precision)
        assert isinstance(found, torch.dtype)  # noqa: S101  # for the type checker
        return found
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def run_training(
    start: Start,
    pairs: TokenPairs,
    validation: TokenPairs | None,
    settings: TrainingSettings,
    folder: Path,
    *,
    device: torch.device,
    identity: str,
    resume: bool,
    save: Callable[[Any, Any], None],
    progress: bool = True,
) -> Run:
    """Train, and save the result.

    Args:
        start: The model; it is changed.
        pairs: To learn from.
        validation: To look at on the way, or None.
        settings: Checked.
        folder: Of the checkpoints.
        device: Where.
        identity: What tells this run from another, to resume the right one.
        resume: Go on from the last checkpoint in `folder`, where there is one; a training that is over is not repeated.
        save: Called with the trainer and the model, in every process.
        progress: Show a bar on stderr where that is a terminal.

    Raises:
        ConfigError: The checkpoints are of a run with other settings, data, or another model.
        ComputeError: The loss is not finite.
    """
    if resume and (ended := ended_run(folder, identity)) is not None:
        return Run(**{**ended, "resumed_at": ended["steps"], "main": os.environ.get("RANK", "0") == "0"})
    trl = import_trainer()
    import datasets  # noqa: PLC0415  # loaded already
    import transformers  # noqa: PLC0415

    last = last_checkpoint(folder, identity) if resume else None
    options = _arguments(settings, folder, device, precision_of(settings, device))
    updates = settings.max_steps or math.ceil(
        len(pairs) / settings.batch_size / settings.accumulation * settings.epochs
    )
    if updates <= 1:
        options["warmup_steps"] = 0  # the first update of a warm-up has a rate of 0, and would be the only one
    if "activation_checkpointing" not in {entry.name for entry in fields(trl.RewardConfig)}:
        del options["activation_checkpointing"]
    arguments = trl.RewardConfig(**options)
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # noqa: SLF001  # several are for `accelerate launch`; one process takes the first
    callbacks = [_watch(settings, progress=progress and arguments.process_index == 0)]
    if settings.patience is not None:
        callbacks.append(transformers.EarlyStoppingCallback(early_stopping_patience=settings.patience))
    trainer = trl.RewardTrainer(
        model=start.network,
        args=arguments,
        data_collator=_Collator(start.tokenizer.pad_token_id),
        train_dataset=datasets.Dataset.from_dict(pairs.columns()),
        eval_dataset=None if validation is None else datasets.Dataset.from_dict(validation.columns()),
        processing_class=start.tokenizer,
        callbacks=callbacks,
    )
    trainer.remove_callback(transformers.PrinterCallback)
    if trainer.is_world_process_zero():
        begin_run(folder, identity)
    output = trainer.train(resume_from_checkpoint=None if last is None else str(last))
    log = [dict(entry) for entry in trainer.state.log_history]
    save(trainer, trainer.accelerator.unwrap_model(trainer.model))
    best = trainer.state.best_model_checkpoint if settings.keeps_best else None
    losses = [float(entry["loss"]) for entry in log if "loss" in entry]  # of the steps before a break, too
    run = Run(
        steps=int(trainer.state.global_step),
        best_step=None if best is None else step_of(Path(best)),
        loss=math.fsum(losses) / len(losses) if losses else float(output.training_loss),
        seconds=float(output.metrics.get("train_runtime", math.nan)),
        log=log,
        resumed_at=None if last is None else step_of(last),
        main=bool(trainer.is_world_process_zero()),
    )
    trainer.accelerator.wait_for_everyone()  # each may save a part of the weights
    if run.main:
        end_run(folder, identity, asdict(run))
    return run


def _arguments(
    settings: TrainingSettings, folder: Path, device: torch.device, precision: torch.dtype
) -> dict[str, Any]:
    on_gpu = device.type == "cuda"
    looks = "steps" if settings.evaluate_every else "epoch"
    saves = looks if settings.keeps_best or settings.save_every is None else "steps"
    checkpointing = on_gpu if settings.gradient_checkpointing is None else settings.gradient_checkpointing
    return {
        "output_dir": str(folder),
        "learning_rate": settings.learning_rate,
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps or -1,
        "per_device_train_batch_size": settings.batch_size,
        "per_device_eval_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.accumulation,
        "lr_scheduler_type": settings.schedule,
        "warmup_steps": 0 if settings.schedule == "constant" else settings.warmup,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "center_rewards_coefficient": settings.center_rewards,
        "disable_dropout": not settings.dropout,
        "max_length": None,  # pairs that are too long were counted before
        "bf16": str(precision) == "torch.bfloat16",
        "fp16": str(precision) == "torch.float16",
        "activation_checkpointing": checkpointing,  # two names of one thing, of newer and older versions
        "gradient_checkpointing": checkpointing,
        "use_cpu": not on_gpu,
        "seed": settings.seed,
        "data_seed": settings.seed,
        "eval_strategy": looks if settings.validation else "no",
        "eval_steps": settings.evaluate_every,
        "save_strategy": saves,
        "save_steps": settings.save_every or settings.evaluate_every or 500,
        "save_total_limit": 2,
        "load_best_model_at_end": settings.keeps_best,
        "metric_for_best_model": "eval_loss" if settings.validation else None,
        "greater_is_better": False if settings.validation else None,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": on_gpu,
    }


class _Collator:
    """One batch: the chosen above the rejected, padded on the right, as TRL's own; and the kinds of tokens, too."""

    def __init__(self, padding: int) -> None:
        self._padding = padding

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        import torch  # noqa: PLC0415  # loaded already

        def rows(name: str) -> list[list[int]]:
            return [list(example[f"{side}_{name}"]) for side in ("chosen", "rejected") for example in examples]

        def padded(values: list[list[int]], padding: int) -> torch.Tensor:
            width = max(map(len, values))
            return torch.tensor([row + [padding] * (width - len(row)) for row in values])

        ids = rows("ids")
        batch = {"input_ids": padded(ids, self._padding), "attention_mask": padded([[1] * len(row) for row in ids], 0)}
        if "chosen_types" in examples[0]:
            batch["token_type_ids"] = padded(rows("types"), 0)
        if "margin" in examples[0]:
            batch["margin"] = torch.tensor([float(example["margin"]) for example in examples])
        return batch


def _watch(settings: TrainingSettings, *, progress: bool) -> Any:
    """A callback that ends a training whose loss is no number, and shows a bar."""
    from transformers import TrainerCallback  # noqa: PLC0415  # loaded already

    class Watch(TrainerCallback):
        """See `_watch`."""

        bar: Any = None
        task: Any = None

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
            if progress and sys.stderr.isatty():
                self.bar = _bar()
                self.task = self.bar.add_task("training", total=state.max_steps, completed=state.global_step, said="")
                self.bar.start()

        def on_log(
            self,
            args: Any,  # noqa: ARG002
            state: Any,
            control: Any,  # noqa: ARG002
            logs: dict[str, Any] | None = None,
            **kwargs: Any,  # noqa: ARG002
        ) -> None:
            loss = (logs or {}).get("loss")
            if isinstance(loss, (int, float)) and not math.isfinite(loss):
                raise ComputeError(
                    f"the loss is {loss} at step {state.global_step}; lower learning_rate ({settings.learning_rate:g}) "
                    "or lengthen the warm-up"
                )
            if self.bar is not None and loss is not None:
                self.bar.update(self.task, completed=state.global_step, said=f"loss {loss:.3f}")

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
            if self.bar is not None:
                self.bar.stop()

    return Watch()


def _bar() -> Any:
    from rich import progress  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[said]}"),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
    )
