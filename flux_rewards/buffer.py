"""Scores samples while others are still being sampled."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor as FuturesExecutor
from typing import TYPE_CHECKING

from flux_rewards.base import RewardFunction
from flux_rewards.data import Sample
from flux_rewards.errors import ConfigError, ContractError, InputError, brief
from flux_rewards.executor import Executor, default_executor
from flux_rewards.job import Job, Task
from flux_rewards.pending import Pending
from flux_rewards.validation import number, whole_number

if TYPE_CHECKING:
    from typing_extensions import Self

    from flux_rewards.data import RewardBatch

__all__ = ["RewardBuffer"]

_log = logging.getLogger(__name__)
Progress = Callable[[int, int], None]

POLL_SECONDS = 0.1
"""How often progress is told while `finalize` waits."""


class RewardBuffer:
    """Scores the samples of a step as they arrive, and gives all rewards at its end, in the order of adding.

    `add` returns at once and starts every chunk that is ready: a leaf's `batch_size` samples, what one `add` brought
    for a leaf without a batch size, or a whole group. Leaves whose `async_reward` is False run in `finalize`, in
    the calling thread, as a model that shares the trainer's GPU should; all others run beside the sampling.

    The result is that of the plain call with all samples. The buffer can be used again for the next step. `add` may be
    called from several threads.

    Args:
        reward: What to compute.
        group_size: Samples of a group: one that is complete is scored at once, and `finalize` refuses an incomplete
            one. Without it, groups are complete when `close_group` says so, or at the end.
        executor: Where chunks run: an `Executor`, or any `concurrent.futures.Executor`; by default the one that all
            plain calls share. It is not closed with the buffer.
        progress: Shows a bar on stderr while `finalize` waits; or is called with the rows that are done and all rows,
            over all leaves, in the calling thread.

    Raises:
        ConfigError: A wrong argument.

    Examples:
        >>> from flux_rewards import LengthReward, RewardBuffer, Sample
        >>> with RewardBuffer(LengthReward(target=2)) as buffer:
        ...     for text in ("one two", "one two three four"):  # as they are sampled
        ...         buffer.add(Sample(response=text))
        ...     buffer.finalize(timeout=60).rewards
        array([1., 0.])
    """

    def __init__(
        self,
        reward: RewardFunction,
        group_size: int | None = None,
        executor: Executor | FuturesExecutor | None = None,
        *,
        progress: bool | Progress = False,
    ) -> None:
        if not isinstance(reward, RewardFunction):
            raise ConfigError(f"reward must be a reward, found {brief(reward)}")
        self.reward = reward
        self.group_size = group_size
        if group_size is not None:
            whole_number(group_size, "group_size", reward.name, low=1)
        self._executor = executor if isinstance(executor, Executor) or executor is None else Executor(pool=executor)
        if not isinstance(progress, bool) and not callable(progress):
            raise ConfigError(f"progress must be True, False or callable, found {brief(progress)}")
        self._progress = progress
        self._lock = threading.RLock()
        self._step = _Step(reward, group_size)

    def __len__(self) -> int:
        """Samples that were added in this step."""
        return len(self._step.job.samples)

    def add(self, samples: Sample | Sequence[Sample]) -> None:
        """Take one sample or several in, and start what is ready.

        Raises:
            InputError: A sample lacks a field that a leaf requires, or its group is complete already; by its index in
                the buffer. None of `samples` is taken in.
        """
        batch = [samples] if isinstance(samples, Sample) else samples
        with self._lock:
            if self._step.closed:
                raise ContractError("the step is being finalized: finalize again, or clear", reward=self.reward.name)
            self._start(self._step.job.add(batch))

    def close_group(self, member: Sample) -> None:
        """Say that no more samples of this one's group will come, so that the group is scored as it is.

        Raises:
            InputError: No sample of the group was added.
        """
        if not isinstance(member, Sample):
            raise InputError(f"expected a Sample of the group, found {brief(member)}")
        with self._lock:
            self._start(self._step.job.close_group(member))

    def finalize(self, timeout: float | None = None) -> RewardBatch:
        """Score what is left, wait for the rest, and begin a new step.

        Args:
            timeout: Seconds to wait. After a `TimeoutError`, or Ctrl-C, the work goes on: finalize again, or `clear`.
                It is looked at between the chunks of leaves that run in this thread.

        Returns:
            The rewards of all samples, in the order in which they were added.

        Raises:
            TimeoutError: Not done in time; the message names the rewards that are late.
            InputError: A group is incomplete. Nothing is lost: add the rest of it, and finalize again.
            FluxRewardsError: A sample could not be scored. The rest is cancelled, and the buffer is empty.
        """
        until = (
            None
            if timeout is None
            else time.monotonic() + number(timeout, "timeout", "", low=0.0, high=threading.TIMEOUT_MAX)
        )
        with self._lock:
            step = self._step
            if not (step.closed or step.job.finished.done()):  # a failure says more than what is missing
                self._start(step.job.close())
                step.closed = True
        executor = self._executor or default_executor()
        try:
            with _told(self._progress, step.job) as tell:
                self._run_here(step, until, tell)
                executor.help_out(step.job)
                self._wait(step.job, until, tell)
                tell()
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt) or step.job.finished.done():
                self._begin(step)
            raise  # after an interrupt of the waiting the work goes on, as after a time-out
        if not step.job.finished.done():
            raise TimeoutError(f"not done after {timeout:g} s: still waiting for {step.job.waiting_for()}")
        self._begin(step)
        return Pending(step.job, executor.help_out).result()

    def clear(self) -> None:
        """Drop the samples of this step and what is being computed for them."""
        self._begin(self._step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.clear()

    def _begin(self, ended: _Step) -> None:
        with self._lock:
            ended.job.cancel()
            if self._step is ended:
                self._step = _Step(self.reward, self.group_size)

    def _start(self, tasks: list[Task]) -> None:
        step = self._step
        beside = [task for task in tasks if task.leaf.reward.async_reward is not False]
        step.left += [task for task in tasks if task.leaf.reward.async_reward is False]
        executor = self._executor or default_executor()
        executor.start(step.job, beside)

    def _run_here(self, step: _Step, until: float | None, tell: Callable[[], None]) -> None:
        executor = self._executor or default_executor()
        while step.left and not step.job.finished.done():
            if until is not None and time.monotonic() >= until:
                return
            more = executor.run_here(step.job, step.left[0], until)
            if more is None:
                return
            step.left[:1] = []  # only now: an interrupt of the waiting must not lose it
            step.left += more
            tell()

    def _wait(self, job: Job, until: float | None, tell: Callable[[], None]) -> None:
        while not job.finished.done():
            left = float("inf") if until is None else until - time.monotonic()
            if left <= 0:
                return
            if self._progress:
                left = min(left, POLL_SECONDS)
            job.stopped.wait(None if left == float("inf") else left)
            tell()


class _Step:
    """What one step holds."""

    def __init__(self, reward: RewardFunction, group_size: int | None) -> None:
        self.job = Job(reward, group_size)
        self.left: list[Task] = []  # for the thread that finalizes
        self.closed = False


class _Teller:
    """Tells a caller's function; one that fails must not cost the step its scores."""

    def __init__(self, progress: Progress, job: Job) -> None:
        self._progress: Progress | None = progress
        self._job = job

    def tell(self) -> None:
        try:
            if self._progress is not None:
                self._progress(*self._job.progress())
        except Exception:  # noqa: BLE001  # whatever it is
            self._progress = None
            _log.warning("the progress function failed and is not called again in this step", exc_info=True)


@contextlib.contextmanager
def _told(progress: bool | Progress, job: Job) -> Iterator[Callable[[], None]]:
    """What to call whenever something is done."""
    if not progress:
        yield lambda: None
    elif callable(progress):
        yield _Teller(progress, job).tell
    else:
        import rich.progress  # noqa: PLC0415  # only those who look pay for it
        from rich.console import Console  # noqa: PLC0415

        with rich.progress.Progress(console=Console(stderr=True)) as bar:
            task = bar.add_task("rewards", total=job.progress()[1])
            yield lambda: bar.update(task, completed=job.progress()[0])
