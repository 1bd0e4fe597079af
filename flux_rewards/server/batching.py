"""Requests that wait for a score, merged into batches and split again."""

from __future__ import annotations

import bisect
import contextlib
import copy
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import ConfigError, MissingDependencyError, WeightsError
from flux_rewards.executor import Executor
from flux_rewards.grouping import known_group_keys
from flux_rewards.wire.answers import Answer
from flux_rewards.wrappers.mask_errors import MaskErrors

if TYPE_CHECKING:
    from flux_rewards.base import RewardFunction
    from flux_rewards.data import Sample
    from flux_rewards.errors import FluxRewardsError

__all__ = ["Batcher", "Overloaded"]


class Overloaded(Exception):  # noqa: N818  # what the queue is
    """The queue is full; `retry_after` says in how many seconds there may be room."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"the queue is full; try again in {retry_after:.0f} s")
        self.retry_after = retry_after


@dataclass(eq=False)
class _Waiting:
    """A request in the queue."""

    samples: Sequence[Sample]
    future: Future[Answer] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


class Batcher:
    """Scores requests: those that wait at the same time go together, up to `max_batch` samples.

    A request is never split, so its groups stay whole; the groups of two requests are not one, though their ids be
    equal. A sample that fails fails in its own request.

    Args:
        reward: What scores.
        max_batch: Samples that are merged; a larger request goes by itself.
        window: Seconds that the first request waits for others.
        max_waiting: Samples in the queue.
        workers: Batches that are scored at once.
        observe: Called with the number of requests and of samples of each batch, and its seconds.
    """

    def __init__(
        self,
        reward: RewardFunction,
        *,
        max_batch: int,
        window: float,
        max_waiting: int,
        workers: int,
        observe: Callable[[int, int, float], Any] = lambda *_: None,
    ) -> None:
        self._reward = reward
        self._masked = MaskErrors(reward, max_failure_rate=1.0)
        self._executor = Executor()
        self._max_batch, self._window, self._max_waiting = max_batch, window, max_waiting
        self._observe = observe
        self._queue: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._busy = 0
        self._closed = False
        self._pace = 0.0  # seconds a sample, of late
        names = (f"flux-rewards-server-{number}" for number in range(workers))
        self._threads = [threading.Thread(target=self._work, name=name, daemon=True) for name in names]

    def start(self) -> None:
        """Begin to score."""
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Samples in the queue."""
        return sum(len(entry.samples) for entry in list(self._queue))

    @property
    def busy(self) -> int:
        """Batches that are being scored."""
        return self._busy

    def submit(self, samples: Sequence[Sample], *, alone: bool = False) -> Future[Answer]:
        """Queue a request.

        Args:
            samples: What is to be scored.
            alone: Nobody else asks, so that there is nobody to wait for.

        Raises:
            Overloaded: The queue is full.
        """
        entry = _Waiting(samples, since=-math.inf if alone else time.monotonic())
        with self._changed:
            waiting = self.waiting
            if self._closed or (waiting and waiting + len(samples) > self._max_waiting):
                raise Overloaded(min(60.0, max(1.0, waiting * self._pace)))
            self._queue.append(entry)
            self._changed.notify_all()
        return entry.future

    def forget(self, future: Future[Answer]) -> None:
        """Whoever waited for it is gone: its place is free."""
        future.cancel()
        with self._changed:
            for entry in [entry for entry in self._queue if entry.future is future]:
                self._queue.remove(entry)

    def close(self, timeout: float) -> None:
        """Score what is queued, and then no more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        until = time.monotonic() + timeout
        for thread in filter(threading.Thread.is_alive, self._threads):
            thread.join(max(0.0, until - time.monotonic()))
        self._executor.close(timeout=0.0)

    def _work(self) -> None:
        while True:
            entries = self._next()
            if entries is None:
                return
            started = time.monotonic()
            try:
                self._score(entries)
            finally:
                with self._changed:
                    self._busy -= 1
                    count = sum(len(entry.samples) for entry in entries)
                    seconds = time.monotonic() - started
                    self._pace = 0.7 * self._pace + 0.3 * seconds / max(1, count)
                self._observe(len(entries), count, seconds)

    def _next(self) -> list[_Waiting] | None:
        with self._changed:
            while True:
                while not self._queue:
                    if self._closed:
                        return None
                    self._changed.wait()
                ready = self._queue[0].since + self._window
                while self._queue and self.waiting < self._max_batch and not self._closed:
                    left = ready - time.monotonic()
                    if left <= 0:
                        break
                    self._changed.wait(left)
                entries = self._take()
                if entries:
                    self._busy += 1
                    return entries

    def _take(self) -> list[_Waiting]:
        entries: list[_Waiting] = []
        count = 0
        while self._queue and (not entries or count + len(self._queue[0].samples) <= self._max_batch):
            entry = self._queue.popleft()
            if entry.future.set_running_or_notify_cancel():
                entries.append(entry)
                count += len(entry.samples)
        return entries

    def _score(self, entries: Sequence[_Waiting]) -> None:
        try:
            merged = self._answer([sample for entry in entries for sample in self._own_groups(entry, len(entries))])
        except Exception as error:  # noqa: BLE001  # whoever waits must hear of it
            if len(entries) == 1 or isinstance(error, (ConfigError, MissingDependencyError, WeightsError)):
                _settle(entries, error)
                return
            for entry in entries:  # one of them holds what cannot even be looked at
                self._score([entry])
        except BaseException as error:  # noqa: BLE001  # whoever waits must hear of it
            _settle(entries, error)
        else:
            self._split(entries, merged)

    def _split(self, entries: Sequence[_Waiting], merged: Answer) -> None:
        """Give each request its rows; where one failure is that of several requests, each is scored by itself."""
        starts = list(itertools.accumulate((len(entry.samples) for entry in entries), initial=0))
        failures: dict[Any, set[int]] = {}
        for row, cause in merged.causes.items():
            failures.setdefault(_kind(cause), set()).add(bisect.bisect_right(starts, row) - 1)
        together = {number for numbers in failures.values() if len(numbers) > 1 for number in numbers}
        for number, entry in enumerate(entries):
            if number in together:
                self._score([entry])
                continue
            rows = range(starts[number], starts[number + 1])
            causes = {row - rows.start: _moved(merged.causes[row], rows) for row in rows if row in merged.causes}
            with contextlib.suppress(InvalidStateError):
                entry.future.set_result(Answer(merged.batch.select(rows), causes))

    def _answer(self, samples: Sequence[Sample]) -> Answer:
        pending = self._executor.submit(self._masked, samples)
        batch = pending.result()
        causes = {row: cause for row, cause in pending.causes.items() if row in batch.errors}
        return Answer(batch, causes)

    def _own_groups(self, entry: _Waiting, count: int) -> Sequence[Sample]:
        """The samples, with ids of groups that no other request has."""
        if count == 1 or self._reward.scope != "group":
            return entry.samples
        numbers: dict[Any, int] = {}
        return [
            replace(sample, group_id=f"{id(entry)}-{numbers.setdefault(key, len(numbers))}")
            for sample, key in zip(entry.samples, known_group_keys(entry.samples), strict=True)
        ]


def _settle(entries: Sequence[_Waiting], error: BaseException) -> None:
    for entry in entries:
        with contextlib.suppress(InvalidStateError):
            entry.future.set_exception(error)


def _kind(error: FluxRewardsError) -> Any:
    """What is the same for all rows of one failed call."""
    return type(error), str(error.args), id(error.__cause__)


def _moved(error: FluxRewardsError, rows: range) -> FluxRewardsError:
    """The error with its place in the request; one object may stand for many rows."""
    moved = copy.copy(error)
    moved.__cause__ = error.__cause__
    moved.index = None if error.index is None or error.index not in rows else error.index - rows.start
    return moved
