"""A connection to an SQLite file that outlives neither a fork nor the interpreter."""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from typing import ClassVar

__all__ = ["Handle"]


class Handle:
    """A store's lock and connection: no fork leaves the one locked or carries the other into the child.

    SQLite keeps its file locks in tables of the process. A child inherits the tables but not the locks, so even a
    new connection there would trust locks that nobody holds. So connections are closed before a fork.
    """

    known: ClassVar[weakref.WeakSet[Handle]] = weakref.WeakSet()
    known_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.has_ended = False
        self.connection: sqlite3.Connection | None = None
        with self.known_lock:
            self.known.add(self)

    def close(self) -> None:
        """Close the connection, if there is one; whoever calls holds the lock."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def close_at_last(self) -> None:
        """Close it for good, at the end of its owner or of the program."""
        if self.lock.acquire(timeout=1.0):  # closing what a thread works with, as the process ends, would crash it
            self.close()
            self.has_ended = True  # workers that are still at it must not open the file again
            self.lock.release()

    @classmethod
    def hold_all(cls) -> None:
        """Before a fork: nobody works, and nothing is open."""
        cls.known_lock.acquire()
        for handle in list(cls.known):
            handle.lock.acquire()
            handle.close()

    @classmethod
    def free_all(cls) -> None:
        """After a fork, on both sides."""
        for handle in list(cls.known):
            handle.lock.release()
        cls.known_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=Handle.hold_all, after_in_parent=Handle.free_all, after_in_child=Handle.free_all)
