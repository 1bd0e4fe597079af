"""A scripted chat server that speaks the OpenAI protocol on loopback: a real server, whose answers are told beforehand.

    with ChatServer(said("Score: 8")) as server:
        client = OpenAI(base_url=server.url, api_key="any")

What it answers is an `Answer`, or a function from a `Request` to one, which may be a coroutine function. `said`,
`first_token` and `spoken` make good answers; the others make faults.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import inspect
import io
import json
import socket
import struct
import threading
import time
import traceback
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from chat_answers import (
    MODEL,
    Answer,
    endless,
    first_token,
    hanging_up,
    raw,
    reset,
    said,
    slow,
    spoken,
    status,
)
from PIL import Image

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "Answer",
    "ChatServer",
    "Request",
    "endless",
    "first_token",
    "hanging_up",
    "in_turn",
    "nobody_listens",
    "raw",
    "reset",
    "said",
    "slow",
    "spoken",
    "status",
]


@dataclass(frozen=True)
class Request:
    """One ``POST /v1/chat/completions``."""

    number: int
    """0, 1, ... in order of arrival."""
    headers: Message
    """By name, whatever the case."""
    body: dict[str, Any]
    arrived: float
    """By `time.monotonic`."""

    @property
    def parts(self) -> list[dict[str, Any]]:
        """The parts of all messages, plain text as a part, too."""
        contents = [message["content"] for message in self.body["messages"]]
        texts = [[{"type": "text", "text": content}] if isinstance(content, str) else content for content in contents]
        return [part for content in texts for part in content]

    @property
    def text(self) -> str:
        """All text parts of all messages, a line break between."""
        return "\n".join(part["text"] for part in self.parts if part["type"] == "text")

    @cached_property
    def images(self) -> list[Image.Image]:
        """What the data URLs hold, decoded."""
        urls = [part["image_url"]["url"] for part in self.parts if part["type"] == "image_url"]
        return [Image.open(io.BytesIO(base64.b64decode(url.partition(";base64,")[2], validate=True))) for url in urls]


Script = Callable[[Request], Answer | Awaitable[Answer]]


def in_turn(*answers: Answer) -> Script:
    """One answer after the other, by order of arrival; the last one for all that follow."""
    return lambda request: answers[min(request.number, len(answers) - 1)]


@contextlib.contextmanager
def nobody_listens() -> Iterator[str]:
    """An address that refuses connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody else gets the port; nobody listens
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


class ChatServer:
    """The server, while it is entered.

    Args:
        answer: An answer for every request, or a function that is called for each, in the server's thread.

    Attributes:
        url: To be given to clients as the base URL.
        requests: All that came, in order.
        at_once: The most requests that waited for the end of their answer at once.
        connections: How many were accepted.
        abandoned: Requests whose client left before the end of the answer.
        poured: Bytes of endless bodies that were sent.
    """

    def __init__(self, answer: Answer | Script) -> None:
        self.requests: list[Request] = []
        self.at_once = self.connections = self.abandoned = self.poured = 0
        self._script: Script = answer if callable(answer) else lambda request: answer
        self._mistakes: list[str] = []
        self._ready = threading.Event()
        self._handlers: set[asyncio.Task[None]] = set()
        self._open: set[int] = set()  # requests, by number

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or small packets wait for each other
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self._thread = threading.Thread(target=asyncio.run, args=[self._serve()], name="chat server", daemon=True)
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        # A mistake in the script would else look like a fault of the client.
        assert kind is not None or not self._mistakes, self._mistakes[0]

    @property
    def in_flight(self) -> int:
        """Requests that wait for the end of their answer now."""
        return len(self._open)

    @property
    def connected(self) -> int:
        """Connections that are open now."""
        return len(self._handlers)

    def wait_for(self, count: int, seconds: float = 5.0) -> None:
        """Until so many requests have come."""
        end = time.monotonic() + seconds
        while len(self.requests) < count:
            assert time.monotonic() < end, f"{len(self.requests)} of {count} requests have come"
            time.sleep(0.002)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, sock=self._listener, backlog=4096, limit=1 << 20)
        self._ready.set()
        await self._stop.wait()
        server.close()
        await asyncio.sleep(0.005)  # what was just accepted gets its handler
        for handler in self._handlers:
            handler.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)

    async def _connected(self, reader: StreamReader, writer: StreamWriter) -> None:
        handler = asyncio.current_task()
        assert handler is not None
        self._handlers.add(handler)
        self.connections += 1
        try:
            while await self._answer_one(reader, writer):
                pass
        except (OSError, EOFError, asyncio.CancelledError):  # it left, or the server ends
            pass
        finally:
            self._handlers.discard(handler)
            writer.transport.abort()

    async def _answer_one(self, reader: StreamReader, writer: StreamWriter) -> bool:
        """Answer one request; whether another may follow."""
        line, _, head = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")
        headers = BytesParser().parsebytes(head)
        body = await reader.readexactly(int(headers.get("Content-Length", "0")))
        method, path, _ = line.decode().split()
        if (method, path) != ("POST", "/v1/chat/completions"):
            answer = raw(_MODELS) if (method, path) == ("GET", "/v1/models") else status(404)
            return await self._send(writer, answer)
        request = Request(len(self.requests), headers, json.loads(body), time.monotonic())
        self.requests.append(request)
        self._open.add(request.number)
        self.at_once = max(self.at_once, self.in_flight)
        try:
            return await _unless_gone(reader, self._answer(request, writer))
        except (OSError, EOFError):
            self.abandoned += 1
            raise
        finally:
            self._open.discard(request.number)

    async def _answer(self, request: Request, writer: StreamWriter) -> bool:
        try:
            found = self._script(request)
            answer = await found if inspect.isawaitable(found) else found
        except Exception:  # noqa: BLE001  # told when the server closes
            self._mistakes.append(traceback.format_exc())
            answer = status(400, "the script of the test failed")
        await asyncio.sleep(answer.after)
        if answer.pause is None:
            self._open.discard(request.number)  # now, or the client's next request might come before
        return await self._send(writer, answer)

    async def _send(self, writer: StreamWriter, answer: Answer) -> bool:
        """Send it; whether the connection may be used again."""
        if answer.resets == "at once":
            _reset(writer)
            return False
        endless = answer.pause is not None
        length = {"Transfer-Encoding": "chunked"} if endless else {"Content-Length": str(len(answer.body))}
        headers = {"Content-Type": answer.content_type, **length, **answer.headers}
        head = [f"HTTP/1.1 {answer.code} {HTTPStatus(answer.code).phrase}", *map(": ".join, headers.items())]
        begin = "\r\n".join([*head, "", ""]).encode()
        if answer.resets:
            writer.write(begin + answer.body[: len(answer.body) // 2])
            await writer.drain()
            await asyncio.sleep(0.02)  # a reset overtakes what the client has not read yet
            _reset(writer)
            return False
        while answer.pause is not None:
            writer.write(begin + b"%x\r\n%s\r\n" % (len(answer.body), answer.body))
            begin = b""
            await writer.drain()
            self.poured += len(answer.body)
            await asyncio.sleep(answer.pause)
        writer.write(begin + answer.body)
        await writer.drain()
        return not answer.hangs_up


async def _unless_gone(reader: StreamReader, answering: Awaitable[bool]) -> bool:
    """Answer, unless the client leaves before the end."""
    answer = asyncio.ensure_future(answering)
    leaving = asyncio.ensure_future(reader.read(1))  # nothing is to come before the answer but the end
    try:
        await asyncio.wait([answer, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise EOFError
        return answer.result()
    finally:
        for task in (answer, leaving):
            task.cancel()
        await asyncio.gather(answer, leaving, return_exceptions=True)


def _reset(writer: StreamWriter) -> None:
    """Close with RST instead of FIN."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


_MODELS = {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "tests"}]}
