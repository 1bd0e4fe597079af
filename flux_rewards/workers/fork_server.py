"""The process that workers are forked from, and what a worker does.

Nothing of the caller's program is imported here but the functions that it sends: its main module is not run again. The
server has one thread and never runs a job, so that it always answers: it forks a worker that has everything
imported within milliseconds, kills one with all that its jobs started, and ends with all of its workers when the
caller's process is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import traceback
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from flux_rewards.errors import ComputeError, OverLimitError
from flux_rewards.workers import orphans
from flux_rewards.workers.framing import readable, receive, send

if TYPE_CHECKING:
    from collections.abc import Callable

    from flux_rewards.workers.outcome import Status

__all__ = ["COMMAND", "FORK", "OUT_OF_MEMORY", "REAP", "REPLY", "Reply", "Setup", "serve"]

FORK, REAP = b"f", b"r"
COMMAND = struct.Struct("!cq")
"""What is asked of the server: to fork a worker (its socket comes along), or to kill one and tell how it ended."""
REPLY = struct.Struct("!q")
"""The process id of a new worker, or the wait status of a dead one; -1 where there is none."""
OUT_OF_MEMORY = 97
"""How a worker exits that could get no memory: whatever state it is in, it does not go on."""
LOOK_EVERY = 1.0
"""Seconds after which the server looks for its parent: a copy of the socket may live in a child of that."""


class Setup(NamedTuple):
    """What the server is told first."""

    prepare: bytes
    """A pickled function of no arguments, called once before any worker is forked; or nothing."""
    memory: int | None
    """Bytes of address space that a worker may use."""


class Reply(NamedTuple):
    """What a worker has to say about a job."""

    status: Status
    value: Any = None
    error: bytes = b""
    traceback: str = ""
    unloadable: bool = False
    """Whether the function or its arguments could not be read: no job of this kind ever will."""


def serve(descriptor: int, parent: int) -> None:
    """Run until the parent is gone.

    Args:
        descriptor: Of the socket to the parent.
        parent: Its process id.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches all: the parent decides
    control = socket.socket(fileno=descriptor)
    setup: Setup = pickle.loads(receive(control))  # noqa: S301  # our own parent sent it
    try:
        if setup.prepare:
            pickle.loads(setup.prepare)()  # noqa: S301
        send(control, b"")
    except BaseException as error:  # noqa: BLE001  # whatever it is, the parent must know
        with contextlib.suppress(OSError):
            send(control, pickle.dumps(_raised(error)))
        return
    gc.collect()
    gc.freeze()  # a collection in a worker would copy the pages that it shares with the server
    own = orphans.children()  # a helper that `prepare` started belongs to the server
    orphans.adopt()
    workers: set[int] = set()
    try:
        _answer(control, parent, workers, setup)
    except OSError:
        pass  # the parent is gone
    finally:
        for worker in workers:
            _reap(worker)
        orphans.end(own)  # whoever waits for the server's end knows that all is gone


def _answer(control: socket.socket, parent: int, workers: set[int], setup: Setup) -> None:
    while os.getppid() == parent:
        if not readable(control, LOOK_EVERY):
            continue
        message, descriptors, _, _ = socket.recv_fds(control, COMMAND.size, 1, socket.MSG_WAITALL)
        if len(message) < COMMAND.size:
            return
        command, worker = COMMAND.unpack(message)
        if command == FORK:
            answer = _fork(control, descriptors[0], setup)
            workers.add(answer)
        else:
            answer = _reap(worker) if worker in workers else -1
            workers.discard(worker)
        control.sendall(REPLY.pack(answer))


def _fork(control: socket.socket, descriptor: int, setup: Setup) -> int:
    server = os.getpid()
    sys.stdout.flush()  # else a worker would print it again
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of a numerical library; they are not used here
        worker = os.fork()
    if worker:
        os.close(descriptor)
        return worker
    try:
        _die_with(server)
        os.setsid()  # a group of its own, with what its jobs start
        orphans.adopt()  # a job's daemons stay below the worker, and become the server's children with its end
        control.close()
        if setup.memory is not None:
            _limit_memory(setup.memory)
        _work(socket.socket(fileno=descriptor))
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except (EOFError, OSError):
        pass  # the parent is gone, or wants no more of this worker
    finally:
        os._exit(0)  # the server's own ends are not the worker's


def _reap(worker: int) -> int:
    others = orphans.children()
    orphans.kill_group(worker)
    status = os.waitpid(worker, 0)[1]
    orphans.end(others)  # what had left the worker's group is now the server's child
    return status


def _die_with(server: int) -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != server:
        os._exit(0)


def _limit_memory(limit: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _work(connection: socket.socket) -> None:
    while True:
        reply = _do(connection, *pickle.loads(receive(connection)))  # noqa: S301  # our own parent sent it
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()  # a kill would lose it
        try:
            message = pickle.dumps(reply)
        except Exception as error:  # noqa: BLE001
            message = pickle.dumps(_raised(error))
        send(connection, message)


def _do(connection: socket.socket, function: bytes, arguments: bytes) -> Reply:
    try:
        call, given = _loaded(function), pickle.loads(arguments)  # noqa: S301
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001
        return _raised(error)._replace(unloadable=True)
    send(connection, b"")  # the time begins: imports are not the job's
    try:
        return Reply("ok", call(*given))
    except MemoryError:
        raise
    except BaseException as error:  # noqa: BLE001  # sys.exit() in a job ends the job
        return _raised(error)


@functools.lru_cache(maxsize=64)
def _loaded(function: bytes) -> Callable[..., Any]:
    """Kept, with all that it has made: a reward keeps its compiled patterns, say."""
    loaded: Callable[..., Any] = pickle.loads(function)  # noqa: S301
    return loaded


def _raised(error: BaseException) -> Reply:
    text = "".join(traceback.format_exception(error))
    try:
        sent = pickle.dumps(error)
        portable = isinstance(pickle.loads(sent), Exception)  # noqa: S301  # some can be written, and not read
    except Exception:  # noqa: BLE001
        portable = False
    if not portable:
        sent = pickle.dumps(ComputeError(f"{type(error).__name__}: {error}"))
    return Reply("over_limit" if isinstance(error, OverLimitError) else "error", None, sent, text)
