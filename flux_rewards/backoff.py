"""How long to wait before another try."""

from __future__ import annotations

import random
from collections.abc import Iterable

__all__ = ["pause_before"]

_random = random.Random()  # noqa: S311  # our own: the caller's generator is left alone


def pause_before(attempt: int, *, wait: float, max_wait: float, asked: Iterable[float | None] = ()) -> float:
    """Seconds before try number ``attempt + 1``: exponential, jittered, and no shorter than the other side asks for.

    Args:
        attempt: Tries so far, from 1.
        wait: Seconds, about, before the second one.
        max_wait: Seconds, at most, by back-off; what is asked for may be more.
        asked: What each failure asked for, as by ``Retry-After``.

    Returns:
        Between half of and the whole of ``min(wait * 2 ** (attempt - 1), max_wait)``, or a little more than was asked.

    Examples:
        >>> 2.0 <= pause_before(3, wait=1.0, max_wait=30.0) <= 4.0
        True
        >>> pause_before(1, wait=1.0, max_wait=30.0, asked=[None, 20.0]) >= 20.0
        True
    """
    longest = min(wait * 2.0 ** min(attempt - 1, 60), max_wait)
    own = longest * (1 + _random.random()) / 2
    return max([own, *(seconds + own / 10 for seconds in asked if seconds is not None)])
