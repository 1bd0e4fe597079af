"""What a client is told that went wrong: a type, the field and the index, and nothing about the machine."""

from __future__ import annotations

import re
from typing import Any

from flux_rewards.errors import (
    ComputeError,
    ConfigError,
    ContractError,
    FluxRewardsError,
    MissingDependencyError,
    WeightsError,
)
from flux_rewards.wire.allowance import TooManyError
from flux_rewards.wire.answers import described

__all__ = ["Problem", "hide", "problem_of"]

_PATH = re.compile(
    r"(?<![\w/.])\.{1,2}/[\w.+@~,/-]+"  # relative
    r"|\\\\[\w.-]+\\[^\s'\"]+"  # of a network
    r"|"
    r"(?<=['\"])(?:file:/|~?/|[A-Za-z]:\\)[^'\"\n]+(?=['\"])"  # in quotes, with whatever is in it
    r"|file:/[^\s'\"]+"
    r"|(?<![\w/.~])~?(?:/[\w.+@~,-]+){2,}/?"  # no address: what stands behind // or a name
    r"|\b[A-Za-z]:\\[\w\\.+@~ -]+"
)


def hide(text: str) -> str:
    """A text without paths of this machine.

    Examples:
        >>> hide("/srv/models/clip.pt is broken; see https://example.org/a/b")
        '[path] is broken; see https://example.org/a/b'
    """
    return _PATH.sub("[path]", text)


class Problem(Exception):  # noqa: N818  # an answer, not a failure of the server
    """An answer that is an error.

    Args:
        status: The HTTP status.
        kind: The type of the error.
        message: What was expected and found.
        field: The field it concerns.
        index: The sample it concerns.
        headers: Of the answer, such as ``Retry-After``.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        *,
        field: str | None = None,
        index: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}
        self.told: dict[str, Any] = {"type": kind, "message": hide(message), "field": field, "index": index}


_SERVERS_OWN = (ConfigError, ContractError, MissingDependencyError, WeightsError, ComputeError)


def problem_of(error: BaseException) -> Problem:
    """What a client is told of an exception.

    Examples:
        >>> from flux_rewards import InputError
        >>> problem_of(InputError("expected text", field="prompt", index=3)).told["index"]
        3
    """
    if isinstance(error, Problem):
        return error
    if isinstance(error, FluxRewardsError):
        problem = Problem(500 if isinstance(error, _SERVERS_OWN) else 422, type(error).__name__, "")
        problem.told = described(error, hide(str(error.args[0]) if error.args else ""))
        return problem
    if isinstance(error, TooManyError):
        return Problem(413, "TooLarge", str(error))
    if isinstance(error, RecursionError):
        return Problem(422, "InputError", "a field is nested too deeply")
    return Problem(500, "InternalError", f"the server failed: {type(error).__name__}; its log has the rest")
