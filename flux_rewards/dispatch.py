"""One task on its way through a pool: when it may start, and what becomes of it, whatever becomes of the pool."""

from __future__ import annotations

import abc
import contextlib
import functools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Future
from concurrent.futures import Executor as FuturesExecutor
from typing import TYPE_CHECKING, Any

from flux_rewards.contract import locate
from flux_rewards.elsewhere import arrived_here, score_elsewhere
from flux_rewards.errors import ComputeError, ContractError
from flux_rewards.lanes import Claim, Lane, lanes_of
from flux_rewards.streams import Produced, beside
from flux_rewards.threads import start_helper, this_thread

if TYPE_CHECKING:
    from flux_rewards.chunks import Chunk
    from flux_rewards.job import Job, Task

__all__ = ["ProcessDispatch", "ThreadDispatch", "claim_of"]


def claim_of(task: Task, lane: Lane) -> Claim:
    """A chunk's claim to the lane that was taken for it."""
    reward = task.leaf.reward
    return Claim(lane, lanes_of(reward), reward.num_workers, task.leaf.patience)


class Dispatch(abc.ABC):
    """One task and the pool that is to run it.

    Args:
        job: What it belongs to.
        task: What is to be run.
        pool: Where.
        in_flight: The futures that somebody wants to wait for.
    """

    def __init__(self, job: Job, task: Task, pool: FuturesExecutor, in_flight: set[Future[Any]]) -> None:
        self.job, self.task, self.pool, self.in_flight = job, task, pool, in_flight
        self.lanes = lanes_of(task.leaf.reward)
        self._since = time.perf_counter()

    @abc.abstractmethod
    def submit(self) -> bool:
        """Give it to the pool, now or when a lane is free; False where there is nobody to give it to."""

    @abc.abstractmethod
    def over(self, future: Future[Any]) -> None:
        """What the pool has to say about it."""

    def _give(self, call: Callable[[], Any]) -> bool:
        try:
            future: Future[Any] = self.pool.submit(call)
        except BrokenExecutor as error:  # a process has died
            self.job.end(ComputeError(f"the pool is broken, and a new one is needed: {type(error).__name__}: {error}"))
            return False
        except RuntimeError as error:  # the pool, or the interpreter, is shutting down
            self.job.end(ContractError(f"the executor was closed before the call ended: {error}"))
            return False
        self.in_flight.add(future)
        future.add_done_callback(self.in_flight.discard)
        future.add_done_callback(self.over)
        return True

    def _lane(self) -> Lane | None:
        """A lane, if one is free; else `submit` is called when it is time to try again.

        Raises:
            TimeoutError: All lanes are held by calls that are over their time.
        """
        return self.lanes.enter(self.task.leaf.reward.num_workers, self.submit, self.task.leaf.patience)

    def _not_begun(self, error: TimeoutError) -> None:
        run = self.job.new_run()
        self.job.record(self.task, self.job.chunk(self.task, run).failure(error), run.stats)

    def _end(self, error: BaseException) -> None:
        if isinstance(error, CancelledError):
            error = ContractError("the pool was shut down before the call ended")
        elif isinstance(error, Exception):
            error = locate(error, reward=self.task.leaf.reward.name, index=None)
        self.job.end(error)

    def _waited(self) -> float:
        return time.perf_counter() - self._since


class ThreadDispatch(Dispatch):
    """A task for a thread of this process: it takes its lane when it gets there, so that only running calls hold any.

    Args:
        marks: What the producer of the samples had begun.
    """

    def __init__(
        self, job: Job, task: Task, pool: FuturesExecutor, in_flight: set[Future[Any]], marks: Produced
    ) -> None:
        super().__init__(job, task, pool, in_flight)
        self._marks = marks
        job.hand_out(task)

    def submit(self) -> bool:
        """Let a worker try, if there may be a lane when it gets there."""
        if self.job.finished.done():
            return False
        if self._needs_lane:
            reward, leaf = self.task.leaf.reward, self.task.leaf
            if not self.lanes.send(id(self.pool), reward.num_workers, self.submit, leaf.patience):
                return True
        given = self._give(self._work)
        if not given:
            self._arrived()
        return given

    def over(self, future: Future[Any]) -> None:
        """Cancelled, or broken; else the job knows."""
        if future.cancelled():
            self._arrived()
            self._end(CancelledError())
            _unlocked(self.lanes.wake)  # it may have had its turn
        elif (error := future.exception()) is not None:
            self._end(error)

    @property
    def _needs_lane(self) -> bool:
        return self.task.units is None

    def _arrived(self) -> None:
        if self._needs_lane:
            self.lanes.arrived(id(self.pool))

    def _work(self) -> None:
        job, task, run = self.job, self.task, self.job.new_run()
        self._arrived()
        if self._needs_lane:
            try:
                lane = self._lane()
            except TimeoutError as error:
                if job.claim(task):
                    self._not_begun(error)
                return
            if lane is None:
                return  # this worker is free for others meanwhile
            run.claim = claim_of(task, lane)
        run.stats.queue_seconds = self._waited()
        more: Sequence[Task] = ()
        before, this_thread.in_pool = this_thread.in_pool, True
        try:
            if job.claim(task):
                with beside(self._marks):
                    more = job.run(task, run)
        finally:
            this_thread.in_pool = before
            this_thread.free_soon = True
            if run.claim is not None:
                run.claim.leave()
        for then in more:
            ThreadDispatch(job, then, self.pool, self.in_flight, self._marks).submit()


class ProcessDispatch(Dispatch):
    """A chunk for another process: it takes its lane here, where all who share the reward see it.

    Args:
        payload: The leaf, as it is sent.
    """

    def __init__(
        self, job: Job, task: Task, pool: FuturesExecutor, in_flight: set[Future[Any]], payload: bytes
    ) -> None:
        super().__init__(job, task, pool, in_flight)
        self._payload = payload
        self._held: tuple[Lane, Chunk] | None = None

    def submit(self) -> bool:
        """Send it, if a lane is free."""
        if self.job.finished.done():
            return False
        try:
            lane = self._lane()
        except TimeoutError as error:
            self._not_begun(error)
            return True
        if lane is None:
            return True
        chunk = self.job.chunk(self.task, self.job.new_run())
        self._held = (lane, chunk)
        self._since = self._waited()
        call = functools.partial(
            score_elsewhere, self._payload, list(chunk.samples), chunk.positions, stop_at_failure=chunk.stop_at_failure
        )
        given = self._give(call)
        if not given:
            lane.leave()
        return given

    def over(self, future: Future[Any]) -> None:
        """The rows, or why there are none."""
        assert self._held is not None  # noqa: S101  # for the type checker
        lane, chunk = self._held
        lost = future.cancelled() or future.exception() is not None
        _unlocked(lane.leave) if lost else lane.leave()
        try:
            scored, stats = arrived_here(future.result())
            stats.queue_seconds += self._since
            for memory in self.task.leaf.memories:
                memory.remember(chunk, scored)
            self.job.record(self.task, scored, stats)
        except BaseException as error:  # noqa: BLE001  # a callback's own are lost
            self._end(error)


def _unlocked(wake: Callable[[], None]) -> None:
    """Wake whoever waits for a lane, from a pool that is ending: it may hold the lock that they need to submit."""
    with contextlib.suppress(RuntimeError):  # the interpreter ends
        start_helper(wake, "flux-rewards-wake")
