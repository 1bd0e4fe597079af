"""Computes trees of rewards: chunks on lanes, in this thread or on others.

A tree's *leaves* are what computes; everything above them is a pure fold, or stands around their calls. Each leaf's
samples are cut into chunks, and at most `num_workers` chunks of one leaf are in flight at once, however many calls
share that leaf (its *lanes*). A chunk starts when a lane is free, so that no worker ever waits for another, and a tree
of any depth runs on one thread. The plain call and the asynchronous one differ in the thread that runs a chunk, in
nothing else.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import Executor as FuturesExecutor
from concurrent.futures import wait as wait_for_futures
from typing import TYPE_CHECKING, Any

from flux_rewards.chunks import Run
from flux_rewards.contract import locate
from flux_rewards.elsewhere import packed, score_elsewhere, shares_memory
from flux_rewards.errors import ConfigError, ContractError, brief
from flux_rewards.job import Job, Task
from flux_rewards.lanes import Claim, Lane, lanes_of
from flux_rewards.pending import Pending
from flux_rewards.streams import Produced, beside, produced
from flux_rewards.threads import WorkerPool, start_helper, this_thread

if TYPE_CHECKING:
    from typing_extensions import Self

    from flux_rewards.data import RewardBatch, Sample
    from flux_rewards.tree import Leaf, Node

__all__ = ["Executor", "default_executor"]

EXIT_SECONDS = 2.0
"""How long the interpreter waits, at its end, for calls that are in flight."""


class Executor:
    """Computes trees of rewards on threads, which start when they are first needed.

    Args:
        threads: At most so many chunks run at once, whatever the rewards' `num_workers`.
        pool: Any `concurrent.futures.Executor` to run them on instead of the library's own threads; it is not shut down
            with this executor. In a pool of processes each worker builds the rewards from their parameters and keeps
            them; rewards and samples must pickle.

    Does not kill a running chunk: Python cannot. A reward that may hang needs a `Timeout`, or one of its own.
    """

    def __init__(self, threads: int = 32, pool: FuturesExecutor | None = None) -> None:
        if threads < 1:
            raise ConfigError(f"an executor needs at least one thread, found threads={threads}")
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

    def submit(self, reward: Node, samples: Sequence[Sample], timeout: float | None = None) -> Pending:
        """Start computing and return at once; every chunk runs on the executor's threads.

        Args:
            reward: What to compute.
            samples: For which samples.
            timeout: A deadline, in seconds from now: then the call ends with a `TimeoutError`, and nothing more starts.

        Raises:
            InputError: A sample lacks a field that a leaf of `reward` requires.
        """
        job = _job(reward, timeout)
        self.start(job, [*job.add(samples), *job.close()])
        return Pending(job)

    def run(self, reward: Node, samples: Sequence[Sample], timeout: float | None = None) -> RewardBatch:
        """Compute and return; only leaves with several lanes leave the calling thread.

        The deadline is looked at between chunks: one that runs in this thread cannot be ended.
        """
        job = _job(reward, timeout)
        tasks = [*job.add(samples), *job.close()]
        # What is known already is looked up first, so that the rest is cut into full chunks.
        tasks = [then for task in tasks for then in ([task] if task.units is None else job.run(task))]
        wide = set() if this_thread.in_pool else _wide(tasks)  # a worker must not wait for its own pool
        try:
            if wide:
                self.start(job, [task for task in tasks if id(task.leaf) in wide])
            for task in tasks:
                if id(task.leaf) not in wide:
                    self.run_here(job, task)
            return Pending(job).result()
        except BaseException:
            job.cancel()
            raise

    def start(self, job: Job, tasks: Sequence[Task]) -> None:
        """Hand tasks to the pool as lanes come free, the leaves in turn so that none waits behind another."""
        if not tasks:
            return
        try:
            pool = self._pool(job)
            marks = produced(job.samples[position] for task in tasks for position in task.positions)
            if shares_memory(pool):
                for task in _in_turn(tasks):
                    self._enqueue(job, task, pool, marks)
            else:
                self._start_elsewhere(job, tasks, pool)
        except BaseException as error:
            job.end(error)  # whoever waits for it must not wait for what was never started
            raise

    def _start_elsewhere(self, job: Job, tasks: Sequence[Task], pool: FuturesExecutor) -> None:
        payloads = {id(task.leaf): packed(task.leaf) for task in tasks}
        tasks = [then for task in tasks for then in ([task] if task.units is None else job.run(task))]
        for task in _in_turn(tasks):
            self._send(job, task, pool, payloads[id(task.leaf)])

    def run_here(self, job: Job, task: Task) -> Sequence[Task]:
        """Run a task in the calling thread, and return those that follow from it."""
        leaf, run, queued = task.leaf, Run(job.stopped), time.perf_counter()
        # A reward that calls itself from its own compute holds its lane already.
        if task.units is None and id(leaf.reward) not in this_thread.busy and not job.finished.done():
            at_most = None if job.deadline is None else job.deadline - time.monotonic()
            try:
                lane = lanes_of(leaf.reward).wait(leaf.reward.num_workers, leaf.patience, at_most)
            except TimeoutError as error:
                if not job.late():
                    job.record(task, job.chunk(task, run).failure(error), run.stats)
                return ()
            run.claim = _claim(leaf, lane)
            run.stats.queue_seconds = time.perf_counter() - queued
        try:
            return job.run(task, run)
        finally:
            if run.claim is not None:
                run.claim.leave()

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
        wait_for_futures(in_flight, timeout)

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

    def _submitted(self, job: Job, pool: FuturesExecutor, call: Callable[[], Any], then: Callable[[Any], None]) -> bool:
        """Run a call on the pool, and `then` with its future; whatever happens to the pool, the job hears of it."""
        try:
            future: Future[Any] = pool.submit(call)
        except RuntimeError as error:  # the pool, or the interpreter, is shutting down
            job.end(ContractError(f"the executor was closed before the call ended: {error}"))
            return False
        if self._given is not None:
            self._in_flight.add(future)
            future.add_done_callback(self._in_flight.discard)
        future.add_done_callback(then)
        return True

    def _enqueue(self, job: Job, task: Task, pool: FuturesExecutor, marks: Produced) -> None:
        lanes, queued = lanes_of(task.leaf.reward), time.perf_counter()

        def work() -> None:
            run = Run(job.stopped)
            before = this_thread.in_pool
            if task.units is None:
                lane = self._lane(job, task, run, submit)
                if lane is None:
                    return  # this worker is free for others meanwhile
                run.claim = _claim(task.leaf, lane)
            run.stats.queue_seconds = time.perf_counter() - queued
            this_thread.in_pool = True
            try:
                with beside(marks):
                    more = job.run(task, run)
            finally:
                this_thread.in_pool = before
                if run.claim is not None:
                    run.claim.leave()
            for then in more:
                self._enqueue(job, then, pool, marks)

        def submit() -> bool:
            return self._submitted(job, pool, work, ended)

        def ended(future: Future[Any]) -> None:
            if future.cancelled():
                job.end(ContractError("the pool was shut down before the call ended"))
                _unlocked(lanes.wake)  # it may have had its turn
            elif (error := future.exception()) is not None:
                job.end(_located(error, task))

        submit()

    def _lane(self, job: Job, task: Task, run: Run, retry: Callable[[], bool]) -> Lane | None:
        leaf = task.leaf
        try:
            return lanes_of(leaf.reward).enter(leaf.reward.num_workers, retry, leaf.patience)
        except TimeoutError as error:
            job.record(task, job.chunk(task, run).failure(error), run.stats)
            return None

    def _send(self, job: Job, task: Task, pool: FuturesExecutor, payload: bytes) -> None:
        """Score a chunk in another process; its lane is taken here, where all who share the reward see it."""
        queued = time.perf_counter()

        def submit() -> bool:
            run = Run(job.stopped)
            lane = self._lane(job, task, run, submit)
            if lane is None:
                return True
            if job.finished.done():
                lane.leave()
                return True
            waited = time.perf_counter() - queued
            chunk = job.chunk(task, run)
            call = functools.partial(
                score_elsewhere, payload, list(chunk.samples), chunk.positions, stop_at_failure=chunk.stop_at_failure
            )

            def arrived(future: Future[Any]) -> None:
                if future.cancelled() or future.exception() is not None:
                    _unlocked(lane.leave)
                else:
                    lane.leave()
                try:
                    scored, stats = future.result()
                    stats.queue_seconds += waited
                    for memory in task.leaf.memories:
                        memory.remember(chunk, scored)
                    job.record(task, scored, stats)
                except CancelledError:
                    job.end(ContractError("the pool was shut down before the call ended"))
                except BaseException as error:  # noqa: BLE001  # a callback's own are lost
                    job.end(_located(error, task))

            if not self._submitted(job, pool, call, arrived):
                lane.leave()
            return True

        submit()


def _located(error: BaseException, task: Task) -> BaseException:
    return locate(error, reward=task.leaf.reward.name, index=None) if isinstance(error, Exception) else error


def _unlocked(wake: Callable[[], None]) -> None:
    """Wake whoever waits for a lane, from a pool that is ending: it may hold the lock that they need to submit."""
    with contextlib.suppress(RuntimeError):  # the interpreter ends
        start_helper(wake, "flux-rewards-wake")


def _job(reward: Node, timeout: float | None) -> Job:
    job = Job(reward)
    if timeout is not None:
        job.deadline = time.monotonic() + timeout
    return job


def _claim(leaf: Leaf, lane: Lane) -> Claim:
    return Claim(lane, lanes_of(leaf.reward), leaf.reward.num_workers, leaf.patience)


def _wide(tasks: Sequence[Task]) -> set[int]:
    """The leaves with several chunks, of which several may be in flight."""
    counts: dict[int, int] = {}
    for task in tasks:
        counts[id(task.leaf)] = counts.get(id(task.leaf), 0) + (task.leaf.reward.num_workers > 1)
    return {leaf for leaf, count in counts.items() if count > 1}


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


@atexit.register
def _close_all() -> None:
    until = time.monotonic() + EXIT_SECONDS
    for executor in list(_executors):
        executor.close(timeout=max(0.0, until - time.monotonic()))
