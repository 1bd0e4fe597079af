"""How much an endpoint is asked for at a time."""

from __future__ import annotations

import asyncio
from collections import deque

from flux_rewards.errors import RemoteError

__all__ = ["Limits"]

_MINUTE = 60.0


class Limits:
    """Requests in flight, and requests that begin in any minute; for use on one event loop.

    Args:
        max_concurrent: Requests in flight.
        requests_per_minute: Requests that begin in any 60 seconds; None for any number.

    Examples:
        >>> async def example():
        ...     limits = Limits(2, requests_per_minute=100)
        ...     async with limits.slots:
        ...         await limits.turn(until=asyncio.get_running_loop().time() + 10)
        >>> asyncio.run(example())
    """

    def __init__(self, max_concurrent: int, requests_per_minute: int | None = None) -> None:
        self.slots = asyncio.Semaphore(max_concurrent)
        self._per_minute = requests_per_minute
        self._begun: deque[float] = deque()
        self._paused_until = 0.0

    def pause(self, seconds: float) -> None:
        """Nobody begins for so long: the endpoint asked for it, and means all."""
        self._paused_until = max(self._paused_until, asyncio.get_running_loop().time() + seconds)

    async def turn(self, until: float) -> None:
        """Wait until a request may begin.

        Args:
            until: When it is too late, by the loop's clock.

        Raises:
            RemoteError: It would be too late.
        """
        clock = asyncio.get_running_loop().time
        while True:
            now = clock()
            wait = self._paused_until - now
            if self._per_minute is not None:
                while self._begun and self._begun[0] <= now - _MINUTE:
                    self._begun.popleft()
                if len(self._begun) >= self._per_minute:
                    wait = max(wait, self._begun[0] + _MINUTE - now)
            if wait <= 0:
                if self._per_minute is not None:
                    self._begun.append(now)
                return
            if now + wait > until:
                message = f"the next request may begin in {wait:.0f} s, which is after the deadline of the call"
                raise RemoteError(message, retryable=True, retry_after=wait)
            await asyncio.sleep(wait)
