"""Where cached scores are kept: nothing wrong ever comes back, whoever writes, dies, forks or damages the file."""

from __future__ import annotations

import os
import pickle
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flux_rewards import store as store_module
from flux_rewards.errors import ComputeError, ConfigError
from flux_rewards.store import MemoryStore, SQLiteStore, Store, StoreStats

# What every process of these tests knows: the one right value of a key, of 40 to 4,000 bytes.
PRELUDE = """
import hashlib, itertools, os, random, sys, threading
from flux_rewards.store import SQLiteStore
def right(key):
    digest = hashlib.sha256(key).digest()
    return digest + digest * (digest[0] % 64 * 2)
def name(number):
    return b"key-%d" % number
def check(found):
    assert all(value == right(key) for key, value in found.items()), "a wrong value"
path, number = sys.argv[1], int(sys.argv[2])
"""
SHARED: dict[str, Callable[[bytes], bytes]] = {}
exec(PRELUDE.partition("path, number")[0], SHARED)  # noqa: S102  # the same definitions here
right = SHARED["right"]


def start(code: str, path: Path, number: int = 0) -> subprocess.Popen[str]:
    """A process of its own that runs the code; warnings are errors there too."""
    command = [sys.executable, "-W", "error", "-c", PRELUDE + code, str(path), str(number)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(*processes: subprocess.Popen[str]) -> list[str]:
    """What they printed, once all have ended well."""
    ends = [process.communicate(timeout=120) for process in processes]
    assert [(process.returncode, error) for process, (_, error) in zip(processes, ends, strict=True)] == [
        (0, "") for _ in processes
    ]
    return [output.strip() for output, _ in ends]


def edit(path: Path, *statements: str) -> None:
    """Change a file behind the library's back."""
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def letters(text: str) -> dict[bytes, bytes]:
    """Items of ten bytes each."""
    return {letter.encode(): b"123456789" for letter in text}


def found(store: Store, text: str = "abcdefghijkl") -> str:
    """The letters that a store has, in alphabetical order."""
    return "".join(sorted(key.decode() for key in store.get([letter.encode() for letter in text])))


MAKERS: list[Callable[[Path], Store]] = [lambda _: MemoryStore(), lambda folder: SQLiteStore(folder / "scores.db")]


@pytest.mark.parametrize("make", MAKERS, ids=["memory", "sqlite"])
def test_round_trip(tmp_path: Path, make: Callable[[Path], Store]) -> None:
    """What was put comes back, the newest value of each key, until it is cleared, and after close as well."""
    store = make(tmp_path)
    store.put({})
    assert store.get([]) == store.get([b"a"]) == {}
    store.put({b"a": b"1", b"b": b"", b"\x00\xff": b"\x00" * 10_000})
    store.put({b"a": b"22"})
    assert store.get([b"a", b"none", b"\x00\xff", b"a", b"b"]) == {
        b"a": b"22",
        b"b": b"",
        b"\x00\xff": b"\x00" * 10_000,
    }
    stats = store.stats()
    assert (stats.entries, stats.bytes) == (3, 3 + 1 + 10_002)
    store.close()
    assert store.get([b"a"]) == {b"a": b"22"}
    assert store.clear() == 3
    assert store.clear() == 0
    assert store.get([b"a"]) == {}
    store.put({b"a": b"3"})
    store.close()
    store.close()
    assert store.get([b"a"]) == {b"a": b"3"}
    assert (store.stats().entries, store.stats().bytes) == (1, 2)
    store.close()


@pytest.mark.parametrize("make", MAKERS, ids=["memory", "sqlite"])
def test_many_keys_in_one_call(tmp_path: Path, make: Callable[[Path], Store]) -> None:
    """More keys than one query of SQLite takes are found all the same."""
    store = make(tmp_path)
    items = {b"%d" % number: right(b"%d" % number) for number in range(2345)}
    store.put(items)
    assert store.get([*items, b"none"]) == items
    store.close()


def test_memory_forgets_the_least_recently_used() -> None:
    """Ten items of ten bytes fit; the eleventh takes the place of the one used longest ago."""
    store = MemoryStore(max_bytes=100)
    store.put(letters("abcdefghij"))
    store.get([b"a"])
    store.put(letters("c"))
    store.put(letters("k"))
    assert (found(store), store.stats()) == ("acdefghijk", StoreStats(10, 100, 100, None))
    store.put({b"c": b"1" * 100})  # 101 bytes: kept by nobody, and the old value is no longer right
    assert found(store) == "adefghijk"
    store.put({b"l": b"1" * 99})
    assert found(store) == "l"


def test_file_forgets_the_least_recently_used(tmp_path: Path) -> None:
    """More than 100 bytes leave at most 90: of eleven items the two go that were used longest ago."""
    store = SQLiteStore(tmp_path / "scores.db", max_bytes=100)
    store.put(letters("abcdefghij"))
    assert store.stats().bytes == 100
    store.get([b"b", b"a"])
    store.put(letters("c"))
    store.put(letters("k"))  # order of use: d e f g h i j b a c k
    assert store.stats() == StoreStats(9, 90, 100, str(tmp_path / "scores.db"))
    assert found(store, "de") == ""
    store.put({b"c": b"1" * 90})  # 91 bytes: more than 90 %, kept by nobody, and the old value is no longer right
    assert store.stats().bytes == 80
    assert [found(store, letter) for letter in "ckjihgfab"] == ["", *"kjihgfab"]  # the order of use from here on
    store.put({b"l": b"1" * 39})  # 120 bytes: 30 go
    assert (found(store), store.stats().bytes) == ("abfghl", 90)
    store.close()


def test_reads_of_a_closed_store_count(tmp_path: Path) -> None:
    """`close` writes down what was read, and so does a run that only reads, every now and then."""
    path = tmp_path / "scores.db"
    reader, writer = SQLiteStore(path, max_bytes=100), SQLiteStore(path, max_bytes=100)
    writer.put(letters("abcdefghij"))
    reader.get([b"a"])
    reader.close()
    writer.put(letters("k"))
    assert found(writer) == "adefghijk"
    writer.close()


def test_reads_are_written_down_when_many_have_gathered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that only reads leaves its marks without ever closing the store."""
    monkeypatch.setattr(store_module, "_MARKS_KEPT", 3)
    path = tmp_path / "scores.db"
    reader, writer = SQLiteStore(path, max_bytes=100), SQLiteStore(path, max_bytes=100)
    writer.put(letters("abcdefghij"))
    for letter in (b"a", b"b", b"a", b"c"):  # the third different one writes all
        reader.get([letter])
    writer.put(letters("k"))
    assert found(writer) == "abcfghijk"
    reader.close()
    writer.close()


def test_the_limit_is_that_of_whoever_puts(tmp_path: Path) -> None:
    """A file that grew without a limit shrinks at the first put with one."""
    path = tmp_path / "scores.db"
    free, limited = SQLiteStore(path), SQLiteStore(path, max_bytes=50)
    free.put(letters("abcdefghij"))
    limited.put(letters("k"))
    assert (found(limited), free.stats().bytes) == ("hijk", 40)
    free.close()
    limited.close()


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "1"])
def test_a_limit_is_a_whole_number(tmp_path: Path, limit: int) -> None:
    """Any other limit is refused, in memory as on disk."""
    with pytest.raises(ConfigError, match="max_bytes"):
        MemoryStore(limit)
    with pytest.raises(ConfigError, match="max_bytes"):
        SQLiteStore(tmp_path / "scores.db", limit)


@pytest.mark.parametrize("path", ["", 3, None])
def test_a_path_names_a_file(path: str) -> None:
    """What names no file is refused at once."""
    with pytest.raises(ConfigError, match="path"):
        SQLiteStore(path)


def test_the_constructor_touches_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is made at the first use, where the constructor saw it, and an empty file is taken over."""
    monkeypatch.chdir(tmp_path)
    store = SQLiteStore("scores.db")
    assert not list(tmp_path.iterdir())
    (tmp_path / "scores.db").touch()
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    store.put({b"a": b"1"})
    store.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["below", "scores.db"]
    assert (tmp_path / "scores.db").stat().st_size > 0


def test_a_store_pickles(tmp_path: Path) -> None:
    """A copy on disk shares the file; a copy in memory starts empty."""
    disk, memory = SQLiteStore(tmp_path / "scores.db", max_bytes=1000), MemoryStore(1000)
    disk.put({b"a": b"1"})
    memory.put({b"a": b"1"})
    other, empty = pickle.loads(pickle.dumps(disk)), pickle.loads(pickle.dumps(memory))
    assert (other.get([b"a"]), other.max_bytes) == ({b"a": b"1"}, 1000)
    assert (empty.get([b"a"]), empty.max_bytes) == ({}, 1000)
    disk.close()
    other.close()


def test_a_forgotten_store_leaves_no_warning(tmp_path: Path) -> None:
    """A store that nobody closes is closed with its last reference, or at the end of the process."""
    code = """
import gc
for _ in range(3):
    SQLiteStore(path).put({b"a": b"1"})
gc.collect()
print(sorted(os.listdir(os.path.dirname(path))))  # the last connection to close takes the log along
store = SQLiteStore(path)
store.get([b"a"])
"""
    assert finish(start(code, tmp_path / "scores.db")) == ["['scores.db']"]
    assert [file.name for file in tmp_path.iterdir()] == ["scores.db"]


def test_a_process_may_end_while_threads_work(tmp_path: Path) -> None:
    """Daemon threads in the middle of a call neither crash the process nor print anything when it ends."""
    code = """
import time
store = SQLiteStore(path, max_bytes=10**6)
def work(start):
    for number in itertools.count(start):
        store.put({name(number): right(name(number))})
        check(store.get([name(number)]))
for thread in range(4):
    threading.Thread(target=work, args=(10**6 * thread,), daemon=True).start()
time.sleep(0.05)
"""
    finish(*(start(code, tmp_path / f"{number}.db") for number in range(8)))


# Many at once

MIXED = """
store = SQLiteStore(path)
def work(seed):
    try:
        generator = random.Random(seed)
        for turn in range(60):
            keys = [name(generator.randrange(500)) for _ in range(generator.choice([1, 5, 40]))]
            if turn % 2:
                store.put({key: right(key) for key in keys})
            check(store.get(keys))
            if turn % 2:
                assert set(store.get(keys)) == set(keys)
    except BaseException as error:
        failures.append(repr(error))
failures = []
threads = [threading.Thread(target=work, args=(8 * number + thread,)) for thread in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(failures)
"""


def test_processes_and_threads_share_a_file(tmp_path: Path) -> None:
    """Two processes of eight threads read and write the same keys: every value is right, every put is seen."""
    path = tmp_path / "scores.db"
    assert finish(*(start(MIXED, path, number) for number in range(2))) == ["[]", "[]"]
    store = SQLiteStore(path)
    values = store.get([b"key-%d" % number for number in range(500)])
    assert values == {key: right(key) for key in values}
    stats = store.stats()
    assert (stats.entries, stats.bytes) == (len(values), sum(len(key) + len(value) for key, value in values.items()))
    store.close()


def test_threads_share_memory() -> None:
    """Eight threads on one small store: values stay right, and the sum of bytes does too."""
    store = MemoryStore(max_bytes=20_000)
    wrong: list[bytes] = []

    def work(seed: int) -> None:
        generator = random.Random(seed)
        for _ in range(300):
            keys = [b"%d" % generator.randrange(50) for _ in range(5)]
            store.put({key: right(key) for key in keys})
            wrong.extend(key for key, value in store.get(keys).items() if value != right(key))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    left = store.get([b"%d" % number for number in range(50)])
    assert store.stats().bytes == sum(len(key) + len(value) for key, value in left.items()) <= 20_000


def test_the_limit_holds_for_all_processes(tmp_path: Path) -> None:
    """Four processes that write different keys never leave more than the limit behind a put."""
    path = tmp_path / "scores.db"
    code = """
store = SQLiteStore(path, max_bytes=200_000)
most = 0
for turn in range(60):
    keys = [name(10_000 * number + 10 * turn + n) for n in range(10)]
    store.put({key: right(key) for key in keys})
    check(store.get(keys))
    most = max(most, store.stats().bytes)
print(most)
"""
    most = finish(*(start(code, path, number) for number in range(4)))
    assert all(150_000 < int(size) <= 200_000 for size in most)
    connection = sqlite3.connect(path)
    total = connection.execute("SELECT bytes FROM total").fetchone()
    assert connection.execute("SELECT sum(length(key) + length(value)) FROM entry").fetchone() == total
    assert connection.execute("SELECT sum(size) FROM recency").fetchone() == total
    connection.close()


def test_processes_make_the_same_file_at_once(tmp_path: Path) -> None:
    """Eight processes that find no file end up with one, in which all of them wrote."""
    path = tmp_path / "scores.db"
    code = """
import pathlib, time
pathlib.Path(f"{path}.ready-{number}").touch()
while len(list(pathlib.Path(path).parent.glob("*.ready-*"))) < 8:
    time.sleep(0.001)
SQLiteStore(path).put({name(number): right(name(number))})
"""
    finish(*(start(code, path, number) for number in range(8)))
    store = SQLiteStore(path)
    assert len(store.get([b"key-%d" % number for number in range(8)])) == store.stats().entries == 8
    store.close()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_parent_and_children_go_on_after_a_fork(tmp_path: Path) -> None:
    """A fork in the middle of the work of other threads: both sides read and write, and lose nothing."""
    path = tmp_path / "scores.db"
    code = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads alive is what is tested
from flux_rewards.store import MemoryStore
store, memory, stop = SQLiteStore(path, max_bytes=10**9), MemoryStore(), threading.Event()
def write(start):
    for number in itertools.count(start):
        if stop.is_set():
            return
        store.put({name(number): right(name(number))})
        memory.put({name(number): right(name(number))})
threads = [threading.Thread(target=write, args=(10**6 * thread,), daemon=True) for thread in range(1, 4)]
for thread in threads: thread.start()
children = []
for child in range(10):
    store.put({name(child): right(name(child))})
    if not (pid := os.fork()):
        try:
            found = store.get([name(child)])
            assert found and store._handle.connection is not None
            check(found)
            memory.put({name(0): right(name(0))})
            for turn in range(20):
                store.put({name(1000 * (child + 1) + turn): right(name(1000 * (child + 1) + turn))})
            store.close()
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(1)
        os._exit(0)
    children.append(pid)
assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 10
stop.set()
for thread in threads: thread.join()
keys = [name(child) for child in range(10)] + [name(1000 * (c + 1) + turn) for c in range(10) for turn in range(20)]
found = store.get(keys)
check(found)
print(len(found))
"""
    assert finish(start(code, path)) == ["210"]
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_a_fork_carries_no_connection_along(tmp_path: Path) -> None:
    """The locks of a child are its own: it still sees its puts after the parent, the last to leave, has closed."""
    code = """
import time
store, parent = SQLiteStore(path), os.getpid()
store.put({b"parent": b"1"})
read, write = os.pipe()
if not (pid := os.fork()):
    os.write(write, b"x" if store.get([b"parent"]) else b"-")
    while os.getppid() == parent and not os.path.exists(path + ".closed"):
        time.sleep(0.001)
    store.put({b"child": right(b"child")})
    os._exit(0)  # as multiprocessing does: nothing is closed
assert os.read(read, 1) == b"x"
store.close()
other = SQLiteStore(path)
other.put({b"other": b"1"})
open(path + ".closed", "w").close()
assert os.waitpid(pid, 0)[1] == 0
print(sorted(other.get([b"parent", b"child", b"other"])))
"""
    assert finish(start(code, tmp_path / "scores.db")) == ["[b'child', b'other', b'parent']"]


@pytest.mark.slow
def test_a_killed_process_leaves_nothing_wrong(tmp_path: Path) -> None:
    """Killed at any moment of making, writing or evicting: the file opens, is whole, and every value is right."""
    path, generator = tmp_path / "scores.db", random.Random(7)
    code = """
store = SQLiteStore(path, max_bytes=400_000)
print("ready", flush=True)
for turn in itertools.count():
    keys = [name(random.randrange(2000)) for _ in range(20)]
    store.put({key: right(key) for key in keys})
    check(store.get(keys))
    if turn % 50 == 49:
        store.clear() if turn % 100 == 99 else store.close()
"""
    for turn in range(10):
        writers = [start(code, path, turn) for _ in range(2)]
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
        time.sleep(generator.uniform(0.0, 0.25))
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
        errors = [writer.communicate()[1] for writer in writers]
        assert errors == ["", ""]
        store = SQLiteStore(path)
        values = store.get([b"key-%d" % number for number in range(2000)])
        assert values == {key: right(key) for key in values}
        assert store.stats().entries == len(values)
        store.close()
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()


# Files that are not as they should be


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    """A file of a later library is left as it is, and the message tells both versions and what to do."""
    path = tmp_path / "scores.db"
    store = SQLiteStore(path)
    store.put({b"a": b"1"})
    store.close()
    edit(path, "PRAGMA user_version = 7")
    before = path.read_bytes()
    for use in (lambda: store.get([b"a"]), lambda: store.put({b"b": b"2"}), store.stats, store.clear):
        with pytest.raises(ConfigError, match=r"scores\.db has version 7, .* knows version 1: upgrade"):
            use()
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["scores.db"]


def make_foreign(path: Path) -> None:
    edit(path, "CREATE TABLE mine (x)", "INSERT INTO mine VALUES (1)")


def make_foreign_wal(path: Path) -> None:
    edit(path, "PRAGMA journal_mode = WAL", "PRAGMA application_id = 5", "CREATE TABLE mine (x)")


def make_truncated(path: Path) -> None:
    make_foreign(path)
    path.write_bytes(path.read_bytes()[:4096])


OTHERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "sqlite": (make_foreign, "another program"),
    "sqlite_wal": (make_foreign_wal, "another program"),
    "truncated": (make_truncated, "left as it is|another program"),
    "one_byte": (lambda path: path.write_bytes(b"x"), "another program"),
    "text": (lambda path: path.write_text("prompt,reward\nhello,1\n"), "not a database"),
    "long_text": (lambda path: path.write_text("prompt,reward\n" * 10_000), "not a database"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_not_ours_is_left_alone(tmp_path: Path, kind: str) -> None:
    """Files of others are refused, not changed, not cleared, not deleted, and nothing is left beside them."""
    path = tmp_path / "others"
    make, message = OTHERS[kind]
    make(path)
    before = path.read_bytes()
    store = SQLiteStore(path)
    for use in (lambda: store.get([b"a"]), lambda: store.put({b"a": b"1"}), store.clear):
        with pytest.raises(ConfigError, match=rf"others.*({message})"):
            use()
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["others"]


@pytest.mark.parametrize("place", ["folder", "missing/scores.db", "file/scores.db"])
def test_a_place_without_a_file_is_an_error(tmp_path: Path, place: str) -> None:
    """A folder, a folder that is not there and one that is a file are named, and what to do is said."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("text")
    store = SQLiteStore(tmp_path / place)
    with pytest.raises(ConfigError, match=rf"{place} cannot be opened .* name a file in a folder that you may write"):
        store.put({b"a": b"1"})
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["file", "folder"]
    if place.startswith("missing"):
        (tmp_path / "missing").mkdir()
        store.put({b"a": b"1"})  # and once it is mended, the same store goes on
        store.close()


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """A cache that could only be read is refused when it is opened."""
    path = tmp_path / "scores.db"
    SQLiteStore(path).put({b"a": b"1"})
    path.chmod(0o444)
    if os.access(path, os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(ConfigError, match="readonly"):
        SQLiteStore(path).get([b"a"])


def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    """A put that the disk has no room for raises, and what was there before is still right."""
    pytest.importorskip("resource")
    path = tmp_path / "scores.db"
    code = """
import resource, signal
from flux_rewards.errors import ComputeError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
store = SQLiteStore(path)
try:
    for number in itertools.count():
        store.put({name(number): bytes(100_000)})
except ComputeError as error:
    print(path in str(error), number > 3, len(store.get([name(n) for n in range(number)])) == number)
"""
    assert finish(start(code, path)) == ["True True True"]
    store = SQLiteStore(path)
    assert store.get([b"key-0"]) == {b"key-0": bytes(100_000)}
    store.close()


@pytest.mark.parametrize(
    "damage",
    [
        "value = CAST(substr(value, 1, 2) || 'X' || substr(value, 4) AS BLOB)",
        "value = 'text'",
        "value = 5",
        "crc = crc + 1",
        "crc = 'text'",
        "key = x'6363'",
    ],
)
def test_a_damaged_row_is_absent(tmp_path: Path, damage: str) -> None:
    """A row whose checksum does not fit is no answer; its neighbour is, and it can be put again."""
    path = tmp_path / "scores.db"
    store = SQLiteStore(path)
    store.put({b"aa": b"12345", b"bb": b"12345"})
    edit(path, f"UPDATE entry SET {damage} WHERE key = x'6161'")  # noqa: S608
    assert store.get([b"aa", b"bb", b"cc"]) == {b"bb": b"12345"}
    store.put({b"aa": b"12345"})
    assert store.get([b"aa", b"bb", b"cc"]) == {b"aa": b"12345", b"bb": b"12345"}
    store.close()


def test_a_damaged_file_is_an_error_until_it_is_cleared(tmp_path: Path) -> None:
    """A torn database says how to get rid of it; `clear` does, and the same store goes on."""
    path = tmp_path / "scores.db"
    store = SQLiteStore(path)
    store.put({b"%d" % number: right(b"%d" % number) for number in range(1000)})
    store.close()
    whole = path.read_bytes()
    path.write_bytes(
        whole[:4096] + b"\xa5" * (len(whole) - 4096)
    )  # the first page holds the header and the tables' names
    for use in (lambda: store.get([b"1"]), lambda: store.put({b"1": b"1"}), store.stats):
        with pytest.raises(ComputeError, match=r"scores\.db is damaged .*`flux-rewards cache clear .*scores\.db`"):
            use()
    assert store.clear() == 0
    store.put({b"1": b"1"})
    assert store.get([b"1"]) == {b"1": b"1"}
    store.close()


def test_a_deleted_damaged_file_is_made_anew(tmp_path: Path) -> None:
    """Whoever deletes the file instead, as the message says, needs no new store."""
    path = tmp_path / "scores.db"
    store = SQLiteStore(path)
    store.put({b"1": b"1"})
    store.close()
    path.write_bytes(path.read_bytes()[:4096].ljust(20_000, b"\xa5"))
    with pytest.raises((ComputeError, ConfigError)):
        store.get([b"1"])
    for file in tmp_path.iterdir():
        file.unlink()
    assert store.get([b"1"]) == {}
    store.close()


def test_a_locked_file_is_an_error_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who holds the file for long makes a put fail, not hang, and reads go on meanwhile."""
    monkeypatch.setattr(store_module, "_BUSY_SECONDS", 0.05)
    path = tmp_path / "scores.db"
    store = SQLiteStore(path)
    store.put({b"a": b"1"})
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(ComputeError, match=r"scores\.db was locked by another process for 0\.05 s"):
        store.put({b"b": b"2"})
    other.execute("ROLLBACK")
    other.close()
    store.put({b"b": b"2"})
    assert len(store.get([b"a", b"b"])) == 2
    store.close()


def test_clear_gives_the_space_back(tmp_path: Path) -> None:
    """After `clear` the file is as small as a new one, also for a process that has it open."""
    path = tmp_path / "scores.db"
    store, other = SQLiteStore(path), SQLiteStore(path)
    store.put({b"a": b"1"})
    other.put({b"%d" % number: bytes(1000) for number in range(3000)})
    assert store.clear() == 3001
    assert sum(file.stat().st_size for file in tmp_path.iterdir() if not file.name.endswith("-shm")) < 100_000
    assert (other.get([b"a", b"1"]), other.stats().bytes) == ({}, 0)
    other.put({b"a": b"2"})
    assert store.get([b"a"]) == {b"a": b"2"}
    store.close()
    other.close()


def test_clear_does_not_wait_for_the_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who reads keeps the space, not the entries."""
    monkeypatch.setattr(store_module, "_BUSY_SECONDS", 0.05)
    path = tmp_path / "scores.db"
    store = SQLiteStore(path)
    store.put({b"a": b"1"})
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM entry").fetchone() == (1,)
    assert store.clear() == 1
    assert store.get([b"a"]) == {}
    assert reader.execute("SELECT count(*) FROM entry").fetchone() == (1,)
    reader.close()
    store.close()
