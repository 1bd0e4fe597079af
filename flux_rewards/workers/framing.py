"""Messages over a stream socket: eight bytes of length, then the bytes. Both ends are processes of our own."""

from __future__ import annotations

import select
import struct
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

__all__ = ["readable", "receive", "send"]

_LENGTH = struct.Struct("!Q")
_PIECE = 1 << 20


def send(connection: socket.socket, message: bytes, until: float | None = None) -> None:
    """Send a message, whatever the other side reads meanwhile.

    Args:
        connection: A stream socket.
        message: The bytes.
        until: When to give up, by `time.monotonic`; None: never.

    Raises:
        TimeoutError: The other side did not take it in time.
        OSError: The other side is gone.
    """
    _set_limit(connection, until)
    connection.sendall(_LENGTH.pack(len(message)) + message)


def receive(connection: socket.socket, until: float | None = None) -> bytes:
    """The next message.

    Raises:
        TimeoutError: It was not there in time.
        EOFError: The other side is gone.
    """
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size, until))
    return _exactly(connection, length, until)


def readable(connection: socket.socket, seconds: float) -> bool:
    """Whether there is something to read, or the end, within so many seconds."""
    poll = select.poll()  # select() knows no descriptor above 1,023, of which a training process has many
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _exactly(connection: socket.socket, count: int, until: float | None) -> bytes:
    pieces: list[bytes] = []
    while count:
        _set_limit(connection, until)
        piece = connection.recv(min(count, _PIECE))
        if not piece:
            raise EOFError("the other side is gone")
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def _set_limit(connection: socket.socket, until: float | None) -> None:
    if until is None:
        if connection.gettimeout() is not None:
            connection.settimeout(None)
        return
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time is over")
    connection.settimeout(left)
