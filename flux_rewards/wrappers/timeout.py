"""A limit to how long a call may take."""

from __future__ import annotations

import functools
import threading
from concurrent.futures import CancelledError
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from flux_rewards.chunks import Run
from flux_rewards.stats import RewardStats
from flux_rewards.streams import adopted
from flux_rewards.threads import Stop, start_helper
from flux_rewards.validation import number
from flux_rewards.wrappers.wrapper import CallWrapper

if TYPE_CHECKING:
    from flux_rewards.base import RewardFunction
    from flux_rewards.chunks import Chunk, Proceed
    from flux_rewards.contract import Scored

__all__ = ["Timeout"]


class Timeout(CallWrapper):
    """A call of a reward that takes longer than `seconds` has failed, with a `TimeoutError` as the cause.

    The limit is for one call of the author's code: one sample for a reward that scores sample by sample, else one
    batch or group. Around a `Retry` it is for all attempts together, within one for each. Works in any thread.

    The call runs in a thread of its own, since Python cannot end one: a call that is over its time goes on, its
    result is dropped, and it keeps its lane until it ends, so that `num_workers` remains a limit. Where all lanes are
    held by such calls, new ones fail after `seconds`. A client's own time-out is better where there is one.

    Args:
        reward: The reward.
        seconds: The limit.
        name: What it is called.

    Raises:
        ConfigError: `seconds` is not positive.

    Examples:
        >>> import time
        >>> from flux_rewards import FunctionReward, MaskErrors, Sample
        >>> sleepy = FunctionReward(lambda sample: time.sleep(float(sample.response)) or 1.0, num_workers=4)
        >>> MaskErrors(Timeout(sleepy, seconds=0.2))(response=["0", "0.5"]).errors
        {1: 'TimeoutError: not done after 0.2 s'}
    """

    example_config: ClassVar = {**CallWrapper.example_config, "seconds": 60}

    def __init__(self, reward: RewardFunction, seconds: float, *, name: str | None = None) -> None:
        super().__init__(reward, name=name)
        self.seconds = number(seconds, "seconds", self.label, above=0.0, high=threading.TIMEOUT_MAX)
        self.patience = self.seconds

    def around(self, chunk: Chunk, proceed: Proceed) -> Scored:
        """Watch the clock."""
        return chunk.each_call(functools.partial(self._limited, proceed=proceed))

    def _limited(self, chunk: Chunk, proceed: Proceed) -> Scored:
        run = chunk.run
        given_up, done = Stop(), threading.Event()
        run.stopped.subscribe(given_up.set)
        given_up.subscribe(done.set)
        # Its own counters: a call that is over its time must not count twice.
        own = replace(chunk, run=Run(given_up, run.claim, run.shared))
        outcome: list[Scored | BaseException] = []

        streams = adopted()

        def work() -> None:
            try:
                with streams:
                    outcome.append(proceed(own))
            except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
                outcome.append(error)
            finally:
                done.set()

        start_helper(work, name=f"flux-rewards-{self.name}")
        done.wait(self.seconds)
        result = outcome[0] if outcome else None
        run.stopped.unsubscribe(given_up.set)
        given_up.set()  # a retry, say, must not go on alone
        if isinstance(result, BaseException):
            raise result
        if result is not None:
            run.stats.add(own.run.stats)
            return result
        if run.stopped.is_set():
            raise CancelledError
        if own.run.in_line:
            return chunk.failure(
                TimeoutError(
                    f"not begun after {self.seconds:g} s: every lane is held by a call that is over its time and still "
                    "runs; a larger num_workers leaves room for such calls"
                )
            )
        run.stats.add(RewardStats(calls=1, seconds=self.seconds))
        return chunk.failure(TimeoutError(f"not done after {self.seconds:g} s"))
