"""The threads behind a pool: each leads one worker process, gives it jobs, and kills it when their time is over."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import pickle
import threading
import time
import weakref
from collections import deque
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, NamedTuple

from flux_rewards.elsewhere import WorkerTraceback
from flux_rewards.errors import ComputeError, ConfigError, ContractError, WorkerCrashError
from flux_rewards.threads import this_thread
from flux_rewards.workers.framing import receive, send
from flux_rewards.workers.nursery import Nursery, Worker
from flux_rewards.workers.outcome import Outcome

if TYPE_CHECKING:
    from flux_rewards.workers.batch import Batch
    from flux_rewards.workers.fork_server import Reply, Setup

__all__ = ["Engine"]

LOOK_EVERY = 5.0
"""Seconds after which whoever waits for a batch looks whether anybody works on it."""
LOAD_SECONDS = 60.0
"""How long a worker may take to read a job, with the imports that it needs, before the job's own time begins."""
CLOSE_SECONDS = 10.0


class _Job(NamedTuple):
    batch: Batch
    number: int


class Engine:
    """Jobs, threads and workers of one pool in one process.

    Args:
        workers: The most workers.
        setup: What they are prepared with.
        jobs_per_worker: After how many jobs a worker is replaced; None: never.
        name: Of the threads.
    """

    def __init__(self, workers: int, setup: Setup, jobs_per_worker: int | None, name: str) -> None:
        self.process = os.getpid()
        self.closed = False
        self.at_exit = False
        """Whether it was closed because the program ends."""
        self._limit, self._jobs_per_worker, self._name = workers, jobs_per_worker, name
        self._nursery = Nursery(setup)
        self._changed = threading.Condition()  # its lock can be taken twice: garbage may be collected within
        self._batches: deque[Batch] = deque()
        self._all: weakref.WeakSet[Batch] = weakref.WeakSet()
        self._threads: list[threading.Thread] = []
        self._workers: weakref.WeakSet[Worker] = weakref.WeakSet()
        self._numbers = itertools.count()
        self._idle = 0
        _engines.add(self)

    def add(self, batch: Batch) -> None:
        """Let the batch be worked on, beside those that are there.

        Raises:
            ContractError: The pool is closed.
        """
        with self._changed:
            if self.closed:
                raise ContractError("the pool is closed; make a new one")
            self._batches.append(batch)
            self._all.add(batch)
            for _ in range(min(len(batch.jobs) - self._idle, self._limit - len(self._threads))):
                number = next(self._numbers)
                thread = threading.Thread(target=self._lead, args=(number,), name=f"{self._name}-{number}", daemon=True)
                thread.start()
                self._threads.append(thread)
            self._changed.notify_all()

    def wait(self, batch: Batch) -> None:
        """Until all is known, as long as somebody works on it."""
        while not batch.done.wait(LOOK_EVERY):
            if not any(thread.is_alive() for thread in self._threads):
                batch.fail(ComputeError("the pool's threads have ended, and this call with them"))
        if self.at_exit and threading.current_thread().daemon and not this_thread.in_pool:
            threading.Event().wait()  # the interpreter ends, and this thread with it: without a traceback

    def close(self) -> None:
        """Fail what is under way, and end all workers; nothing is left when it returns."""
        if self.process != os.getpid():
            return
        with self._changed:
            self.closed = True
            self._batches.clear()
            batches = list(self._all)
            self._changed.notify_all()
        for batch in batches:
            batch.fail(ContractError("the pool was closed before the call ended"))
        until = time.monotonic() + CLOSE_SECONDS
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, until - time.monotonic()))
        self._nursery.close()

    def abandon(self) -> None:
        """In a forked child: let go of what is the parent's."""
        self._nursery.abandon()
        for worker in list(self._workers):
            worker.connection.close()

    # In a thread for each worker

    def _lead(self, number: int) -> None:
        worker: Worker | None = None
        try:
            while (job := self._next(number)) is not None:
                try:
                    worker = self._do(job, worker)
                except BaseException as error:  # noqa: BLE001  # the thread must outlive it: others wait for its next job
                    job.batch.fail(_failure(error))
                    if worker is not None:
                        worker.kill()
                    worker = None
        finally:
            if worker is not None:
                worker.kill()

    def _next(self, number: int) -> _Job | None:
        """The next job, of each batch in turn, so that a small one does not wait behind a large one."""
        with self._changed:
            while True:
                while self._batches:
                    batch = self._batches.popleft()
                    index = batch.take(number)
                    if index is None:
                        continue
                    if batch.has_more():
                        self._batches.append(batch)
                    return _Job(batch, index)
                if self.closed:
                    return None
                self._idle += 1
                try:
                    self._changed.wait()
                finally:
                    self._idle -= 1

    def _do(self, job: _Job, worker: Worker | None) -> Worker | None:
        """Have a job done; returns the worker that is there for the next one."""
        batch, number = job
        try:
            worker, ending = self._asked(batch, number, worker)
        except CancelledError:
            return None
        except BaseException as error:  # noqa: BLE001  # no worker, or none that can read it: true of every job
            batch.fail(_failure(error))
            return None
        worker.jobs += 1
        outcome = ending.outcome
        if ending.survived and worker.jobs != self._jobs_per_worker:
            batch.settle(number, outcome)
            return worker
        how = worker.kill()
        if outcome.status == "crashed":
            text = f"the worker process ended {how} in the middle of the job"
            outcome = Outcome("crashed", None, WorkerCrashError(text), outcome.seconds)
        batch.settle(number, outcome)
        with contextlib.suppress(Exception):  # told when there is a job for it
            return None if self.closed else self._new_worker()
        return None

    def _asked(self, batch: Batch, number: int, worker: Worker | None) -> tuple[Worker, _Ending]:
        """Give a job to a worker, or to a new one where that has died meanwhile; returns which, and how it ended."""
        for fresh in (False, True):
            if worker is not None and not worker.is_alive():
                worker.kill()
                worker = None
            worker = worker or self._new_worker()
            try:
                with batch.running_on(worker):
                    ending = _ask(worker, batch, number)
            except BaseException:  # what it still has to say is not for the next job
                worker.kill()
                raise
            if fresh or ending.begun or ending.outcome.status != "crashed":
                break
            worker.kill()  # it was dead before the job began
            worker = None
        assert worker is not None  # noqa: S101  # for the type checker: there are two rounds
        return worker, ending

    def _new_worker(self) -> Worker:
        worker = self._nursery.worker()
        self._workers.add(worker)
        return worker


class _Ending(NamedTuple):
    """How a job ended, and what it left."""

    outcome: Outcome
    survived: bool
    """Whether the worker is still of use."""
    begun: bool
    """Whether the worker had read it, and called the function."""


def _ask(worker: Worker, batch: Batch, number: int) -> _Ending:
    """Give a job to a worker, and wait for its end."""
    started, limit, begun = time.monotonic(), LOAD_SECONDS, False
    try:
        send(worker.connection, pickle.dumps((batch.function, batch.jobs[number])), started + limit)
        answer = receive(worker.connection, started + limit)
        if not answer:  # it has read it, and begins
            started, limit, begun = time.monotonic(), batch.timeout, True
            answer = receive(worker.connection, started + limit)
    except TimeoutError:
        what = "not done" if begun else "not read by a worker, with its imports,"
        late = TimeoutError(f"{what} after {limit:g} s; its worker process was killed")
        return _Ending(Outcome("timed_out", None, late, time.monotonic() - started), survived=False, begun=begun)
    except (OSError, EOFError):
        return _Ending(Outcome("crashed", None, None, time.monotonic() - started), survived=False, begun=begun)
    seconds = time.monotonic() - started
    try:
        reply: Reply = pickle.loads(answer)  # noqa: S301  # from our own child
        raised = None if reply.status == "ok" else pickle.loads(reply.error)  # noqa: S301
    except BaseException as error:  # noqa: BLE001  # a class that exists only there, say, or one that exits
        unread = ComputeError(f"what the function returned cannot be read here ({type(error).__name__}: {error})")
        return _Ending(Outcome("error", None, unread, seconds), survived=True, begun=True)
    if raised is None:
        return _Ending(Outcome("ok", reply.value, None, seconds), survived=True, begun=True)
    raised.__cause__ = WorkerTraceback(f"\n{reply.traceback}")
    if reply.unloadable:
        raise ConfigError(
            f"a worker process cannot load the function or its arguments ({type(raised).__name__}: {raised}); define "
            "classes and functions at the top of an importable module: the program's main module is not run again there"
        ) from raised
    return _Ending(Outcome(reply.status, None, raised, seconds), survived=True, begun=True)


def _failure(error: BaseException) -> Exception:
    """What a caller may be told: the end of a thread here is not the end of its program."""
    if isinstance(error, Exception):
        return error
    failed = ComputeError(f"{type(error).__name__}: {error}")
    failed.__cause__ = error
    return failed


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


def _after_fork() -> None:
    for engine in list(_engines):
        engine.abandon()


@atexit.register
def _at_exit() -> None:
    for engine in list(_engines):
        engine.at_exit = True
        engine.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
