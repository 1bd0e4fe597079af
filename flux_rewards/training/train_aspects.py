"""One reward model an aspect, and a configuration that adds them up."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from flux_rewards.errors import ConfigError, InputError
from flux_rewards.training.preferences_data import Key, PreferenceData, key_of
from flux_rewards.training.train import TrainedRewardModel, train_reward_model
from flux_rewards.validation import number

if TYPE_CHECKING:
    from flux_rewards.training.preferences import PreferencePair
    from flux_rewards.training.settings import TrainingSettings

__all__ = ["TrainedAspects", "train_aspects"]

_NAME = re.compile(r"[\w-][\w.-]*")
_CONFIG = "rewards.yaml"


@dataclass(frozen=True)
class TrainedAspects:
    """What `train_aspects` made.

    Attributes:
        models: A trained model by aspect.
        config: The file that `load_rewards` makes a `CompositeReward` of.

    Examples:
        >>> TrainedAspects({}, Path("out/rewards.yaml")).config.name
        'rewards.yaml'
    """

    models: Mapping[str, TrainedRewardModel]
    config: Path


def train_aspects(
    model: Any,
    pairs: PreferenceData | Iterable[PreferencePair],
    eval_pairs: PreferenceData | Iterable[PreferencePair] | None = None,
    output_dir: str | os.PathLike[str] = "reward_models",
    *,
    aspect: Key = "metadata.aspect",
    weights: Mapping[str, float] | None = None,
    settings: TrainingSettings | None = None,
    **options: Any,
) -> TrainedAspects:
    """Train a reward model for each aspect that answers were compared in, such as helpfulness and harmlessness.

    Each model is trained on the pairs of its aspect alone, in ``output_dir/ASPECT``, as `train_reward_model` does, one
    after the other from the same `model` and seed. ``output_dir/rewards.yaml`` adds their scores up.

    Args:
        model: To start from; see `train_reward_model`.
        pairs: Of all aspects.
        eval_pairs: To measure with, of each aspect; None to hold out some of `pairs`.
        output_dir: Where the models go.
        aspect: Where a pair says its aspect: a key such as ``"metadata.aspect"``, or a function of a pair.
        weights: Of the aspects in the sum; 1 where nothing is said. The scores of two models differ in scale: look at
            them, or calibrate them, before choosing.
        settings: Of each training.
        **options: Of `train_reward_model`: `tokenizer`, `revision`, `resume`, `progress`.

    Raises:
        ConfigError: An aspect cannot name a directory, `weights` names one that no pair has, or as
            `train_reward_model`.
        InputError: A pair has no aspect, or as `train_reward_model`.

    With `resume`, a model that is finished already is an error: train the other aspects by themselves.

    Examples:
        >>> from flux_rewards import PreferencePair
        >>> train_aspects("Qwen/Qwen3-0.6B", [PreferencePair("2 + 2?", "4", "5")], output_dir="out")
        Traceback (most recent call last):
        ...
        flux_rewards.errors.InputError: pair 0, field 'metadata.aspect': ...
    """
    parts = _by_aspect(pairs, aspect, "pairs")
    measured = None if eval_pairs is None else _by_aspect(eval_pairs, aspect, "eval_pairs")
    if measured is not None and measured.keys() != parts.keys():
        odd = ", ".join(sorted(measured.keys() ^ parts.keys()))
        raise ConfigError(f"pairs and eval_pairs have different aspects: {odd} in one of them only")
    weights = dict(weights or {})
    for name, weight in weights.items():
        number(weight, f"weights[{name!r}]", "")
        if name not in parts:
            raise ConfigError(f"weights has {name!r}, and no pair has; the aspects are {', '.join(parts) or 'none'}")
    folder = Path(output_dir)
    trained = {
        name: train_reward_model(
            model, own, None if measured is None else measured[name], folder / name, settings, **options
        )
        for name, own in parts.items()
    }
    config = folder / _CONFIG
    entries = [
        {
            "name": name,
            "reward_model": "reward_model",
            "weight": float(weights.get(name, 1.0)),
            "model_name_or_path": str(found.path.resolve()),
        }
        for name, found in trained.items()
    ]
    config.write_text(yaml.safe_dump({"rewards": entries}, sort_keys=False), encoding="utf-8")
    return TrainedAspects(trained, config)


def _by_aspect(pairs: Iterable[PreferencePair], aspect: Key, what: str) -> dict[str, PreferenceData]:
    source = pairs.source if isinstance(pairs, PreferenceData) else ""
    no_prompts = isinstance(pairs, PreferenceData) and pairs.no_prompts
    parts: dict[str, list[PreferencePair]] = {}
    for index, pair in enumerate(pairs):
        name = key_of(pair, aspect, index)
        if not isinstance(name, str):
            raise InputError(f"{what} {index}: an aspect is a text, found {name!r}")
        if not _NAME.fullmatch(name):
            raise ConfigError(f"aspect {name!r} names a directory: use letters, digits, '.', '_' and '-'")
        parts.setdefault(name, []).append(pair)
    return {name: PreferenceData(own, source=source, no_prompts=no_prompts) for name, own in parts.items()}
