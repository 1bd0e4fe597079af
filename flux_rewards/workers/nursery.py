"""The caller's side of the fork server: starts it, has workers forked and killed, and ends it."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from multiprocessing.spawn import get_executable

from flux_rewards.errors import ComputeError
from flux_rewards.workers.fork_server import COMMAND, FORK, OUT_OF_MEMORY, REAP, REPLY, Reply, Setup
from flux_rewards.workers.framing import readable, receive, send

__all__ = ["Nursery", "Worker"]

START_SECONDS = 120.0
"""How long the server may take to import what the workers need."""
ANSWER_SECONDS = 30.0
END_SECONDS = 5.0

# The caller's sys.path comes first, before anything is imported: a file json.py beside the program must not be found.
_PROGRAM = (
    "import sys; descriptor, parent, *sys.path = sys.argv[1:]; "
    "from flux_rewards.workers.fork_server import serve; serve(int(descriptor), int(parent))"
)


class Worker:
    """A worker process.

    Args:
        server: What it was forked from.
        process: Its id.
        connection: The socket to it.
    """

    def __init__(self, server: _Server, process: int, connection: socket.socket) -> None:
        self.process, self.connection = process, connection
        self.jobs = 0
        self._server = server

    def is_alive(self) -> bool:
        """Whether it waits for a job; something to read without one is its end."""
        return not readable(self.connection, 0)

    def interrupt(self) -> None:
        """Let whoever waits for its answer find it gone; from another thread."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def kill(self) -> str:
        """Kill it, where it lives; returns how it ended, for a message."""
        self.connection.close()
        status = self._server.ask(REAP, self.process)
        if status is None or status < 0:
            return "with the server that it was forked from"
        code = os.waitstatus_to_exitcode(status)
        if code == OUT_OF_MEMORY:
            return "out of memory"
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"by the signal {signal.Signals(-code).name}"
        return f"with the exit code {code}"


class _Server:
    """A running server process."""

    def __init__(self, setup: Setup) -> None:
        self._lock = threading.RLock()
        self._control, theirs = socket.socketpair()
        try:
            command = [os.fsdecode(get_executable()), "-c", _PROGRAM, str(theirs.fileno()), str(os.getpid())]
            self._process = subprocess.Popen(  # noqa: S603  # this interpreter, and code of our own
                [*command, *map(os.fspath, sys.path)], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
            )
        except BaseException:
            self._control.close()
            raise
        finally:
            theirs.close()
        self.setup = setup

    def wait_until_ready(self) -> None:
        until = time.monotonic() + START_SECONDS
        try:
            send(self._control, pickle.dumps(self.setup), until)
            answer = receive(self._control, until)
        except (OSError, EOFError) as error:
            self.close()
            what = f"not ready after {START_SECONDS:g} s" if isinstance(error, TimeoutError) else "ended at its start"
            code = self._process.returncode
            raise ComputeError(
                f"the process that workers are forked from {what} (exit code {code}); its own words are on stderr"
            ) from error
        if answer:
            self.close()
            reply: Reply = pickle.loads(answer)  # noqa: S301  # our own child sent it
            raise pickle.loads(reply.error)  # noqa: S301

    def ask(self, command: bytes, worker: int = 0, connection: socket.socket | None = None) -> int | None:
        """Send a command; returns the answer, or None where the server is gone."""
        with self._lock:
            try:
                self._control.settimeout(ANSWER_SECONDS)
                message = [COMMAND.pack(command, worker)]
                if connection is None:
                    self._control.sendall(message[0])
                else:
                    socket.send_fds(self._control, message, [connection.fileno()])
                answer = self._control.recv(REPLY.size, socket.MSG_WAITALL)
            except OSError:
                answer = b""
            if len(answer) < REPLY.size:
                self.close()
                return None
            found: int = REPLY.unpack(answer)[0]
            return found

    def close(self) -> None:
        """End it, and its workers with it."""
        with self._lock:
            self._control.close()
            try:
                self._process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:  # it is stopped, or the machine is
                self._process.kill()
                self._process.wait()

    def abandon(self) -> None:
        """In a forked child: the server is the parent's, and must not live as long as the child."""
        self._control.close()
        self._process.returncode = 0  # not this process's child; nothing to wait for


class Nursery:
    """Gives workers; starts the server when the first one is asked for, and again should it die.

    Args:
        setup: What the server is told.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._lock = threading.RLock()
        self._server: _Server | None = None
        self._closed = False

    def worker(self) -> Worker:
        """A new worker.

        Raises:
            ComputeError: The server does not start, or does not answer.
            Exception: What the function that prepares it raised.
        """
        for _ in range(2):
            server = self._running()
            ours, theirs = socket.socketpair()
            process = server.ask(FORK, connection=theirs)
            theirs.close()
            if process is not None:
                return Worker(server, process, ours)
            ours.close()
            with self._lock:
                if self._server is server:
                    self._server = None  # killed since; a new one may live
        raise ComputeError("the process that workers are forked from does not answer")

    def _running(self) -> _Server:
        with self._lock:
            if self._closed:
                raise ComputeError("the pool is closed")
            if self._server is None:
                self._server = _Server(self._setup)
                try:
                    self._server.wait_until_ready()
                except BaseException:
                    self._server = None
                    raise
            return self._server

    def close(self) -> None:
        """End the server, and all workers with it."""
        with self._lock:
            self._closed = True
            server, self._server = self._server, None
        if server is not None:
            server.close()

    def abandon(self) -> None:
        """In a forked child: let go of what is the parent's."""
        server, self._server = self._server, None
        if server is not None:
            server.abandon()
