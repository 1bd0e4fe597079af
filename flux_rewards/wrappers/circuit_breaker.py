"""A service that is down is left alone for a while."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from flux_rewards.errors import ComputeError, InputError
from flux_rewards.validation import number, whole_number
from flux_rewards.wrappers.wrapper import CallWrapper

if TYPE_CHECKING:
    from flux_rewards.base import RewardFunction
    from flux_rewards.chunks import Chunk, Proceed
    from flux_rewards.contract import Scored

__all__ = ["CircuitBreaker"]


@dataclass
class _Circuit:
    """What is known of one leaf."""

    failures: int = 0  # in a row
    open_until: float | None = None  # None: closed
    last: str = ""
    tries: bool = False  # one call is under way to see whether all is well again


class CircuitBreaker(CallWrapper):
    """After several failed calls in a row every call fails at once, for a while; then one is tried.

    If that one succeeds all is well again; if it fails the while begins anew. A call has failed when no sample of it
    was scored; an `InputError` is the sample's fault and does not count. Around a `Retry` a call has failed when
    all attempts have. The count is kept in this object, for each leaf below it, over all threads and batches.

    Args:
        reward: The reward.
        failures: Failed calls in a row that open the circuit.
        reset_after: Seconds until one call is tried again.
        clock: Tells the time in seconds; `time.monotonic` by default.
        name: What it is called.

    Raises:
        ConfigError: A number out of its range.

    Examples:
        >>> from flux_rewards import FunctionReward, MaskErrors, Sample
        >>> def down(sample):
        ...     raise ConnectionError("refused")
        >>> batch = MaskErrors(CircuitBreaker(FunctionReward(down), failures=2), 1.0)([Sample()] * 3)
        >>> batch.errors[1], batch.errors[2][:50]
        ('ConnectionError: refused', 'ComputeError: not called: 2 calls in a row failed,')
    """

    example_config: ClassVar = {**CallWrapper.example_config, "failures": 5}

    def __init__(
        self,
        reward: RewardFunction,
        failures: int = 5,
        *,
        reset_after: float = 30.0,
        clock: Callable[[], float] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(reward, name=name)
        self.failures = whole_number(failures, "failures", self.label, low=1)
        self.reset_after = number(reset_after, "reset_after", self.label, low=0.0)
        self.clock = clock
        self._lock = threading.Lock()
        self._circuits: dict[int, _Circuit] = {}

    def around(self, chunk: Chunk, proceed: Proceed) -> Scored:
        """Call, unless there is no point."""
        return chunk.each_call(functools.partial(self._guarded, proceed=proceed))

    def _guarded(self, chunk: Chunk, proceed: Proceed) -> Scored:
        now = self.clock or time.monotonic
        with self._lock:
            circuit = self._circuits.setdefault(id(chunk.reward), _Circuit())
            if circuit.open_until is not None:
                if now() < circuit.open_until:
                    return chunk.failure(self._refusal(circuit, circuit.open_until - now()))
                circuit.open_until, circuit.tries = now() + self.reset_after, True  # this call is the one
        scored = proceed(chunk)
        blamed = [row for row, cause in scored.causes.items() if not isinstance(cause, InputError)]
        with self._lock:
            circuit.tries = False
            abandoned = bool(scored.causes) and chunk.stop_at_failure  # then rows without a cause were not scored
            if len(scored.causes) < len(chunk) and not abandoned:
                circuit.failures, circuit.open_until = 0, None
            elif blamed:
                circuit.failures += 1
                circuit.last = scored.batch.errors[blamed[0]]
                if circuit.failures >= self.failures:
                    circuit.open_until = now() + self.reset_after
        return scored

    def _refusal(self, circuit: _Circuit, seconds: float) -> ComputeError:
        then = "one call is being tried now" if circuit.tries else f"the next try is in {seconds:.0f} s"
        return ComputeError(
            f"not called: {circuit.failures} calls in a row failed, the last with {circuit.last}; {then}"
        )
