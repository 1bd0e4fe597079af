from __future__ import annotations

import gc
import multiprocessing
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

import pytest

from flux_rewards import shared as module
from flux_rewards.shared import shared


class Model:
    """Anything that can be referred to weakly."""


def test_many_threads_make_one_object() -> None:
    """All wait for the one that makes it."""
    made = []
    begin = threading.Barrier(16)

    def make() -> Model:
        made.append(Model())
        threading.Event().wait(0.05)
        return made[-1]

    def ask(_: int) -> Model:
        begin.wait(60)
        return shared("threads", make)

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(ask, range(16)))
    assert len(made) == 1
    assert all(one is made[0] for one in found)


def test_other_keys_do_not_wait() -> None:
    """Two models are read at once, where two threads want them."""
    both = threading.Barrier(2)

    def make() -> Model:
        both.wait(60)  # breaks where one waits for the other
        return Model()

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda key: shared(key, make), ("one", "other"))
    assert one is not other


def test_it_dies_with_its_last_holder() -> None:
    """And is made again after that; nothing is kept of it."""
    one = shared(("dies",), Model)
    other = shared(("dies",), Model)
    assert other is one
    seen = weakref.ref(one)
    del one
    assert seen() is other
    del other
    gc.collect()
    assert seen() is None
    again = shared(("dies",), Model)
    assert isinstance(again, Model)
    del again
    gc.collect()
    assert ("dies",) not in module._held
    assert ("dies",) not in module._making


def test_a_failure_can_be_tried_again() -> None:
    """By the one that failed, and by those who waited for it."""
    outcomes = iter([OSError("no network"), OSError("still none"), None])
    lock = threading.Lock()

    def make() -> Model:
        with lock:
            outcome = next(outcomes)
        if outcome is not None:
            raise outcome
        return Model()

    with pytest.raises(OSError, match="no network"):
        shared("fails", make)

    def ask(_: int) -> Model | None:
        try:
            return shared("fails", make)
        except OSError:
            return None

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ask, range(4)))
    assert found.count(None) == 1
    assert len({id(one) for one in found if one is not None}) == 1


def test_one_may_be_made_of_another() -> None:
    """A reward's model shares its tower; what asks for itself is an error, and no deadlock."""

    def make() -> Model:
        return shared("inner", Model)

    outer = shared("outer", make)
    assert outer is shared("inner", Model)

    def endless() -> Model:
        return shared("endless", endless)

    with pytest.raises(RecursionError):
        shared("endless", endless)


def _ask_in_child(answer: Connection) -> None:
    answer.send([type(shared(key, Model)).__name__ for key in ("forked", "held")])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_while_a_thread_makes_it_does_not_wait_for_ever() -> None:
    """The child has no such thread, and makes its own."""
    held = shared("held", Model)
    making, finish = threading.Event(), threading.Event()

    def make() -> Model:
        making.set()
        assert finish.wait(60)
        return Model()

    thread = threading.Thread(target=shared, args=("forked", make))
    thread.start()
    try:
        assert making.wait(60)
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        child = context.Process(target=_ask_in_child, args=(theirs,))
        child.start()
        answered = ours.poll(30)
        assert answered, "the child hangs"
        assert ours.recv() == ["Model", "Model"]
        child.join(30)
        assert child.exitcode == 0
    finally:
        if child.is_alive():
            child.kill()
        finish.set()
        thread.join(60)
    assert shared("held", Model) is held


def test_locks_of_the_parent_are_free_after_a_fork() -> None:
    """It goes on as before."""
    kept = shared("after a fork", Model)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(shared, "after a fork", Model).result(60) is kept


def test_what_cannot_be_referred_to_weakly_is_an_error() -> None:
    """A tuple would never leave memory, or never be shared."""
    with pytest.raises(TypeError, match="weak reference"):
        shared("tuple", lambda: (1, 2))
