"""Every exception that the library raises, and how they relate.

    FluxRewardsError                    retryable = False
    +-- ConfigError (ValueError)
    |   +-- UnknownRewardError (LookupError)
    +-- MissingDependencyError (ImportError)
    +-- InputError (ValueError)         a sample that a reward cannot read
    +-- ContractError (TypeError)       a reward that broke the rules of a reward
    +-- WeightsError (RuntimeError)     a checkpoint that does not fit
    +-- ComputeError (RuntimeError)     a score that could not be computed
        +-- RemoteError                 retryable where the status says so
        +-- JudgeError                  a verdict that cannot be read
        +-- OverLimitError              too large to be computed at all
        +-- WorkerCrashError            a worker process that died

Each is also the builtin in parentheses, so ``except ValueError`` works. All pickle.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "ComputeError",
    "ConfigError",
    "ContractError",
    "FluxRewardsError",
    "InputError",
    "JudgeError",
    "MissingDependencyError",
    "OverLimitError",
    "RemoteError",
    "UnknownRewardError",
    "WeightsError",
    "WorkerCrashError",
    "brief",
    "close_match",
]


class FluxRewardsError(Exception):
    """Base of every error of the library; its text is led by the reward, sample and field it concerns.

    Args:
        message: What was expected, what was found, and what to do.
        reward: Name of the reward that it concerns.
        field: Name of the `Sample` field that it concerns.
        index: Position of the sample in the batch that the caller passed.

    Attributes:
        retryable: Whether the same call may succeed later.
        retry_after: Seconds that the other side asked to wait before that, or None.

    Examples:
        >>> print(InputError("expected text, found 3", reward="length", field="response", index=7))
        reward 'length', sample 7, field 'response': expected text, found 3
    """

    retryable: bool = False
    retry_after: float | None = None

    def __init__(
        self, message: str, *, reward: str | None = None, field: str | None = None, index: int | None = None
    ) -> None:
        # The message alone goes to `args`; the rest travels in `__dict__`, so that every error pickles.
        super().__init__(message)
        self.reward = reward
        self.field = field
        self.index = index

    def __str__(self) -> str:
        where = [
            f"{word} {value!r}"
            for word, value in (("reward", self.reward), ("sample", self.index), ("field", self.field))
            if value is not None
        ]
        message = super().__str__()
        return f"{', '.join(where)}: {message}" if where else message


class ConfigError(FluxRewardsError, ValueError):
    """A configuration, or a reward's parameter, that cannot be used."""


class UnknownRewardError(ConfigError, LookupError):
    """A reward name that nobody registered; the message lists close names."""


class MissingDependencyError(FluxRewardsError, ImportError):
    """An optional package is not installed; the message holds the line that installs it."""


class InputError(FluxRewardsError, ValueError):
    """A sample lacks a field, or holds a value that cannot be read."""


class ContractError(FluxRewardsError, TypeError):
    """A reward was written or called against its contract, for example by returning too few rows."""


class WeightsError(FluxRewardsError, RuntimeError):
    """A checkpoint does not fit its architecture."""


class ComputeError(FluxRewardsError, RuntimeError):
    """A score could not be computed; an exception behind it is chained as ``__cause__``."""


class RemoteError(ComputeError):
    """A remote reward did not answer, or answered with an error.

    Args:
        message: What happened.
        retryable: Whether the status says that a later call may succeed.
        retry_after: Seconds that the server asked to wait, where it did.
        status: The HTTP status of the answer, where there was one.
        reward: Name of the reward.
        index: Position of the sample.
    """

    def __init__(
        self,
        message: str,
        *,
        retryable: bool = False,
        retry_after: float | None = None,
        status: int | None = None,
        reward: str | None = None,
        index: int | None = None,
    ) -> None:
        super().__init__(message, reward=reward, index=index)
        self.retryable = retryable
        self.retry_after = retry_after
        self.status = status


class JudgeError(ComputeError):
    """A judge's verdict cannot be read.

    Args:
        message: What was expected, and the reply, cut short.
        problem: In one word: ``"unreadable"``, ``"ambiguous"``, ``"out_of_range"``, ``"truncated"``, ``"refused"``,
            ``"missing"``, ``"unknown_id"`` or ``"no_logprobs"``.
        retryable: Whether another reply may be another one, since the judge samples.
        reward: Name of the reward.
        index: Position of the sample.
    """

    def __init__(
        self,
        message: str,
        problem: str = "unreadable",
        *,
        retryable: bool = False,
        reward: str | None = None,
        index: int | None = None,
    ) -> None:
        super().__init__(message, reward=reward, index=index)
        self.problem = problem
        self.retryable = retryable


class OverLimitError(ComputeError):
    """A job that was refused before it ran, since its size alone says that it may never end."""


class WorkerCrashError(ComputeError):
    """A worker process died in the middle of a job: by a signal, by an exit, or out of memory."""


def close_match(word: str, known: Iterable[str]) -> str:
    """Return a hint such as `` (did you mean 'length'?)`` for the end of a message, or nothing.

    Examples:
        >>> close_match("lenght", ["length", "format"])
        " (did you mean 'length'?)"
    """
    by_folded = {name.casefold(): name for name in known}
    found = difflib.get_close_matches(word.casefold(), list(by_folded), n=2, cutoff=0.6)
    return f" (did you mean {' or '.join(repr(by_folded[name]) for name in found)}?)" if found else ""


def brief(value: Any) -> str:
    """A value for a message: text cut short, media by kind and size, never whole.

    Examples:
        >>> brief("a" * 500)
        "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa... (502 characters)"
    """
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"<{type(value).__name__} {value.dtype} {tuple(value.shape)}>"
    if hasattr(value, "size") and hasattr(value, "mode"):
        return f"<image {value.mode} {value.size[0]}x{value.size[1]}>"
    if isinstance(value, (list, tuple)) and any(map(_is_media, value)):
        return f"<{type(value).__name__} of {len(value)}>"
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits
        text = f"<{type(value).__name__} that cannot be printed>"
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


def _is_media(value: Any) -> bool:
    return hasattr(value, "shape") or hasattr(value, "mode") or isinstance(value, (list, tuple))
