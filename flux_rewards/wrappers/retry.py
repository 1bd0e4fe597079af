"""Another try for calls that failed for a reason that may pass."""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, ClassVar

from flux_rewards.backoff import pause_before
from flux_rewards.callables import resolve_callable
from flux_rewards.contract import Scored
from flux_rewards.errors import ConfigError, brief
from flux_rewards.validation import number, whole_number
from flux_rewards.wrappers.wrapper import CallWrapper

if TYPE_CHECKING:
    from flux_rewards.base import RewardFunction
    from flux_rewards.chunks import Chunk, Proceed

__all__ = ["Retry"]


class Retry(CallWrapper):
    """Calls a reward again for the samples that failed, where the failure may pass by itself.

    What may pass: a library error says so by `retryable`. For any other exception its HTTP status decides (408, 409,
    425, 429 and 5xx may), and without one everything may but mistakes of code or input (`ValueError`, `TypeError`,
    `KeyError`, a missing file, ...). Samples that were scored are not scored again; a group is scored as a whole.

    The pause before try number n + 1 is random between half of and the whole of ``min(wait * 2 ** (n - 1), max_wait)``
    seconds, and no shorter than the server asks for by ``Retry-After``. It holds the reward's lane, so that a
    service in trouble sees fewer calls, and ends at once when the call is cancelled.

    Args:
        reward: The reward.
        attempts: Calls in all, the first one too.
        wait: Seconds, about, before the second one.
        max_wait: Seconds, at most, by back-off; a server may ask for more.
        deadline: Seconds for all attempts of one call and their pauses: no pause begins that would end later. A running
            call is not cut off; that is what `Timeout` is for.
        sleep: Called with the seconds of each pause, in place of waiting; or its dotted path.
        name: What it is called.

    Raises:
        ConfigError: A number out of its range.

    Examples:
        >>> from flux_rewards import FunctionReward, Sample
        >>> answers = [ConnectionError("reset"), 1.0]
        >>> flaky = FunctionReward(lambda samples: [answers.pop(0) for _ in samples], call="batch")
        >>> batch = Retry(flaky, attempts=3, wait=0.01)([Sample()])
        >>> batch.rewards, batch.stats["FunctionReward"].retries
        (array([1.]), 1)
    """

    example_config: ClassVar = {**CallWrapper.example_config, "attempts": 3}

    def __init__(
        self,
        reward: RewardFunction,
        attempts: int = 3,
        *,
        wait: float = 0.5,
        max_wait: float = 30.0,
        deadline: float | None = 300.0,
        sleep: Callable[[float], Any] | str | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(reward, name=name)
        self.attempts = whole_number(attempts, "attempts", self.label, low=1)
        self.wait = number(wait, "wait", self.label, low=0.0)
        self.max_wait = number(max_wait, "max_wait", self.label, low=0.0)
        self.deadline = deadline if deadline is None else number(deadline, "deadline", self.label, above=0.0)
        if sleep is not None and not isinstance(sleep, str) and not callable(sleep):
            raise ConfigError(f"sleep must be callable or a dotted path, found {brief(sleep)}", reward=self.label)
        self.sleep = sleep

    def around(self, chunk: Chunk, proceed: Proceed) -> Scored:
        """Try, and try again."""
        return chunk.each_call(functools.partial(self._persist, proceed=proceed))

    def _persist(self, chunk: Chunk, proceed: Proceed) -> Scored:
        started = time.monotonic()
        slept = 0.0
        scored = proceed(chunk)
        for attempt in itertools.count(1):
            again = [row for row, cause in scored.causes.items() if cause.retryable]
            if not again:
                break
            if attempt == self.attempts:
                return scored.noting(again, f"the last of {attempt} attempts") if attempt > 1 else scored
            pause = self._pause(attempt, [scored.causes[row].retry_after for row in again])
            passed = max(time.monotonic() - started, slept)  # an injected sleep may not take its time
            if self.deadline is not None and passed + pause > self.deadline:
                late = f"a pause of {pause:.1f} s would end after the deadline of {self.deadline:g} s"
                return scored.noting(again, f"attempt {attempt} of {self.attempts}; {late}")
            slept += pause
            self._rest(chunk, pause)
            if chunk.reward.scope == "group":
                again = list(range(len(chunk)))
            chunk.run.stats.retries += 1
            second = proceed(chunk.part(again))
            kept = sorted(set(range(len(chunk))) - set(again))
            scored = Scored.scatter(len(chunk), [(kept, scored.select(kept)), (again, second)]) if kept else second
        return scored

    def _pause(self, attempt: int, asked: list[float | None]) -> float:
        pause = pause_before(attempt, wait=self.wait, max_wait=self.max_wait, asked=asked)
        return min(pause, threading.TIMEOUT_MAX)

    def _rest(self, chunk: Chunk, seconds: float) -> None:
        if self.sleep is not None:
            resolve_callable(self.sleep, self.name)(seconds)
        elif chunk.run.stopped.wait(seconds):
            raise CancelledError
