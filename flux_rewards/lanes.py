"""How many calls of one reward are in flight, whoever makes them."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["Lanes", "lanes_of"]


class Lanes:
    """The lanes of one reward, over all calls, threads and executors.

    Only a thread that runs a call holds a lane. Whoever finds none free is woken when one is, and tries again. A
    blocked thread and a queued call are woken side by side: the queued one may stand in line behind that very thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_flight = 0
        self._queued: deque[Callable[[], bool]] = deque()
        self._blocked: deque[threading.Event] = deque()

    def enter(self, limit: int, retry: Callable[[], bool]) -> bool:
        """Take a lane if one is free; else `retry` is called when it is time to try again.

        `retry` returns False where nobody is left to try, so that the next one is called instead.
        """
        return self._enter(limit, self._queued, retry)

    def wait(self, limit: int) -> None:
        """Block the calling thread until it has a lane."""
        woken = threading.Event()
        try:
            while not self._enter(limit, self._blocked, woken):
                woken.wait()
                woken.clear()
        except BaseException:  # an interrupt must not take a turn along
            with self._lock:
                turn_taken = woken not in self._blocked
                if not turn_taken:
                    self._blocked.remove(woken)
            if turn_taken:
                self._wake()
            raise

    def leave(self) -> None:
        """Free a lane, and wake those that have waited longest for one."""
        with self._lock:
            self._in_flight -= 1
        self._wake()

    def _enter(self, limit: int, line: deque[Any], waiter: Any) -> bool:
        with self._lock:
            if self._in_flight < limit:
                self._in_flight += 1
                return True
            line.append(waiter)
            return False

    def _wake(self) -> None:
        with self._lock:
            if self._blocked:
                self._blocked.popleft().set()
        while True:
            with self._lock:
                if not self._queued:
                    return
                retry = self._queued.popleft()
            if retry():  # outside the lock: it may run code of an executor
                return


_lanes_lock = threading.Lock()


def lanes_of(reward: object) -> Lanes:
    """The lanes of a reward object; a forked child has its own, since the parent's threads are not there."""
    owned: tuple[int, Lanes] | None = vars(reward).get("_flux_lanes")
    if owned is None or owned[0] != os.getpid():
        with _lanes_lock:
            owned = vars(reward).get("_flux_lanes")
            if owned is None or owned[0] != os.getpid():
                owned = (os.getpid(), Lanes())
                vars(reward)["_flux_lanes"] = owned
    return owned[1]
