"""How `RemoteReward` asks: tries, pauses, limits, connections."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import pytest
from scripted_server import LENGTHS, TWO, Reply, in_turn, lengths, nobody, scripted

from flux_rewards import (
    MaskErrors,
    RemoteError,
    Timeout,
)
from flux_rewards.executor import Executor
from flux_rewards.remote.remote_reward import RemoteReward


@pytest.mark.parametrize("code", [400, 401, 403, 404, 405, 409, 413, 415, 422, 501])
def test_a_refusal_is_final(code: int, pauses: list[float]) -> None:
    """The same request would be refused again."""
    body = {"error": {"type": "InputError", "message": "expected text", "field": "prompt", "index": 1}}
    with scripted(Reply(code, body)) as server, pytest.raises(RemoteError, match="expected text") as caught:
        RemoteReward(server.url, retry_attempts=5)(TWO)
    assert (caught.value.status, caught.value.retryable) == (code, False)
    assert len(server.scored) == 1
    assert not pauses


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503])
def test_a_status_that_may_pass(code: int, pauses: list[float]) -> None:
    """As many tries as there may be, each after a longer pause; the error says what the last one said."""
    with scripted(Reply(code, {"error": {"type": "Busy", "message": "later"}})) as server:
        with pytest.raises(RemoteError, match=f"answered {code}: Busy: later.*attempt 3 of 3") as caught:
            RemoteReward(server.url, retry_attempts=3)(TWO)
        assert len(server.scored) == 3
        assert (caught.value.status, caught.value.retryable) == (code, True)
        assert 0.125 <= pauses[0] <= 0.25 <= pauses[1] <= 0.5
        assert len(pauses) == 2


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_count_of_attempts(count: int, pauses: list[float]) -> None:
    """The last may succeed, and one fewer would have failed."""
    replies = [Reply(503)] * (count - 1)
    with scripted(in_turn(*replies, lengths)) as server:
        assert RemoteReward(server.url, retry_attempts=count)(TWO).rewards.tolist() == LENGTHS
        assert len(server.scored) == count
    with scripted(Reply(503)) as server:
        with pytest.raises(RemoteError):
            RemoteReward(server.url, retry_attempts=count)(TWO)
        assert len(server.scored) == count


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [("1.5", 1.5, 1.9), ("0", 0.1, 0.3), ("soon", 0.1, 0.3), ("-5", 0.1, 0.3), ("nan", 0.1, 0.3)],
)
def test_a_pause_obeys_retry_after(header: str, least: float, most: float, pauses: list[float]) -> None:
    """No shorter than the server asks for; what is no number of seconds is left alone."""
    with scripted(in_turn(Reply(429, headers={"Retry-After": header}), lengths)) as server:
        RemoteReward(server.url)(TWO)
    (pause,) = pauses
    assert least <= pause <= most


@pytest.mark.parametrize("header", ["86400", "1e300", "Fri, 31 Dec 2999 23:59:59 GMT"])
def test_a_pause_has_an_end(header: str, pauses: list[float]) -> None:
    """A server that is away for a day fails the call, with what it asked for: every wait is bounded."""
    with scripted(Reply(503, headers={"Retry-After": header})) as server:
        with pytest.raises(RemoteError) as caught:
            RemoteReward(server.url, timeout=5.0, wait_for_server=5.0)(TWO)
        assert caught.value.retry_after is not None
    assert all(pause <= 60 for pause in pauses), pauses


def test_a_redirect_is_not_followed(pauses: list[float]) -> None:
    """It would take the token elsewhere, and make a GET of the request."""
    with scripted() as other:
        moved = Reply(302, headers={"Location": f"{other.url}/v1/score"})
        with scripted(moved) as server, pytest.raises(RemoteError, match="302"):
            RemoteReward(server.url, token="secret")(TWO)  # noqa: S106
    assert not other.asked
    assert len(server.scored) == 1


def test_a_slow_server(pauses: list[float]) -> None:
    """It is not asked again, which would make it do the same work twice; another one is, where there is one."""
    with scripted(Reply(after=5.0)) as slow, scripted(lengths) as server:
        with pytest.raises(RemoteError, match=r"did not answer within 0.1 s; send fewer") as caught:
            RemoteReward(slow.url, timeout=0.1, retry_attempts=3)(TWO)
        assert caught.value.retryable
        assert len(slow.scored) == 1
        assert not pauses
        several = RemoteReward([slow.url, server.url], timeout=0.5)
        assert [several(TWO).rewards.tolist() for _ in range(3)] == [LENGTHS] * 3


def test_a_server_over_its_own_deadline() -> None:
    """A 504 is like a time-out of the client's own; the server is told how long its client waits."""
    with scripted(Reply(504, {"error": {"type": "Deadline", "message": "late"}})) as server:
        with pytest.raises(RemoteError, match="answered 504: Deadline: late") as caught:
            RemoteReward(server.url, timeout=7.5)(TWO)
        assert (caught.value.status, caught.value.retryable, len(server.scored)) == (504, True, 1)
        assert server.scored[0].headers["Flux-Rewards-Patience"] == "7.5"


def test_a_server_that_says_that_it_would_not_help_to_ask_again(pauses: list[float]) -> None:
    """A 500 is asked about again, unless its error says that it will stay."""
    error = {"type": "ConfigError", "message": "no", "retryable": False}
    with scripted(Reply(500, {"error": error})) as server:
        with pytest.raises(RemoteError, match="answered 500: ConfigError: no") as caught:
            RemoteReward(server.url)(TWO)
        assert (len(server.scored), caught.value.retryable) == (1, False)


@pytest.mark.parametrize("code", [401, 404, 413])
def test_one_of_several_that_serves_something_else(code: int) -> None:
    """Another token, another service: the others are asked; the error is told where all say it."""
    with scripted(Reply(code)) as other, scripted(lengths) as server:
        remote = RemoteReward([other.url, server.url], name="lengths")
        assert [remote(TWO).rewards.tolist() for _ in range(3)] == [LENGTHS] * 3
        with pytest.raises(RemoteError, match=f"answered {code}"):
            RemoteReward([other.url, other.url])(TWO)


def test_a_server_that_trickles(pauses: list[float]) -> None:
    """The time is that of the whole request: a byte now and then does not make it endless."""
    with scripted(Reply(body=b" " * 100, does="trickle")) as server:  # for 5 seconds
        remote = RemoteReward(server.url, timeout=0.3, retry_attempts=1)
        with pytest.raises(RemoteError, match="within"):
            remote(TWO)
        assert server.trickled < 100


@pytest.mark.parametrize("does", ["reset", "hang up"])
def test_a_connection_that_breaks(does: str, pauses: list[float]) -> None:
    """Once, it is asked again; always, it is an error that may pass."""
    with scripted(in_turn(Reply(body=b"half", does=does), lengths)) as server:
        assert RemoteReward(server.url)(TWO).rewards.tolist() == LENGTHS
        assert len(server.scored) == 2
    with scripted(Reply(body=b"half", does=does)) as server:
        with pytest.raises(RemoteError, match="attempt 3 of 3") as caught:
            RemoteReward(server.url)(TWO)
        assert caught.value.retryable
        assert len(server.scored) == 3


def test_nobody_is_there() -> None:
    """The patience is for those that come; without any, the first refusal is an error that says so."""
    with nobody() as url, pytest.raises(RemoteError, match="cannot be reached") as caught:
        RemoteReward(url, wait_for_server=0.0)(TWO)
    assert caught.value.retryable


def test_a_host_that_there_is_not(pauses: list[float]) -> None:
    """It is waited for like one that is not up yet, and no longer."""
    with pytest.raises(RemoteError, match=r"nowhere\.invalid"):
        RemoteReward("http://nowhere.invalid:1", wait_for_server=0.0)(TWO)
    assert len(pauses) <= 2


def test_a_server_that_comes_late() -> None:
    """It is waited for, and the waiting costs no attempt."""
    with nobody() as url:
        port = int(url.rpartition(":")[2])
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(RemoteReward(url, retry_attempts=1, wait_for_server=20.0), TWO)
        time.sleep(0.3)
        with scripted(port=port):
            assert pending.result(20).rewards.tolist() == LENGTHS


def test_a_server_that_still_loads(pauses: list[float]) -> None:
    """It says so, and the waiting costs no attempt."""
    loading = Reply(503, {"error": {"type": "NotReady", "message": "the server is loading"}})
    with scripted(in_turn(*[loading] * 6, lengths)) as server:
        assert RemoteReward(server.url, retry_attempts=1)(TWO).rewards.tolist() == LENGTHS
        assert len(server.scored) == 7
    with scripted(loading) as server, pytest.raises(RemoteError, match="loading"):
        RemoteReward(server.url, retry_attempts=2, wait_for_server=0.0)(TWO)


def test_a_call_that_is_cancelled_stops_trying() -> None:
    """Neither the pause is waited for, nor another request made."""
    with scripted(Reply(503, headers={"Retry-After": "30"})) as server:
        remote = RemoteReward(server.url)
        remote.load()
        with Executor() as executor:
            pending = executor.submit(remote, TWO)
            until = time.monotonic() + 10
            while not server.scored and time.monotonic() < until:
                time.sleep(0.01)
            pending.cancel()
            with pytest.raises(CancelledError):
                pending.result(10)
            executor.close(timeout=10)
        alive = [thread for thread in threading.enumerate() if "flux-rewards" in thread.name and thread.is_alive()]
        assert not [thread for thread in alive if "RemoteReward" in thread.name]
        assert len(server.scored) == 1


def test_a_limit_around_it() -> None:
    """A `Timeout` ends the tries, too: nothing goes on alone afterwards."""
    with scripted(Reply(503, headers={"Retry-After": "0.4"})) as server:
        masked = MaskErrors(Timeout(RemoteReward(server.url, retry_attempts=50), 0.3), max_failure_rate=1.0)
        assert list(masked(TWO).errors) == [0, 1]
        count = len(server.scored)
        time.sleep(0.6)
        assert len(server.scored) == count


def test_connections_are_used_again() -> None:
    """One for a thread, whatever the number of calls."""
    with scripted() as server:
        remote = RemoteReward(server.url, num_workers=1)
        for _ in range(5):
            remote(TWO)
        assert len({asked.connection for asked in server.asked}) == 1
        with ThreadPoolExecutor(3) as pool:
            barrier = threading.Barrier(3)

            def ask(_: int) -> None:
                barrier.wait(10)
                remote.compute_rewards(TWO)

            list(pool.map(ask, range(3)))
            list(pool.map(ask, range(3)))
        assert len({asked.connection for asked in server.asked}) == 4


def _ask_in_child(remote: RemoteReward, pipe: Any) -> None:
    pipe.send(remote(TWO).rewards.tolist())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork() -> None:
    """The child has a connection of its own, and the parent keeps its."""
    with scripted() as server:
        remote = RemoteReward(server.url)
        remote(TWO)
        receiving, sending = multiprocessing.Pipe(duplex=False)
        child = multiprocessing.get_context("fork").Process(target=_ask_in_child, args=(remote, sending))
        child.start()
        assert receiving.poll(20)
        assert receiving.recv() == LENGTHS
        child.join(20)
        assert remote(TWO).rewards.tolist() == LENGTHS
        assert len({asked.connection for asked in server.scored}) == 2


@pytest.mark.slow
def test_in_a_spawned_process() -> None:
    """It pickles after a call, too, without its connections; without its token unless the environment has it."""
    with scripted() as server:
        remote = RemoteReward(server.url, retry_attempts=2, name="far")
        remote(TWO)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(remote, (TWO,)).rewards.tolist() == LENGTHS


def test_no_connection_is_left_behind() -> None:
    """Closed, it holds nothing open; asked again, it opens another."""
    with scripted() as server:
        remote = RemoteReward(server.url)
        remote(TWO)
        remote.close()
        remote.close()
        assert remote(TWO).rewards.tolist() == LENGTHS
