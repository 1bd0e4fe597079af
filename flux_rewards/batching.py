"""Calls that come one by one, merged into batches and split again."""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from flux_rewards.contract import Scored, copied
from flux_rewards.errors import ComputeError, ConfigError, MissingDependencyError, WeightsError
from flux_rewards.executor import Executor
from flux_rewards.grouping import group_keys, known_group_keys
from flux_rewards.wrappers.mask_errors import MaskErrors

if TYPE_CHECKING:
    from flux_rewards.base import RewardFunction
    from flux_rewards.data import RewardBatch, Sample
    from flux_rewards.errors import FluxRewardsError
    from flux_rewards.pending import Pending

__all__ = ["Batcher", "Overloaded", "leaves_of"]


class Overloaded(Exception):  # noqa: N818  # what the queue is
    """The queue is full; `retry_after` says in how many seconds there may be room."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"the queue is full; try again in {retry_after:.0f} s")
        self.retry_after = retry_after


@dataclass(eq=False)
class _Waiting:
    """A request in the queue."""

    samples: Sequence[Sample]
    groups: frozenset[Hashable]
    """Of a reward whose author may see their ids."""
    future: Future[Scored] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)
    gone: bool = False
    """Nobody waits for it any more."""
    alone: bool = False
    """It was in a batch that failed whole, and is scored by itself now."""


class Batcher:
    """Scores requests: those that wait at the same time go together, up to `max_batch` samples.

    A request is never split, so its groups stay whole; the groups of two requests are not one, though their ids, or
    prompts, be equal: they get ids of their own, and where an author's code may see the ids, such requests are not
    merged. A request is answered as soon as its own samples are scored. A sample that fails fails in its own request,
    and with its own index.

    Args:
        reward: What scores.
        max_batch: Samples that are merged; a larger request goes by itself.
        window: Seconds that the first request waits for others.
        max_waiting: Samples in the queue.
        workers: Batches that are scored at once.
        deadline: Seconds for one batch; then those of its requests that are not done end with a `TimeoutError`. What
            hangs keeps its lane (see `num_workers`), but not the worker.
        observe: Called with the number of requests and of samples of each batch, and its seconds.

    Examples:
        >>> from flux_rewards import LengthReward, Sample
        >>> batcher = Batcher(LengthReward(target=2), max_batch=64, window=0.002)
        >>> batcher.start()
        >>> batcher.submit([Sample(response="two words")]).result().batch.rewards
        array([1.])
        >>> batcher.close(timeout=5.0)
    """

    def __init__(
        self,
        reward: RewardFunction,
        *,
        max_batch: int,
        window: float,
        max_waiting: int | None = None,
        workers: int = 1,
        deadline: float | None = None,
        observe: Callable[[int, int, float], Any] = lambda *_: None,
    ) -> None:
        self._reward = reward
        self._masked = MaskErrors(reward, max_failure_rate=1.0)
        self._has_groups = reward.scope == "group"
        self._ids_are_seen = self._has_groups and any(map(_sees_ids, leaves_of(reward)))
        self._executor = Executor()
        self._max_batch, self._window, self._max_waiting = max_batch, window, max_waiting
        self._deadline = deadline
        self._observe = observe
        self._queue: deque[_Waiting] = deque()
        self._under_way: dict[Pending, Sequence[_Waiting]] = {}
        self._changed = threading.Condition()
        self._busy = 0
        self._closed = False
        self._pace = 0.0  # seconds a sample, of late
        self.stuck = False
        """Whether the last batch was not done in time."""
        names = (f"flux-rewards-batcher-{number}" for number in range(workers))
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

    def check_room(self, count: int) -> None:
        """Raise `Overloaded` where the queue has no room for so many samples; an empty one has for any number."""
        waiting = self.waiting
        full = self._max_waiting is not None and waiting and waiting + count > self._max_waiting
        if self._closed or full:
            raise Overloaded(min(60.0, max(1.0, waiting * self._pace)))

    def submit(self, samples: Sequence[Sample], *, alone: bool = False) -> Future[Scored]:
        """Queue a request.

        Args:
            samples: What is to be scored.
            alone: Nobody else asks, so that there is nobody to wait for.

        Raises:
            Overloaded: The queue is full.
        """
        entry = _Waiting(samples, self._groups(samples), since=-math.inf if alone else time.monotonic())
        with self._changed:
            self.check_room(len(samples))
            self._queue.append(entry)
            self._changed.notify_all()
        return entry.future

    def _groups(self, samples: Sequence[Sample]) -> frozenset[Hashable]:
        if not self._ids_are_seen:
            return frozenset()
        try:
            return frozenset(group_keys(samples))
        except Exception:  # noqa: BLE001  # nested too deep, say: scoring will say it, to this request alone
            return frozenset([object()])

    def forget(self, future: Future[Scored]) -> None:
        """Whoever waited for it is gone: its place is free, and a batch for which nobody waits goes no further."""
        future.cancel()
        with self._changed:
            for entry in [entry for entry in self._queue if entry.future is future]:
                self._queue.remove(entry)
            for pending, entries in list(self._under_way.items()):
                for entry in entries:
                    entry.gone = entry.gone or entry.future is future
                if all(entry.gone for entry in entries):
                    pending.cancel()

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
        while self._work_once():  # a function of its own: while it waits, it holds no batch of before
            pass

    def _work_once(self) -> bool:
        entries = self._next()
        if entries is None:
            return False
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
        return True

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
        groups: set[Hashable] = set()
        count = 0
        while self._queue:
            entry = self._queue[0]
            too_many = count + len(entry.samples) > self._max_batch
            if entries and (too_many or entry.alone or not groups.isdisjoint(entry.groups)):
                break
            self._queue.popleft()
            if entry.alone:
                return [entry]
            if entry.future.set_running_or_notify_cancel():
                entries.append(entry)
                groups |= entry.groups
                count += len(entry.samples)
        return entries

    def _score(self, entries: Sequence[_Waiting]) -> None:
        started = time.monotonic()
        batch = _Batch(entries)
        try:
            self._computed(batch)
            self.stuck = False
        except CancelledError:  # nobody waits any more
            self.stuck = self._deadline is not None and time.monotonic() - started > 0.9 * self._deadline
            _settle(entries, ComputeError("the request was given up", reward=self._reward.name))
        except Exception as error:  # noqa: BLE001  # whoever waits must hear of it
            self.stuck = isinstance(error, TimeoutError)
            common = (ConfigError, MissingDependencyError, WeightsError, TimeoutError)
            if len(entries) == 1 or isinstance(error, common):
                _settle(entries, error)
            else:
                self._again([*batch.blamed, *batch.undelivered])  # one of them holds what cannot even be looked at
        except BaseException as error:  # noqa: BLE001  # an author's sys.exit: whoever waits must hear of it
            failure = ComputeError(f"the reward ended with {type(error).__name__}", reward=self._reward.name)
            failure.__cause__ = error
            _settle(entries, failure)
        else:
            self._again(batch.blamed)

    def _computed(self, batch: _Batch) -> None:
        """Compute a batch; each request is answered as soon as its own rows are there."""
        own_groups = self._has_groups and not self._ids_are_seen and len(batch.entries) > 1
        samples = [
            sample
            for number, entry in enumerate(batch.entries)
            for sample in (_renumbered(entry.samples, number) if own_groups else entry.samples)
        ]
        several = len(batch.entries) > 1
        pending = self._executor.submit(
            self._masked, samples, timeout=self._deadline, on_progress=batch.deliver if several else None
        )
        with self._changed:
            self._under_way[pending] = batch.entries
            if all(entry.gone for entry in batch.entries):
                pending.cancel()
        try:
            batch.pending = pending
            batch.deliver()  # what was there before the batch was known
            pending.wait()
            batch.deliver()
        finally:
            with self._changed:
                del self._under_way[pending]

    def _again(self, entries: Sequence[_Waiting]) -> None:
        for entry in entries:
            entry.alone, entry.since = True, -math.inf  # it has waited
        with self._changed:
            self._queue.extendleft(reversed(entries))
            self._changed.notify_all()


class _Batch:
    """Requests that are scored together, and which of them have been answered."""

    def __init__(self, entries: Sequence[_Waiting]) -> None:
        self.entries = entries
        self.pending: Pending | None = None
        self.undelivered = list(entries)
        self.blamed: list[_Waiting] = []
        """Those of which a call failed that was for others, too: each is to be scored by itself.

        But for what may pass, such as an outage: that is nobody's fault, and to ask again at once would not help.
        """
        self._starts = list(itertools.accumulate((len(entry.samples) for entry in entries), initial=0))
        self._lock = threading.Lock()

    def deliver(self) -> None:
        """Answer the requests whose rows are there."""
        pending = self.pending
        if pending is None:  # the first rows may come before the batch is known
            return
        with self._lock:
            done = pending.done_rows()
            for number, entry in enumerate(self.entries):
                rows = range(self._starts[number], self._starts[number + 1])
                if entry not in self.undelivered or not done.issuperset(rows):
                    continue
                self.undelivered.remove(entry)
                try:
                    batch = pending.rows(rows)
                except Exception as error:  # noqa: BLE001  # of this request: too many of its samples failed, say
                    _settle([entry], error)
                    continue
                failed = [row for row in rows if row - rows.start in batch.errors and row in pending.causes]
                causes = {row: pending.causes[row] for row in failed}
                if self._is_of_others(pending, causes, rows):
                    self.blamed.append(entry)
                    continue
                with contextlib.suppress(InvalidStateError):
                    entry.future.set_result(_moved(batch, causes, rows))

    @staticmethod
    def _is_of_others(pending: Pending, causes: Mapping[int, FluxRewardsError], rows: range) -> bool:
        own = {id(cause) for cause in causes.values() if not cause.retryable}
        return bool(own) and any(id(cause) in own for row, cause in list(pending.causes.items()) if row not in rows)


def leaves_of(reward: RewardFunction) -> list[RewardFunction]:
    """What computes: everything below that has no children.

    Examples:
        >>> from flux_rewards import GroupRank, LengthReward
        >>> [leaf.name for leaf in leaves_of(GroupRank(LengthReward(target=2)))]
        ['LengthReward']
    """
    if not reward.children:
        return [reward]
    return [leaf for child in reward.children for leaf in leaves_of(child)]


def _sees_ids(leaf: RewardFunction) -> bool:
    fields = leaf.optional_fields
    return leaf.scope == "group" or fields is None or "group_id" in {*fields, *leaf.required_fields}


def _renumbered(samples: Sequence[Sample], number: int) -> list[Sample]:
    """The samples, with ids of groups that no other request has."""
    ids: dict[Hashable, int] = {}
    keys = known_group_keys(samples)
    return [
        replace(sample, group_id=f"{number}-{ids.setdefault(key, len(ids))}")
        for sample, key in zip(samples, keys, strict=True)
    ]


def _settle(entries: Sequence[_Waiting], error: BaseException) -> None:
    for entry in entries:
        with contextlib.suppress(InvalidStateError):
            entry.future.set_exception(error)


def _moved(batch: RewardBatch, causes: Mapping[int, FluxRewardsError], rows: range) -> Scored:
    """The rows of one request, with failures that tell their place in it rather than in the batch."""
    moved: dict[int, FluxRewardsError] = {}
    texts: dict[str, str] = {}
    for row, error in causes.items():
        own = copied(error)  # one object may stand for many rows
        own.index = None if error.index is None or error.index not in rows else error.index - rows.start
        texts[str(error)] = str(own)
        moved[row - rows.start] = own
    return Scored(_retold(batch, texts), moved)


def _retold(batch: RewardBatch, texts: dict[str, str]) -> RewardBatch:
    """The batch, with reasons in other words."""
    if not any(before != after for before, after in texts.items()):
        return batch
    errors = dict(batch.errors)
    for row, said in errors.items():
        for before, after in texts.items():
            if before in said:
                errors[row] = said.replace(before, after)
                break
    return replace(batch, errors=errors, parts={name: _retold(part, texts) for name, part in batch.parts.items()})
