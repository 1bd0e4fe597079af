"""The library's own threads. All are daemons: a call that hangs must not keep the interpreter from ending."""

from __future__ import annotations

import contextlib
import contextvars
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Executor as FuturesExecutor
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

__all__ = ["RenewedLock", "Stop", "WorkerPool", "start_helper", "this_thread"]

T = TypeVar("T")


class _Work(NamedTuple):
    """A call that waits for a worker."""

    future: Future[Any]
    call: Callable[[], Any]
    has_worker: bool
    """Whether one that was idle was counted out for it."""


class _ThisThread(threading.local):
    """What the current thread is doing for the library."""

    busy: tuple[int, ...] = ()
    """Ids of the rewards whose call it runs, outermost first."""
    in_pool: bool = False
    """Whether it is a worker, and so must not wait for other workers."""
    pool: Any = None
    """The queue that it works off."""
    free_soon: bool = False
    """Whether it is a worker that has nothing more to do: what it submits now it can take up itself."""
    shared: dict[Any, Any] | None = None
    """What the rewards of the batch that it scores may share; None where there is no such thing."""
    stopped: Stop | None = None
    """Set when nobody wants the result of its call any more: a long wait should end then."""
    stop_at_failure: bool = False
    """Whether one failed sample makes the rest of its call worthless."""


this_thread = _ThisThread()


class RenewedLock:
    """A lock that is open in a forked child, where the thread that held it is not; for a ``with`` statement.

    Examples:
        >>> lock = RenewedLock()
        >>> with lock:
        ...     pass
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _renewed.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        if self._lock.locked():  # not where the thread forked within
            self._lock.release()

    def renew(self) -> None:
        """Open it, whoever held it."""
        self._lock = threading.Lock()


_renewed: weakref.WeakSet[RenewedLock] = weakref.WeakSet()


def _after_fork() -> None:
    for lock in list(_renewed):
        lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Stop:
    """An event that calls back when it is set: one may stand for, or wake, another."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []

    def set(self) -> None:
        """Set it, and call back."""
        with self._lock:
            self._event.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def is_set(self) -> bool:
        """Whether it is."""
        return self._event.is_set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is, or the time is over; returns whether it is."""
        return self._event.wait(seconds)

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Be called when it is set; at once where it is."""
        with self._lock:
            if not self._event.is_set():
                self._callbacks.append(callback)
                return
        callback()

    def unsubscribe(self, callback: Callable[[], None]) -> None:
        """No longer be called."""
        with self._lock, contextlib.suppress(ValueError):
            self._callbacks.remove(callback)


def start_helper(work: Callable[[], None], name: str) -> threading.Thread:
    """Run `work` in a thread that stands in for the current one."""
    busy, in_pool = this_thread.busy, this_thread.in_pool
    context = contextvars.copy_context()

    def run() -> None:
        this_thread.busy, this_thread.in_pool = busy, in_pool
        context.run(work)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


class WorkerPool(FuturesExecutor):
    """A pool of daemon threads, started when they are needed, that can be shut down with a limit to the waiting.

    Examples:
        >>> with WorkerPool(2) as pool:
        ...     pool.submit(max, 3, 4).result()
        4
    """

    def __init__(self, threads: int, name: str = "flux-rewards") -> None:
        self._limit = threads
        self._name = name
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._closed = False
        # Workers know the queue, not the pool: a pool that nobody holds ends them.
        weakref.finalize(self, self._queue.put, None).atexit = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run a call on a worker.

        Raises:
            RuntimeError: The pool is shut down.
        """
        future: Future[T] = Future()
        call = (lambda: fn(*args, **kwargs)) if args or kwargs else fn
        with self._lock:
            if self._closed:
                raise RuntimeError("the pool is shut down")
            has_worker = self._idle.acquire(blocking=False)
            self._queue.put(_Work(future, call, has_worker))
            if has_worker:
                return future
            if this_thread.free_soon and this_thread.pool is self._queue:
                this_thread.free_soon = False  # for one call
            elif len(self._threads) < self._limit:
                name = f"{self._name}-{len(self._threads)}"
                thread = threading.Thread(target=_work, args=(self._queue, self._idle), name=name, daemon=True)
                self._threads.append(thread)
                thread.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False, timeout: float | None = None) -> None:
        """Refuse new calls; run what is queued, or cancel it; and wait for the workers, `timeout` seconds at most."""
        with self._lock:
            self._closed = True
            while cancel_futures:
                try:
                    entry = self._queue.get_nowait()
                except queue.Empty:
                    break
                if entry is not None:
                    entry.future.cancel()
            self._queue.put(None)
        until = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads if wait else ():
            if thread is not threading.current_thread():
                thread.join(None if until is None else max(0.0, until - time.monotonic()))


def _work(entries: queue.SimpleQueue[_Work | None], idle: threading.Semaphore) -> None:
    this_thread.in_pool, this_thread.pool = True, entries
    while True:
        this_thread.free_soon = False
        try:
            entry = entries.get_nowait()
        except queue.Empty:
            idle.release()
            entry = entries.get()
            if entry is not None and not entry.has_worker:
                idle.acquire(blocking=False)  # this one is not idle any more
        if entry is None:
            entries.put(None)  # for the next worker
            return
        future, call, _ = entry
        if future.set_running_or_notify_cancel():
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001  # it belongs to the future
                future.set_exception(error)
            else:
                future.set_result(result)
                del result
        del entry, future, call  # nothing is kept alive while it waits for more
