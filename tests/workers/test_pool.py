"""`KillablePool`: outcomes, limits, and who may call it from where."""

import asyncio
import math
import os
import pickle
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import pytest
from workers import jobs
from workers.processes import children_of, left_after

from flux_rewards import ComputeError, ConfigError, ContractError
from flux_rewards.errors import OverLimitError, WorkerCrashError
from flux_rewards.workers.pool import KillablePool

LONG = 60.0


@pytest.fixture(scope="module")
def pool() -> Iterator[KillablePool]:
    """Two workers, for all tests that leave them as they are."""
    with KillablePool(2) as pool:
        yield pool


def test_values_come_in_order(pool: KillablePool) -> None:
    """One outcome a job, whoever was done first."""
    outcomes = pool.run(jobs.nap, [(0.2,), (0.0,), (0.1,)], timeout=LONG)
    assert [outcome.unwrap() for outcome in outcomes] == [0.2, 0.0, 0.1]
    assert [outcome.status for outcome in outcomes] == ["ok"] * 3


@pytest.mark.parametrize(
    ("function", "arguments", "status", "kind", "words"),
    [
        (math.factorial, (-1,), "error", ValueError, "negative"),
        (jobs.refuse, (), "over_limit", OverLimitError, "9 terms"),
        (jobs.loop_in_c, (), "timed_out", TimeoutError, "not done after 0.5 s"),
        (jobs.die, ("exit",), "crashed", WorkerCrashError, "exit code 3"),
        (jobs.die, ("SIGSEGV",), "crashed", WorkerCrashError, "SIGSEGV"),
        (jobs.die, ("SIGKILL",), "crashed", WorkerCrashError, "SIGKILL"),
        (jobs.die, ("memory",), "crashed", WorkerCrashError, "out of memory"),
        (jobs.fail, ("exception",), "error", ComputeError, "UnpicklableError: 1 and 2"),
        (jobs.fail, ("exit",), "error", ComputeError, "SystemExit: enough"),
        (jobs.fail, ("value",), "error", Exception, "pickle"),
        (jobs.bring_the_caller_down, ("returned",), "error", ComputeError, "cannot be read here (SystemExit: 3)"),
        (jobs.bring_the_caller_down, ("raised",), "error", ComputeError, "cannot be read here (SystemExit: 4)"),
    ],
)
def test_outcomes_are_told_apart(  # noqa: PLR0917
    pool: KillablePool, function: Any, arguments: Any, status: str, kind: type[Exception], words: str
) -> None:
    """Each failure has its status and its reason, and the neighbours have their values."""
    limit = 0.5 if status == "timed_out" else LONG
    before, failed, after = (
        pool.run(jobs.square, [(2,)], timeout=LONG)
        + pool.run(function, [arguments], timeout=limit)
        + pool.run(jobs.square, [(3,)], timeout=LONG)
    )
    assert (before.value, after.value) == (4, 9)
    assert failed.status == status
    assert isinstance(failed.error, kind)
    assert words in str(failed.error)
    with pytest.raises(kind):
        failed.unwrap()


def test_an_error_shows_where_it_happened(pool: KillablePool) -> None:
    """The worker's traceback is the cause."""
    (outcome,) = pool.run(jobs.fail, [("exception",)], timeout=LONG)
    assert outcome.error is not None
    assert "jobs.py" in str(outcome.error.__cause__)


def test_a_killed_worker_is_replaced() -> None:
    """With one worker, what follows runs in another process."""
    with KillablePool(1) as pool:
        first, late, then = (
            pool.run(jobs.process, [()], timeout=LONG)
            + pool.run(jobs.nap, [(LONG,)], timeout=0.1)
            + pool.run(jobs.process, [()], timeout=LONG)
        )
        assert late.status == "timed_out"
        assert first.value != then.value
        assert left_after({first.value}) == set()


def test_a_worker_that_was_killed_while_idle_harms_no_job() -> None:
    """As by somebody who looks for memory: a job is given to one that lives."""
    with KillablePool(1) as pool:
        (first,) = pool.run(jobs.process, [()], timeout=LONG)
        os.kill(first.value, 9)
        assert left_after({first.value}) == set()
        assert [outcome.value for outcome in pool.run(jobs.square, [(5,)], timeout=LONG)] == [25]


def test_a_server_that_was_killed_is_replaced() -> None:
    """Its workers die with it; the next job finds new ones."""
    with KillablePool(1) as pool:
        before = children_of(os.getpid())
        pool.run(jobs.square, [(5,)], timeout=LONG)
        ours = children_of(os.getpid()) - before
        os.kill(min(ours), 9)
        assert left_after(ours) == set()
        (then,) = pool.run(jobs.square, [(6,)], timeout=LONG)
        assert then.unwrap() == 36


def test_workers_are_prepared_once_and_share_it() -> None:
    """Every worker has what the server has made."""
    with KillablePool(2, prepare=jobs.prepare) as pool:
        outcomes = pool.run(jobs.what_was_prepared, [()] * 6, timeout=LONG)
        assert [outcome.value for outcome in outcomes] == [["here"]] * 6


def test_what_cannot_be_prepared_is_told() -> None:
    """The caller gets the function's own error, at every call."""
    with KillablePool(2, prepare=jobs.cannot_prepare) as pool:
        for _ in range(2):
            with pytest.raises(ImportError, match="algebra"):
                pool.run(jobs.square, [(1,)], timeout=LONG)


def test_a_worker_leaves_after_so_many_jobs() -> None:
    """For functions that leak."""
    with KillablePool(1, jobs_per_worker=2) as pool:
        workers = [outcome.value for outcome in pool.run(jobs.process, [()] * 5, timeout=LONG)]
    assert len(set(workers)) == 3
    assert workers[0] == workers[1]
    assert workers[2] == workers[3]


def test_memory_is_limited() -> None:
    """An allocation within the machine's memory, but beyond the worker's."""
    with KillablePool(1, memory=1 << 30) as pool:
        small, large = pool.run(jobs.echo, [(b"x",), (b"x" * (1 << 20),)], timeout=LONG)
        (crashed,) = pool.run(bytearray, [(2 << 30,)], timeout=LONG)
    assert (small.value, len(large.value)) == (b"x", 1 << 20)
    assert crashed.status == "crashed"
    assert "out of memory" in str(crashed.error)


def test_output_of_a_job_is_no_answer(pool: KillablePool, capfd: pytest.CaptureFixture[str]) -> None:
    """What a job prints goes where the program's output goes, and nowhere else."""
    (outcome,) = pool.run(jobs.chatter, [("hello there",)], timeout=LONG)
    assert outcome.value == "hello there"
    assert capfd.readouterr().err in ("", "hello there\n")  # to the descriptors that the server was started with


def test_large_values_pass_both_ways(pool: KillablePool) -> None:
    """More than a socket holds."""
    value = os.urandom(20 << 20)
    (outcome,) = pool.run(jobs.echo, [(value,)], timeout=LONG)
    assert outcome.value == value


def test_jobs_of_a_kind_go_to_one_worker() -> None:
    """As long as no worker is idle for it, and the order of outcomes is the order of jobs."""
    with KillablePool(2) as pool:
        pool.run(jobs.nap, [(0.1,)] * 2, timeout=LONG)  # both have begun
        kinds = ["a", "b"] * 10
        outcomes = pool.run(jobs.process, [()] * 20, timeout=LONG, kinds=kinds)
        workers = [outcome.value for outcome in outcomes]
        assert len(set(workers[0::2]) | set(workers[1::2])) <= 2
        naps = pool.run(jobs.nap, [(0.01 * index,) for index in range(12)], timeout=LONG, kinds=["all"] * 12)
        assert [nap.value for nap in naps] == [0.01 * index for index in range(12)]
        with pytest.raises(ConfigError, match="1 entries for 2 jobs"):
            pool.run(jobs.square, [(1,), (2,)], timeout=LONG, kinds=["a"])


def test_nothing_to_do_starts_nothing() -> None:
    """Workers start with the first job."""
    before = children_of(os.getpid())
    with KillablePool(2) as pool:
        assert pool.run(jobs.square, [], timeout=LONG) == []
        assert children_of(os.getpid()) == before


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda pool: pool.run(lambda: 1, [()], timeout=1), "cannot be sent"),
        (lambda pool: pool.run(jobs.square, [(threading.Lock(),)], timeout=1), "cannot be sent"),
        (lambda pool: pool.run(jobs.square, [(1,)], timeout=0), "timeout must be"),
        (lambda _: KillablePool(0), "workers must be"),
        (lambda _: KillablePool(memory=0), "memory must be"),
        (lambda _: KillablePool(jobs_per_worker=0), "jobs_per_worker must be"),
        (lambda _: KillablePool(prepare="jobs.prepare"), "prepare must be"),  # type: ignore[arg-type]
    ],
)
def test_mistakes_are_told_at_once(pool: KillablePool, call: Any, words: str) -> None:
    """With what was found and what to do."""
    with pytest.raises(ConfigError, match=words):
        call(pool)


def test_what_a_worker_cannot_load_is_a_mistake(pool: KillablePool) -> None:
    """A class that exists here only."""
    kind = type("Here", (), {"__module__": "workers.jobs", "__qualname__": "Here"})
    jobs.Here = kind  # type: ignore[attr-defined]
    try:
        with pytest.raises(ConfigError, match="importable module"):
            pool.run(jobs.echo, [(kind(),)], timeout=LONG)
    finally:
        del jobs.Here  # type: ignore[attr-defined]
    assert [outcome.value for outcome in pool.run(jobs.square, [(2,)], timeout=LONG)] == [4]


def test_eight_threads_share_a_pool(pool: KillablePool) -> None:
    """Each gets its own, and a small call does not wait behind a large one."""
    done: list[int] = []

    def call(size: int) -> list[Any]:
        values = [outcome.value for outcome in pool.run(jobs.square, [(n + size,) for n in range(size)], timeout=LONG)]
        done.append(size)
        return values

    sizes = [400, *range(1, 8)]
    with ThreadPoolExecutor(8) as threads:
        for size, values in zip(sizes, threads.map(call, sizes), strict=True):
            assert values == [(n + size) ** 2 for n in range(size)]
    assert done[-1] == 400


def test_it_may_be_called_within_a_running_event_loop(pool: KillablePool) -> None:
    """It waits there as any function would, and a future of it can be awaited."""

    async def program() -> tuple[float, float, str]:
        (blocking,) = pool.run(jobs.square, [(2,)], timeout=LONG)
        awaited = asyncio.wrap_future(pool.submit(jobs.square, 3, timeout=LONG))
        late = asyncio.wrap_future(pool.submit(jobs.loop_in_c, timeout=0.2))
        return blocking.value, (await awaited).value, (await late).status

    assert asyncio.run(program()) == (4, 9, "timed_out")


def test_a_cancelled_future_frees_its_worker() -> None:
    """The job is killed, though it had an hour."""
    with KillablePool(1) as pool:
        future = pool.submit(jobs.nap, 3600.0, timeout=3600.0)
        assert future.cancel()
        with pytest.raises(CancelledError):
            future.result()
        assert [outcome.value for outcome in pool.run(jobs.square, [(2,)], timeout=LONG)] == [4]


def test_a_callback_that_exits_ends_no_pool() -> None:
    """It runs in a thread of the pool, which goes on with other calls."""
    with KillablePool(1) as pool:
        told = threading.Event()

        def leave(_: object) -> None:
            told.set()
            sys.exit(5)

        pool.submit(jobs.nap, 0.2, timeout=LONG).add_done_callback(leave)
        assert told.wait(LONG)
        assert pool.run(jobs.square, [(3,)], timeout=LONG)[0].unwrap() == 9


def test_closing_ends_calls_and_processes() -> None:
    """What is under way fails; a closed pool starts again when it is used."""
    before = children_of(os.getpid())
    pool = KillablePool(2)
    future = pool.submit(jobs.nap, 3600.0, timeout=3600.0)
    while not (started := children_of(os.getpid()) - before):
        time.sleep(0.01)
    pool.close()
    assert left_after(started, 0.0) == set()
    with pytest.raises(ContractError, match="closed"):
        future.result(timeout=LONG)
    assert [outcome.value for outcome in pool.run(jobs.square, [(2,)], timeout=LONG)] == [4]
    pool.close()
    assert children_of(os.getpid()) == before


def test_a_pool_that_nobody_holds_ends() -> None:
    """Its processes go with it."""
    before = children_of(os.getpid())
    pool = KillablePool(1)
    pool.run(jobs.square, [(2,)], timeout=LONG)
    started = children_of(os.getpid()) - before
    assert started
    del pool
    assert left_after(started) == set()


def test_a_pickle_is_a_pool_of_the_same_kind() -> None:
    """With workers of its own, when it needs them."""
    pool = KillablePool(2, prepare=jobs.prepare, memory=1 << 32, jobs_per_worker=7)
    copy = pickle.loads(pickle.dumps(pool))
    assert copy == pool
    assert repr(copy).startswith("KillablePool(workers=2, prepare=")


def test_an_interrupted_call_kills_what_it_began() -> None:
    """Ctrl-C while the main thread waits."""
    with KillablePool(1) as pool:
        pool.run(jobs.square, [(2,)], timeout=LONG)
        main = threading.get_ident()
        import signal

        timer = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            pool.run(jobs.nap, [(3600.0,)], timeout=3600.0)
        assert [outcome.value for outcome in pool.run(jobs.square, [(2,)], timeout=LONG)] == [4]
