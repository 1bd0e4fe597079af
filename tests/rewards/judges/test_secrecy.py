"""The key of an endpoint: sent to the endpoint, and shown to nobody."""

from __future__ import annotations

import base64
import json
import logging
import pickle
import re
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from chat_server import Answer, ChatServer, Request, first_token, in_turn, raw, reset, said, slow, status
from impatient_judges import rating, samples

from flux_rewards import ComputeError, FluxRewardsError, MaskErrors, RatingJudge
from flux_rewards.config import load_rewards, to_config

KEY = "sk-proj-Zq7vT3mWx9Lr5KbN2cYd8HgJ4fPs6AeU"


def shows_key(text: str | bytes) -> bool:
    """Whether the key is there, a good part of it, or a common encoding of it."""
    text = text.decode("latin-1") if isinstance(text, bytes) else text
    parts = [KEY[start : start + 8] for start in range(8, len(KEY) - 8)]
    return any(part in text for part in [*parts, base64.b64encode(KEY.encode()).decode()[:20]])


def everything_said(error: BaseException | None) -> str:
    """An error's text, its traceback, and the same of all errors behind it, hidden ones too."""
    told: list[str] = []
    waiting, seen = [error], set()
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        told += [str(each), repr(each), repr(each.args), *traceback.format_exception(each)]
        if isinstance(each, FluxRewardsError):
            told.append(pickle.dumps(each).decode("latin-1"))
        waiting += [each.__cause__, each.__context__]
    return "\n".join(told)


def echo(request: Request) -> str:
    """What the server was sent to know who asks."""
    return str(request.headers["Authorization"])


def escaped(answer: Answer) -> Answer:
    """The same JSON with the key in escapes, as some servers write all that is not a letter."""
    return replace(answer, body=answer.body.replace(KEY.encode(), "".join(f"\\u{ord(c):04x}" for c in KEY).encode()))


ECHOES: dict[str, Callable[[Request], Answer]] = {
    "an error": lambda request: status(401, {"error": {"message": f"wrong key: {echo(request)}"}}),
    "a page": lambda request: status(500, f"<html>{echo(request)}</html>"),
    "a header": lambda request: status(400, headers={"X-Request-Authorization": echo(request)}),
    "a header of an answer": lambda request: raw("{}", headers={"X-Request-Authorization": echo(request)}),
    "an error with the status 200": lambda request: raw({"error": {"message": echo(request), "code": 400}}),
    "no JSON": lambda request: raw(f"<html>{dict(request.headers)}</html>"),
    "JSON without choices": lambda request: raw({"headers": dict(request.headers)}),
    "escaped JSON": lambda request: status(400, json.dumps({"detail": json.dumps({"was": echo(request)})})),
    "a reply": lambda request: said(f"I was called with {echo(request)}."),
    "a reply with escapes": lambda request: escaped(said(f"I was called with {echo(request)}.")),
    "an error with escapes": lambda request: escaped(status(400, {"error": {"message": echo(request)}})),
    "no choices with escapes": lambda request: escaped(raw({"headers": echo(request)})),
    "a truncated reply": lambda request: said(echo(request), finish_reason="length"),
    "a log-probability": lambda request: first_token({echo(request): 5.0}),
    "a redirect": lambda request: status(302, headers={"Location": f"http://127.0.0.1:1/{echo(request)[7:]}"}),
    "a redirect to nowhere": lambda request: status(307, headers={"Location": f"nowhere://{echo(request)[7:]}"}),
    "nothing": lambda request: reset(),
    "nothing in time": lambda request: slow(5.0, said("Score: 3")),
}


@pytest.mark.parametrize("where", ECHOES)
def test_no_error_and_no_log_shows_the_key(where: str, caplog: pytest.LogCaptureFixture) -> None:
    """Though the server sends it back, and all loggers tell all they know."""
    caplog.set_level(logging.DEBUG)
    with ChatServer(ECHOES[where]) as server:
        late = where == "nothing in time"
        judge = rating(server.url, api_key=KEY, timeout=0.2 if late else 5.0)
        with pytest.raises(ComputeError) as caught:
            judge(samples(1))
        masked = MaskErrors(judge, 1.0)(samples(1))
    assert server.requests[0].headers["Authorization"] == f"Bearer {KEY}"
    assert not shows_key(everything_said(caught.value))
    assert not shows_key(repr(masked))
    assert not shows_key(pickle.dumps(masked))
    if "header" not in where and "redirect" not in where:  # the transport logs what headers it is sent
        assert not shows_key(caplog.text)
        assert not any(shows_key(repr(vars(record))) for record in caplog.records)


@pytest.mark.parametrize("form", ["an error", "a page", "a reply"])
def test_no_part_of_the_key_is_left_where_a_message_is_cut(form: str) -> None:
    """Wherever it stands in a long answer."""

    def answer(request: Request) -> Answer:
        text = "x" * (8 * request.number) + echo(request) + "y" * (700 - 8 * request.number)
        forms = {
            "an error": status(400, {"error": {"message": text}}),
            "a page": status(400, text),
            "a reply": said(text),
        }
        return forms[form]

    with ChatServer(answer) as server:
        batch = MaskErrors(rating(server.url, api_key=KEY, max_concurrent=1), 1.0)(samples(85))
    assert len(batch.errors) == 85
    assert [index for index, reason in batch.errors.items() if shows_key(reason)] == []


@pytest.mark.parametrize(
    "key", [KEY + "\n", KEY + "é", KEY[:20] + " " + KEY[20:], KEY[:20] + '"\\' + KEY[20:]], ids=repr
)
def test_a_key_that_cannot_be_sent_is_not_shown(key: str, caplog: pytest.LogCaptureFixture) -> None:
    """As it is read from a file with its line break."""
    caplog.set_level(logging.DEBUG)
    said_so = ""
    with ChatServer(lambda request: status(401, {"error": {"message": echo(request)}})) as server:
        with pytest.raises((FluxRewardsError, ValueError)) as caught:
            rating(server.url, api_key=key)(samples(1))
        said_so = everything_said(caught.value)
    assert not shows_key(said_so)
    assert not shows_key(caplog.text)


@pytest.mark.parametrize("given", ["argument", "environment"])
def test_the_key_stays_with_the_judge(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is neither printed nor pickled nor written to a configuration, before use and after."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    if given == "environment":
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with ChatServer(said("Score: 10")) as server:
        judge = rating(server.url, **({"api_key": KEY} if given == "argument" else {}))
        for _ in range(2):
            told: list[str | bytes] = [
                repr(judge),
                str(judge),
                repr(to_config(judge)),
                pickle.dumps(judge),
            ]
            assert not any(shows_key(each) for each in told)
            batch = judge(samples(2))
        assert not shows_key(repr(batch))
        assert not shows_key(pickle.dumps(batch))
    assert {request.headers["Authorization"] for request in server.requests} == {f"Bearer {KEY}"}


def test_without_a_key_a_placeholder_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of one's own want none; an empty variable is none."""
    with ChatServer(said("Score: 10")) as server:
        for value in (None, ""):
            monkeypatch.delenv("OPENAI_API_KEY", raising=False)
            if value is not None:
                monkeypatch.setenv("OPENAI_API_KEY", value)
            rating(server.url)(samples(1))
    assert [request.headers["Authorization"] for request in server.requests] == ["Bearer EMPTY"] * 2


def test_a_rebuilt_judge_takes_the_key_from_its_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a pickle or a configuration: never the key that the first one was given."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    with ChatServer(said("Score: 10")) as server:
        judge = rating(server.url, api_key=KEY)
        rebuilt: list[Any] = [pickle.loads(pickle.dumps(judge)), load_rewards(to_config(judge))]
        for each in rebuilt:
            (each if isinstance(each, RatingJudge) else each.train)(samples(1))
    assert [request.headers["Authorization"] for request in server.requests] == ["Bearer sk-of-the-environment"] * 2


def test_a_redirect_to_another_server_takes_no_key_along() -> None:
    """Whoever it leads to learns nothing."""
    with ChatServer(said("Score: 10")) as other:
        elsewhere = {"Location": f"{other.url}/chat/completions"}
        with ChatServer(in_turn(status(307, headers=elsewhere))) as server:
            MaskErrors(rating(server.url, api_key=KEY), 1.0)(samples(1))
    assert len(server.requests) == 1
    assert not any(shows_key(str(dict(request.headers)) + str(request.body)) for request in other.requests)


def test_a_key_that_others_hold_is_not_shared() -> None:
    """Two judges of one endpoint with keys of their own send their own, at once."""
    with ChatServer(slow(0.05, said("Score: 10"))) as server:
        for key in ("sk-of-alice", "sk-of-bob", "sk-of-alice"):
            rating(server.url, api_key=key)(samples(2))
    sent = [re.sub("Bearer sk-of-", "", str(request.headers["Authorization"])) for request in server.requests]
    assert sent == ["alice"] * 2 + ["bob"] * 2 + ["alice"] * 2
