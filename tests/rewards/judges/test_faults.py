"""Judges and what a server may answer: no failure becomes a score, and each says what came."""

from __future__ import annotations

import gzip
import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from chat_server import (
    Answer,
    ChatServer,
    endless,
    first_token,
    nobody_listens,
    raw,
    reset,
    said,
    slow,
    status,
)
from impatient_judges import rating, samples, yes_no

from flux_rewards import (
    ComputeError,
    JudgeError,
    RemoteError,
)

TEN = said("Score: 10")  # on the scale of 1 to 10: the reward is 1.0
ONE = said("Score: 1")  # and 0.0


def failure(answer: Answer, kind: Callable[..., Any] = rating, **options: Any) -> ComputeError:
    """What a judge raises when this is the answer, having asked once."""
    with ChatServer(answer) as server, pytest.raises(ComputeError) as caught:
        kind(server.url, **options)(samples(1))
    assert len(server.requests) == 1
    assert (caught.value.reward, caught.value.index) == (kind.__annotations__["return"], 0)
    return caught.value


@pytest.mark.parametrize(
    ("answer", "retryable", "says"),
    [
        (status(400, {"error": {"message": "the image is too large"}}), False, "400.*the image is too large"),
        (status(401), False, "401"),
        (status(403), False, "403"),
        (status(404, {"detail": "no model m"}), False, "404.*no model m"),
        (status(408), True, "408"),
        (status(409), True, "409"),
        (status(422), False, "422"),
        (status(429), True, "429"),
        (status(500, "<html>" + "x" * 5000 + "</html>"), True, "500.*x{20}"),
        (status(503, b"\xff\x00"), True, "503"),
        (reset(), True, "127.0.0.1"),
        (reset(after_headers=True), True, "127.0.0.1"),
        (slow(5.0, TEN), True, "0.2 s"),
        (endless(), True, "0.2 s"),
        (raw('{"id": "chatcmpl-0", "choices": [{"mess'), True, "JSON.*mess"),
        (raw("<html>Welcome</html>", "text/html"), False, "JSON.*Welcome.*api_base_url"),
        (raw("<html>Welcome</html>"), False, "JSON.*Welcome.*api_base_url"),
        (raw(b"\xff\xfe\x00{}"), None, "JSON"),
        (raw(b""), None, "JSON"),
        (raw("[" * 100_000), None, "JSON"),
        (raw("null"), None, "choices"),
        (raw("[]"), None, "choices"),
        (raw("{}"), None, "choices"),
        (raw({"choices": []}), None, "choices"),
        (raw({"choices": [None]}), None, "choices"),
        (raw({"choices": [{"message": None}]}), None, "choices"),
        (raw({"error": {"message": "out of memory", "code": 500}}), True, "out of memory"),
        (raw({"error": {"message": "no such model", "code": 404}}), False, "no such model"),
        (raw(b"no gzip", headers={"Content-Encoding": "gzip"}), None, "127.0.0.1"),
    ],
    ids=lambda value: f"{value.code} {value.body[:20]!r}{value.resets}" if isinstance(value, Answer) else "",
)
def test_what_is_no_answer_is_a_remote_error(answer: Answer, retryable: bool | None, says: str) -> None:
    """It says what came, cut short, and whether it may pass."""
    error = failure(answer, timeout=0.2 if answer.after or answer.pause else 5.0)
    assert isinstance(error, RemoteError)
    assert retryable is None or error.retryable is retryable
    assert error.status == (None if answer.code == 200 else answer.code)
    assert re.search(says, str(error), re.DOTALL)
    assert len(str(error)) < 1000


def test_a_refused_connection_is_a_remote_error() -> None:
    """The address is named."""
    with nobody_listens() as url, pytest.raises(RemoteError, match=re.escape(url)) as caught:
        rating(url)(samples(1))
    assert caught.value.retryable


@pytest.mark.parametrize(
    "answer",
    [
        endless(fast=True),
        replace(endless(fast=True), code=500),
        raw(gzip.compress(b" " * (200 << 20), 1), headers={"Content-Encoding": "gzip"}),
    ],
    ids=["poured", "an error", "compressed"],
)
def test_an_answer_without_end_is_given_up(answer: Answer) -> None:
    """At some size, long before the time is up."""
    with ChatServer(answer) as server, pytest.raises(RemoteError, match=r"\d+ MiB|answered 500"):
        rating(server.url, timeout=1.0, deadline=60.0)(samples(1))
    assert server.poured < 64 << 20


@pytest.mark.parametrize(
    ("answer", "problem", "says"),
    [
        (said(None), "unreadable", ""),
        (said(""), "unreadable", ""),
        (said("I like it."), "unreadable", "I like it"),
        (said("It is " + "so " * 3000 + "good."), "unreadable", "so so .*good"),
        (said("Score: 11"), "out_of_range", "Score: 11"),
        (said("Score: 9", finish_reason="length"), "truncated", "Score: 9"),
        (said("Score: 9", finish_reason="content_filter"), "refused", ""),
        (said(None, refusal="I will not judge this."), "refused", "I will not judge this"),
    ],
    ids=lambda value: "" if isinstance(value, Answer) else value,
)
def test_an_answer_without_a_verdict_is_a_judge_error(answer: Answer, problem: str, says: str) -> None:
    """It holds the reply, cut short, and is no number."""
    error = failure(answer)
    assert isinstance(error, JudgeError)
    assert error.problem == problem
    assert re.search(says, str(error), re.DOTALL)
    assert len(str(error)) < 1000


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (said("Yes"), "logprobs"),
        (said(None), ""),
        (first_token({}, said="Yes"), "logprobs"),
        (first_token({"Yes": math.nan, "No": -1.0}), "(?i)nan"),
        (first_token({"Yes": 0.7, "No": -1.0}), "0.7"),
        (first_token({"Yes": math.inf, "No": -1.0}), "(?i)inf"),
        (first_token({"Perhaps": -0.1, "Well": -3.0}), "Perhaps"),
        (first_token({"Yes": -20.0, "Well": -0.01}), "Well"),  # less than `min_mass`
    ],
)
def test_probabilities_that_are_none_are_no_score(answer: Answer, says: str) -> None:
    """Where they are missing, impossible, or of other words."""
    error = failure(answer, yes_no)
    assert isinstance(error, (JudgeError, RemoteError))
    assert re.search(says, str(error))


@pytest.mark.parametrize(
    "answer",
    [
        raw(TEN.body, "text/plain"),
        raw(gzip.compress(TEN.body), headers={"Content-Encoding": "gzip"}),
        raw(b"\n \n" + TEN.body + b"\n"),
        said("Score: 10", finish_reason=None, tokens=None),
        said([{"type": "text", "text": "Score: "}, {"type": "text", "text": "10"}]),  # type: ignore[arg-type]
        said("Score: 10", tool_calls=[], refusal=None, reasoning_content="Score: 3", annotations=[]),
        raw(TEN.body.replace(b'"prompt_tokens": 10', b'"prompt_tokens": "many"')),
    ],
)
def test_what_is_odd_beside_the_verdict_does_no_harm(answer: Answer) -> None:
    """Servers differ in what they send along."""
    with ChatServer(answer) as server:
        assert rating(server.url)(samples(1)).rewards.tolist() == [1.0]
