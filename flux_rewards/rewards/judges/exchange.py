"""The requests of one call of a judge, side by side, under one deadline."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from flux_rewards.chat.reply import Reply, clipped
from flux_rewards.errors import ComputeError, JudgeError, RemoteError
from flux_rewards.event_loop import run_in_background
from flux_rewards.threads import this_thread

if TYPE_CHECKING:
    from flux_rewards.chat.client import ChatClient, Messages

__all__ = ["Exchange", "Verdict", "side_by_side", "total"]

T = TypeVar("T")

_FOR_ALL = (403, 404)
"""Statuses that say nothing about a sample where nothing else was ever answered: the address, or the model's name."""


@dataclass(frozen=True)
class Verdict(Generic[T]):
    """What was read from a reply, and what it took.

    Attributes:
        value: What was read.
        reply: The reply.
        attempts: Requests, those before that failed or could not be read too.
        prompt_tokens: Of all replies.
        completion_tokens: Of all replies.
    """

    value: T
    reply: Reply
    attempts: int
    prompt_tokens: int | None
    completion_tokens: int | None

    @property
    def metadata(self) -> dict[str, Any]:
        """What a sample's metadata say of it."""
        return {
            "verdict": clipped(self.reply.text, 500),
            "tokens": {"prompt": self.prompt_tokens, "completion": self.completion_tokens},
            "latency": round(self.reply.latency, 4),
            "attempts": self.attempts,
        }


class Exchange:
    """How the samples of one call ask.

    Args:
        client: Whom.
        request: All of a request but its messages and its form.
        over: What stands over all of it.
        timeout: Seconds for one request.
        max_retries: Further requests after a failure that may pass.
        retry_unreadable: Further requests after a reply that cannot be read.
        until: When it is too late, by the loop's clock.
        adopt: What a thread that encodes images enters, to stand in for the calling one.
    """

    def __init__(
        self,
        client: ChatClient,
        request: Mapping[str, Any],
        over: Mapping[str, Any],
        *,
        timeout: float,
        max_retries: int,
        retry_unreadable: int,
        until: float,
        adopt: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self._adopt = adopt
        self._client = client
        self._request, self._over = request, over
        self._timeout, self._max_retries, self._until = timeout, max_retries, until
        self._retry_unreadable = retry_unreadable
        self._samples_replies = {**request, **over}.get("temperature") != 0

    def ends_all(self, error: BaseException) -> bool:
        """Whether a failure says nothing about its sample: all others would fail alike."""
        status = getattr(error, "status", None)
        return status == 401 or (status in _FOR_ALL and not self._client.has_answered)

    async def ask(
        self,
        build: Callable[[], Messages],
        read: Callable[[Reply], T],
        extra: Mapping[str, Any] | None = None,
        *,
        slow_to_build: bool = False,
    ) -> Verdict[T]:
        """Ask, and read the reply.

        Args:
            build: Makes the messages.
            read: Reads the reply; raises a `JudgeError` where it cannot be read.
            extra: More of the request.
            slow_to_build: There are images to encode, which is done in another thread.

        Raises:
            RemoteError: There was no answer.
            JudgeError: No reply could be read; the message has the last one, cut short.
        """

        def built() -> Messages:
            with self._adopt():
                return build()

        async def messages() -> Messages:
            return await asyncio.to_thread(built) if slow_to_build else build()

        request = {**self._request, **(extra or {}), **self._over}
        attempts, spent = 0, []
        for turn in itertools.count(1):
            reply = await self._client.ask(
                messages,
                {name: value for name, value in request.items() if value is not None},
                timeout=self._timeout,
                max_retries=self._max_retries,
                until=self._until,
            )
            attempts += reply.attempts
            spent.append(reply)
            try:
                value = read(reply)
            except JudgeError as error:
                problem, why = error.problem, error.args[0]
            else:
                return Verdict(value, reply, attempts, total(spent, "prompt_tokens"), total(spent, "completion_tokens"))
            if turn > self._retry_unreadable:
                break
        times = f" {attempts} requests;" if attempts > 1 else ""
        said = f"the reply: {clipped(reply.text)!r}" if reply.text else "it said nothing"
        raise JudgeError(f"{why};{times} {said}", problem, retryable=self._samples_replies)


def side_by_side(
    jobs: Sequence[Callable[[Exchange], Awaitable[T]]], start: Callable[[float], Exchange], deadline: float
) -> list[T | Exception | None]:
    """Run the jobs of one call on the library's loop, and wait for them.

    Args:
        jobs: One a sample, say.
        start: Makes the exchange, from when it is too late by the loop's clock.
        deadline: Seconds for all of them.

    Returns:
        For each what it returned or raised; None for those that were given up because another one's failure makes
        them worthless.
    """
    return run_in_background(
        _all(jobs, start, deadline, stop_at_failure=this_thread.stop_at_failure), this_thread.stopped
    )


async def _all(
    jobs: Sequence[Callable[[Exchange], Awaitable[T]]],
    start: Callable[[float], Exchange],
    deadline: float,
    *,
    stop_at_failure: bool,
) -> list[T | Exception | None]:
    until = asyncio.get_running_loop().time() + deadline
    call = _Call(start(until), stop_at_failure=stop_at_failure)
    rows = await call.run(jobs, until)
    late = RemoteError(
        f"not answered within the deadline of {deadline:g} s for all {len(rows)} of the call; raise deadline, or "
        "max_concurrent where the endpoint bears it",
        retryable=True,
    )
    given_up = call.in_their_place if call.ended_by is not None else late
    found = [given_up if isinstance(row, asyncio.CancelledError) else row for row in rows]
    # None alone would say that the reward does not apply.
    assert call.ended_by is None or any(isinstance(row, Exception) for row in found)  # noqa: S101
    return found


class _Call:
    """The jobs of one call, until they are done or one of them ends all."""

    def __init__(self, exchange: Exchange, *, stop_at_failure: bool) -> None:
        self.ended_by: Exception | None = None
        self.in_their_place: Exception | None = None
        """What those failed of that were given up: None where that makes no difference."""
        self._exchange = exchange
        self._stop_at_failure = stop_at_failure
        self._tasks: list[asyncio.Task[Any]] = []

    async def run(self, jobs: Sequence[Callable[[Exchange], Awaitable[Any]]], until: float) -> list[Any]:
        """What each returned or raised, or that it was cancelled."""
        try:
            for job in jobs:
                self._tasks.append(asyncio.ensure_future(self._row(job)))
                if self.ended_by is not None:
                    self._tasks[-1].cancel()
                await asyncio.sleep(0)  # the first request is on its way while the second is prepared, and so on
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=until - asyncio.get_running_loop().time())
        finally:
            for task in self._tasks:
                task.cancel()
        return await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _row(self, job: Callable[[Exchange], Awaitable[Any]]) -> Any:
        try:
            return await job(self._exchange)
        except (SystemExit, KeyboardInterrupt) as error:  # would end the loop, and every judge with it
            return ComputeError(f"a judge's own code ended by {type(error).__name__}")
        except Exception as error:  # noqa: BLE001  # the row's own
            ends_all = self._exchange.ends_all(error)
            if ends_all or (self._stop_at_failure and not getattr(error, "retryable", False)):
                self._end(error, in_their_place=error if ends_all else None)
            return error

    def _end(self, error: Exception, in_their_place: Exception | None) -> None:
        if self.ended_by is None:
            self.ended_by, self.in_their_place = error, in_their_place
            for task in self._tasks:
                if task is not asyncio.current_task():
                    task.cancel()


def total(replies: Sequence[Reply | Verdict[Any]], what: str) -> int | None:
    """The sum of a count over replies; None where an endpoint does not tell it."""
    counts = [getattr(reply, what) for reply in replies]
    return None if None in counts else sum(counts)
