"""For trainers that ask for one sample at a time, from threads or from an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import replace
from typing import TYPE_CHECKING

from flux_rewards.base import RewardFunction
from flux_rewards.batching import Batcher, leaves_of
from flux_rewards.contract import Scored
from flux_rewards.errors import ComputeError, ConfigError, ContractError, brief
from flux_rewards.grouping import group_keys, has_group
from flux_rewards.parameters import Parametrised
from flux_rewards.threads import RenewedLock
from flux_rewards.validation import number, whole_number

if TYPE_CHECKING:
    from flux_rewards.data import Sample

__all__ = ["SingleCalls"]

_LATE = (TimeoutError, FutureTimeoutError, asyncio.TimeoutError)  # in Python 3.10 these are three classes
_FAILURES = (*_LATE, ComputeError)
_numbers = itertools.count()


class SingleCalls(Parametrised):
    """Merges the calls of a trainer that asks for one sample at a time, or for one group, into batches.

    What scores them is started by the first call, once in each process: it is not part of a pickle, and a forked child
    starts its own. A call that nobody else's overlaps does not wait for others: whether they do is learned from the
    calls before.

    Args:
        reward: What scores.
        adapter: Who asks, for messages.
        max_batch: Samples that are merged, at most; a larger group goes by itself.
        window: Seconds that a call waits for others, where calls overlap.
        timeout: Seconds for a call, the wait for its turn included; what is not done by then has failed. None for no
            other limits than the reward's own.
        groups: Whether the trainer shows whole groups, `score_group`; a reward of groups needs it.

    Raises:
        ConfigError: A reward of groups, and a trainer that shows single samples; or an argument is out of its range.

    A sample that fails is a row with its reason, and a call that is not done in time is one too; what fails every
    sample (a field that is missing, a wrong set-up) raises.

    Examples:
        >>> from flux_rewards import LengthReward, Sample
        >>> calls = SingleCalls(LengthReward(target=2), adapter="my trainer")
        >>> calls.score(Sample(response="two words")).batch.rewards
        array([1.])
    """

    def __init__(
        self,
        reward: RewardFunction,
        *,
        adapter: str = "the trainer",
        max_batch: int = 64,
        window: float = 0.005,
        timeout: float | None = None,
        groups: bool = False,
    ) -> None:
        if not isinstance(reward, RewardFunction):
            raise ConfigError(f"{adapter}: expected a reward, found {brief(reward)}")
        if reward.scope == "group" and not groups:
            raise ConfigError(
                f"it compares the samples of a group, and {adapter} shows one sample at a time; use the adapter's form "
                "for groups where it has one, or leave the comparison to the trainer's advantages",
                reward=reward.name,
            )
        self.reward = reward
        self.adapter = adapter
        self.max_batch = whole_number(max_batch, f"{adapter}: max_batch", "", low=1)
        self.window = number(window, f"{adapter}: window", "", low=0.0, high=60.0)
        limit = threading.TIMEOUT_MAX
        self.timeout = None if timeout is None else number(timeout, f"{adapter}: timeout", "", above=0.0, high=limit)
        self.groups = groups
        self._lock = RenewedLock()
        self._running: tuple[int, Batcher] | None = None
        self._in_flight = 0
        self._most = 1  # in flight at once, since the last time that there were none
        self._serial = True

    def score(self, sample: Sample) -> Scored:
        """Score a sample, and wait for it; from any thread but that of an event loop.

        Raises:
            FluxRewardsError: What would fail every sample.
        """
        return self._wait_for([sample])

    async def ascore(self, sample: Sample) -> Scored:
        """Score a sample without blocking the event loop; a call that is cancelled is taken out of its batch."""
        return await self._await([sample])

    def score_group(self, samples: Sequence[Sample]) -> Scored:
        """Score samples that are one group, or several that their ids tell apart, as one call."""
        return self._wait_for(self._grouped(samples))

    async def ascore_group(self, samples: Sequence[Sample]) -> Scored:
        """As `score_group`, without blocking the event loop."""
        return await self._await(self._grouped(samples))

    def _grouped(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        if self.reward.scope != "group" or not samples:
            return samples
        if has_group(samples[0]) and len(set(group_keys(samples))) == 1:
            return samples
        own = f"{self.adapter}-{next(_numbers)}"  # of no other call: groups with the same id are not merged
        return [replace(sample, group_id=own) if sample.group_id is None else sample for sample in samples]

    def _wait_for(self, samples: Sequence[Sample]) -> Scored:
        batcher, future = self._submit(samples)
        try:
            return future.result(self.timeout)
        except _FAILURES as error:
            return self._failed(error, samples)
        finally:
            if not future.done():
                batcher.forget(future)

    async def _await(self, samples: Sequence[Sample]) -> Scored:
        batcher, future = self._submit(samples)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self.timeout)
        except _FAILURES as error:
            return self._failed(error, samples)
        finally:
            if not future.done():  # late, or cancelled from outside
                batcher.forget(future)

    def _failed(self, error: Exception, samples: Sequence[Sample]) -> Scored:
        if isinstance(error, _LATE):
            limit = "in time" if self.timeout is None else f"within {self.timeout:g} s"
            late = ComputeError(f"not scored {limit}: {error}" if str(error) else f"not scored {limit}")
            late.__cause__, late.retryable = error, True
            error = late
        return Scored.failure(error, reward=self.reward.name, indices=range(len(samples)))

    def _submit(self, samples: Sequence[Sample]) -> tuple[Batcher, Future[Scored]]:
        if not samples:
            raise ContractError(f"{self.adapter}: expected at least one sample", reward=self.reward.name)
        with self._lock:
            batcher = self._batcher()
            if self._in_flight == 0:
                self._serial, self._most = self._most == 1, 0
            self._in_flight += 1
            self._most = max(self._most, self._in_flight)
            alone = self._serial and self._in_flight == 1
        future = batcher.submit(samples, alone=alone)
        future.add_done_callback(functools.partial(_ended, weakref.ref(self)))  # a worker holds its last future
        return batcher, future

    def _batcher(self) -> Batcher:
        """The batcher of this process; threads don't survive a fork."""
        if self._running is None or self._running[0] != os.getpid():
            workers = min(8, max(leaf.num_workers for leaf in leaves_of(self.reward)))
            batcher = Batcher(
                self.reward, max_batch=self.max_batch, window=self.window, workers=workers, deadline=self.timeout
            )
            batcher.start()
            self._running, self._in_flight = (os.getpid(), batcher), 0
            weakref.finalize(self, _close, batcher, os.getpid()).atexit = False
        return self._running[1]


def _ended(asked: weakref.ref[SingleCalls], _: object) -> None:
    calls = asked()
    if calls is not None:
        with calls._lock:  # noqa: SLF001  # its own
            calls._in_flight = max(0, calls._in_flight - 1)  # noqa: SLF001


def _close(batcher: Batcher, process: int) -> None:
    if process == os.getpid():  # a forked child holds a copy whose locks nobody will open
        with contextlib.suppress(RuntimeError):  # in the batcher's own thread, which cannot wait for itself
            batcher.close(timeout=0.0)
