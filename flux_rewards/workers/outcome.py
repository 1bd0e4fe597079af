"""What became of a job that ran in a worker process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Outcome", "Status"]

Status = Literal["ok", "error", "over_limit", "timed_out", "crashed"]


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Args:
        status: ``"ok"``; ``"error"``: the function raised; ``"over_limit"``: it raised an `OverLimitError`, that is, a
            guard refused the job; ``"timed_out"``: the worker was killed at the limit; ``"crashed"``: the worker died.
        value: What the function returned, where it is ``"ok"``; else None.
        error: Why there is no value: the function's own exception (with the worker's traceback as its cause), an
            `OverLimitError`, a `TimeoutError` or a `WorkerCrashError`; None where it is ``"ok"``.
        seconds: Wall time between sending the job and knowing the outcome; starting a worker does not count.

    Examples:
        >>> Outcome("ok", 8).unwrap()
        8
    """

    status: Status
    value: Any = None
    error: Exception | None = None
    seconds: float = 0.0

    def unwrap(self) -> Any:
        """The value.

        Raises:
            Exception: The `error`, where there is one.
        """
        if self.error is not None:
            raise self.error
        return self.value
