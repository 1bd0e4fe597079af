"""Computes trees of rewards: chunks on lanes, in this thread or on others.

A tree's *leaves* are what computes; everything above them is a pure fold, or stands around their calls. Each leaf's
samples are cut into chunks, and at most `num_workers` chunks of one leaf are in flight at once, however many calls
share that leaf (its *lanes*). A chunk starts when a lane is free, so that no worker ever waits for another, and a tree
of any depth runs on one thread. The plain call and the asynchronous one differ in the thread that runs a chunk, in
nothing else.
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401  # for the order of ends, see below
import functools
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor as FuturesExecutor
from concurrent.futures import Future
from concurrent.futures import wait as wait_for_futures
from typing import TYPE_CHECKING, Any

from flux_rewards.dispatch import ProcessDispatch, ThreadDispatch, claim_of
from flux_rewards.elsewhere import packed, shares_memory
from flux_rewards.errors import ConfigError, ContractError, brief
from flux_rewards.job import Job, Task
from flux_rewards.lanes import lanes_of
from flux_rewards.pending import Pending
from flux_rewards.streams import produced
from flux_rewards.threads import WorkerPool, this_thread
from flux_rewards.validation import number, whole_number

if TYPE_CHECKING:
    from typing_extensions import Self

    from flux_rewards.data import RewardBatch, Sample
    from flux_rewards.tree import Node

__all__ = ["Executor", "default_executor"]

EXIT_SECONDS = 2.0
"""How long the interpreter waits, at its end, for calls that are in flight."""


class Executor:
    """Computes trees of rewards on threads, which start when they are first needed.

    Args:
        threads: At most so many chunks run at once, whatever the rewards' `num_workers`. No more threads start than
            find something to do.
        pool: Any `concurrent.futures.Executor` to run them on instead of the library's own threads; it is not shut down
            with this executor. In a pool of processes each worker builds the rewards from their parameters and keeps
            them; rewards and samples must pickle.

    Does not kill a running chunk: Python cannot. A reward that may hang needs a `Timeout`, or one of its own.
    """

    def __init__(self, threads: int = 256, pool: FuturesExecutor | None = None) -> None:
        whole_number(threads, "threads", "", low=1)
        if pool is not None and not isinstance(pool, FuturesExecutor):
            raise ConfigError(f"pool must be a concurrent.futures.Executor, found {brief(pool)}")
        self._threads = threads
        self._given = pool
        self._lock = threading.Lock()
        self._own: tuple[int, WorkerPool] | None = None
        self._jobs: weakref.WeakSet[Job] = weakref.WeakSet()
        self._in_flight: set[Future[Any]] = set()
        self._closed = False
        _executors.add(self)

    def submit(
        self,
        reward: Node,
        samples: Sequence[Sample],
        timeout: float | None = None,
        *,
        on_progress: Callable[[], Any] | None = None,
    ) -> Pending:
        """Start computing and return at once; every chunk runs on the executor's threads.

        Args:
            reward: What to compute.
            samples: For which samples.
            timeout: A deadline, in seconds from now: then the call ends with a `TimeoutError`, and nothing more starts.
            on_progress: Called whenever rows are done, in the thread that did them; see `Pending.done_rows`.

        Raises:
            InputError: A sample lacks a field that a leaf of `reward` requires.
        """
        job = _job(reward, timeout)
        if on_progress is not None:
            job.on_progress = on_progress
        self.start(job, [*job.add(samples), *job.close()])
        return Pending(job, self.help_out)

    def run(self, reward: Node, samples: Sequence[Sample], timeout: float | None = None) -> RewardBatch:
        """Compute and return; only leaves with several lanes leave the calling thread.

        The deadline is looked at between chunks: one that runs in this thread cannot be ended.
        """
        job = _job(reward, timeout)
        tasks = [*job.add(samples), *job.close()]
        # What is known already is looked up first, so that the rest is cut into full chunks.
        tasks = [then for task in tasks for then in ([task] if task.units is None else job.run(task))]
        wide = set() if this_thread.in_pool else _wide(tasks)  # a worker must not wait for its own pool
        around = this_thread.stopped  # of the call in whose author's code this one is made
        if around is not None:
            around.subscribe(job.cancel)
        try:
            if wide:
                self.start(job, [task for task in tasks if id(task.leaf) in wide])
            for task in tasks:
                if id(task.leaf) not in wide:
                    self.run_here(job, task)
            return Pending(job, self.help_out).result()
        except BaseException:
            job.cancel()
            raise
        finally:
            if around is not None:
                around.unsubscribe(job.cancel)

    def start(self, job: Job, tasks: Sequence[Task]) -> None:
        """Hand tasks to the pool as lanes come free, the leaves in turn so that none waits behind another."""
        if not tasks:
            return
        try:
            pool = self._pool(job)
            marks = produced(job.samples[position] for task in tasks for position in task.positions)
            if shares_memory(pool):
                for task in _in_turn(tasks):
                    ThreadDispatch(job, task, pool, self._in_flight, marks).submit()
            else:
                self._start_elsewhere(job, tasks, pool)
        except BaseException as error:
            job.end(error)  # whoever waits for it must not wait for what was never started
            raise

    def _start_elsewhere(self, job: Job, tasks: Sequence[Task], pool: FuturesExecutor) -> None:
        payloads = {id(task.leaf): packed(task.leaf) for task in tasks}
        tasks = [then for task in tasks for then in ([task] if task.units is None else job.run(task))]
        for task in _in_turn(tasks):
            ProcessDispatch(job, task, pool, self._in_flight, payloads[id(task.leaf)]).submit()

    def run_here(self, job: Job, task: Task, until: float | None = None) -> Sequence[Task] | None:
        """Run a task in the calling thread, and return those that follow from it; None if there was no lane in time."""
        leaf, run, queued = task.leaf, job.new_run(), time.perf_counter()
        # A reward that calls itself from its own compute holds its lane already.
        if task.units is None and id(leaf.reward) not in this_thread.busy and not job.finished.done():
            limits = [limit for limit in (until, job.deadline) if limit is not None]
            at_most = min(limits) - time.monotonic() if limits else None
            try:
                lane = lanes_of(leaf.reward).wait(leaf.reward.num_workers, leaf.patience, at_most)
            except TimeoutError as error:
                job.record(task, job.chunk(task, run).failure(error), run.stats)
                return ()
            if lane is None:
                job.late()
                return None
            run.claim = claim_of(task, lane)
            run.stats.queue_seconds = time.perf_counter() - queued
        try:
            return job.run(task, run)
        finally:
            if run.claim is not None:
                run.claim.leave()

    def help_out(self, job: Job) -> None:
        """Before a worker waits for a job, it runs what no other has begun: all of them may wait so."""
        if not this_thread.in_pool:
            return
        tasks = deque(job.unstarted())
        while tasks and not job.finished.done():
            task = tasks.popleft()
            if job.claim(task):
                for then in self.run_here(job, task) or ():
                    job.hand_out(then)
                    tasks.append(then)

    def close(self, timeout: float | None = 30.0) -> None:
        """Refuse further calls, end those under way with an error and wait for the chunks in flight.

        Args:
            timeout: Seconds to wait, at most. A chunk that hangs is left behind, and ends with the process.
        """
        with self._lock:
            self._closed = True
            own, jobs, in_flight = self._own, list(self._jobs), list(self._in_flight)
        for job in jobs:
            # What is queued does nothing from now on, and frees its lane.
            job.end(ContractError("the executor was closed before the call ended"))
        if own is not None and own[0] == os.getpid():
            own[1].shutdown(timeout=timeout)
        if self._given is not None:  # one wait, not two: workers of its own were waited for above
            wait_for_futures(in_flight, timeout)

    def close_if_given(self) -> None:
        """Close at once, where the pool is somebody else's: the interpreter ends, and it with it."""
        if self._given is not None:
            self.close(timeout=0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _pool(self, job: Job) -> FuturesExecutor:
        with self._lock:
            if self._closed:
                raise ContractError("the executor is closed; make a new one")
            self._jobs.add(job)
            if self._given is not None:
                return self._given
            if self._own is None or self._own[0] != os.getpid():  # threads don't survive a fork
                self._own = (os.getpid(), WorkerPool(self._threads))
            return self._own[1]


def _job(reward: Node, timeout: float | None) -> Job:
    if not hasattr(reward, "score_chunk"):
        raise ConfigError(f"expected a reward, found {brief(reward)}")
    job = Job(reward)
    if timeout is not None:
        job.deadline = time.monotonic() + number(timeout, "timeout", "", low=0.0, high=threading.TIMEOUT_MAX)
    return job


def _wide(tasks: Sequence[Task]) -> set[int]:
    """The leaves of which several calls may be in flight, where there is anything beside which they could be."""
    return {id(task.leaf) for task in tasks if task.leaf.reward.num_workers > 1} if len(tasks) > 1 else set()


def _in_turn(tasks: Sequence[Task]) -> list[Task]:
    """A task of each leaf, then another of each, and so on."""
    by_leaf: dict[int, deque[Task]] = {}
    for task in tasks:
        by_leaf.setdefault(id(task.leaf), deque()).append(task)
    ordered: list[Task] = []
    while by_leaf:
        for leaf, waiting in list(by_leaf.items()):
            ordered.append(waiting.popleft())
            if not waiting:
                del by_leaf[leaf]
    return ordered


@functools.cache
def default_executor() -> Executor:
    """The executor of the plain call, shared by the process."""
    return Executor()


_executors: weakref.WeakSet[Executor] = weakref.WeakSet()


def _close_given() -> None:
    """Before the threads of other people's pools are joined: a retry that sleeps there must not hold them up."""
    for executor in list(_executors):
        executor.close_if_given()


# Private, and so perhaps absent. What is registered last runs first: concurrent.futures.thread, imported above, has
# registered its own end there.
getattr(threading, "_register_atexit", atexit.register)(_close_given)


@atexit.register
def _close_all() -> None:
    until = time.monotonic() + EXIT_SECONDS
    for executor in list(_executors):
        executor.close(timeout=max(0.0, until - time.monotonic()))
