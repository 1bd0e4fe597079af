"""A user's own reward, with a time limit that holds."""

from __future__ import annotations

import contextlib
import functools
import importlib
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.contract import Scored, reason
from flux_rewards.data import FIELDS, RewardBatch, Sample
from flux_rewards.errors import ComputeError, ConfigError, FluxRewardsError, brief
from flux_rewards.shared import shared
from flux_rewards.validation import number, whole_number
from flux_rewards.workers.pool import KillablePool, usable_cpus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Unpack

    from flux_rewards.workers.outcome import Outcome

__all__ = ["InProcess"]


class InProcess(RewardFunction):
    """Scores with another reward in worker processes, and kills what takes too long.

    For rewards that compute on the CPU and may never end: symbolic maths, parsers, regular expressions. A sample that
    is not done after `timeout` seconds has failed, with a `TimeoutError` as the cause; one in whose call the process
    died (by a signal, an exit, or out of memory), with a `WorkerCrashError`. Neither is ever a number, and its
    neighbours are scored as if nothing had happened. Where `Timeout` only stops waiting, this ends the call.

    The samples of a batch are spread over the workers one by one, groups of a group-scoped reward as a whole; each
    worker builds the reward from its parameters once, and keeps it. Metadata, token rewards and parts come back.

    Args:
        reward: The reward, or a tree of rewards. It and the samples must pickle, and its class stands in an importable
            module: the program's main module is not run again in the workers.
        timeout: Seconds for one sample, or for one group.
        memory: Bytes of address space for each worker, or None for no limit.
        **options: Of every reward; see `RewardFunction`. `num_workers` is the number of processes, the usable CPUs by
            default.

    Bounds, fields, scope and name are those of the reward.

    Raises:
        ConfigError: `reward` is not a reward, a parameter is out of its range, or something cannot be sent to a
            process.

    Does not pay for a reward that takes less than about a millisecond a sample, and is no sandbox. Each worker loads
    models for itself: keep those outside.

    Examples:
        >>> from flux_rewards import LengthReward
        >>> InProcess(LengthReward(4), timeout=60, num_workers=2)(response=["one two three four", "one two"]).rewards
        array([1. , 0.5])
    """

    num_workers = usable_cpus()
    media_form = "given"  # read by the reward, over there
    example_config = {"reward": {"reward_model": "length", "target": 40}, "timeout": 60, "num_workers": 2}

    def __init__(
        self,
        reward: RewardFunction,
        timeout: float,
        memory: int | None = None,
        **options: Unpack[RewardOptions],
    ) -> None:
        if not isinstance(reward, RewardFunction):
            raise ConfigError(f"reward must be a reward, found {brief(reward)}", reward=type(self).__name__)
        self.bounds, self.higher_is_better = reward.bounds, reward.higher_is_better
        super().__init__(**options)
        if options.get("name") is None:
            self.name = reward.name
        self.reward = reward
        self.timeout = number(timeout, "timeout", self.name, above=0.0, high=threading.TIMEOUT_MAX)
        self.memory = None if memory is None else whole_number(memory, "memory", self.name, low=1)
        self.required_fields = tuple(reward.required_fields)
        self.scope = reward.scope

    @property
    def optional_fields(self) -> Sequence[str] | None:  # type: ignore[override]  # not an author's choice here
        """The fields that the reward may read beside those that it requires."""
        return self.reward.optional_fields

    @property
    def reference_is_media(self) -> bool:  # type: ignore[override]
        """As the reward says."""
        return self.reward.reference_is_media

    @property
    def decided_by(self) -> Sequence[Any]:  # type: ignore[override]
        """As the reward says."""
        return self.reward.decided_by

    @functools.cached_property
    def _pool(self) -> KillablePool:
        # Keyed by what the server imports before it forks: a new worker must not import it again.
        imports = _Imports(type(self.reward).__module__)
        key = ("InProcess", imports.module, self.num_workers, self.memory)
        return shared(key, lambda: KillablePool(self.num_workers, prepare=imports, memory=self.memory))

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        """One job a sample, or the whole group."""
        plain = [Sample(**{field: getattr(sample, field) for field in FIELDS}) for sample in samples]
        units = [plain] if self.scope == "group" else [[sample] for sample in plain]
        outcomes = self._pool.run(_Scoring(self.reward), [(unit,) for unit in units], timeout=self.timeout)
        if self.scope == "group":
            return outcomes[0].unwrap()
        return Scored.scatter(len(samples), [([row], _scored(outcome)) for row, outcome in enumerate(outcomes)])

    def close(self) -> None:
        """Let go of the workers; those that no other reward uses end."""
        vars(self).pop("_pool", None)


class _Imports:
    """Imports a module, where there is one of that name."""

    def __init__(self, module: str) -> None:
        self.module = module

    def __call__(self) -> None:
        with contextlib.suppress(Exception):  # told by the first job, with what to do
            importlib.import_module(self.module)


class _Scoring:
    """What a worker calls; it keeps the reward, and what that has made of itself."""

    def __init__(self, reward: RewardFunction) -> None:
        self._reward = reward

    def __call__(self, samples: Sequence[Sample]) -> RewardBatch:
        try:
            batch: RewardBatch = self._reward(samples)
        except FluxRewardsError as error:
            if type(error) is ComputeError and isinstance(error.__cause__, Exception):
                raise error.__cause__  # noqa: B904  # the author's own; it gets its place again in the caller's batch
            error.reward, error.index = None, None  # its place in a batch of one
            raise
        return batch.with_stats({})


def _scored(outcome: Outcome) -> Scored:
    if outcome.error is None:
        return Scored(outcome.value, {})
    causes: dict[int, Any] = {0: outcome.error}  # as it is: it is located where the batch is known
    return Scored(RewardBatch(np.array([np.nan]), errors={0: reason(outcome.error)}), causes)
