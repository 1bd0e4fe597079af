"""A pool of worker processes with a time limit that holds."""

from __future__ import annotations

import os
import pickle
import threading
import weakref
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import ConfigError, brief
from flux_rewards.parameters import Parametrised
from flux_rewards.threads import RenewedLock, this_thread
from flux_rewards.validation import number, whole_number

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from typing_extensions import Self

    from flux_rewards.workers.batch import Batch
    from flux_rewards.workers.engine import Engine
    from flux_rewards.workers.outcome import Outcome

__all__ = ["KillablePool", "usable_cpus"]


def usable_cpus() -> int:
    """How many processors this process may run on.

    Examples:
        >>> usable_cpus() >= 1
        True
    """
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


class KillablePool(Parametrised):
    """Worker processes for functions that may never end: what takes too long is killed, and its worker replaced.

    The limit is kept from outside, by SIGKILL, so that it also holds in the middle of a long operation in C, in any
    thread, and inside a running event loop; no signal handler is set. Workers start with the first job. They are forked
    from a server process of the pool's own that has one thread and has imported what they need, so that a new one is
    there within milliseconds. The caller's main module is not run again in any of them.

    No process is left behind: not at the end of the program, not by `close` or by a pool that nobody holds any more,
    and not when the caller's process is killed: the server sees its end and kills the workers. A worker takes along
    what its jobs started: its process group, and on Linux also what went into a session of its own or lost its parent.
    Until then, what a job that ended well has started lives on. After a fork, and from a pickle, it is a pool with
    workers of its own. Daemonic processes of `multiprocessing` may use it.

    Any number of threads may share a pool; their calls take turns, job by job.

    Args:
        workers: The most processes at once; as many as there are usable CPUs by default.
        prepare: Called once, without arguments, before workers are forked: for what all of them need, such as imports
            and tables. A function at the top of an importable module.
        memory: Bytes of address space that each worker may use; beyond that its job has crashed. None: no limit.
        jobs_per_worker: A worker is replaced after so many jobs, for functions that leak. None: never.

    Raises:
        ConfigError: A parameter is out of its range, or the platform has no ``fork``.

    Does not limit what a job does but in time and memory: it is no sandbox. Does not run on Windows.

    Examples:
        >>> import math, time
        >>> with KillablePool(workers=2) as pool:
        ...     outcomes = pool.run(math.factorial, [(5,), (-1,)], timeout=60)
        ...     late = pool.run(time.sleep, [(60,)], timeout=0.1)
        >>> [outcome.status for outcome in [*outcomes, *late]], outcomes[0].value
        (['ok', 'error', 'timed_out'], 120)
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        prepare: Callable[[], object] | None = None,
        memory: int | None = None,
        jobs_per_worker: int | None = None,
    ) -> None:
        label = type(self).__name__
        for what, value in (("workers", workers), ("memory", memory), ("jobs_per_worker", jobs_per_worker)):
            if value is not None:
                whole_number(value, what, label, low=1)
        if prepare is not None and not callable(prepare):
            raise ConfigError(f"prepare must be a function without arguments, found {brief(prepare)}", reward=label)
        if not hasattr(os, "fork"):
            raise ConfigError("worker processes are forked, and this platform has no fork", reward=label)
        self.workers = workers
        self.prepare = prepare
        self.memory = memory
        self.jobs_per_worker = jobs_per_worker
        self._lock = RenewedLock()
        self._engine: Engine | None = None
        self._end: weakref.finalize[..., Any] | None = None

    def run(
        self,
        function: Callable[..., Any],
        jobs: Iterable[tuple[Any, ...]],
        *,
        timeout: float,
        kinds: Sequence[Hashable] | None = None,
    ) -> list[Outcome]:
        """Call a function once a job, spread over the workers, and wait for all.

        Args:
            function: At the top of an importable module, or anything else that pickles and can be called.
            jobs: The arguments of each call.
            timeout: Seconds that each call may take, from the moment that a worker has read it; its imports are done.
            kinds: One a job, where jobs have something in common that the function keeps: those of one kind then go to
                one worker, as long as that leaves none without work.

        Returns:
            One outcome a job, in order.

        Raises:
            ConfigError: The function, or arguments, cannot be sent to a process; or `timeout` is not positive.
            ComputeError: No worker can be started. What `prepare` raised is raised as it is.
            ContractError: The pool was closed meanwhile.
        """
        batch = self._batch(function, jobs, timeout, kinds)
        if not batch.jobs:
            return []
        engine = self._running()
        stopped = this_thread.stopped  # by whoever waits for the reward that is being scored

        def give_up() -> None:
            batch.fail(CancelledError())

        if stopped is not None:
            stopped.subscribe(give_up)
        try:
            engine.add(batch)
            engine.wait(batch)
        except BaseException:
            give_up()
            raise
        finally:
            if stopped is not None:
                stopped.unsubscribe(give_up)
        if batch.failure is not None:
            raise batch.failure
        return [outcome for outcome in batch.outcomes if outcome is not None]

    def submit(self, function: Callable[..., Any], *arguments: Any, timeout: float) -> Future[Outcome]:
        """Call a function once, and return at once; ``asyncio.wrap_future`` makes the future one that can be awaited.

        Args:
            function: As for `run`.
            *arguments: Its arguments.
            timeout: As for `run`.

        Returns:
            A future of the outcome. Cancelling it kills the worker, should the job have begun.
        """
        future: Future[Outcome] = Future()

        def settled(batch: Batch) -> None:
            try:
                if batch.failure is not None:
                    future.set_exception(batch.failure)
                else:
                    future.set_result(batch.outcomes[0])  # type: ignore[arg-type]  # all are there
            except InvalidStateError:
                pass  # cancelled
            except BaseException:  # noqa: BLE001, S110  # of a callback that exits, say: the pool's thread goes on
                pass

        batch = self._batch(function, [arguments], timeout, settled=settled)
        future.add_done_callback(lambda done: batch.fail(CancelledError()) if done.cancelled() else None)
        self._running().add(batch)
        return future

    def close(self) -> None:
        """End all workers; calls under way fail with a `ContractError`. The next call starts new ones."""
        with self._lock:
            end, self._end, self._engine = self._end, None, None
        if end is not None:
            end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _batch(
        self,
        function: Callable[..., Any],
        jobs: Iterable[tuple[Any, ...]],
        timeout: float,
        kinds: Sequence[Hashable] | None = None,
        settled: Callable[[Batch], None] | None = None,
    ) -> Batch:
        from flux_rewards.workers.batch import Batch  # noqa: PLC0415

        label = type(self).__name__
        number(timeout, "timeout", label, above=0.0, high=threading.TIMEOUT_MAX)
        pickled = [_sent(tuple(job), label) for job in jobs]
        if kinds is not None and len(kinds) != len(pickled):
            raise ConfigError(f"kinds has {len(kinds)} entries for {len(pickled)} jobs", reward=label)
        return Batch(_sent(function, label), pickled, timeout, kinds, settled)

    def _running(self) -> Engine:
        from flux_rewards.workers.engine import Engine  # noqa: PLC0415  # needs sockets and subprocesses
        from flux_rewards.workers.fork_server import Setup  # noqa: PLC0415

        label = type(self).__name__
        with self._lock:
            if self._engine is None or self._engine.process != os.getpid():
                setup = Setup(b"" if self.prepare is None else _sent(self.prepare, label), self.memory)
                workers = self.workers or usable_cpus()
                self._engine = Engine(workers, setup, self.jobs_per_worker, "flux-rewards-worker")
                self._end = weakref.finalize(self, self._engine.close)
                self._end.atexit = False  # the engine sees to that itself
            return self._engine


def _sent(value: Any, label: str) -> bytes:
    if getattr(value, "__module__", None) == "__main__" and hasattr(value, "__qualname__"):
        raise ConfigError(
            f"{value.__qualname__} is defined in the program's main module, which is not run again in worker "
            "processes; define it in a module that can be imported",
            reward=label,
        )
    try:
        return pickle.dumps(value)
    except Exception as error:
        raise ConfigError(
            f"{brief(value)} cannot be sent to a worker process ({type(error).__name__}: {error}); define classes and "
            "functions at the top of an importable module, and pass plain data",
            reward=label,
        ) from error
