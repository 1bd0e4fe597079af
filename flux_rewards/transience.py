"""Whether a failure may pass by itself, and how long the other side asks to wait: told from any exception."""

from __future__ import annotations

import email.utils
import math
import time
from typing import Any

__all__ = ["is_transient", "retry_after"]

# Mistakes in code or input: the same call fails again.
_PERMANENT = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    FileNotFoundError,
    ImportError,
    IsADirectoryError,
    LookupError,
    NameError,
    NotADirectoryError,
    NotImplementedError,
    PermissionError,
    SyntaxError,
    TypeError,
    ValueError,
)
_TRANSIENT_STATUSES = {408, 409, 425, 429}


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed later.

    An exception's own ``retryable`` decides; then the HTTP status that it carries (408, 409, 425, 429 and 5xx may
    pass); else all but mistakes of code and input may: a needless second try costs less than a lost score.

    Examples:
        >>> is_transient(ConnectionResetError()), is_transient(ValueError("not a number"))
        (True, False)
    """
    own = getattr(error, "retryable", None)
    if isinstance(own, bool):
        return own
    status = _status(error)
    if status is not None:
        return status in _TRANSIENT_STATUSES or status >= 500
    return not isinstance(error, _PERMANENT)


def retry_after(error: BaseException) -> float | None:
    """Seconds that the other side asked to wait: the exception's ``retry_after``, or a ``Retry-After`` header.

    Examples:
        >>> error = ConnectionError()
        >>> error.retry_after = 2
        >>> retry_after(error), retry_after(ValueError())
        (2.0, None)
    """
    own: Any = getattr(error, "retry_after", None)
    if own is None:
        headers = getattr(getattr(error, "response", error), "headers", None)
        own = None if headers is None or not hasattr(headers, "get") else headers.get("Retry-After")
    if isinstance(own, str):
        own = _seconds(own)
    usable = isinstance(own, (int, float)) and not isinstance(own, bool) and math.isfinite(own)
    return max(0.0, float(own)) if usable else None


def _status(error: BaseException) -> int | None:
    """As requests, httpx, openai, aiohttp and urllib keep it."""
    places = (
        getattr(error, "status_code", None),
        getattr(getattr(error, "response", None), "status_code", None),
        getattr(error, "status", None),
        getattr(error, "code", None),
    )
    return next((place for place in places if type(place) is int and 100 <= place < 600), None)


def _seconds(header: str) -> float | None:
    """Seconds, or a date."""
    try:
        return float(header)
    except ValueError:
        pass
    try:
        return email.utils.parsedate_to_datetime(header).timestamp() - time.time()
    except (TypeError, ValueError):
        return None
