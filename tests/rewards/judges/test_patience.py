"""Judges and servers that are busy, slow or down: what is asked again, when, and how much at a time."""

from __future__ import annotations

import email.utils
import itertools
import math
import re
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from chat_server import (
    Answer,
    ChatServer,
    Request,
    hanging_up,
    in_turn,
    raw,
    reset,
    said,
    slow,
    status,
)
from impatient_judges import rating, samples

from flux_rewards import (
    Cached,
    ComputeError,
    ConfigError,
    JudgeError,
    MaskErrors,
    RemoteError,
    Timeout,
)

TEN = said("Score: 10")  # on the scale of 1 to 10: the reward is 1.0
ONE = said("Score: 1")  # and 0.0


def test_what_may_pass_is_asked_again() -> None:
    """After a pause, with the same words; the metadata say how often."""
    faults = [status(500), status(503), reset(), reset(after_headers=True), slow(9.0, ONE), raw('{"choices": [')]
    seen: list[str] = []

    def answer(request: Request) -> Answer:
        seen.append(request.text)
        which = int(request.text.rpartition("answer ")[2].split()[0])
        return faults[which] if seen.count(request.text) == 1 else TEN

    with ChatServer(answer) as server:
        batch = rating(server.url, max_retries=3, timeout=0.5)(samples(len(faults)))
    assert batch.rewards.tolist() == [1.0] * len(faults)
    assert [row["attempts"] for row in batch.metadata] == [2] * len(faults)
    assert [seen.count(text) for text in seen] == [2] * 2 * len(faults)
    arrived = {text: [request.arrived for request in server.requests if request.text == text] for text in seen}
    assert all(second - first > 0.05 for first, second in arrived.values())


def test_what_was_given_up_makes_room() -> None:
    """A request that is late holds up no other."""
    with ChatServer(in_turn(slow(60.0, ONE), TEN)) as server:
        batch = MaskErrors(rating(server.url, max_concurrent=1, timeout=0.2), 1.0)(samples(3))
    assert np.isnan(batch.rewards).tolist() == [True, False, False]


def test_a_failure_that_cannot_pass_ends_a_call_that_raises() -> None:
    """What is not asked yet would be asked for nothing."""
    answer = in_turn(status(400), slow(0.05, TEN))
    with ChatServer(answer) as server, pytest.raises(RemoteError, match="400"):
        rating(server.url, max_concurrent=4)(samples(60))
    assert len(server.requests) <= 8


def test_connections_that_end_behind_an_answer_cost_nothing() -> None:
    """As servers do with idle ones, unannounced."""
    with ChatServer(hanging_up(TEN)) as server:
        batch = rating(server.url, max_retries=2, max_concurrent=2)(samples(12))
    assert batch.rewards.tolist() == [1.0] * 12


@pytest.mark.parametrize("form", ["seconds", "date", "nothing"])
def test_the_server_says_when_to_ask_again(form: str) -> None:
    """In seconds or as a date; nobody asks before, not for other samples either."""
    date = math.ceil(time.time()) + 1
    headers = {"seconds": {"Retry-After": "1"}, "date": {"Retry-After": email.utils.formatdate(date, usegmt=True)}}
    busy = status(429, headers=headers.get(form, {}))

    def answer(request: Request) -> Answer:
        return busy if request.number == 0 else slow(0.1, TEN)

    with ChatServer(answer) as server:
        batch = rating(server.url, max_retries=1, max_concurrent=2)(samples(6))
    assert batch.rewards.tolist() == [1.0] * 6
    assert sorted(row["attempts"] for row in batch.metadata) == [1, 1, 1, 1, 1, 2]
    begun = server.requests[0].arrived
    pause = {"seconds": 1.0, "date": date - (time.time() - time.monotonic()) - begun}.get(form, 0.0)
    too_early = [request for request in server.requests if 0.05 < request.arrived - begun < pause - 0.01]
    assert not too_early


def test_a_judge_gives_up_after_the_last_retry() -> None:
    """What the server asked for is handed on, for others to wait."""
    with ChatServer(status(429, headers={"Retry-After": "0"})) as server, pytest.raises(RemoteError) as caught:
        rating(server.url, max_retries=2)(samples(1))
    assert len(server.requests) == 3
    assert (caught.value.retryable, caught.value.retry_after, caught.value.status) == (True, 0.0, 429)
    with ChatServer(status(503, headers={"Retry-After": "7"})) as server, pytest.raises(RemoteError) as caught:
        rating(server.url)(samples(1))
    assert (len(server.requests), caught.value.retry_after) == (1, 7.0)


@pytest.mark.parametrize("wish", ["3600", "1e308", "inf", "nan", "-5", "soon"])
def test_no_wish_of_a_server_is_waited_for_beyond_the_deadline(wish: str) -> None:
    """Then the failure stands, at once; what is no time is no wish."""
    answer = in_turn(status(429, headers={"Retry-After": wish}), TEN)
    with ChatServer(answer) as server:
        batch = MaskErrors(rating(server.url, max_retries=1, deadline=3.0), 1.0)(samples(1))
    if wish in ("3600", "1e308"):
        assert re.search("429.*deadline", batch.errors[0])
        assert len(server.requests) == 1
    else:
        assert batch.rewards.tolist() == [1.0]


@pytest.mark.parametrize("code", [401, 403, 404])
def test_the_rest_of_a_batch_is_not_asked_where_nobody_may_ask(code: int) -> None:
    """A wrong key or model is wrong for all: no hammering, even where failures are masked."""
    with ChatServer(slow(0.02, status(code))) as server:
        judge = rating(server.url, max_retries=3, max_concurrent=4)
        batch = MaskErrors(judge, 1.0)(samples(60))
        assert len(server.requests) <= 8
        with pytest.raises(RemoteError, match=str(code)) as caught:
            judge(samples(60))
    assert len(server.requests) <= 16
    assert len(batch.errors) == 60
    assert (caught.value.status, caught.value.retryable) == (code, False)


def test_a_bad_sample_fails_alone() -> None:
    """Failures are NaN, with a reason each, and no other row is touched; nothing is asked twice."""
    faults = {1: status(400), 4: said("No idea."), 7: reset(), 8: raw({"choices": []})}

    def answer(request: Request) -> Answer:
        match = re.search(r"answer (\d+)", request.text)
        assert match is not None
        return faults.get(int(match[1]), said(f"Score: {int(match[1]) + 1}"))

    with ChatServer(answer) as server:
        judge = rating(server.url, max_concurrent=3)
        batch = MaskErrors(judge, 0.4)(samples(10))
        assert list(batch.errors) == [1, 4, 7, 8]
        assert len(server.requests) == 10
        with pytest.raises(ComputeError, match="4 of 10 samples failed"):
            MaskErrors(judge, 0.3)(samples(10))
    expected = [math.nan if number in faults else number / 9 for number in range(10)]
    np.testing.assert_allclose(batch.rewards, expected)
    assert re.search("400", batch.errors[1])
    assert re.search("No idea", batch.errors[4])
    assert re.search("RemoteError", batch.errors[7])
    assert re.search("choices", batch.errors[8])


def test_a_reply_that_cannot_be_read_is_asked_for_again_where_wished() -> None:
    """So often, and no more; transport has retries of its own."""
    answers = in_turn(said("No idea."), said("Score: 99"), TEN)
    with ChatServer(answers) as server:
        assert rating(server.url, retry_unreadable=2, temperature=0.7)(samples(1)).rewards.tolist() == [1.0]
    assert len(server.requests) == 3
    with ChatServer(answers) as server, pytest.raises(JudgeError, match="Score: 99"):
        rating(server.url, retry_unreadable=1, temperature=0.7)(samples(1))
    assert len(server.requests) == 2


def test_a_call_has_a_deadline() -> None:
    """What is in flight then is cancelled, what waits is not asked; what was scored stays."""
    answer = in_turn(TEN, slow(60.0, TEN))
    with ChatServer(answer) as server:
        judge = rating(server.url, max_concurrent=1, max_retries=5, timeout=60.0, deadline=0.5)
        batch = MaskErrors(judge, 1.0)(samples(5))
        while server.in_flight:
            time.sleep(0.005)
    assert np.isnan(batch.rewards).tolist() == [False, True, True, True, True]
    assert all("deadline" in reason for reason in batch.errors.values())
    assert (len(server.requests), server.abandoned) == (2, 1)


def test_a_timeout_around_a_judge_ends_its_request() -> None:
    """Nobody wants the answer any more."""
    with ChatServer(slow(60.0, TEN)) as server:
        judge = rating(server.url, timeout=60.0)
        judge.load()
        batch = MaskErrors(Timeout(judge, 0.3), 1.0)(samples(1))
        end = time.monotonic() + 5.0
        while not server.abandoned and time.monotonic() < end:
            time.sleep(0.005)
    assert list(batch.errors) == [0]
    assert (len(server.requests), server.abandoned) == (1, 1)


def test_no_more_requests_at_once_than_allowed() -> None:
    """Of all judges of an endpoint together, from any thread; and no fewer."""
    with ChatServer(slow(0.02, TEN)) as server:
        judges = [rating(server.url, max_concurrent=7, criteria=f"Is it good? {n}") for n in range(2)] * 2
        with ThreadPoolExecutor(4) as pool:
            batches = list(pool.map(lambda judge: judge(samples(30)), judges))
    assert [batch.rewards.tolist() for batch in batches] == [[1.0] * 30] * 4
    assert (server.at_once, len(server.requests)) == (7, 120)


def test_no_more_requests_a_minute_than_allowed() -> None:
    """The rest would be too late for this call, and says so."""
    with ChatServer(TEN) as server:
        judge = rating(server.url, requests_per_minute=5, deadline=1.0)
        with pytest.raises(ConfigError, match="8 requests at requests_per_minute=5 take 60 s"):
            judge(samples(8))
        batch = MaskErrors(judge, 1.0)(samples(5))
        assert np.isfinite(batch.rewards).all()
        again = MaskErrors(judge, 1.0)(samples(1))
    assert len(again.errors) == 1
    assert all("deadline" in reason for reason in [*batch.errors.values(), *again.errors.values()])
    assert len(server.requests) == 5


def test_a_cached_judge_asks_once() -> None:
    """For what it scored, with its metadata; a failure is asked about again."""
    answers = itertools.chain([said("No idea."), said("Score: 4", tokens=(30, 4))], itertools.repeat(ONE))
    with ChatServer(lambda request: next(answers)) as server:
        reward = MaskErrors(Cached(rating(server.url)), 1.0)
        assert len(reward(samples(1)).errors) == 1
        batches = [reward(samples(1)) for _ in range(3)]
    assert len(server.requests) == 2
    assert [batch.rewards.tolist() for batch in batches] == [[pytest.approx(1 / 3)]] * 3
    for name in ("verdict", "tokens", "attempts", "latency"):
        assert [batch.metadata[0][name] for batch in batches] == [batches[0].metadata[0][name]] * 3
    assert batches[0].metadata[0]["verdict"] == "Score: 4"
