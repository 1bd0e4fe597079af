"""How many calls of one reward are in flight, whoever makes them."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError

__all__ = ["Claim", "Lane", "Lanes", "lanes_of"]


class Lanes:
    """The lanes of one reward, over all calls, threads and executors.

    Only a thread that runs a call holds a lane. Whoever finds none free is woken when one is, and tries again. A
    blocked thread and a queued call are woken side by side: the queued one may stand in line behind that very thread.

    A call that is over its time cannot be killed: it is *abandoned*, and keeps its lane until it ends. Where every
    lane is held by such calls, those who brought `patience` wait no longer than that, counted from when it came so.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()  # of its lanes, too
        self._in_flight = 0
        self._abandoned = 0
        self._stuck_since: float | None = None
        self._sent: dict[int, int] = {}  # by pool: queued calls that are on their way to a worker there
        self._wakes = 0  # that are still to be done
        self._waking = False
        self._queued: deque[Callable[[], bool]] = deque()
        self._blocked: deque[threading.Event] = deque()

    def send(self, pool: int, limit: int, retry: Callable[[], bool], patience: float | None = None) -> bool:
        """Whether a queued call should set out for a worker; else `retry` is called when it should.

        No more set out than could find a lane, so that workers are there for other rewards. It is no promise of a
        lane. Each pool counts by itself: what is stuck in the queue of one must not hold up another.
        """
        with self.lock:
            stuck = patience is not None and self._abandoned >= limit  # the worker waits, as long as that is
            if stuck or self._in_flight + self._sent.get(pool, 0) < limit:
                self._sent[pool] = self._sent.get(pool, 0) + 1
                return True
            self._queued.append(retry)
            return False

    def arrived(self, pool: int) -> None:
        """A call that was sent is at its worker, or lost on the way."""
        with self.lock:
            self._sent[pool] -= 1
            if not self._sent[pool]:
                del self._sent[pool]

    def enter(self, limit: int, retry: Callable[[], bool], patience: float | None = None) -> Lane | None:
        """Take a lane if one is free; else `retry` is called when it is time to try again.

        `retry` returns False where nobody is left to try, so that the next one is called instead.

        Raises:
            TimeoutError: All lanes are held by abandoned calls, and patience has run out.
        """
        with self.lock:
            if self._in_flight < limit:
                self._in_flight += 1
                return Lane(self)
            if patience is None or self._abandoned < limit:
                self._queued.append(retry)
                return None
        return self.wait(limit, patience)  # no chunk that waits for this thread holds a lane

    def wait(self, limit: int, patience: float | None = None, at_most: float | None = None) -> Lane | None:
        """Block the calling thread until it has a lane; None after `at_most` seconds.

        Raises:
            TimeoutError: Patience has run out, see `Lanes`.
        """
        woken = threading.Event()
        latest = None if at_most is None else time.monotonic() + at_most
        try:
            while True:
                with self.lock:
                    if self._in_flight < limit:
                        self._in_flight += 1
                        return Lane(self)
                    now = time.monotonic()
                    if latest is not None and latest <= now:
                        return None
                    until = latest
                    if patience is not None and self._abandoned >= limit and self._stuck_since is not None:
                        until = min(self._stuck_since + patience, latest or float("inf"))
                        if until <= now:
                            break
                    self._blocked.append(woken)
                woken.wait(None if until is None else until - time.monotonic())
                with self.lock:
                    if not woken.is_set():
                        self._blocked.remove(woken)
                woken.clear()
        except BaseException:  # an interrupt must not take a turn along
            with self.lock:
                if woken in self._blocked:
                    self._blocked.remove(woken)
            if woken.is_set():
                self.wake()
            raise
        raise TimeoutError(
            f"not begun: {self._abandoned} of {limit} lanes are held by calls that are over their time and still run; "
            "a larger num_workers leaves room for such calls"
        )

    def free(self, *, abandoned: bool = False) -> None:
        """A call has ended."""
        with self.lock:
            self._in_flight -= 1
            if abandoned:
                self._abandoned -= 1
                self._stuck_since = None
            if not (self._blocked or self._queued):
                return
        self.wake()

    def abandon(self) -> None:
        """A call goes on without its caller; those who wait must learn that it may take for ever."""
        with self.lock:
            self._abandoned += 1
            if self._abandoned >= self._in_flight:
                self._stuck_since = time.monotonic()
            waiting, self._queued = list(self._queued), deque()
            blocked, self._blocked = list(self._blocked), deque()
        for event in blocked:
            event.set()
        for retry in waiting:
            retry()

    def wake(self) -> None:
        """Wake those that have waited longest for a lane. Whoever does so within, or beside, another only counts."""
        with self.lock:
            self._wakes += 1
            if self._waking:
                return
            self._waking = True
        try:
            while self._wake_one():
                pass
        except BaseException:
            with self.lock:
                self._waking = False
            raise

    def _wake_one(self) -> bool:
        with self.lock:
            if not self._wakes:
                self._waking = False
                return False
            self._wakes -= 1
            if self._blocked:
                self._blocked.popleft().set()
        while True:
            with self.lock:
                if not self._queued:
                    return True
                retry = self._queued.popleft()
            if retry():  # outside the lock: it may run code of an executor
                return True


class Lane:
    """One taken lane. Its owner leaves it; a call that still runs in it then keeps it until it ends."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._owned = True
        self._calls = 0

    def share(self) -> bool:
        """A call begins; False where an earlier one still runs, so that this one must look for another lane."""
        with self._lanes.lock:
            if self._calls:
                return False
            self._calls = 1
            return True

    def unshare(self) -> None:
        """The call has ended, in time or not."""
        with self._lanes.lock:
            self._calls = 0
            abandoned = not self._owned
        if abandoned:
            self._lanes.free(abandoned=True)

    def leave(self) -> None:
        """The owner has what it wanted, or has given up."""
        with self._lanes.lock:
            self._owned = False
            running = self._calls > 0
        if running:
            self._lanes.abandon()
        else:
            self._lanes.free()


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


class Claim:
    """A chunk's claim to a lane, while it runs: each call of the chunk takes the lane, one after the other.

    A call that its caller has given up on stays in its lane; the next one of the chunk then takes another lane.

    Args:
        lane: The lane that was taken for the chunk; None where the calling thread holds one for the reward already.
        lanes: The reward's lanes.
        limit: How many there are.
        patience: See `Lanes`.
    """

    def __init__(self, lane: Lane | None, lanes: Lanes, limit: int, patience: float | None) -> None:
        self._lane = lane
        self._needs_lane = lane is not None
        self._lanes, self._limit, self._patience = lanes, limit, patience
        self._lock = threading.Lock()
        self._left = False

    def call(self, given_up: Callable[[], bool]) -> Lane | None:
        """Begin a call, and return the lane to `unshare` when it ends; None where none is needed.

        Raises:
            CancelledError: The call's caller has given up before it began.
            TimeoutError: All lanes are held by calls that are over their time.
        """
        while True:
            with self._lock:
                if given_up():
                    raise CancelledError
                if not self._needs_lane:
                    return None
                lane = self._lane
                if lane is not None and lane.share():
                    return lane
                self._lane = None
            if lane is not None:
                lane.leave()
            other = self._lanes.wait(self._limit, self._patience)
            assert other is not None  # noqa: S101  # for the type checker: it had no limit
            with self._lock:
                wanted = not (self._left or given_up())
                if wanted:
                    self._lane = other
            if not wanted:
                other.leave()
                raise CancelledError

    def leave(self) -> None:
        """The chunk is done; what still runs keeps the lane that it is in."""
        with self._lock:
            lane, self._lane, self._left = self._lane, None, True
        if lane is not None:
            lane.leave()
