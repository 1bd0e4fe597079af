"""Rewards as YAML or a dict, and back.

rewards:                        # a list, or one mapping for a single reward
  - name: correct
    reward_model: numeric_answer
    weight: 1.0
  - reward_model: group_rank    # a parameter that is a reward is written as a mapping
    weight: 0.2
    reward: {reward_model: length, target: 400}
eval_rewards: ...               # optional; the training rewards serve when it is absent
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flux_rewards.base import RewardFunction
from flux_rewards.callables import path_of
from flux_rewards.composite import CompositeReward, Product
from flux_rewards.config_file import hint_on_key, hint_on_name, own_entry, own_sections, read_yaml
from flux_rewards.errors import ConfigError, FluxRewardsError, brief, close_match
from flux_rewards.fingerprint import same
from flux_rewards.naming import distinct
from flux_rewards.parameters import accepted_parameters
from flux_rewards.registry import Factory, name_of, resolve_reward
from flux_rewards.validation import number, whole_number
from flux_rewards.wrappers.batched import Batched

__all__ = ["LoadedRewards", "load_rewards", "to_config"]

_ENTRY_KEYS = ("name", "reward_model", "weight", "batch_size")
_OBJECT_KEYS = ("num_workers", "async_reward")
_DEVICE_KEYS = ("device", "dtype")
_COMMON_KEYS = (*_ENTRY_KEYS, *_OBJECT_KEYS, *_DEVICE_KEYS)


@dataclass(frozen=True)
class LoadedRewards:
    """What a configuration asks for.

    Attributes:
        train: The composite of ``rewards``.
        eval: The composite of ``eval_rewards``; the same object as `train` where that section is absent.
    """

    train: CompositeReward
    eval: CompositeReward


def load_rewards(
    source: str | os.PathLike[str] | Mapping[str, Any] | Sequence[Mapping[str, Any]],
) -> LoadedRewards:
    """Build the rewards of a YAML file, or of the mapping or list that such a file holds.

    Keys of an entry: ``reward_model`` (registered name or dotted path), ``name`` (by default the reward's own),
    ``weight`` (1.0), ``batch_size``, ``num_workers``, ``async_reward``, ``device`` and ``dtype`` (for rewards that take
    them); every other key is a parameter of the reward. A parameter that is itself a reward is a mapping with a
    ``reward_model``. Entries with the same class and parameters share one object, in both sections, whatever their
    names, weights and batch sizes are. A training file of Flow-Factory may be given as it is: what it holds beside the
    rewards is left alone, and its words for rewards are known.

    Raises:
        ConfigError: With the entry, the key, and the close match of what is unknown.

    Examples:
        >>> loaded = load_rewards([{"name": "brief", "reward_model": "length", "weight": 0.2, "target": 4}])
        >>> loaded.train(response=["one two three four"]).rewards, loaded.eval is loaded.train
        (array([0.2]), True)
    """
    where = ""
    config: Any = source
    if isinstance(source, (str, os.PathLike)):
        where = f"{os.fspath(source)}: "
        config = read_yaml(Path(source))
    if isinstance(config, Sequence) and not isinstance(config, str):
        config = {"rewards": config}
    if not isinstance(config, Mapping) or "rewards" not in config:
        raise ConfigError(f"{where}expected a mapping with 'rewards', found {brief(config)}")
    config = own_sections(config, where)
    builder = _Builder(where)
    train = builder.section("rewards", config["rewards"])
    if config.get("eval_rewards") is None:
        return LoadedRewards(train, train)
    return LoadedRewards(train, builder.section("eval_rewards", config["eval_rewards"]))


class _Builder:
    """Builds entries, and remembers the objects that they share."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._objects: list[tuple[Factory, dict[str, Any], RewardFunction, dict[str, tuple[Any, str]]]] = []

    def section(self, section: str, entries: Any) -> CompositeReward:
        return CompositeReward(self._entries(entries, section), name=section)

    def _entries(self, entries: Any, at: str) -> dict[str, tuple[RewardFunction, float]]:
        """Weighted parts by name."""
        if isinstance(entries, Mapping):
            entries = [entries]
        if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
            raise ConfigError(f"{self._where}{at}: expected a list of entries, found {brief(entries)}")
        rewards: list[RewardFunction] = []
        weights: list[float] = []
        names: list[str] = []
        given: set[str] = set()
        for position, entry in enumerate(entries):
            label = self._label(entry, f"{at}[{position}]")
            weights.append(number(entry.get("weight", 1.0), f"{label}: weight", ""))
            rewards.append(self._reward(entry, label))
            name = entry["name"] if "name" in entry else rewards[-1].name  # a remote one would be asked for it
            if not isinstance(name, str) or not name:
                raise ConfigError(f"{label}: name must be text, found {brief(name)}")
            if "name" in entry and name in given:
                raise ConfigError(
                    f"{label}: the name {name!r} is taken by an earlier entry; give each a name of its own"
                )
            given.update([name] if "name" in entry else [])
            names.append(name)
        return dict(zip(distinct(names), zip(rewards, weights, strict=True), strict=True))

    def _label(self, entry: Any, at: str) -> str:
        if not isinstance(entry, Mapping):
            raise ConfigError(f"{self._where}{at}: expected a mapping with 'reward_model', found {brief(entry)}")
        if "reward_model" not in entry:
            hint = next(
                (
                    f"; did you mean 'reward_model' by {key!r}?"
                    for key in entry
                    if close_match(str(key), ["reward_model"])
                ),
                "",
            )
            raise ConfigError(f"{self._where}{at}: has no 'reward_model', the name of the reward{hint}")
        called = entry.get("name", entry["reward_model"])
        return f"{self._where}{at} ({called})"

    def _reward(self, entry: Mapping[str, Any], label: str, *, named: bool = False) -> RewardFunction:  # noqa: C901
        """Build one reward; its name is the part's, unless it is `named` itself."""
        entry = own_entry(entry)
        try:
            factory = resolve_reward(entry["reward_model"])
        except FluxRewardsError as error:
            raise type(error)(f"{label}: {error}{hint_on_name(entry['reward_model'])}") from error
        accepted = accepted_parameters(factory)
        parameters = {
            key: self._value(key, value, factory, f"{label}: {key}")
            for key, value in entry.items()
            if key not in _COMMON_KEYS
            or (key in accepted and key in (*_DEVICE_KEYS, *(["name"] if named else [])))
            or (key in accepted and accepted[key].default is accepted[key].empty)
        }
        batch_size = entry.get("batch_size")
        if batch_size is not None and factory is Batched:
            parameters["batch_size"], batch_size = batch_size, None
        for key in parameters:
            if key not in accepted:
                known = [*accepted, *_COMMON_KEYS]
                raise ConfigError(
                    f"{label}: {entry['reward_model']} has no parameter {key!r}{close_match(str(key), known)}; "
                    f"it takes {', '.join(name for name in accepted if name not in _COMMON_KEYS) or 'none'}"
                    f"{hint_on_key(key)}"
                )
        missing = [
            name
            for name, parameter in accepted.items()
            if parameter.default is parameter.empty and name not in parameters
        ]
        if missing:
            hint = "" if isinstance(factory, type) else "; a function that scores is written as reward_model: function"
            raise ConfigError(f"{label}: {entry['reward_model']} needs {', '.join(missing)}{hint}")
        try:
            reward = factory(**parameters)
        except (ConfigError, TypeError, ValueError) as error:
            raise ConfigError(f"{label}: {error}") from error
        except FluxRewardsError:
            raise
        except Exception as error:
            raise ConfigError(f"{label}: {type(error).__name__}: {error}") from error
        if not isinstance(reward, RewardFunction):
            raise ConfigError(
                f"{label}: {entry['reward_model']} returned {brief(reward)}, not a reward; "
                "a function that scores is configured as reward_model: function"
            )
        defaults = {name: entry.default for name, entry in accepted.items() if entry.default is not entry.empty}
        reward = self._shared(factory, {**defaults, **parameters}, reward, entry, label)
        if batch_size is None:
            return reward
        whole_number(batch_size, f"{label}: batch_size", "", low=1)
        return Batched(reward, batch_size)

    def _value(self, key: str, value: Any, factory: Factory, label: str) -> Any:
        """A parameter: rewards within it are built, anything else is taken as it stands."""
        at = label.removeprefix(self._where)
        if isinstance(value, Mapping) and "reward_model" in value:
            nested = self._label(value, at)
            if "weight" in value:
                raise ConfigError(f"{nested}: has a weight, and only an entry of a weighted sum has one")
            return self._reward(value, nested, named=True)
        if key == "rewards" and factory is CompositeReward:
            return self._entries(value, at)
        if key == "rewards" and factory is Product:
            weighted = [entry for entry in value if "weight" in entry] if isinstance(value, list) else []
            if weighted:
                raise ConfigError(f"{label}: {brief(weighted[0])} has a weight, and a product has none")
            return {name: reward for name, (reward, _) in self._entries(value, at).items()}
        if isinstance(value, list):
            return [self._value(key, item, factory, f"{label}[{position}]") for position, item in enumerate(value)]
        return value

    def _shared(
        self,
        factory: Factory,
        parameters: dict[str, Any],
        reward: RewardFunction,
        entry: Mapping[str, Any],
        label: str,
    ) -> RewardFunction:
        """The object that an earlier entry with the same class and parameters made, with this entry's settings."""
        for maker, given, known, settings in self._objects:  # noqa: B007
            if maker is factory and same(given, parameters):
                break
        else:
            known, settings = reward, {}
            self._objects.append((factory, parameters, known, settings))
        for key in _OBJECT_KEYS:
            if key not in entry:
                continue
            value = entry[key]
            if known.children:
                raise ConfigError(f"{label}: {key} is for rewards that compute; set it on the rewards beneath")
            if key == "num_workers":
                whole_number(value, f"{label}: num_workers", "", low=1)
            elif not isinstance(value, bool):
                raise ConfigError(f"{label}: {key} must be true or false, found {brief(value)}")
            before, by = settings.setdefault(key, (value, label))
            if before != value:
                raise ConfigError(
                    f"{label}: {key} is {value}, but {by}, which is the same reward and shares its object, has {before}"
                )
            setattr(known, key, value)
        return known


def to_config(rewards: LoadedRewards | RewardFunction) -> dict[str, Any]:
    """The configuration that `load_rewards` turns into the same rewards; plain data, ready for YAML or JSON.

    Raises:
        ConfigError: A parameter cannot be written down, such as a lambda.

    Examples:
        >>> from flux_rewards import LengthReward
        >>> to_config(CompositeReward({"brief": (LengthReward(target=40), 0.2)}))
        {'rewards': [{'name': 'brief', 'reward_model': 'length', 'weight': 0.2, 'target': 40}]}
    """
    if not isinstance(rewards, LoadedRewards):
        return {"rewards": _section(rewards)}
    config = {"rewards": _section(rewards.train)}
    if rewards.eval is not rewards.train:
        config["eval_rewards"] = _section(rewards.eval)
    return config


def _section(reward: RewardFunction) -> list[dict[str, Any]]:
    plain = type(reward) is CompositeReward and not reward.normalize_weights
    parts = reward if plain else CompositeReward({reward.name: (reward, 1.0)})
    assert isinstance(parts, CompositeReward)  # noqa: S101  # for the type checker
    return _parts(parts)


def _parts(composite: CompositeReward) -> list[dict[str, Any]]:
    given = composite.rewards.values() if isinstance(composite.rewards, Mapping) else composite.rewards
    return [
        {"name": name, **_entry(reward, weight=weight)}
        for name, (reward, weight) in zip(composite.weights, given, strict=True)
    ]


def _entry(reward: RewardFunction, *, weight: float | None = None) -> dict[str, Any]:
    batch_size = None
    if type(reward) is Batched:
        batch_size, reward = reward.leaf_batch_size, reward.reward
    kind = type(reward)
    name = name_of(kind) or path_of(kind)
    if name is None:
        raise ConfigError(
            f"{kind.__qualname__} of {kind.__module__} cannot be named in a configuration; "
            "register it, or define it at the top of an importable module",
            reward=reward.name,
        )
    entry: dict[str, Any] = {"reward_model": name}
    if weight is not None:
        entry["weight"] = weight
    if batch_size is not None:
        entry["batch_size"] = batch_size
    entry.update({key: vars(reward)[key] for key in _OBJECT_KEYS if key in vars(reward)})
    for key, value in reward.parameters.items():
        if key == "name" and weight is not None:
            continue  # the part has a name
        if key == "batch_size" and batch_size is not None:
            continue  # the wrapper's holds
        if key not in _OBJECT_KEYS and key not in reward.secret_parameters:
            entry[key] = _plain(key, value, reward)
    return entry


def _plain(key: str, value: Any, reward: RewardFunction) -> Any:  # noqa: PLR0911  # one line a kind
    """A parameter as YAML can hold it."""
    if key == "rewards" and isinstance(reward, CompositeReward):
        return _parts(reward)
    if key == "rewards" and isinstance(reward, Product):
        return [
            {"name": name, **{word: item for word, item in _entry(child).items() if word != "name"}}
            for name, child in zip(reward.names, reward.children, strict=True)
        ]
    if isinstance(value, RewardFunction):
        return _entry(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {name: _plain(key, item, reward) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value) if isinstance(value, (set, frozenset)) else value
        return [_plain(key, item, reward) for item in items]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    path = path_of(value)
    if path is None:
        raise ConfigError(
            f"the parameter {key!r} is {brief(value)}, which a configuration cannot hold; "
            "give a function by its dotted path",
            reward=reward.name,
        )
    return path
