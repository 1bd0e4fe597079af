"""How many calls of one reward are in flight, whoever makes them."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["Lanes", "lanes_of"]


class Lanes:
    """How many chunks of one reward are in flight, over all calls and executors; the rest wait in order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_flight = 0
        self._waiting: deque[Callable[[], Any]] = deque()

    def enter(self, start: Callable[[], Any], limit: int) -> None:
        """Call `start` as soon as a lane is free: now, or in the thread that frees one."""
        with self._lock:
            if self._in_flight >= limit:
                self._waiting.append(start)
                return
            self._in_flight += 1
        start()

    def leave(self) -> None:
        """Free a lane, for the call that waits longest."""
        with self._lock:
            start = self._waiting.popleft() if self._waiting else None
            if start is None:
                self._in_flight -= 1
        if start is not None:
            start()

    def wait(self, limit: int) -> None:
        """Block the calling thread, which is never a worker, until a lane is its own."""
        entered = threading.Event()
        self.enter(entered.set, limit)
        try:
            entered.wait()
        except BaseException:  # an interrupt must not take the lane along
            with self._lock:
                given_up = entered.set in self._waiting
                if given_up:
                    self._waiting.remove(entered.set)
            if not given_up:
                self.leave()
            raise


_lanes_lock = threading.Lock()


def lanes_of(reward: object) -> Lanes:
    """The lanes of a reward object; a forked child has its own, since the parent's threads are not there."""
    owned: tuple[int, Lanes] | None = vars(reward).get("_lanes")
    if owned is None or owned[0] != os.getpid():
        with _lanes_lock:
            owned = vars(reward).get("_lanes")
            if owned is None or owned[0] != os.getpid():
                owned = (os.getpid(), Lanes())
                vars(reward)["_lanes"] = owned
    return owned[1]
