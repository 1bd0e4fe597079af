"""What `RemoteReward` takes for an answer, and what it does not."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scripted_server import KNOWN, LENGTHS, TWO, Reply, in_turn, lengths, scripted

from flux_rewards import (
    MaskErrors,
    RemoteError,
    RewardBatch,
)
from flux_rewards.contract import Scored
from flux_rewards.remote.remote_reward import RemoteReward
from flux_rewards.wire.answers import ANSWER_TYPE, pack_answer


def answer(told: Any) -> Reply:
    return Reply(body=told, headers={"Content-Type": ANSWER_TYPE})


def packed(batch: dict[str, Any], causes: Any = None) -> Reply:
    """An answer in the binary form's own JSON, with something in it replaced."""
    whole = {"token_rewards": None, "metadata": None, "errors": {}, "parts": {}, "rewards": [1.0, 2.0], **batch}
    return answer(json.dumps({"batch": whole, "causes": {} if causes is None else causes}))


UNREADABLE: dict[str, Reply] = {
    "too few": packed({"rewards": [1.0]}),
    "too many": packed({"rewards": [1.0, 2.0, 3.0]}),
    "none": packed({"rewards": []}),
    "text for a number": packed({"rewards": ["1.0", 2.0]}),
    "truth for a number": packed({"rewards": [True, 2.0]}),
    "NaN": packed({"rewards": [float("nan"), 2.0]}),
    "infinity": packed({"rewards": [float("inf"), 2.0]}),
    "a number too large": answer(
        '{"batch": {"rewards": [1e999, 2], "token_rewards": null, "metadata": null, '
        '"errors": {}, "parts": {}}, "causes": {}}'
    ),
    "a whole number too large": packed({"rewards": [10**400, 2.0]}),
    "a list for a number": packed({"rewards": [[1.0], 2.0]}),
    "one number": packed({"rewards": 1.0}),
    "text of digits": packed({"rewards": "12"}),
    "an object": packed({"rewards": {"0": 1.0, "1": 2.0}}),
    "nothing": packed({"rewards": None}),
    "token rewards of another length": packed({"token_rewards": [[1.0]]}),
    "token rewards that are text": packed({"token_rewards": [["a"], None]}),
    "token rewards that are infinite": packed({"token_rewards": [[float("inf")], None]}),
    "metadata of another length": packed({"metadata": [{"dict": []}]}),
    "metadata that are no mapping": packed({"metadata": [1, 2]}),
    "metadata of an unknown kind": packed({"metadata": [{"pickle": "gASVAAAA"}, {"dict": []}]}),
    "an error elsewhere": packed({"rewards": [1.0, None], "errors": {"7": "ComputeError: no"}}),
    "an error that is a score": packed({"errors": {"1": "ComputeError: no"}}),
    "an error without a place": packed({"rewards": [1.0, None], "errors": {"x": "ComputeError: no"}}),
    "causes elsewhere": packed({}, {"5": {"type": "ComputeError", "message": "no"}}),
    "causes that are a list": packed({}, [1]),
    "parts of another length": packed(
        {"parts": {"a": {"rewards": [1.0], "token_rewards": None, "metadata": None, "errors": {}, "parts": {}}}}
    ),
    "parts that are a list": packed({"parts": [1]}),
    "plain JSON": answer({"rewards": LENGTHS}),
    "null": answer("null"),
    "a list": answer("[1.0, 2.0]"),
    "HTML": Reply(body="<html><h1>It works!</h1></html>", headers={"Content-Type": "text/html"}),
    "an empty body": answer(b""),
    "half": answer(b'{"batch": {"rewards": [1.0, '),
    "no UTF-8": answer(b"\xff\xfe\x00"),
    "deep": answer("[" * 100_000),
    "gzip that is none": Reply(body=b"nothing", headers={"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_an_answer_that_cannot_be_read(kind: str, pauses: list[float]) -> None:
    """It is an error that names the server, after as many tries as there may be, and never a score."""
    with scripted(UNREADABLE[kind]) as server, pytest.raises(RemoteError) as caught:
        RemoteReward(server.url, retry_attempts=2)(TWO)
    assert server.url in str(caught.value)
    assert "attempt 2 of 2" in str(caught.value)
    assert len(server.scored) == 2


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_try_that_cannot_be_read_is_made_again(kind: str, pauses: list[float]) -> None:
    """A proxy that was in the way may be gone the next time."""
    with scripted(in_turn(UNREADABLE[kind], lengths)) as server:
        assert RemoteReward(server.url)(TWO).rewards.tolist() == LENGTHS


@pytest.mark.parametrize(
    "known",
    [
        Reply(404),
        Reply(body="<html>"),
        Reply(body="null"),
        Reply(body={**KNOWN, "name": None}),
        Reply(body={**KNOWN, "scope": "all"}),
        Reply(body={**KNOWN, "required_fields": "response"}),
        Reply(body={**KNOWN, "required_fields": ["words"]}),
        Reply(body={**KNOWN, "required_fields": [["response"]]}),
        Reply(body={**KNOWN, "required_fields": None}),
        Reply(body={**KNOWN, "optional_fields": 5}),
        Reply(body={**KNOWN, "bounds": "wide"}),
        Reply(body={**KNOWN, "bounds": [1]}),
        Reply(body={**KNOWN, "bounds": ["a", "b"]}),
        Reply(body={key: value for key, value in KNOWN.items() if key != "optional_fields"}),
    ],
    ids=lambda reply: str(reply.body)[-60:] or str(reply.code),
)
def test_a_server_that_does_not_say_what_it_serves(known: Reply, pauses: list[float]) -> None:
    """An error of the remote reward, not one of Python's, and nothing is scored."""
    with scripted(known=known) as server:
        remote = RemoteReward(server.url)
        with pytest.raises(RemoteError, match=server.url):
            remote.load()
        with pytest.raises(RemoteError):
            remote(TWO)
    assert not server.scored


def test_all_that_an_answer_holds() -> None:
    """Parts, token rewards, metadata, errors and their causes, from the bytes of another version of the server."""
    batch = RewardBatch(
        np.array([0.1, np.nan]),
        [np.array([1.0, -0.0]), None],
        [{"size": (1, 2), "raw": b"\x00"}, {}],
        {1: "NewError: never heard of"},
        {"part": RewardBatch(np.array([0.2, np.nan]), errors={1: "NewError: never heard of"})},
    )
    body = json.loads(pack_answer(Scored(batch, {})))
    body["causes"] = {"1": {"type": "NewError", "message": "never heard of", "field": 7, "index": "x", "more": []}}
    body["later"] = "whatever a later version adds"
    with scripted(answer(body)) as server:
        found = MaskErrors(RemoteReward(server.url), max_failure_rate=1.0)(TWO)
    assert found.errors == batch.errors
    assert found.parts["part"].rewards[0] == 0.2
    assert found.metadata[0] == {"size": (1, 2), "raw": b"\x00"}
    assert found.token_rewards is not None
    assert found.token_rewards[0] is not None
    assert found.token_rewards[0].tolist() == [1.0, 0.0]
