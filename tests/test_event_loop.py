"""The library's one event loop: from any thread, with an end, and never for itself."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

import pytest

from flux_rewards import ContractError, RemoteError
from flux_rewards.event_loop import close_on, run_in_background
from flux_rewards.threads import Stop

PARENT = os.getpid()

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def soon(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether it comes true while one can wait."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    return condition()


async def double(number: int) -> int:
    await asyncio.sleep(0.001 * (number % 3))
    return 2 * number


async def here() -> tuple[int, int]:
    return id(asyncio.get_running_loop()), threading.get_ident()


class Endless:
    """A coroutine that ends by being cancelled only, and notes that it was."""

    def __init__(self) -> None:
        self.running = threading.Event()
        self.cancelled = threading.Event()

    async def __call__(self) -> None:
        self.running.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


def test_results_from_many_threads() -> None:
    """Each gets its own; all on one loop, in one thread that is none of theirs."""
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda number: run_in_background(double(number)), range(100))) == list(range(0, 200, 2))
        places = set(pool.map(lambda _: run_in_background(here()), range(20)))
    assert len(places) == 1
    assert threading.get_ident() not in {thread for _, thread in places}


def test_within_a_running_loop() -> None:
    """As in a notebook: the other loop waits, and is no hindrance."""

    async def go() -> tuple[int, bool]:
        loop, _ = run_in_background(here())
        return run_in_background(double(21)), loop == id(asyncio.get_running_loop())

    assert asyncio.run(go()) == (42, False)
    assert asyncio.run(go()) == (42, False)


def test_they_run_side_by_side() -> None:
    """Each waits for the other to have begun."""
    begun = [threading.Event(), threading.Event()]

    async def meet(own: int) -> bool:
        begun[own].set()
        for _ in range(2000):
            if begun[1 - own].is_set():
                return True
            await asyncio.sleep(0.002)
        return False

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda own: run_in_background(meet(own)), range(2))) == [True, True]


@pytest.mark.parametrize("error", [ValueError("no"), KeyError("x"), RemoteError("late", retryable=True)])
def test_what_it_raises_is_raised(error: Exception) -> None:
    """The very exception; and the loop goes on."""

    async def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        run_in_background(fail())
    assert caught.value is error
    assert run_in_background(double(1)) == 2


def test_on_its_own_thread_it_would_wait_for_itself() -> None:
    """So it is an error, at once; and no coroutine is left that was never awaited."""

    async def inner() -> int:
        return run_in_background(double(1))

    with pytest.raises(ContractError, match="event loop"):
        run_in_background(inner())
    gc.collect()  # a coroutine that was never awaited warns here, and warnings are errors
    assert run_in_background(double(1)) == 2


def test_from_a_thread_of_the_loop_it_may_be_called() -> None:
    """Such as one that encodes images: that is not the loop's own."""

    async def outer() -> int:
        return await asyncio.to_thread(lambda: run_in_background(double(4)))

    assert run_in_background(outer()) == 8


def test_a_stop_cancels() -> None:
    """From another thread, at once; the coroutine has ended too."""
    endless, stop = Endless(), Stop()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(run_in_background, endless(), stop)
        assert endless.running.wait(5.0)
        stop.set()
        with pytest.raises(concurrent.futures.CancelledError):
            waiting.result(5.0)
    assert endless.cancelled.wait(5.0)


def test_a_stop_that_is_set_already_cancels() -> None:
    """However far it came."""
    stop = Stop()
    stop.set()
    with pytest.raises(concurrent.futures.CancelledError):
        run_in_background(Endless()(), stop)


def test_a_stop_outlives_many_calls() -> None:
    """Nothing of them is left in it, however they ended; and it stops those that run."""
    stop = Stop()

    async def fail() -> None:
        raise ValueError("no")

    for number in range(20):
        assert run_in_background(double(number), stop) == 2 * number
        with pytest.raises(ValueError, match="no"):
            run_in_background(fail(), stop)
    assert stop._callbacks == []
    endless = [Endless() for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(run_in_background, each(), stop) for each in endless]
        assert all(each.running.wait(5.0) for each in endless)
        stop.set()
        assert all(isinstance(each.exception(5.0), concurrent.futures.CancelledError) for each in waiting)
    assert all(each.cancelled.wait(5.0) for each in endless)


def test_the_loop_has_a_thread_of_its_own_that_ends_with_the_interpreter() -> None:
    """One, however many call; a daemon."""
    run_in_background(double(1))
    [thread] = [thread for thread in threading.enumerate() if thread.name == "flux-rewards-event-loop"]
    assert thread.daemon
    assert run_in_background(here())[1] == thread.ident


def test_context_variables_are_those_of_the_caller() -> None:
    """As for any call."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    async def read() -> str:
        return variable.get()

    token = variable.set("mine")
    try:
        assert run_in_background(read()) == "mine"
    finally:
        variable.reset(token)


class Owner:
    """Something that holds a connection, say."""


def test_what_is_gone_says_goodbye() -> None:
    """On the loop, once, and not before."""
    said: list[str] = []

    def owned(name: str) -> Owner:
        owner = Owner()

        async def goodbye() -> None:
            said.append(f"{name} {threading.current_thread().name}")

        close_on(owner, goodbye)
        return owner

    first, second = owned("first"), owned("second")
    run_in_background(double(1))
    assert said == []
    del first
    gc.collect()
    assert soon(lambda: said == ["first flux-rewards-event-loop"])
    del second
    gc.collect()
    assert soon(lambda: len(said) == 2)


def test_a_goodbye_that_fails_is_nobodys_business() -> None:
    """The loop goes on, and nothing is written."""

    async def goodbye() -> None:
        raise ValueError("closed already")

    owner: Any = Owner()
    close_on(owner, goodbye)
    del owner
    gc.collect()
    assert run_in_background(double(3)) == 6


def answer_in_child(pipe: Connection) -> None:
    """What a forked child does."""
    pipe.send((run_in_background(double(21)), os.getpid() != PARENT))
    pipe.close()


@forks
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_a_loop_of_its_own() -> None:
    """Though the parent's was in use; and what the parent owned says no goodbye there."""
    said: list[int] = []
    owner: Any = Owner()

    async def goodbye() -> None:
        said.append(os.getpid())

    close_on(owner, goodbye)
    endless, stop = Endless(), Stop()
    context = multiprocessing.get_context("fork")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(run_in_background, endless(), stop)
        assert endless.running.wait(5.0)
        for _ in range(2):
            ours, theirs = context.Pipe(duplex=False)
            child = context.Process(target=answer_in_child, args=(theirs,))
            child.start()
            theirs.close()
            assert ours.poll(10.0)
            assert ours.recv() == (42, True)
            child.join(10.0)
            assert child.exitcode == 0
        assert run_in_background(double(2)) == 4
        assert not endless.cancelled.is_set()
        stop.set()
        with pytest.raises(concurrent.futures.CancelledError):
            waiting.result(5.0)
    del owner
    gc.collect()
    assert soon(lambda: said == [os.getpid()])
