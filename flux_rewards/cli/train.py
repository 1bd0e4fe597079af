"""The command `train`: from files to `train_reward_model`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flux_rewards.cli.verify import parse_parameters
from flux_rewards.config_file import read_yaml
from flux_rewards.errors import ConfigError

if TYPE_CHECKING:
    from flux_rewards.training.settings import TrainingSettings
    from flux_rewards.training.train import TrainedRewardModel

__all__ = ["settings_of", "train_files"]

_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")  # YAML 1.1 takes 1e-4 for text, since it has no point


def settings_of(file: Path | None, given: Iterable[str]) -> TrainingSettings:
    """Settings from a YAML file, and over them those of the command line, ``KEY=VALUE`` or ``lora.KEY=VALUE``.

    Raises:
        ConfigError: The file cannot be read, or a setting is unknown or cannot be used.

    Examples:
        >>> settings = settings_of(None, ["learning_rate=1e-5", "lora.rank=8", "format.template=chat"])
        >>> settings.learning_rate, settings.lora.rank
        (1e-05, 8)
    """
    from flux_rewards.training.settings import TrainingSettings  # noqa: PLC0415  # --help is quick without

    held: Any = {} if file is None else read_yaml(file)
    if not isinstance(held, Mapping):
        raise ConfigError(f"{file}: expected settings such as 'learning_rate: 1.0e-4'")
    values: dict[str, Any] = {key: dict(value) if isinstance(value, Mapping) else value for key, value in held.items()}
    for name, value in parse_parameters(given).items():
        outer, dot, inner = name.partition(".")
        if not dot:
            values[name] = value
            continue
        within = values.setdefault(outer, {})
        if not isinstance(within, dict):
            raise ConfigError(f"{outer} is {within!r} and has no {inner!r}")
        within[inner] = value
    return TrainingSettings.from_dict(_numbers(values))


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found[key] = _numbers(value)
        else:
            found[key] = float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value
    return found


def train_files(
    model: str,
    pairs: Path,
    out: Path,
    *,
    eval_pairs: Path | None = None,
    settings: Path | None = None,
    given: Iterable[str] = (),
    columns: Iterable[str] = (),
    json_columns: Iterable[str] = (),
    prompt_ends_with: str | None = None,
    aspect: str | None = None,
    tokenizer: str | None = None,
    revision: str | None = None,
    resume: bool = False,
) -> dict[str, TrainedRewardModel]:
    """Train a reward model on files of pairs, or one for each aspect.

    Args:
        model: Hub id or directory.
        pairs: A file that `load_preferences` reads.
        out: Where the model goes, or one directory an aspect.
        eval_pairs: Another such file, to measure with.
        settings: A YAML file of `TrainingSettings`.
        given: Settings over those of the file, ``KEY=VALUE``.
        columns: What columns are called, ``chosen=better``; ``prompt=`` where there are no prompts.
        json_columns: Columns of text that hold JSON, such as chat messages.
        prompt_ends_with: How the prompt ends that two texts begin with; see `unescaped`.
        aspect: The key of the pairs' aspects, such as ``metadata.aspect``.
        tokenizer: Hub id or directory.
        revision: Of the model on the hub.
        resume: Go on with a run that was broken off.

    Returns:
        The trained models by aspect; by ``""`` without aspects.

    Raises:
        ConfigError: As `train_reward_model`, or a column that no pair has.
        InputError: As `load_preferences`.
    """
    choices = settings_of(settings, given)
    from flux_rewards.cli.evaluate import parse_columns, unescaped  # noqa: PLC0415

    reading: dict[str, Any] = {
        "columns": parse_columns(columns),
        "json_columns": list(json_columns) or None,
        "prompt_ends_with": unescaped(prompt_ends_with),
    }
    from flux_rewards.training.sources import load_preferences  # noqa: PLC0415
    from flux_rewards.training.train import train_reward_model  # noqa: PLC0415
    from flux_rewards.training.train_aspects import train_aspects  # noqa: PLC0415

    data = load_preferences(pairs, **reading)
    measured = None if eval_pairs is None else load_preferences(eval_pairs, **reading)
    options: dict[str, Any] = {"tokenizer": tokenizer, "revision": revision, "resume": resume}
    if aspect is not None:
        return dict(train_aspects(model, data, measured, out, aspect=aspect, settings=choices, **options).models)
    return {"": train_reward_model(model, data, measured, out, choices, **options)}
