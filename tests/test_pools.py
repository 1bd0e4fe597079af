"""Other people's pools, processes, deadlines, and the end of the program."""

import asyncio
import concurrent.futures
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rewards_of_our_own import Characters, Gated, GroupMean, Told, Watched, told

from flux_rewards import (
    Cached,
    CompositeReward,
    ComputeError,
    ConfigError,
    ContractError,
    Executor,
    FunctionReward,
    GroupRank,
    MaskErrors,
    Retry,
    RewardBuffer,
    RewardFunction,
    Sample,
    Timeout,
)
from flux_rewards.lanes import lanes_of
from flux_rewards.threads import Stop, WorkerPool

SAMPLES = [Sample(f"p{index // 4}", "x" * index) for index in range(40)]


class Where(RewardFunction):
    """The process that computed it."""

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        return [float(os.getpid())] * len(samples)


class Loading(RewardFunction):
    """Counts in its metadata how often this copy of it was called: a model would be loaded at the first."""

    calls = 0

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        from flux_rewards import RewardOutput

        self.calls += 1
        return [RewardOutput(1.0, metadata={"calls": self.calls}) for _ in samples]


class Sleeps(RewardFunction):
    """As long as the response says."""

    batch_size = 1

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        time.sleep(float(str(samples[0].response)))
        return [1.0]


class Dies(RewardFunction):
    """Takes its process along."""

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def processes() -> Iterator[concurrent.futures.ProcessPoolExecutor]:
    """Two processes that import what they need."""
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        yield pool


def everything() -> CompositeReward:
    """Every kind of node, all of them picklable."""
    leaf = Characters(batch_size=6, num_workers=3)
    return CompositeReward(
        {
            "rank": (GroupRank(leaf), 1.0),
            "mean": (GroupMean(num_workers=2), -0.5),
            "retry": (Retry(leaf), 0.1),
            "cached": (Cached(Characters(batch_size=4)), 0.01),
        }
    )


@pytest.mark.parametrize("kind", ["threads", "one thread", "processes"])
def test_any_pool_gives_the_plain_result(kind: str, processes: concurrent.futures.ProcessPoolExecutor) -> None:
    """On an executor, awaited, and in a buffer."""
    reward = everything()
    expected = reward(SAMPLES)
    pool: concurrent.futures.Executor = processes
    if kind != "processes":
        pool = concurrent.futures.ThreadPoolExecutor(1 if kind == "one thread" else 4)

    async def awaited(executor: Executor) -> Any:
        return await executor.submit(reward, SAMPLES)

    with Executor(pool=pool) as executor:
        batches = [executor.submit(reward, SAMPLES).result(timeout=120), asyncio.run(awaited(executor))]
    with RewardBuffer(reward, group_size=4, executor=pool) as buffer:
        for start in range(0, 40, 3):
            buffer.add(SAMPLES[start : start + 3])
        batches.append(buffer.finalize(timeout=120))
    for batch in batches:
        np.testing.assert_array_equal(batch.rewards, expected.rewards)
        assert {name: stats.samples for name, stats in batch.stats.items()} == dict.fromkeys(expected.stats, 40)
    assert pool.submit(max, 1, 2).result(60) == 2  # it is not ours to shut down
    if kind != "processes":
        pool.shutdown()


def test_a_process_keeps_its_rewards(processes: concurrent.futures.ProcessPoolExecutor) -> None:
    """They are made, with their weights, once a process and not once a call."""
    reward = Loading(batch_size=1, num_workers=2)
    with Executor(pool=processes) as executor:
        executor.submit(reward, SAMPLES).result(timeout=120)
        notes = executor.submit(reward, SAMPLES).result(timeout=120).metadata
        where = executor.submit(Where(batch_size=1, num_workers=2), SAMPLES).result(timeout=120)
    assert max(note["calls"] for note in notes) >= 40
    assert float(os.getpid()) not in where.rewards


def test_a_cache_keeps_what_processes_compute(
    processes: concurrent.futures.ProcessPoolExecutor, tmp_path: Path
) -> None:
    """In memory and in a file alike."""
    for path in (None, tmp_path / "scores.sqlite"):
        reward = Cached(Characters(batch_size=4), path)
        with Executor(pool=processes) as executor:
            for hits in (0, 40):
                batch = executor.submit(reward, SAMPLES).result(timeout=120)
                assert batch.rewards.tolist() == list(range(40))
                assert batch.stats["Characters"].cache_hits == hits


def test_a_failure_in_a_process_has_index_and_name(processes: concurrent.futures.ProcessPoolExecutor) -> None:
    """And masks and counters work as elsewhere."""
    values: list[Any] = [1.0] * 9
    values[6] = ValueError("bad")
    with Executor(pool=processes) as executor:
        with pytest.raises(ComputeError, match="ValueError: bad") as caught:
            executor.submit(Told(batch_size=2), told(*values)).result(timeout=120)
        assert (caught.value.reward, caught.value.index) == ("Told", 6)
        assert "in compute_reward" in str(caught.value.__cause__)  # the traceback of the worker
        batch = executor.submit(MaskErrors(Told(batch_size=2)), told(*values)).result(timeout=120)
    assert batch.errors == {6: "ValueError: bad"}
    assert (batch.stats["Told"].failures, batch.stats["Told"].calls) == (1, 5)


def test_a_call_that_is_over_its_time_in_a_process_fails_alone_or_with_those_behind_it() -> None:
    """What finds its lane lost there is a failure of its own samples, masked like any other."""
    reward = MaskErrors(Timeout(Sleeps(), 0.3), 1.0)
    with (
        concurrent.futures.ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
        Executor(pool=pool) as executor,
    ):
        batch = executor.submit(reward, [Sample(response=seconds) for seconds in ("0", "2", "0")]).result(timeout=120)
    assert list(batch.errors) == [1, 2]
    assert batch.errors[1] == "TimeoutError: not done after 0.3 s"
    assert "not begun: 1 of 1 lanes" in batch.errors[2]
    assert batch.rewards[0] == 1.0


def test_what_cannot_be_sent_is_told(processes: concurrent.futures.ProcessPoolExecutor) -> None:
    """At once, and by name."""
    with Executor(pool=processes) as executor, pytest.raises(ConfigError, match="reward 'odd': cannot be sent"):
        executor.submit(FunctionReward(lambda sample: 1.0, name="odd"), SAMPLES)
    unsendable = [Sample(response="x", metadata={"lock": threading.Lock()})]
    with Executor(pool=processes) as executor, pytest.raises((ComputeError, TypeError), match="pickle"):
        executor.submit(Characters(), unsendable).result(timeout=120)


def test_a_process_that_dies_ends_the_call() -> None:
    """Nobody waits for it."""
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        reward = Dies()
        with Executor(pool=pool) as executor, pytest.raises(ComputeError, match=r"Dies.*BrokenProcessPool"):
            executor.submit(reward, SAMPLES).result(timeout=120)
        with Executor(pool=pool) as executor, pytest.raises(ComputeError, match="the pool is broken"):
            executor.submit(Characters(), SAMPLES).result(timeout=120)
        assert lanes_of(reward)._in_flight == 0


@pytest.mark.parametrize("cancel", [False, True])
def test_a_pool_that_is_shut_down_mid_flight(cancel: bool) -> None:
    """Ends the call with an error, whatever was queued; every lane is free again, and nothing hangs."""
    slow, queued = Gated(num_workers=2), Watched(batch_size=1)
    pool = concurrent.futures.ThreadPoolExecutor(1)
    with RewardBuffer(CompositeReward([(slow, 1.0), (queued, 1.0)]), executor=pool) as buffer:
        buffer.add(SAMPLES)
        assert slow.begun.wait(60)
        closer = threading.Thread(target=pool.shutdown, kwargs={"cancel_futures": cancel})
        closer.start()
        time.sleep(0.05)
        slow.release.set()
        for _ in range(2):  # and so does the next step
            with pytest.raises(ContractError, match=r"(shut down|closed) before the call ended"):
                buffer.finalize(timeout=60)
            buffer.add(SAMPLES)
        closer.join(60)
    assert lanes_of(slow)._in_flight == lanes_of(queued)._in_flight == 0
    assert lanes_of(slow)._sent == lanes_of(queued)._sent == {}
    assert queued(SAMPLES[:2]).rewards.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("kind", [concurrent.futures.ThreadPoolExecutor, WorkerPool])
def test_a_shutdown_that_cancels_does_not_wait_for_itself(kind: type[concurrent.futures.Executor]) -> None:
    """It cancels with its lock held: whoever that wakes must not submit from there."""
    slow = Gated()
    one, other = slow, Gated()
    pool: concurrent.futures.Executor = kind(2)  # type: ignore[call-arg]
    pending = [Executor(pool=pool).submit(reward, [Sample()]) for reward in (one, one, other, one, other)]
    assert slow.begun.wait(60)
    closer = threading.Thread(target=pool.shutdown, kwargs={"wait": False, "cancel_futures": True}, daemon=True)
    closer.start()
    closer.join(30)
    assert not closer.is_alive()
    one.release.set()
    other.release.set()
    outcomes = []
    for entry in pending:
        try:
            outcomes.append(entry.result(60).rewards.tolist())
        except ContractError as error:
            outcomes.append(str(error))
    assert outcomes[0] == [1.0]
    assert any("before the call ended" in str(outcome) for outcome in outcomes)
    assert one([Sample()]).rewards.tolist() == other([Sample()]).rewards.tolist() == [1.0]


def test_a_failure_before_many_queued_chunks_leaves_the_lanes_free(
    processes: concurrent.futures.ProcessPoolExecutor,
) -> None:
    """Each of them is passed over, not one inside the other; and the reward can be used again."""
    reward = Told(batch_size=1)
    values: list[Any] = [ValueError("bad")] + [1.0] * 3000
    with Executor(pool=processes) as executor:
        with pytest.raises(ComputeError, match="bad"):
            executor.submit(reward, told(*values)).result(timeout=120)
        assert executor.submit(reward, told(2.0)).result(timeout=120).rewards.tolist() == [2.0]
    assert lanes_of(reward)._in_flight == 0


def test_cancelled_work_passes_its_turn_on() -> None:
    """A lane that came free for a chunk of a pool that is gone is there for the others."""
    slow = Gated()
    doomed = concurrent.futures.ThreadPoolExecutor(1)
    with Executor() as executor:
        first = executor.submit(slow, [Sample()])
        assert slow.begun.wait(60)
        lost = Executor(pool=doomed).submit(slow, [Sample()] * 3)
        second = executor.submit(slow, [Sample()] * 3)
        doomed.shutdown(cancel_futures=True)
        slow.release.set()
        assert first.result(60).rewards.tolist() == [1.0]
        assert second.result(60).rewards.tolist() == [1.0] * 3
        with pytest.raises(ContractError):
            lost.result(60)


def test_a_worker_may_await_what_runs_on_its_own_pool() -> None:
    """As it may ask for its result."""
    inner = Watched(batch_size=4)

    class Outer(RewardFunction):
        num_workers = 4

        def compute_reward(self, sample: Sample) -> float:
            async def main() -> float:
                return float((await executor.submit(inner, [sample])).rewards[0])

            return asyncio.run(main())

    with Executor(threads=2) as executor:
        assert executor.submit(Outer(), SAMPLES).result(timeout=60).rewards.tolist() == list(range(40))


def test_a_deadline_ends_the_call() -> None:
    """From `result`, from `await`, and before the chunks that have not begun."""
    release = threading.Event()
    calls: list[int] = []

    class Slow(RewardFunction):
        batch_size = 1

        def compute_rewards(self, samples: Sequence[Sample]) -> Any:
            calls.append(1)
            release.wait(60)
            return [1.0]

    with Executor() as executor:
        pending = executor.submit(Slow(), SAMPLES, timeout=0.1)
        with pytest.raises(TimeoutError, match="not done by its deadline: still waiting for Slow"):
            pending.result(timeout=60)
        assert pending.done()

        async def awaited() -> None:
            await executor.submit(Slow(), SAMPLES, timeout=0.1)

        with pytest.raises(TimeoutError, match="deadline"):
            asyncio.run(awaited())
        with pytest.raises(TimeoutError, match="not done after"):
            executor.submit(Slow(), SAMPLES, timeout=30).result(timeout=0.01)
        release.set()
    assert len(calls) == 3
    assert executor.run(Characters(), SAMPLES[:2], timeout=60).rewards.tolist() == [0.0, 1.0]
    with pytest.raises(TimeoutError, match="deadline"):
        Executor().run(Watched(0.05, batch_size=1), SAMPLES, timeout=0.1)


@pytest.mark.parametrize("timeout", ["5", -1.0, float("nan"), 1e300])
def test_a_deadline_is_a_number_of_seconds(timeout: Any) -> None:
    """Anything else is refused before anything starts."""
    leaf = Watched()
    with Executor() as executor, pytest.raises(ConfigError, match="timeout"):
        executor.submit(leaf, SAMPLES, timeout=timeout)
    assert leaf.calls == []


def test_closing_does_not_wait_for_ever() -> None:
    """A call that hangs is left behind."""
    release = threading.Event()
    executor = Executor(threads=1)
    pending = executor.submit(FunctionReward(lambda sample: release.wait(60), name="hangs"), [Sample()])
    started = time.monotonic()
    executor.close(timeout=0.1)
    assert time.monotonic() - started < 30
    with pytest.raises(ContractError, match="closed"):
        pending.result(60)
    release.set()


def run(script: str, tmp_path: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """A program of its own, warnings being errors."""
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(script))
    return subprocess.run(
        [sys.executable, "-W", "error", str(path)], capture_output=True, text=True, timeout=100, check=False, **options
    )


PROGRAMS = {
    "a call hangs in an executor": """
        executor = Executor()
        executor.submit(FunctionReward(lambda sample: time.sleep(3600)), [Sample()] * 8)
        time.sleep(0.2)
    """,
    "a call hangs behind a time-out": """
        reward = Timeout(FunctionReward(lambda sample: time.sleep(3600)), 0.1)
        print(MaskErrors(reward, 1.0)([Sample()]).errors)
    """,
    "a retry sleeps": """
        def fails(sample):
            raise ConnectionError()
        buffer = RewardBuffer(Retry(FunctionReward(fails), wait=3600.0, max_wait=3600.0, deadline=None))
        buffer.add([Sample()])
        time.sleep(0.2)
    """,
    "a retry sleeps in a pool of the user's": """
        from concurrent.futures import ThreadPoolExecutor
        def fails(sample):
            raise ConnectionError()
        retry = Retry(FunctionReward(fails), wait=3600.0, max_wait=3600.0, deadline=None)
        buffer = RewardBuffer(retry, executor=ThreadPoolExecutor(2))
        buffer.add([Sample()])
        time.sleep(0.2)
    """,
    "a thousand calls are queued": """
        buffer = RewardBuffer(FunctionReward(lambda sample: time.sleep(0.05), num_workers=4))
        buffer.add([Sample()] * 1000)
    """,
    "a cache is open": """
        import tempfile
        folder = tempfile.mkdtemp()
        buffer = RewardBuffer(Cached(FunctionReward(lambda sample: time.sleep(0.01), num_workers=4), folder + "/c"))
        buffer.add([Sample(response=str(number)) for number in range(1000)])
        time.sleep(0.2)
    """,
    "an error ends it": """
        buffer = RewardBuffer(FunctionReward(lambda sample: time.sleep(0.05), num_workers=4))
        buffer.add([Sample()] * 1000)
        raise SystemExit(0)
    """,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_interpreter_ends(name: str, tmp_path: Path) -> None:
    """Whatever is under way: no hang, and not a word on stderr."""
    imports = (
        "import time\nfrom flux_rewards import (Cached, Executor, FunctionReward, MaskErrors, Retry, RewardBuffer, "
        "Sample, Timeout)\n"
    )
    done = run(imports + textwrap.dedent(PROGRAMS[name]), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_killed_parent_leaves_no_orphans(tmp_path: Path) -> None:
    """Its workers, threads or processes, end with it."""
    (tmp_path / "slow_reward.py").write_text(
        "import os, time\nfrom flux_rewards import RewardFunction\n"
        "class Slow(RewardFunction):\n"
        "    num_workers = 2\n"
        "    def compute_reward(self, sample):\n"
        "        open(f'pid-{os.getpid()}', 'w').close()\n"
        "        time.sleep(0.2)\n"
        "        return 1.0\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(
        "from concurrent.futures import ProcessPoolExecutor\nfrom multiprocessing import get_context\n"
        "from flux_rewards import Executor, RewardBuffer, Sample\nfrom slow_reward import Slow\n"
        "if __name__ == '__main__':\n"
        "    buffer = RewardBuffer(Slow(), executor=ProcessPoolExecutor(2, mp_context=get_context('spawn')))\n"
        "    buffer.add([Sample()] * 1000)\n"
        "    print('begun', flush=True)\n"
        "    buffer.finalize()\n"
    )
    with subprocess.Popen([sys.executable, str(script)], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as parent:
        try:
            until = time.monotonic() + 60
            while len(list(tmp_path.glob("pid-*"))) < 2:
                assert time.monotonic() < until
                time.sleep(0.05)
        finally:
            parent.kill()
    workers = [int(path.name.partition("-")[2]) for path in tmp_path.glob("pid-*")]
    assert parent.pid not in workers
    until = time.monotonic() + 30
    while alive := [pid for pid in workers if running(pid)]:
        assert time.monotonic() < until, f"orphans: {alive}"
        time.sleep(0.05)


def running(pid: int) -> bool:
    """Whether there is such a process that is not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_worker_pool_is_a_pool() -> None:
    """It runs calls with arguments, keeps exceptions, cancels what is queued, and ends with the last who holds it."""
    pool = WorkerPool(2)
    assert pool.submit(divmod, 7, 2).result(60) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 7, 0).result(60)
    assert list(pool.map(abs, [-1, -2])) == [1, 2]
    release, begun = threading.Event(), threading.Barrier(3)
    running_calls = [pool.submit(lambda: begun.wait(60) >= 0 and release.wait(60)) for _ in range(2)]
    begun.wait(60)
    queued = pool.submit(abs, -3)
    closer = threading.Thread(target=pool.shutdown, kwargs={"cancel_futures": True})
    closer.start()
    with pytest.raises(concurrent.futures.CancelledError):
        queued.result(60)
    release.set()
    closer.join(60)
    assert all(call.result(0) for call in running_calls)
    with pytest.raises(RuntimeError, match="shut down"):
        pool.submit(abs, 1)
    forgotten = WorkerPool(1)
    forgotten.submit(abs, 1).result(60)
    (thread,) = forgotten._threads
    del forgotten
    thread.join(60)
    assert not thread.is_alive()


def test_a_stop_calls_back() -> None:
    """Once; at once where it is set already; and not those who left."""
    stop, heard = Stop(), []
    stop.subscribe(lambda: heard.append("first"))
    leaving = lambda: heard.append("left")  # noqa: E731
    stop.subscribe(leaving)
    stop.unsubscribe(leaving)
    assert not stop.is_set()
    stop.set()
    stop.set()
    stop.subscribe(lambda: heard.append("late"))
    stop.unsubscribe(leaving)
    assert heard == ["first", "late"]
    assert stop.is_set()
    assert stop.wait(60)
