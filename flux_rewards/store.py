"""Where cached scores are kept: bytes by key, in memory or in one SQLite file that many processes share."""

from __future__ import annotations

import os
import random
import sqlite3
import sys
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from zlib import crc32

from flux_rewards.errors import ComputeError, ConfigError, brief
from flux_rewards.sqlite_handle import Handle

__all__ = ["MemoryStore", "SQLiteStore", "Store", "StoreStats"]

_BUSY_SECONDS = 30.0
_KEYS_A_QUERY = 500  # older builds of SQLite take 999 parameters
_MARKS_KEPT = 16384  # with fewer, the same pages would be written more often
_CACHE_KIB = 32 * 1024  # SQLite's own 2 MiB make random reads of a large file half as fast
_APPLICATION_ID = 0x666C7578  # "flux": marks the file as ours
_VERSION = 1
_SCHEMA = (
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_VERSION}",
    "CREATE TABLE entry (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, value BLOB NOT NULL, crc INTEGER NOT NULL)",
    # Apart from the values, so that marking and evicting touch few pages; no index, so that a mark is cheap.
    "CREATE TABLE recency (id INTEGER PRIMARY KEY, used INTEGER NOT NULL, size INTEGER NOT NULL)",
    # One row. The clock counts uses, so that their order needs no time of day; it gives entries their ids as well.
    "CREATE TABLE total (bytes INTEGER NOT NULL, clock INTEGER NOT NULL)",
    "INSERT INTO total VALUES (0, 0)",
    "CREATE TRIGGER entry_gone AFTER DELETE ON entry BEGIN DELETE FROM recency WHERE id = old.id; END",
    "CREATE TRIGGER bytes_more AFTER INSERT ON recency BEGIN UPDATE total SET bytes = bytes + new.size; END",
    "CREATE TRIGGER bytes_less AFTER DELETE ON recency BEGIN UPDATE total SET bytes = bytes - old.size; END",
)
# Full or locked, misused, too large: anything else that SQLite raises is a damaged file.
_NO_DAMAGE = (sqlite3.OperationalError, sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.DataError)
_EVICT = """DELETE FROM entry WHERE id IN (
    SELECT id FROM (SELECT id, sum(size) OVER (ORDER BY used) - size AS older FROM recency) WHERE older < ?)"""


@dataclass(frozen=True)
class StoreStats:
    """Its entries, the bytes of their keys and values (a file is larger), their limit or None, the file or None."""

    entries: int
    bytes: int
    max_bytes: int | None
    path: str | None


class Store(Protocol):
    """Keeps bytes by key, for several threads; it may forget any of them, but what it returns is what was put."""

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values of those keys that are there."""

    def put(self, items: Mapping[bytes, bytes]) -> None:
        """Keep all items, or none where it raises; a key that is there gets the new value."""

    def stats(self) -> StoreStats:
        """Return how much is kept."""

    def clear(self) -> int:
        """Forget everything and return how many entries that were."""

    def close(self) -> None:
        """Let go of files; the next call opens them again."""


class MemoryStore:
    """Entries of this process, gone with it; the least recently used go first.

    An item larger than `max_bytes` is not kept. A copy, also a pickled one, starts empty.

    Args:
        max_bytes: The most that keys and values may take together; what Python adds to each is not counted.

    Raises:
        ConfigError: `max_bytes` is no whole number of at least 1.

    Examples:
        >>> store = MemoryStore(max_bytes=4)
        >>> store.put({b"a": b"1", b"b": b"2"})
        >>> store.get([b"a"])
        {b'a': b'1'}
        >>> store.put({b"c": b"3"})  # b was used least recently
        >>> sorted(store.get([b"a", b"b", b"c"]))
        [b'a', b'c']
    """

    def __init__(self, max_bytes: int = 256 * 2**20) -> None:
        self.max_bytes = _limit(max_bytes)
        self._handle = Handle()
        self._entries: OrderedDict[bytes, bytes] = OrderedDict()
        self._bytes = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.max_bytes,)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values of those keys that are there."""
        with self._handle.lock:
            found = {key: self._entries[key] for key in keys if key in self._entries}
            for key in found:
                self._entries.move_to_end(key)
        return found

    def put(self, items: Mapping[bytes, bytes]) -> None:
        """Keep items; what was used least recently goes until all fits."""
        with self._handle.lock:
            for key, value in items.items():
                if (old := self._entries.pop(key, None)) is not None:
                    self._bytes -= len(key) + len(old)
                if len(key) + len(value) <= self.max_bytes:
                    self._entries[key] = value
                    self._bytes += len(key) + len(value)
            while self._bytes > self.max_bytes:
                key, value = self._entries.popitem(last=False)
                self._bytes -= len(key) + len(value)

    def stats(self) -> StoreStats:
        """Return how much is kept."""
        with self._handle.lock:
            return StoreStats(len(self._entries), self._bytes, self.max_bytes, None)

    def clear(self) -> int:
        """Forget everything and return how many entries that were."""
        with self._handle.lock:
            entries, self._bytes = len(self._entries), 0
            self._entries.clear()
        return entries

    def close(self) -> None:
        """Do nothing: there is no file to let go of."""


class SQLiteStore:
    """Entries in one file, shared by any number of threads and processes of one machine.

    The file is opened, or made, at the first use; its folder must exist. A process may be killed at any moment: a
    put is whole or absent, and a row whose checksum does not fit counts as absent.

    With a limit, a put that exceeds it removes what was used least recently until 90 % of the limit is left; an item
    larger than that is not kept. Reads are marked in memory and written with the next put, after some thousands of
    them, or by `close`, so the order of use is exact per call and process only; a store without a limit marks no reads.
    Evicted space is used again, but the file shrinks only by `clear`. It does not work on a network file system.

    Args:
        path: The file. ``:memory:`` and ``~`` mean nothing special.
        max_bytes: The most that keys and values may take together, None for no limit. Whoever puts keeps its own.

    Raises:
        ConfigError: `max_bytes` is no whole number of at least 1. At the first use: the file cannot be opened or
            written, or belongs to another program or a newer version; it is left as it is.
        ComputeError: At any use: the file is damaged, the disk is full, or another process locked the file for 30 s.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = SQLiteStore(f"{folder}/scores.db")
        ...     store.put({b"key": b"0.5"})
        ...     print(store.get([b"key", b"other"]))
        ...     store.close()
        {b'key': b'0.5'}
    """

    def __init__(self, path: str | os.PathLike[str], max_bytes: int | None = None) -> None:
        if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):  # type: ignore[redundant-expr]
            raise ConfigError(f"path must name the file of the store, found {brief(path)}")
        self.path = str(Path(path).absolute())
        self.max_bytes = None if max_bytes is None else _limit(max_bytes)
        self._marks: dict[int, None] = {}  # ids of entries read since marks were last written, in order of use
        self._handle = Handle()
        weakref.finalize(self, self._handle.close_at_last)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.max_bytes)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values of those keys that are there."""
        found: dict[bytes, bytes] = {}
        with self._connected() as connection:
            marks, bounded = self._marks, self.max_bytes is not None
            for start in range(0, len(keys), _KEYS_A_QUERY):
                some = keys[start : start + _KEYS_A_QUERY]
                query = f"SELECT id, key, value, crc FROM entry WHERE key IN ({','.join('?' * len(some))})"  # noqa: S608
                for entry, key, value, crc in connection.execute(query, some):
                    if type(key) is type(value) is bytes and crc32(key + value) == crc:
                        found[key] = value
                        if bounded:
                            marks.pop(entry, None)  # to the end of the order
                            marks[entry] = None
            if len(marks) >= _MARKS_KEPT:
                self._write_marks(connection)
        return found

    def put(self, items: Mapping[bytes, bytes]) -> None:
        """Keep all items in one transaction; a key that is there gets the new value."""
        if not items:
            return
        limit = self.max_bytes or sys.maxsize
        room = limit * 9 // 10
        with self._connected() as connection, _transaction(connection, "IMMEDIATE"):
            clock = self._mark(connection)
            numbered = enumerate(items.items(), clock + 1)
            kept = [(n, key, value, crc32(key + value)) for n, (key, value) in numbered if len(key + value) <= room]
            connection.executemany("DELETE FROM entry WHERE key = ?", ((key,) for key in items))
            connection.executemany("INSERT INTO entry VALUES (?, ?, ?, ?)", kept)
            connection.executemany("INSERT INTO recency VALUES (?, ?, ?)", ((n, n, len(k + v)) for n, k, v, _ in kept))
            connection.execute("UPDATE total SET clock = ?", (clock + len(items),))
            (size,) = connection.execute("SELECT bytes FROM total").fetchone()
            if size > limit:
                connection.execute(_EVICT, (size - room,))

    def stats(self) -> StoreStats:
        """Return how much is kept, whoever put it."""
        with self._connected() as connection:
            entries, size = connection.execute("SELECT (SELECT count(*) FROM recency), bytes FROM total").fetchone()
        return StoreStats(entries, size, self.max_bytes, self.path)

    def clear(self) -> int:
        """Forget everything, give the space back to the disk, and return how many entries that were.

        Where somebody is reading, the space comes back later. A damaged file of this library is deleted, and 0
        returned: nobody can say what was in it.
        """
        try:
            with self._connected() as connection:
                with _transaction(connection, "IMMEDIATE"):
                    (entries,) = connection.execute("SELECT count(*) FROM recency").fetchone()
                    for statement in ("DROP TABLE entry", "DROP TABLE recency", "DROP TABLE total", *_SCHEMA):
                        connection.execute(statement)
                self._marks.clear()
                with suppress(sqlite3.OperationalError):  # somebody reads, or the disk is too full to vacuum
                    connection.execute("VACUUM")
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                return int(entries)
        except ComputeError as error:
            if isinstance(error.__cause__, _NO_DAMAGE):
                raise
        with self._handle.lock:
            for suffix in ("", "-wal", "-shm", "-journal"):
                Path(self.path + suffix).unlink(missing_ok=True)
        return 0

    def close(self) -> None:
        """Write the marks of what was read and close the file; the next call opens it again."""
        with self._handle.lock:
            if self._handle.connection is not None and self._marks:
                self._write_marks(self._handle.connection)
            self._handle.close()

    def _mark(self, connection: sqlite3.Connection) -> int:
        """Write, in the caller's transaction, what was read in which order, and return what the clock says then."""
        (clock,) = connection.execute("SELECT clock FROM total").fetchone()
        marks = list(enumerate(self._marks, clock + 1))
        self._marks.clear()  # also where the transaction fails: marks are no data
        connection.executemany("UPDATE recency SET used = ? WHERE id = ?", marks)
        connection.execute("UPDATE total SET clock = ?", (clock + len(marks),))
        return int(clock) + len(marks)

    def _write_marks(self, connection: sqlite3.Connection) -> None:
        with suppress(sqlite3.Error), _transaction(connection, "IMMEDIATE"):  # no answer is wrong without them
            self._mark(connection)

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """The connection, for one thread at a time; what SQLite raises becomes an error of this library."""
        with self._handle.lock:
            opening = True
            try:
                connection = self._handle.connection or self._connect()
                opening = False
                yield connection
            except BaseException as error:
                self._handle.close()  # the next call opens the file anew, and sees if it was mended meanwhile
                if not isinstance(error, sqlite3.Error):
                    raise
                raise self._explained(error, opening=opening) from error

    def _connect(self) -> sqlite3.Connection:
        """Open the file and make the tables where it is empty; one that is not ours is only read."""
        if self._handle.has_ended:
            raise ComputeError(f"the score cache {self.path} is closed: the program is ending")
        connection = self._handle.connection = sqlite3.connect(
            self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection.text_factory = bytes  # a damaged row may claim to be text
        with _transaction(connection, "DEFERRED"):
            self._is_ours(connection)
        with _transaction(connection, "IMMEDIATE"):  # also tells whether the file can be written
            for statement in () if self._is_ours(connection) else _SCHEMA:
                connection.execute(statement)
        _use_wal(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        return connection

    def _explained(self, error: sqlite3.Error, *, opening: bool) -> ComputeError | ConfigError:
        cache = f"the score cache {self.path}"
        if "locked" in str(error):  # error codes came with Python 3.11
            return ComputeError(f"{cache} was locked by another process for {_BUSY_SECONDS:g} s: try again later")
        if isinstance(error, _NO_DAMAGE):
            if not opening:
                return ComputeError(f"{cache} cannot be used: {error}")
            return ConfigError(f"{cache} cannot be opened ({error}): name a file in a folder that you may write to")
        if opening:
            return ConfigError(f"{cache} cannot be read ({error}): it is left as it is, name another or delete it")
        return ComputeError(f"{cache} is damaged ({error}): `flux-rewards cache clear {self.path}`, or delete it")

    def _is_ours(self, connection: sqlite3.Connection) -> bool:
        """Whether the tables are there, False for an empty file; call it in a transaction, which is one view."""
        names = ("application_id", "user_version", "schema_version")
        application, version, schema = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
        if application == version == schema == 0 and Path(self.path).stat().st_size != 1:  # SQLite sees 1 byte as none
            return False
        if (application, version) == (_APPLICATION_ID, _VERSION):
            return True
        found = "is the file of another program"
        if application == _APPLICATION_ID:
            found = f"has version {version}, but this flux_rewards knows version {_VERSION}: upgrade it"
        raise ConfigError(f"the score cache {self.path} {found}; it was left as it is, name another file")


@contextmanager
def _transaction(connection: sqlite3.Connection, kind: str) -> Iterator[None]:
    try:
        connection.execute(f"BEGIN {kind}")
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.rollback()
        raise


def _use_wal(connection: sqlite3.Connection) -> None:
    """Let readers and a writer work side by side; all is right without it, but slower."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while time.monotonic() < deadline:  # SQLite itself does not wait where several switch at once
        with suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode = WAL")
            return
        time.sleep(random.uniform(0.001, 0.02))  # noqa: S311  # spreads the attempts


def _limit(max_bytes: Any) -> int:
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 1:
        raise ConfigError(f"max_bytes must be a whole number >= 1, found {brief(max_bytes)}")
    return max_bytes
