"""``flux-rewards download``: what rewards need, fetched ahead of time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flux_rewards.base import RewardFunction
from flux_rewards.config import load_rewards
from flux_rewards.errors import ConfigError, FluxRewardsError, WeightsError, brief
from flux_rewards.parameters import accepted_parameters
from flux_rewards.registry import resolve_reward

if TYPE_CHECKING:
    from flux_rewards.models.checkpoint import Checkpoint

__all__ = ["Need", "fetch_all", "rewards_within", "size_text"]

# What a reward of the user's own may raise, too, when it is made or asked what it needs.
_FAILURES = (FluxRewardsError, OSError, ImportError, NotImplementedError)


@dataclass(frozen=True)
class Need:
    """What one reward needs of one checkpoint.

    Attributes:
        reward: What the user calls the reward.
        checkpoint: What messages call the checkpoint; None where the reward needs none, or could not be made.
        path: Where it lies; None where it is missing.
        size: Bytes.
        error: Why it is missing, where that is a failure.
    """

    reward: str
    checkpoint: str | None = None
    path: Path | None = None
    size: int = 0
    error: Exception | None = None


def fetch_all(names: Sequence[str], config: Path | None = None, *, local_only: bool = False) -> Iterator[Need]:
    """Fetch what rewards need, one checkpoint after the other; a failure does not keep the others from being fetched.

    Args:
        names: Registered names or dotted paths, with their default parameters.
        config: A configuration, whose rewards for training and for evaluation are fetched with their parameters.
        local_only: Fetch nothing: tell what is on this machine, and what is missing.

    Returns:
        What each reward needs, as soon as it is there.
    """
    known: dict[Checkpoint, tuple[Path | None, Exception | None]] = {}
    for name in names:
        try:
            reward = _by_name(name)
        except _FAILURES as error:
            yield Need(name, error=error)
        else:
            yield from _needs(name, reward, known, local_only=local_only)
    if config is not None:
        try:
            loaded = load_rewards(config)
        except _FAILURES as error:
            yield Need(str(config), error=error)
            return
        parts: dict[int, tuple[str, RewardFunction]] = {}  # a reward of both sections is one object
        for section in (loaded.train, loaded.eval):
            for name, reward in zip(section.weights, section.children, strict=True):
                parts.setdefault(id(reward), (name, reward))
        for name, reward in parts.values():
            yield from _needs(name, reward, known, local_only=local_only)


def rewards_within(reward: RewardFunction) -> list[RewardFunction]:
    """A reward and all that it is made of: its children, and rewards that it holds, such as a `VideoReward` does.

    Examples:
        >>> from flux_rewards import GroupRank, LengthReward
        >>> [type(one).__name__ for one in rewards_within(GroupRank(LengthReward(target=9)))]
        ['GroupRank', 'LengthReward']
    """
    found: dict[int, Any] = {}  # by identity: equal rewards need the same
    waiting: list[Any] = [reward]
    while waiting:
        value = waiting.pop(0)
        if id(value) in found:
            continue
        if isinstance(value, RewardFunction):
            waiting += [*value.children, *vars(value).values()]
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, (list, tuple, set, frozenset)):
            waiting += value
        else:
            continue
        found[id(value)] = value  # held, so that no other object gets its identity
    return [value for value in found.values() if isinstance(value, RewardFunction)]


def size_text(size: int) -> str:
    """A number of bytes as people read it.

    Examples:
        >>> [size_text(size) for size in (0, 999, 2_304_000, 3_940_000_000)]
        ['0 B', '999 B', '2.3 MB', '3.9 GB']
    """
    amount = float(size)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def _by_name(name: str) -> RewardFunction:
    factory = resolve_reward(name)
    parameters = accepted_parameters(factory).items()
    missing = [key for key, parameter in parameters if parameter.default is parameter.empty]
    if missing:
        raise ConfigError(
            f"needs {', '.join(missing)}: write it in a configuration, and run `flux-rewards download --config`"
        )
    reward: Any = factory()
    if not isinstance(reward, RewardFunction):
        raise ConfigError(f"{name} returned {brief(reward)}, not a reward")
    return reward


def _needs(
    name: str,
    reward: RewardFunction,
    known: dict[Checkpoint, tuple[Path | None, Exception | None]],
    *,
    local_only: bool,
) -> Iterator[Need]:
    checkpoints: dict[Checkpoint, None] = {}
    failures: list[Exception] = []
    for part in rewards_within(reward):
        listed = getattr(part, "checkpoints", None)  # of `ModelReward`, and of any reward that has one
        try:
            checkpoints.update(dict.fromkeys(listed() if callable(listed) else ()))
        except _FAILURES as error:
            failures.append(error)
    for checkpoint in checkpoints:
        if checkpoint not in known:
            known[checkpoint] = _located(checkpoint, local_only=local_only)
        path, failure = known[checkpoint]
        label = checkpoint.label
        if checkpoint.file is None and not checkpoint.weights:
            label += " (without weights)"
        yield Need(name, label, path, _size(path), failure)
    for failure in failures:
        yield Need(name, error=failure)
    if not checkpoints and not failures:
        yield Need(name)


def _located(checkpoint: Checkpoint, *, local_only: bool) -> tuple[Path | None, Exception | None]:
    try:
        return checkpoint.path(local_only=local_only), None
    except WeightsError as error:
        only_missing = local_only and not checkpoint.is_local
        return None, None if only_missing else error
    except _FAILURES as error:
        return None, error


def _size(path: Path | None) -> int:
    if path is None:
        return 0
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())
