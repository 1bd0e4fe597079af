"""A client of an OpenAI-compatible endpoint, shared by all who name the same one."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from flux_rewards.backoff import pause_before
from flux_rewards.chat.limits import Limits
from flux_rewards.chat.reply import Reply, clipped, read_reply
from flux_rewards.errors import RemoteError
from flux_rewards.event_loop import close_on
from flux_rewards.shared import shared
from flux_rewards.transience import is_transient, retry_after

__all__ = ["NO_KEY", "ChatClient", "Endpoint", "Messages", "client_of"]

Messages = Sequence[Mapping[str, Any]]

NO_KEY = "EMPTY"
"""What servers without keys are given."""
LARGEST_BODY = 2 * 2**20
"""Bytes of an answer; a verdict has a few thousand."""
LARGEST_ERROR = 64 * 2**10
"""Bytes that are read of an answer that is an error."""


@dataclass(frozen=True)
class Endpoint:
    """Where a chat model is served, and how much may be asked of it at a time.

    Attributes:
        url: Base URL of the API, such as ``http://localhost:8000/v1``.
        api_key: Sent with each request, and shown nowhere.
        max_concurrent: Requests in flight.
        requests_per_minute: Requests that begin in any 60 seconds; None for any number.
    """

    url: str
    api_key: str = field(repr=False)
    max_concurrent: int = 64
    requests_per_minute: int | None = None


def client_of(endpoint: Endpoint) -> ChatClient:
    """The client of an endpoint in this process: one, as long as anybody holds it."""
    return shared((ChatClient, os.getpid(), endpoint), lambda: ChatClient(endpoint))


class ChatClient:
    """Asks an endpoint; on the library's event loop only.

    Args:
        endpoint: Which one.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        import openai  # noqa: PLC0415  # a second, for those who ask a judge

        self.endpoint = endpoint
        self.limits = Limits(endpoint.max_concurrent, endpoint.requests_per_minute)
        # httpx for some versions of the SDK, httpx2 for others
        (transport,) = {
            kind.__module__ for kind in openai.DefaultAsyncHttpxClient.__mro__ if kind.__name__ == "AsyncClient"
        }
        limits = importlib.import_module(transport.partition(".")[0]).Limits(
            max_connections=endpoint.max_concurrent, max_keepalive_connections=endpoint.max_concurrent
        )
        http = openai.DefaultAsyncHttpxClient(
            limits=limits,
            follow_redirects=False,  # what is judged goes to the endpoint, and nowhere else
            event_hooks={"response": [_read_error]},
        )
        self._openai = openai.AsyncOpenAI(
            base_url=endpoint.url, api_key=endpoint.api_key, max_retries=0, http_client=http
        )
        self.has_answered = False
        """Whether it ever has, but for errors."""
        close_on(self, self._openai.close)

    async def ask(
        self,
        build: Callable[[], Awaitable[Messages]],
        request: Mapping[str, Any],
        *,
        timeout: float,
        max_retries: int,
        until: float,
    ) -> Reply:
        """Ask, and ask again where a failure may pass: 408, 409, 429, 5xx and what happens on the way.

        Args:
            build: Makes the messages, once there is a place for the request: images need memory.
            request: All else of the request's JSON.
            timeout: Seconds for one request and its answer to the last byte.
            max_retries: Requests after the first.
            until: When it is too late to begin, by the loop's clock.

        Raises:
            RemoteError: There was no answer, or one that is an error.
        """
        async with self.limits.slots:
            messages = await build()
            attempt = 0
            while True:
                attempt += 1
                await self.limits.turn(until)
                outcome = await self._once(messages, request, timeout)
                if isinstance(outcome, Reply):
                    return replace(outcome, attempts=attempt)
                if not outcome.retryable or attempt > max_retries:
                    raise _noting(outcome, f"attempt {attempt} of {max_retries + 1}" if outcome.retryable else "")
                pause = pause_before(attempt, wait=0.5, max_wait=30.0, asked=[outcome.retry_after])
                if asyncio.get_running_loop().time() + pause > until:
                    raise _noting(outcome, f"the next attempt, in {pause:.0f} s, would be after the deadline")
                if outcome.retry_after is not None:
                    self.limits.pause(outcome.retry_after)
                await asyncio.sleep(pause)

    async def _once(self, messages: Messages, request: Mapping[str, Any], timeout: float) -> Reply | RemoteError:
        """One request. A failure is returned: an error raised here would drag the SDK's along, and its headers."""
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            body = await asyncio.wait_for(self._body(messages, request, timeout), timeout)
            reply = read_reply(body.decode(errors="replace"), url=self.endpoint.url, hide=self._without_key)
            self.has_answered = True
            return replace(
                reply,
                text=self._without_key(reply.text),
                refusal=reply.refusal and self._without_key(reply.refusal),
                latency=clock() - started,
            )
        except RemoteError as error:
            failure = RemoteError(self._without_key(str(error)), retryable=error.retryable)
        except asyncio.TimeoutError:
            failure = RemoteError(f"{self.endpoint.url} did not answer within {timeout:g} s", retryable=True)
        except Exception as error:  # noqa: BLE001  # the SDK's, its transport's: each is read for what it says
            failure = self._failure(error)
        return failure

    def _failure(self, error: Exception) -> RemoteError:
        answered = error if isinstance(error, _Answered) else error.__cause__
        if isinstance(answered, _Answered):
            says = clipped(self._without_key(answered.body)) + self._hint(answered.status_code)
            if answered.status_code < 400:
                target = self._without_key(str(answered.headers.get("Location")))
                says = (
                    f"a redirect to {clipped(target)}, which is not followed; should that be the api_base_url? {says}"
                )
            return RemoteError(
                f"{self.endpoint.url} answered {answered.status_code}{': ' if says else ''}{says}",
                retryable=is_transient(answered),
                retry_after=retry_after(answered),
                status=answered.status_code,
            )
        cause = f": {type(error.__cause__).__name__}: {error.__cause__}" if error.__cause__ else ""
        says = clipped(self._without_key(f"{type(error).__name__}: {error}{cause}"))
        return RemoteError(f"{self.endpoint.url} could not be asked: {says}", retryable=is_transient(error))

    def _hint(self, status: int) -> str:
        """What it usually comes from, where nothing was ever answered."""
        if self.has_answered:
            return ""
        if status == 401 and self.endpoint.api_key == NO_KEY:
            return " (no key was sent: neither api_key nor OPENAI_API_KEY is set)"
        if status == 404 and not urlsplit(self.endpoint.url).path:
            return f" (at /chat/completions; should api_base_url be {self.endpoint.url}/v1?)"
        return " (at /chat/completions; is vlm_model the name under which it is served?)" if status == 404 else ""

    async def _body(self, messages: Messages, request: Mapping[str, Any], timeout: float) -> bytes:
        """The answer, read as it is: the SDK would take any JSON for a completion, and a page of HTML for text."""
        rest = dict(request)
        received = bytearray()
        async with self._openai.chat.completions.with_streaming_response.create(
            model=rest.pop("model"),
            messages=messages,  # type: ignore[arg-type]  # one of a dozen typed dicts
            extra_body=rest,
            timeout=timeout,
        ) as response:
            async for piece in response.iter_bytes():
                received += piece
                if len(received) > LARGEST_BODY:
                    raise RemoteError(f"{self.endpoint.url} answered with more than {LARGEST_BODY >> 20} MiB")
        return bytes(received)

    def _without_key(self, text: str) -> str:
        """A server may send back what it was sent, as it is or in the escapes of JSON."""
        key = self.endpoint.api_key
        if len(key) >= 8:  # not "EMPTY", or another word that anything may hold
            for form in (key, json.dumps(key)[1:-1], "".join(f"\\u{ord(character):04x}" for character in key)):
                text = text.replace(form, "[key]")
        return text


class _Answered(Exception):  # noqa: N818  # never leaves this file
    """An answer with a status of 300 or more."""

    def __init__(self, status_code: int, headers: Mapping[str, str], body: str) -> None:
        super().__init__(body)
        self.status_code = status_code
        self.headers = headers
        self.body = body


async def _read_error(response: Any) -> None:
    """Read an error's body in place of the SDK, which reads without end, and drops what has not the API's own form."""
    if response.status_code >= 300:
        received = bytearray()
        async for piece in response.aiter_bytes():
            received += piece
            if len(received) > LARGEST_ERROR:
                break
        raise _Answered(response.status_code, response.headers, received.decode(errors="replace"))


def _noting(error: RemoteError, note: str) -> RemoteError:
    if note:
        error.args = (f"{error.args[0]} ({note})",)
    return error
