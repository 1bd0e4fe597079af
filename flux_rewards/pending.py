"""A call that is under way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any

from flux_rewards.validation import number

if TYPE_CHECKING:
    from flux_rewards.data import RewardBatch
    from flux_rewards.errors import FluxRewardsError
    from flux_rewards.job import Job

__all__ = ["Pending"]


class Pending:
    """A call that is under way: await it, or ask for its `result`. Giving up waiting does not end it; `cancel` does.

    Examples:
        >>> from flux_rewards import Executor, FunctionReward, Sample
        >>> with Executor() as executor:
        ...     pending = executor.submit(FunctionReward(lambda sample: len(sample.response)), [Sample(response="abc")])
        ...     pending.result(timeout=60).rewards
        array([3.])
    """

    def __init__(self, job: Job, help_out: Callable[[Job], None]) -> None:
        self._job = job
        self._help_out = help_out
        self._lock = threading.Lock()
        self._batch: RewardBatch | None = None

    def done(self) -> bool:
        """Whether `result` would return, or raise, at once."""
        return self._job.finished.done() or self._job.late()

    @property
    def causes(self) -> Mapping[int, FluxRewardsError]:
        """By position, the error behind a failed row, as far as it goes; a batch has the reasons as text."""
        return self._job.causes

    def cancel(self) -> None:
        """Start no further chunk; those in flight end by themselves, and their rows are dropped."""
        self._job.cancel()

    def done_rows(self) -> set[int]:
        """The positions whose rows are there already, while others are not."""
        return self._job.done_rows()

    def rows(self, positions: Sequence[int]) -> RewardBatch:
        """Some rows that are done, while others are not; of whole groups, where something looks at groups."""
        return self._job.fold_rows(positions)

    def wait(self) -> None:
        """Wait as `result` does, and fold nothing."""
        self._help_out(self._job)
        self._wait(None)

    def result(self, timeout: float | None = None) -> RewardBatch:
        """Wait for the leaves and fold them in this thread.

        Args:
            timeout: Seconds to wait. The call goes on after a time-out: ask again, or `cancel`.

        Raises:
            TimeoutError: Not done in time; the message names the rewards that are still running.
            concurrent.futures.CancelledError: The call was cancelled.
            FluxRewardsError: A reward failed.
        """
        if timeout is not None:
            number(timeout, "timeout", "", low=0.0, high=threading.TIMEOUT_MAX)
        self._help_out(self._job)
        self._wait(timeout)
        return self._fold()

    def _wait(self, timeout: float | None) -> None:
        job = self._job
        left = None if job.deadline is None else max(0.0, job.deadline - time.monotonic())
        try:
            job.finished.result(left if timeout is None else timeout if left is None else min(left, timeout))
        except FutureTimeoutError:
            if not self.done():
                if timeout is None or (left is not None and left < timeout):
                    return self._wait(timeout)  # the clock of the wait ran ahead of the deadline's
                raise TimeoutError(f"not done after {timeout:g} s: still waiting for {job.waiting_for()}") from None
            job.finished.result()  # it was done a moment later, or too late
        return None

    def __await__(self) -> Generator[Any, None, RewardBatch]:
        import asyncio  # noqa: PLC0415  # only those who await pay for it

        job = self._job
        self._help_out(job)
        alarm = None
        if job.deadline is not None:
            loop = asyncio.get_running_loop()
            alarm = loop.call_later(max(0.0, job.deadline - time.monotonic()) + 0.001, job.late)
        try:
            # Shielded: whoever gives up waiting does not end the call for others.
            yield from asyncio.shield(asyncio.wrap_future(job.finished)).__await__()
        finally:
            if alarm is not None:
                alarm.cancel()
        return self._fold()

    def _fold(self) -> RewardBatch:
        with self._lock:
            if self._batch is None:
                self._batch = self._job.fold()
            return self._batch
