"""Scores as JSON and back."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux_rewards import ComputeError, ConfigError, InputError, JudgeError, RemoteError, RewardBatch
from flux_rewards.contract import Scored
from flux_rewards.errors import FluxRewardsError
from flux_rewards.wire.answers import described, pack_answer, plain_answer, restored, unpack_answer
from flux_rewards.wire.samples import MalformedError

_finite = st.floats(allow_nan=False, allow_infinity=False)
_metadata = st.dictionaries(
    st.text(max_size=5), st.one_of(_finite, st.text(), st.lists(st.integers()).map(tuple), st.binary()), max_size=3
)


@st.composite
def batches(draw: st.DrawFn, count: int, depth: int = 2) -> RewardBatch:
    """Scores, failures, tokens, metadata and parts."""
    rewards = [draw(st.one_of(st.just(float("nan")), _finite)) for _ in range(count)]
    failed = {row: draw(st.text()) for row in range(count) if np.isnan(rewards[row]) and draw(st.booleans())}
    tokens = None
    if draw(st.booleans()):
        tokens = [draw(st.one_of(st.none(), st.lists(_finite, max_size=3).map(np.array))) for _ in range(count)]
        tokens = [None if one is None else one.astype(np.float64) for one in tokens]
    metadata: Any = [draw(_metadata) for _ in range(count)] if draw(st.booleans()) else []
    names = draw(st.lists(st.text(max_size=4), max_size=2, unique=True)) if depth else []
    parts = {name: draw(batches(count, depth - 1)) for name in names}
    return RewardBatch(np.array(rewards, dtype=np.float64), tokens, metadata, failed, parts)


def assert_same(one: RewardBatch, other: RewardBatch) -> None:
    """To the last bit, but which NaN it is."""
    nan = np.isnan(one.rewards)
    assert nan.tolist() == np.isnan(other.rewards).tolist()
    assert one.rewards[~nan].tobytes() == other.rewards[~nan].tobytes()
    assert one.errors == other.errors
    assert [dict(entry) for entry in one.metadata] == [dict(entry) for entry in other.metadata]
    if one.token_rewards is None or other.token_rewards is None:
        assert one.token_rewards is other.token_rewards
    else:
        for values, others in zip(one.token_rewards, other.token_rewards, strict=True):
            assert (values is None) == (others is None)
            if values is not None and others is not None:
                assert (values.dtype, values.tobytes()) == (others.dtype, others.tobytes())
    assert list(one.parts) == list(other.parts)
    for name, part in one.parts.items():
        assert_same(part, other.parts[name])


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 4).flatmap(batches))
def test_what_comes_back_is_what_went(batch: RewardBatch) -> None:
    """Scores, tokens, metadata, errors and parts within parts."""
    assert_same(batch, unpack_answer(pack_answer(Scored(batch, {}))).batch)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 3).flatmap(batches))
def test_the_plain_form_is_json(batch: RewardBatch) -> None:
    """Strictly: no NaN, no infinity, and one score a sample."""
    told = json.loads(json.dumps(plain_answer(Scored(batch, {})), allow_nan=False))
    assert told["rewards"] == [None if np.isnan(value) else value for value in batch.rewards.tolist()]
    assert [entry["index"] for entry in told["errors"]] == list(batch.errors)
    assert list(told["parts"]) == list(batch.parts)


ERRORS: list[FluxRewardsError] = [
    InputError("expected text", field="response", index=2),
    ConfigError("no"),
    ComputeError("out of memory", index=0),
    RemoteError("busy", retryable=True, retry_after=1.5, status=503),
    JudgeError("no number", "out_of_range", retryable=True),
    ComputeError(""),
    FluxRewardsError("any"),
]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_an_error_is_restored(error: FluxRewardsError) -> None:
    """Type, message, place and whether it may pass."""
    batch = RewardBatch(np.array([np.nan]), errors={0: "x"})
    found = unpack_answer(pack_answer(Scored(batch, {0: error}))).causes[0]
    assert type(found) is type(error)
    for name in ("args", "field", "index", "retryable", "retry_after", "status", "problem"):
        assert getattr(found, name, None) == getattr(error, name, None), name


@pytest.mark.parametrize(
    "told",
    [
        None,
        [],
        "text",
        {},
        {"type": "SystemExit", "message": "no"},
        {"type": "brief", "message": "no"},
        {"type": "__builtins__", "message": "no"},
        {"type": ["InputError"], "message": {"a": 1}},
        {"type": None, "message": None, "field": 5, "index": "x", "retryable": "yes", "retry_after": "soon"},
        {"type": "RemoteError", "message": "x", "retry_after": 10**400},
        {"type": "RemoteError", "message": "x", "retry_after": float("inf"), "status": "500"},
        {"type": "RemoteError", "message": "x", "retry_after": -5},
        {"type": "JudgeError", "message": "x", "problem": ["a"]},
        {"type": "InputError", "message": "x", "index": True},
    ],
    ids=lambda told: str(told)[:60],
)
def test_an_error_that_is_told_wrong(told: Any) -> None:
    """It is an error of the library all the same, and prints."""
    error = restored(told)
    assert isinstance(error, FluxRewardsError)
    assert str(error) is not None
    assert error.field is None or isinstance(error.field, str)
    assert error.retry_after is None or error.retry_after >= 0
    assert not isinstance(error.index, bool)
    assert described(error)["type"] in ("ComputeError", "InputError", "RemoteError", "JudgeError")


BATCH = RewardBatch(
    np.array([0.5, np.nan]),
    [np.array([1.0, 2.0]), None],
    [{"a": (1,)}, {}],
    {1: "ComputeError: no"},
    {"part": RewardBatch(np.array([0.5, np.nan]), errors={1: "ComputeError: no"})},
)
BODY = pack_answer(Scored(BATCH, {1: ComputeError("no")}))


def _readable(body: bytes) -> bool:
    """Whether it was read; anything but a `MalformedError` is a fault."""
    try:
        unpack_answer(body)
    except MalformedError:
        return False
    return True


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(BODY) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_bytes_that_were_changed(changes: list[tuple[int, int]]) -> None:
    """They are read or refused, and nothing else happens."""
    body = bytearray(BODY)
    for place, byte in changes:
        body[place] = byte
    _readable(bytes(body))


def test_bytes_that_were_cut() -> None:
    """At no place is half an answer one."""
    assert not any(_readable(BODY[:end]) for end in range(len(BODY)))
    assert _readable(BODY)


_any_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**1100), 2**1100), st.floats(), st.text(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)
_WHERE = [
    ("batch",),
    ("causes",),
    ("causes", "1"),
    ("batch", "rewards"),
    ("batch", "rewards", 0),
    ("batch", "token_rewards"),
    ("batch", "token_rewards", 0),
    ("batch", "token_rewards", 0, 1),
    ("batch", "metadata"),
    ("batch", "metadata", 0),
    ("batch", "errors"),
    ("batch", "errors", "1"),
    ("batch", "parts"),
    ("batch", "parts", "part"),
    ("batch", "parts", "part", "rewards"),
]


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(_WHERE), _any_json)
def test_any_value_at_any_place(where: tuple[Any, ...], value: Any) -> None:
    """They are read or refused; what is read holds one row a sample, and no infinity."""
    told = json.loads(BODY)
    inner = told
    for step in where[:-1]:
        inner = inner[step]
    inner[where[-1]] = value
    try:
        found = unpack_answer(json.dumps(told).encode())
    except MalformedError:
        return
    assert all(len(part) == len(found.batch) for part in found.batch.parts.values())
    assert not np.isinf(found.batch.rewards).any()
    assert found.causes.keys() <= set(range(len(found.batch)))
    assert all(np.isnan(found.batch.rewards[row]) for row in found.batch.errors)
    assert all(hasattr(entry, "keys") for entry in found.batch.metadata)
