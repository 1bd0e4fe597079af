"""Requests to one server or to several that serve the same: connections, retries, failover."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flux_rewards.backoff import pause_before
from flux_rewards.errors import RemoteError
from flux_rewards.threads import RenewedLock, this_thread
from flux_rewards.transience import retry_after
from flux_rewards.wire.samples import PATIENCE_HEADER

if TYPE_CHECKING:
    import requests

__all__ = ["Answered", "Servers"]

CONNECT_SECONDS = 5.0
HEALTH_SECONDS = 5.0
SULK_SECONDS = 5.0
"""How long a server that failed is asked last."""
LARGEST_ANSWER = 2**30
"""Bytes; token rewards of thousands of samples have some."""
LONGEST_PAUSE = 60.0
"""Seconds that a server may ask to wait, where it is not waited for longer anyway."""
_AGAIN = (408, 425, 429, 500, 502, 503, 504)
_ONLY_THERE = (401, 403, 404, 405, 413, 501)
"""What a server of several may answer alone: another token, another service, other limits."""


@dataclass(frozen=True)
class Answered:
    """An answer that was read whole."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def text(self) -> str:
        """Its body as text."""
        return self.content.decode(errors="replace")

    def json(self) -> Any:
        """Its body as JSON."""
        return json.loads(self.content)


class Servers:
    """Servers that answer alike, asked in turn; one that fails is passed over for a while.

    Args:
        urls: Their addresses.
        token: Sent with each request, and shown nowhere.
        timeout: Seconds for one request.
        attempts: Requests in all, over all servers; one that did not answer in time is not asked again.
        patience: Seconds to wait for a server that is not there or still loads.
    """

    def __init__(
        self, urls: Sequence[str], *, token: str | None, timeout: float, attempts: int, patience: float
    ) -> None:
        self._urls = list(urls)
        self._token = token
        self._timeout, self._attempts, self._patience = timeout, attempts, patience
        self._turn = itertools.count()
        self._failed: dict[str, float] = {}
        self._lock = RenewedLock()
        self._local = threading.local()

    def get(self, path: str) -> Any:
        """The JSON of a page.

        Raises:
            RemoteError: There is none.
        """
        return self.request("GET", path, lambda response: response.json())

    def request(
        self,
        method: str,
        path: str,
        read: Callable[[Answered], Any],
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Ask, and ask again where that may help.

        Args:
            method: Of HTTP.
            path: Below the address.
            read: Reads an answer with the status 200; a `ValueError` makes it one that cannot be read.
            body: Of the request.
            headers: Of the request.

        Raises:
            RemoteError: No server answered, or one with an error.
        """
        waited_until = time.monotonic() + self._patience
        attempt = 0
        asked: set[str] = set()
        while True:
            url = self._next()
            asked.add(url)
            outcome, is_up = self._once(method, url, path, read, body=body, headers=headers)
            if not isinstance(outcome, RemoteError):
                self._failed.pop(url, None)
                return outcome
            # What one server could not do in time, it would begin anew beside what it still does.
            slow = isinstance(outcome.__cause__, TimeoutError) or outcome.status == 504
            self._failed[url] = time.monotonic()
            if slow or not outcome.retryable:
                if (slow or outcome.status in _ONLY_THERE) and not asked.issuperset(self._urls):
                    continue
                raise outcome
            late = time.monotonic() >= waited_until
            if is_up or late:  # one that is not there yet costs no attempt
                attempt += 1
            if attempt >= self._attempts or (late and not is_up):
                tried = f" (attempt {attempt} of {self._attempts})" if is_up else f" (for {self._patience:g} s)"
                outcome.args = (outcome.args[0] + tried,)
                raise outcome
            if any(other not in self._failed for other in self._urls):
                continue  # another one at once
            if (outcome.retry_after or 0.0) > max(LONGEST_PAUSE, self._patience) and is_up:
                outcome.args = (f"{outcome.args[0]} (asks to wait {outcome.retry_after:.3g} s)",)
                raise outcome
            pause = pause_before(max(1, attempt), wait=0.25, max_wait=5.0, asked=[outcome.retry_after])
            self._rest(pause if is_up else max(0.0, min(pause, waited_until - time.monotonic())))

    def _once(
        self,
        method: str,
        url: str,
        path: str,
        read: Callable[[Answered], Any],
        *,
        body: bytes | None,
        headers: Mapping[str, str] | None,
    ) -> tuple[Any, bool]:
        """What a server answered, or why it did not; and whether it is there at all."""
        import requests  # noqa: PLC0415  # a fifth of a second, for those who ask a server
        import urllib3  # noqa: PLC0415  # which requests stands on

        try:
            answer = self._answer(method, url + path, body, headers or {})
        except requests.ConnectionError as error:
            failure = RemoteError(f"{url} cannot be reached: {self._reason(error)}", retryable=True)
            return failure, not self._never_began(error)
        except (requests.Timeout, urllib3.exceptions.ReadTimeoutError, TimeoutError):
            message = f"{url} did not answer within {self._timeout:g} s; send fewer samples a request, or wait longer"
            failure = RemoteError(message, retryable=True)
            failure.__cause__ = TimeoutError(message)
            return failure, True
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            return RemoteError(f"{url} cannot be asked: {self._reason(error)}", retryable=True), True
        if answer.status_code == 200:
            try:
                return read(answer), True
            except (ValueError, OverflowError) as error:
                return RemoteError(f"{url}{path} sent an answer that cannot be read: {error}", retryable=True), True
        state = answer.text[:500] if answer.status_code == 503 else ""
        loading = '"loading"' in state or "is loading" in state or ("NotReady" in state and "failed" not in state)
        failed = '"failed"' in state or "is failed" in state  # for good
        failure = RemoteError(
            f"{url}{path} answered {answer.status_code}: {self._told(answer)}",
            retryable=answer.status_code in _AGAIN and not failed and not self._is_final(answer),
            retry_after=retry_after(_Failed(answer)),
            status=answer.status_code,
        )
        return failure, not loading

    def _answer(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> Answered:
        """One answer, whole: its time is up when it is, however the server trickles."""
        until = time.monotonic() + self._timeout
        received = bytearray()
        with self._session().request(
            method,
            url,
            data=body,
            headers={**headers, **({} if body is None else {PATIENCE_HEADER: f"{self._timeout:g}"})},
            auth=_Token(self._token),
            timeout=(CONNECT_SECONDS, self._timeout),
            allow_redirects=False,
            stream=True,
        ) as response:
            read = getattr(response.raw, "read1", response.raw.read)  # what is there; urllib3 1 waits for more
            while piece := read(65536, decode_content=True):
                received += piece
                if time.monotonic() > until:
                    raise TimeoutError
                if len(received) > LARGEST_ANSWER:
                    raise OSError(f"more than {LARGEST_ANSWER >> 20} MiB")
            return Answered(response.status_code, response.headers, bytes(received))

    def _told(self, response: Answered) -> str:
        try:
            error = response.json()["error"]
            text = f"{error['type']}: {error['message']}" if isinstance(error, dict) else str(error)
        except (ValueError, LookupError, TypeError):
            text = " ".join(response.text.split())  # a page of a proxy has many lines
        text = text if len(text) <= 500 else f"{text[:500]} [...]"
        return text.replace(self._token, "[token]") if self._token else text

    @staticmethod
    def _is_final(response: Answered) -> bool:
        """Whether the server says that to ask again would not help."""
        try:
            return response.json()["error"]["retryable"] is False
        except (ValueError, LookupError, TypeError):
            return False

    @staticmethod
    def _never_began(error: BaseException | None) -> bool:
        """Whether there was no connection: nobody listens, no such name (yet), no way there."""
        import urllib3  # noqa: PLC0415  # loaded already

        none = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError, ConnectionRefusedError)
        while error is not None:
            if isinstance(error, none) or isinstance(getattr(error, "reason", None), none):
                return True
            error = error.__context__
        return False

    @staticmethod
    def _reason(error: BaseException) -> str:
        """The innermost cause: the outer ones repeat the address."""
        while error.__context__ is not None and str(error.__context__):
            error = error.__context__
        return f"{type(error).__name__}: {error}"

    def _next(self) -> str:
        """The next in turn of those that work; where none does, the one that failed first."""
        with self._lock:
            now = time.monotonic()
            self._failed = {url: since for url, since in self._failed.items() if now - since < SULK_SECONDS}
            start = next(self._turn) % len(self._urls)
            turned = self._urls[start:] + self._urls[:start]
            return min(turned, key=lambda url: self._failed.get(url, 0.0))

    def _session(self) -> requests.Session:
        import requests  # noqa: PLC0415  # loaded already

        held: tuple[int, requests.Session] | None = getattr(self._local, "held", None)
        if held is None or held[0] != os.getpid():  # sockets are not shared between threads, nor with a parent
            held = os.getpid(), requests.Session()
            self._local.held = held
        return held[1]

    @staticmethod
    def _rest(seconds: float) -> None:
        stopped = this_thread.stopped
        if stopped is None:
            time.sleep(seconds)
        elif stopped.wait(seconds):
            raise CancelledError


class _Token:
    """What puts the token into a request; where it is there, requests looks into no netrc file."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: Any) -> Any:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class _Failed(Exception):  # noqa: N818  # what `retry_after` looks into
    def __init__(self, response: Answered) -> None:
        super().__init__()
        self.response = response
