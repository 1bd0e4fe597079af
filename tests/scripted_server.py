"""A server on 127.0.0.1 that answers as a test says, and notes what it was asked."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from flux_rewards.contract import Scored
from flux_rewards.data import RewardBatch, Sample
from flux_rewards.wire.answers import ANSWER_TYPE, pack_answer
from flux_rewards.wire.samples import SAMPLES_TYPE, unpack_samples


@dataclass(frozen=True)
class Reply:
    """What a server answers.

    Attributes:
        code: The status.
        body: Text, bytes, or what is written as JSON.
        headers: Beside ``Content-Length``.
        after: Seconds before anything is sent.
        does: "answer"; "reset" the connection instead; "hang up" in the middle; "trickle", a byte at a time.
    """

    code: int = 200
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    after: float = 0.0
    does: str = "answer"

    @property
    def content(self) -> bytes:
        """The body in bytes."""
        if isinstance(self.body, bytes):
            return self.body
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()


@dataclass(frozen=True)
class Asked:
    """A request."""

    number: int
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float
    connection: int

    @property
    def json(self) -> Any:
        """Its body."""
        return json.loads(self.body)


Script = Callable[[Asked], Reply]
TWO = [Sample(response="ab"), Sample(response="cde")]
LENGTHS = [2.0, 3.0]
"""What `lengths` says of them."""
SECRET = "s3cret-t0ken"  # noqa: S105
KNOWN: dict[str, Any] = {
    "name": "Served",
    "scope": "sample",
    "required_fields": ["response"],
    "optional_fields": [],
    "bounds": None,
    "higher_is_better": True,
    "reference_is_media": False,
    "version": "1",
}


class ScriptedServer:
    """A server while `scripted` is entered.

    Attributes:
        url: Its address.
        asked: All requests.
        trickled: Bytes that were sent one at a time.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[Asked] = []
        self.trickled = 0

    def to(self, path: str) -> list[Asked]:
        """The requests for a path."""
        return [asked for asked in self.asked if asked.path == path]

    @property
    def scored(self) -> list[Asked]:
        """The requests for scores."""
        return self.to("/v1/score")


def lengths(asked: Asked) -> Reply:
    """What a right server answers: the lengths of the responses."""
    assert asked.headers["Content-Type"] == SAMPLES_TYPE
    rewards = [float(len(str(sample.response))) for sample in unpack_samples(asked.body)]
    return Reply(body=pack_answer(Scored(RewardBatch(np.array(rewards)), {})), headers={"Content-Type": ANSWER_TYPE})


def in_turn(*replies: Reply | Script) -> Script:
    """One after the other for each request for scores; the last for all that follow."""
    lock, turns = threading.Lock(), iter(range(10**6))

    def answer(asked: Asked) -> Reply:
        with lock:
            reply = replies[min(next(turns), len(replies) - 1)]
        return reply if isinstance(reply, Reply) else reply(asked)

    return answer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        asked = self.server.note(self, body)
        if self.path == "/v1/rewards":
            self._send(self.server.known)
        elif self.path == "/health":
            self._send(Reply(body={"status": "ok"}))
        else:
            score = self.server.score
            self._send(score if isinstance(score, Reply) else score(asked))

    def _send(self, reply: Reply) -> None:
        self.server.stopping.wait(reply.after)
        with contextlib.suppress(OSError):  # the client has left
            if reply.does == "reset":
                self.close_connection = True
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                return
            self.close_connection = reply.does == "hang up"
            self.send_response(reply.code)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.content) + (10 if reply.does == "hang up" else 0)))
            self.end_headers()
            pieces = [reply.content] if reply.does != "trickle" else [bytes([byte]) for byte in reply.content]
            for number, piece in enumerate(pieces):
                if number and self.server.stopping.wait(0.05):
                    return
                self.server.told.trickled += reply.does == "trickle"
                self.wfile.write(piece)

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, score: Reply | Script, known: Reply) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.score, self.known = score, known
        self.stopping, self.lock = threading.Event(), threading.Lock()
        self.told = ScriptedServer(f"http://127.0.0.1:{self.server_address[1]}")

    def note(self, handler: _Handler, body: bytes) -> Asked:
        headers: Any = handler.headers  # by name, whatever the case
        with self.lock:
            number = len(self.told.asked)
            asked = Asked(number, handler.command, handler.path, headers, body, time.monotonic(), id(handler))
            self.told.asked.append(asked)
        return asked

    def handle_error(self, *_: Any) -> None:
        """A client that has left is no error."""


@contextlib.contextmanager
def scripted(
    score: Reply | Script = lengths, *, known: Reply | Mapping[str, Any] = KNOWN, port: int = 0
) -> Iterator[ScriptedServer]:
    """Serve.

    Args:
        score: What is answered to ``/v1/score`` and ``/compute``, or who decides it.
        known: What ``/v1/rewards`` answers.
        port: Where; 0 for a free one.
    """
    listener = _Listener(port, score, known if isinstance(known, Reply) else Reply(body=dict(known)))
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield listener.told
    finally:
        listener.stopping.set()
        listener.shutdown()
        listener.server_close()
        thread.join()


@contextlib.contextmanager
def nobody() -> Iterator[str]:
    """An address that refuses connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"
