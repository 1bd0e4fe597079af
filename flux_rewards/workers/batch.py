"""Jobs that were given together: which are begun, what became of them, and how all of them are given up."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence

    from flux_rewards.workers.nursery import Worker
    from flux_rewards.workers.outcome import Outcome

__all__ = ["Batch"]


class Batch:
    """Jobs of one function that were given together.

    Args:
        function: It, pickled.
        jobs: The arguments of each job, pickled.
        timeout: Seconds that each job may take.
        kinds: One a job: those of one kind go to one worker, while there are kinds that none has begun.
        settled: Called when all is known, in the thread that learned it.
    """

    def __init__(
        self,
        function: bytes,
        jobs: Sequence[bytes],
        timeout: float,
        kinds: Sequence[Hashable] | None = None,
        settled: Callable[[Batch], None] | None = None,
    ) -> None:
        self.function, self.jobs, self.timeout = function, jobs, timeout
        self.outcomes: list[Outcome | None] = [None] * len(jobs)
        self.failure: BaseException | None = None
        """Why the batch as a whole has no outcomes."""
        self.done = threading.Event()
        self._settled = settled
        self._lock = threading.Lock()
        self._left = len(jobs)
        self._waiting: dict[Hashable, deque[int]] = {}
        """By kind, the jobs that nobody has begun."""
        for index in range(len(jobs)):
            self._waiting.setdefault(index if kinds is None else kinds[index], deque()).append(index)
        self._begun: dict[Hashable, int] = {}
        """By kind, who began the first one."""
        self._running: set[Worker] = set()

    def take(self, worker: int) -> int | None:
        """The next job that nobody has begun, for one of the workers."""
        with self._lock:
            if self.failure is not None or not self._waiting:
                return None
            own = next((kind for kind, by in self._begun.items() if by == worker), None)
            if own is None:
                # Another's kind only when no whole one is left: then the longest, where help is worth most.
                fresh = next((kind for kind in self._waiting if kind not in self._begun), None)
                own = max(self._waiting, key=lambda kind: len(self._waiting[kind])) if fresh is None else fresh
                self._begun.setdefault(own, worker)
            jobs = self._waiting[own]
            index = jobs.popleft()
            if not jobs:
                del self._waiting[own], self._begun[own]
            return index

    def has_more(self) -> bool:
        """Whether there is one."""
        with self._lock:
            return self.failure is None and bool(self._waiting)

    @contextlib.contextmanager
    def running_on(self, worker: Worker) -> Iterator[None]:
        """While the worker has a job of this batch."""
        with self._lock:
            if self.failure is not None:
                raise CancelledError
            self._running.add(worker)
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(worker)

    def settle(self, index: int, outcome: Outcome) -> None:
        """A job has ended."""
        with self._lock:
            self.outcomes[index] = outcome
            self._left -= 1
            last = self._left == 0 and self.failure is None
        if last:
            self._end()

    def fail(self, error: BaseException) -> None:
        """Give up all of it; what runs is killed."""
        with self._lock:
            if self.failure is not None or self._left == 0:
                return
            self.failure = error
            for worker in self._running:  # within the lock: a moment later it may work for another batch
                worker.interrupt()
        self._end()

    def _end(self) -> None:
        self.done.set()
        if self._settled is not None:
            self._settled(self)
