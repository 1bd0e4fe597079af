"""Computes trees of rewards: chunks on lanes, in this thread or on others.

A tree's *leaves* are what computes; everything above them is a pure fold. Each leaf's samples are cut into
chunks, and at most `num_workers` chunks of one leaf are in flight at once, however many calls share that leaf
(its *lanes*). A chunk starts when a lane is free, so that no worker ever waits for another, and a tree of any depth
runs on one thread. The plain call and the asynchronous one differ in the thread that runs a chunk, in nothing else.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import weakref
from collections.abc import Generator, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import ConfigError, ContractError
from flux_rewards.lanes import lanes_of
from flux_rewards.tree import Leaf, Node, Tree

if TYPE_CHECKING:
    from typing_extensions import Self

    from flux_rewards.data import RewardBatch, Sample

__all__ = ["Executor", "Pending", "default_executor"]


_thread = threading.local()  # .busy: ids of the rewards whose chunk it is running; .in_pool: it is a worker


class _Job:
    """One tree over one batch of samples."""

    def __init__(self, root: Node, samples: Sequence[Sample]) -> None:
        self.samples = samples
        self.tree = Tree(root)
        self.leaves = list(self.tree.leaves.values())
        self.finished: Future[None] = Future()
        self._lock = threading.Lock()
        for leaf in self.leaves:
            leaf.reward.check_samples(samples)
        self.samples = list(samples)  # the caller may fill its own list again meanwhile
        for leaf in self.leaves:
            leaf.cut(self.samples)
        self._outstanding = sum(len(leaf.chunks) for leaf in self.leaves)
        if self._outstanding == 0:
            self.end()

    def start(self, leaves: Sequence[Leaf], pool: ThreadPoolExecutor) -> None:
        """Hand chunks to the pool as lanes come free, the leaves in turn so that none waits behind another."""
        rounds = max((len(leaf.chunks) for leaf in leaves), default=0)
        for turn in range(rounds):
            for leaf in leaves:
                if turn < len(leaf.chunks):
                    self._enqueue(leaf, leaf.chunks[turn], pool)

    def _enqueue(self, leaf: Leaf, indices: list[int], pool: ThreadPoolExecutor) -> None:
        lanes = lanes_of(leaf.reward)

        def work() -> None:
            if not lanes.enter(leaf.reward.num_workers, submit):
                return  # this worker is free for others meanwhile
            _thread.in_pool = True
            try:
                self.run_chunk(leaf, indices)
            finally:
                lanes.leave()

        def submit() -> bool:
            try:
                pool.submit(work)
            except RuntimeError as error:  # the pool, or the interpreter, is shutting down
                self.end(ContractError(f"the executor was closed before the call ended: {error}"))
                return False
            return True

        submit()

    def run_inline(self, leaf: Leaf) -> None:
        """Run a leaf's chunks in the calling thread."""
        lanes = lanes_of(leaf.reward)
        # A reward that calls itself from its own compute holds its lane already.
        nested = id(leaf.reward) in getattr(_thread, "busy", ())
        for indices in leaf.chunks:
            if self.finished.done():
                return
            if not nested:
                lanes.wait(leaf.reward.num_workers)
            try:
                self.run_chunk(leaf, indices)
            finally:
                if not nested:
                    lanes.leave()

    def run_chunk(self, leaf: Leaf, indices: list[int]) -> None:
        if self.finished.done():  # failed or cancelled: start nothing more
            return
        outer: tuple[int, ...] = getattr(_thread, "busy", ())
        _thread.busy = (*outer, id(leaf.reward))
        try:
            whole = len(indices) == len(self.samples)
            samples = self.samples if whole else [self.samples[position] for position in indices]
            batch = leaf.reward.score_chunk(samples, indices, masked=leaf.masked)
        except BaseException as error:
            self.end(error)
            if not isinstance(error, Exception):
                raise
        else:
            with self._lock:
                leaf.pieces.append((indices, batch))
                self._outstanding -= 1
                done = self._outstanding == 0
            if done:
                self.end()
        finally:
            _thread.busy = outer

    def end(self, error: BaseException | None = None) -> None:
        """The leaves are computed, or one has failed; the first outcome stands."""
        with contextlib.suppress(InvalidStateError):
            if error is None:
                self.finished.set_result(None)
            else:
                self.finished.set_exception(error)

    def waiting_for(self) -> list[str]:
        return [leaf.reward.name for leaf in self.leaves if len(leaf.pieces) < len(leaf.chunks)]

    def fold(self) -> RewardBatch:
        return self.tree.fold(self.samples)


class Pending:
    """A call that is under way: await it, or ask for its `result`. Giving up waiting does not end it; `cancel` does.

    Examples:
        >>> from flux_rewards import Executor, FunctionReward, Sample
        >>> with Executor() as executor:
        ...     pending = executor.submit(FunctionReward(lambda sample: len(sample.response)), [Sample(response="abc")])
        ...     pending.result(timeout=60).rewards
        array([3.])
    """

    def __init__(self, job: _Job) -> None:
        self._job = job
        self._lock = threading.Lock()
        self._batch: RewardBatch | None = None

    def done(self) -> bool:
        """Whether `result` would return, or raise, at once."""
        return self._job.finished.done()

    def cancel(self) -> None:
        """Start no further chunk; those in flight end by themselves, and their rows are dropped."""
        self._job.finished.cancel()

    def result(self, timeout: float | None = None) -> RewardBatch:
        """Wait for the leaves and fold them in this thread.

        Args:
            timeout: Seconds to wait. The call goes on after a time-out: ask again, or `cancel`.

        Raises:
            TimeoutError: Not done in time; the message names the rewards that are still running.
            concurrent.futures.CancelledError: The call was cancelled.
            FluxRewardsError: A reward failed.
        """
        try:
            self._job.finished.result(timeout)
        except FutureTimeoutError:
            if not self.done():
                late = ", ".join(self._job.waiting_for())
                raise TimeoutError(f"not done after {timeout} s: still waiting for {late}") from None
            self._job.finished.result()  # it was done a moment later
        return self._fold()

    def __await__(self) -> Generator[Any, None, RewardBatch]:
        import asyncio  # noqa: PLC0415  # only those who await pay for it

        # Shielded: whoever gives up waiting does not end the call for others.
        yield from asyncio.shield(asyncio.wrap_future(self._job.finished)).__await__()
        return self._fold()

    def _fold(self) -> RewardBatch:
        with self._lock:
            if self._batch is None:
                self._batch = self._job.fold()
            return self._batch


class Executor:
    """Computes trees of rewards on threads, which start when they are first needed.

    Args:
        threads: At most so many chunks run at once, whatever the rewards' `num_workers`.

    Does not kill a running chunk: Python cannot. A reward that may hang needs a time-out of its own.
    """

    def __init__(self, threads: int = 32) -> None:
        if threads < 1:
            raise ConfigError(f"an executor needs at least one thread, found threads={threads}")
        self._threads = threads
        self._lock = threading.Lock()
        self._pool: tuple[int, ThreadPoolExecutor] | None = None
        self._jobs: weakref.WeakSet[_Job] = weakref.WeakSet()
        self._closed = False

    def submit(self, reward: Node, samples: Sequence[Sample]) -> Pending:
        """Start computing and return at once; every chunk runs on the executor's threads.

        Raises:
            InputError: A sample lacks a field that a leaf of `reward` requires.
        """
        job = _Job(reward, samples)
        self._start(job, job.leaves)
        return Pending(job)

    def run(self, reward: Node, samples: Sequence[Sample]) -> RewardBatch:
        """Compute and return; only leaves with several lanes leave the calling thread."""
        job = _Job(reward, samples)
        in_pool = getattr(_thread, "in_pool", False)  # a worker must not wait for its own pool
        wide = [leaf for leaf in job.leaves if leaf.reward.num_workers > 1 and len(leaf.chunks) > 1 and not in_pool]
        try:
            if wide:
                self._start(job, wide)
            for leaf in job.leaves:
                if leaf not in wide:
                    job.run_inline(leaf)
            job.finished.result()
        except BaseException:
            job.finished.cancel()
            raise
        return job.fold()

    def close(self) -> None:
        """Refuse further calls, end those under way with an error and wait for the chunks in flight."""
        with self._lock:
            self._closed = True
            pool, jobs = self._pool, list(self._jobs)
        for job in jobs:
            # What is queued does nothing from now on, and frees its lane.
            job.end(ContractError("the executor was closed before the call ended"))
        if pool is not None and pool[0] == os.getpid():
            pool[1].shutdown(wait=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _start(self, job: _Job, leaves: Sequence[Leaf]) -> None:
        with self._lock:
            if self._closed:
                raise ContractError("the executor is closed; make a new one")
            if self._pool is None or self._pool[0] != os.getpid():  # threads don't survive a fork
                self._pool = (os.getpid(), ThreadPoolExecutor(self._threads, thread_name_prefix="flux-rewards"))
            pool = self._pool[1]
            self._jobs.add(job)
        job.start(leaves, pool)


@functools.cache
def default_executor() -> Executor:
    """The executor of the plain call, shared by the process."""
    return Executor()
