"""Who may call a judge: threads, loops, processes; and how it ends, with its caller, its process, or by Ctrl-C."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from chat_server import Answer, ChatServer, Request, in_turn, said, slow
from impatient_judges import rating, samples

import flux_rewards
from flux_rewards import Executor, RatingJudge, RewardBuffer

TEN, ONE = said("Score: 10"), said("Score: 1")  # of 1 to 10: rewards of 1.0 and 0.0
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
quietly = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # of forking with threads: the point here


def soon(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether it comes true while one can wait."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


def by_number(request: Request) -> Answer:
    """A score for each sample: number 0 the least, 9 the best."""
    return slow(0.005, said(f"Score: {int(request.text.rpartition('answer ')[2].split()[0].rstrip('.,<>/')) + 1}"))


def test_four_threads_at_once() -> None:
    """Each several times; each gets its own scores, in order."""
    expected = [number / 9 for number in range(10)]
    with ChatServer(by_number) as server:
        judge = rating(server.url, max_concurrent=8)
        with ThreadPoolExecutor(4) as pool:
            batches = list(pool.map(lambda _: judge(samples(10)), range(20)))
    for batch in batches:
        assert batch.rewards.tolist() == pytest.approx(expected)
    assert server.at_once == 8


def test_from_within_a_running_loop() -> None:
    """As in a notebook, plainly and from threads of the loop; loop after loop."""

    async def go(judge: RatingJudge) -> list[Any]:
        return [judge(samples(3)), *await asyncio.gather(*[asyncio.to_thread(judge, samples(3)) for _ in range(3)])]

    async def awaited(judge: RatingJudge) -> Any:
        with Executor() as executor:
            return await executor.submit(judge, samples(3))

    with ChatServer(TEN) as server:
        judge = rating(server.url, max_concurrent=2)
        batches = [*asyncio.run(go(judge)), *asyncio.run(go(judge)), asyncio.run(awaited(judge)), judge(samples(3))]
    assert [batch.rewards.tolist() for batch in batches] == [[1.0] * 3] * 10


def test_a_buffer_asks_while_others_work() -> None:
    """Samples are sent as they come."""
    with ChatServer(slow(0.02, TEN)) as server:
        judge = rating(server.url)
        with RewardBuffer(judge) as buffer:
            for sample in samples(4):
                buffer.add([sample])
            server.wait_for(1)
            assert buffer.finalize(timeout=20).rewards.tolist() == [1.0] * 4


def test_a_closed_judge_can_be_used_again() -> None:
    """Closing ends its connections; closing twice is closing once."""
    with ChatServer(TEN) as server:
        judge = rating(server.url)
        judge.close()
        for _ in range(2):
            assert judge(samples(2)).rewards.tolist() == [1.0] * 2
            judge.close()
            judge.close()
            assert soon(lambda: server.connected == 0)


def test_a_judge_that_is_gone_leaves_no_connection() -> None:
    """Without being closed, too."""
    with ChatServer(TEN) as server:
        judge = rating(server.url)
        judge(samples(2))
        assert server.connected > 0
        del judge
        gc.collect()
        assert soon(lambda: server.connected == 0)


def test_judges_of_one_endpoint_share_a_client() -> None:
    """One connection serves one after the other; a judge that is closed leaves the others theirs."""
    with ChatServer(TEN) as server:
        judges = [rating(server.url, criteria=f"Is it good? {number}") for number in range(8)]
        for judge in judges:
            judge(samples(1))
        judges[0].close()
        assert judges[1](samples(1)).rewards.tolist() == [1.0]
        assert server.connections == 1
        judges[0](samples(1))
        assert server.connections == 1


def score_and_tell(judge: RatingJudge, answers: Connection) -> None:
    """What a forked child does."""
    answers.send(judge(samples(2)).rewards.tolist())
    answers.close()


@forks
@quietly
def test_a_forked_child_can_ask() -> None:
    """Though its parent has asked, and waits for an answer while it forks; and the parent goes on."""
    context = multiprocessing.get_context("fork")
    with ChatServer(in_turn(TEN, slow(0.8, ONE), TEN)) as server:
        judge = rating(server.url, max_concurrent=1)
        assert judge(samples(1)).rewards.tolist() == [1.0]
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(judge, samples(1))
            server.wait_for(2)
            here, there = context.Pipe(duplex=False)
            child = context.Process(target=score_and_tell, args=(judge, there))
            child.start()
            there.close()
            assert here.poll(10.0)
            assert here.recv() == [1.0, 1.0]
            assert waiting.result(10.0).rewards.tolist() == [0.0]
        child.join(10.0)
        assert child.exitcode == 0
        assert judge(samples(1)).rewards.tolist() == [1.0]


@pytest.mark.slow
def test_a_spawned_process_can_ask() -> None:
    """With the judge as it comes out of a pickle, used before or not."""
    with ChatServer(TEN) as server:
        judge = rating(server.url)
        judge(samples(1))
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            (batch,) = pool.map(judge, [samples(2)])
        assert batch.rewards.tolist() == [1.0, 1.0]
        assert pickle.loads(pickle.dumps(judge))(samples(1)).rewards.tolist() == [1.0]


SCRIPT = """
import signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
from flux_rewards import Executor, RatingJudge, RewardBuffer, Sample
judge = RatingJudge("m", "Is it good?", api_base_url=sys.argv[1], timeout=60.0, max_retries=0)
samples = [Sample(prompt="question", response="answer")]
"""
ENDINGS = {
    "in a thread of the caller": "threading.Thread(target=judge, args=[samples], daemon=True).start()",
    "on an executor": "pending = Executor().submit(judge, samples)",
    "in a buffer": "buffer = RewardBuffer(judge); buffer.add(samples)",
}


def process(script: str, url: str) -> subprocess.Popen[str]:
    """A Python process that runs it."""
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT + script, url],
        env={**os.environ, "PYTHONPATH": str(Path(flux_rewards.__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("how", ENDINGS)
def test_an_interpreter_ends_though_it_waits_for_an_answer(how: str) -> None:
    """Within seconds, and without a word."""
    with ChatServer(slow(60.0, TEN)) as server, process(ENDINGS[how] + "\nsys.stdin.readline()", server.url) as child:
        assert soon(lambda: server.in_flight == 1 or child.poll() is not None, 30.0)
        told, complaint = child.communicate("end\n", timeout=20.0)
        assert (child.returncode, told, complaint) == (0, "", "")
        assert soon(lambda: server.abandoned == 1)


@pytest.mark.slow
def test_an_interpreter_ends_silently_when_all_is_answered() -> None:
    """Connections that were kept are no complaint either, with all warnings shown."""
    script = "import warnings; warnings.simplefilter('always'); print(judge(samples).rewards.tolist())"
    with ChatServer(TEN) as server, process(script, server.url) as child:
        told, complaint = child.communicate(timeout=30.0)
    assert (child.returncode, told, complaint) == (0, "[1.0]\n", "")


INTERRUPTED = """
try:
    judge(samples)
except KeyboardInterrupt:
    print("interrupted", flush=True)
print(judge(samples).rewards.tolist())
"""


@pytest.mark.slow
def test_ctrl_c_ends_a_call() -> None:
    """At once, and its request; the judge goes on."""
    with ChatServer(in_turn(slow(60.0, ONE), TEN)) as server, process(INTERRUPTED, server.url) as child:
        assert soon(lambda: server.in_flight == 1 or child.poll() is not None, 30.0)
        child.send_signal(signal.SIGINT)
        told, complaint = child.communicate(timeout=20.0)
        assert (child.returncode, told, complaint) == (0, "interrupted\n[1.0]\n", "")
        assert server.abandoned == 1


def test_no_thread_but_the_one_loop_is_left() -> None:
    """However many judges asked; helpers, which look up names, are shared too."""
    with ChatServer(TEN) as server:
        rating(server.url)(samples(1))
        before = set(threading.enumerate())
        for number in range(5):
            judge = rating(server.url, max_concurrent=number + 1)
            judge(samples(3))
            judge.close()
        left = set(threading.enumerate()) - before
        assert {re.sub(r"-\d+$", "", thread.name) for thread in left} <= {"flux-rewards-event-loop-helper"}
