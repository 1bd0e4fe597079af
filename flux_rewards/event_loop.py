"""The library's one event loop: it runs in a thread of its own, and asynchronous clients live on it.

A client belongs to the loop on which it was first used. With a loop a call, as ``asyncio.run`` makes it, a client that
is kept fails or hangs from the second call on; with one for all, it may be used from any thread and from within any
other loop, such as a notebook's.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any, TypeVar

from flux_rewards.errors import ComputeError, ContractError
from flux_rewards.threads import RenewedLock, WorkerPool, this_thread

if TYPE_CHECKING:
    from flux_rewards.threads import Stop

__all__ = ["close_on", "run_in_background"]

T = TypeVar("T")

LOOK_EVERY = 5.0
"""Seconds after which a waiting thread looks whether the loop still runs."""
EXIT_SECONDS = 2.0
"""How long the end of the interpreter waits for clients to say goodbye."""


class _Helpers(ThreadPoolExecutor):
    """What looks up names and encodes images for the loop, in threads of the library.

    The interpreter ends asyncio's own before the threads that wait for them.
    """

    def __init__(self) -> None:
        super().__init__(max_workers=1)  # asyncio wants this class; none of its threads is ever started
        self._pool = WorkerPool(16, name="flux-rewards-event-loop-helper")

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        return self._pool.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._pool.shutdown(wait, cancel_futures=cancel_futures, timeout=EXIT_SECONDS)


class _Background:
    """A running loop, its thread, and the process that both belong to."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(_Helpers())
        self.thread = threading.Thread(target=self.loop.run_forever, name="flux-rewards-event-loop", daemon=True)
        self.goodbyes: dict[int, Callable[[], Awaitable[None]]] = {}
        self._leaving: set[asyncio.Task[None]] = set()  # a loop holds its tasks weakly
        self.closing = False
        self.thread.start()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def wait(self, future: Future[T]) -> T:
        """The result, as long as there is a loop that could give it."""
        while True:
            try:
                return future.result(timeout=LOOK_EVERY)
            except FutureTimeoutError:
                if future.done():
                    raise  # the coroutine's own
                if not self.thread.is_alive():
                    raise ComputeError("the library's event loop has ended, and this call with it") from None
            except CancelledError:
                if self.closing and threading.current_thread().daemon and not this_thread.in_pool:
                    threading.Event().wait()  # the interpreter ends, and this thread with it: without a traceback
                raise

    def forget(self, key: int) -> None:
        """Say goodbye for an owner that is gone."""
        goodbye = self.goodbyes.pop(key, None)
        if goodbye is not None and self.process == os.getpid():
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self.loop.call_soon_threadsafe(self._leave, goodbye)

    def _leave(self, goodbye: Callable[[], Awaitable[None]]) -> None:
        async def leave() -> None:
            with contextlib.suppress(Exception):
                await goodbye()

        task = self.loop.create_task(leave())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def close(self) -> None:
        self.closing = True
        with contextlib.suppress(Exception):
            self.submit(self._end()).result(timeout=EXIT_SECONDS)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(timeout=EXIT_SECONDS)
        if not self.thread.is_alive():
            self.loop.close()

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others - self._leaving:
            task.cancel()
        goodbyes = [goodbye() for goodbye in self.goodbyes.values()]
        await asyncio.gather(*others, *goodbyes, return_exceptions=True)
        await self.loop.shutdown_default_executor()
        await asyncio.sleep(0.02)  # transports that were closed leave in the loop's next rounds


_lock = RenewedLock()
_current: _Background | None = None
_left_behind: list[_Background] = []
"""Loops of the process that this one was forked from, or that ended: never collected, which would close sockets."""


def _background() -> _Background:
    global _current  # noqa: PLW0603  # one for the process is what this is about
    with _lock:
        if _current is not None and (_current.process != os.getpid() or not _current.thread.is_alive()):
            _left_behind.append(_current)
            _current = None
        if _current is None:
            _current = _Background()
        return _current


@atexit.register
def _close() -> None:
    if _current is not None and _current.process == os.getpid() and _current.thread.is_alive():
        _current.close()


def run_in_background(coroutine: Coroutine[Any, Any, T], stopped: Stop | None = None) -> T:
    """Run a coroutine on the library's loop, and wait for its result; from any thread but the loop's own.

    Args:
        coroutine: Cancelled when the calling thread is interrupted.
        stopped: Cancels it, too, when it is set.

    Raises:
        ContractError: The calling thread is the loop's own, which cannot wait for itself.
        concurrent.futures.CancelledError: `stopped` was set.

    Examples:
        >>> async def double(number):
        ...     return 2 * number
        >>> run_in_background(double(21))
        42
    """
    background = _background()
    if threading.current_thread() is background.thread:
        coroutine.close()
        raise ContractError("a reward was called on the library's own event loop, which would wait for itself")
    future = background.submit(coroutine)

    def cancel() -> None:
        future.cancel()

    if stopped is not None:
        stopped.subscribe(cancel)
    try:
        return background.wait(future)
    finally:
        future.cancel()  # where the wait was interrupted; a future that is done stays as it is
        if stopped is not None:
            stopped.unsubscribe(cancel)


def close_on(owner: object, goodbye: Callable[[], Awaitable[None]]) -> None:
    """Have `goodbye` awaited on the loop once `owner` is gone, or when the interpreter ends.

    Args:
        owner: An object of this process.
        goodbye: Closes what the owner held; must not hold the owner itself.

    Examples:
        >>> class Owner: ...
        >>> owner = Owner()
        >>> async def goodbye(): ...
        >>> close_on(owner, goodbye)
    """
    background = _background()
    key = id(goodbye)
    background.goodbyes[key] = goodbye
    weakref.finalize(owner, background.forget, key).atexit = False
