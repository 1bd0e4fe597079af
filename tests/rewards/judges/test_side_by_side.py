"""Judges among other rewards: asked at the same time, in sums, masks, caches and buffers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import Answer, ChatServer, Request, said, status
from impatient_judges import IMPATIENT, rating, samples

from flux_rewards import (
    Cached,
    CompositeReward,
    MaskErrors,
    PairwiseJudge,
    RankingJudge,
    RatingJudge,
    RemoteError,
    RewardBuffer,
    RewardFunction,
    RewardOutput,
    RubricJudge,
    Sample,
)
from flux_rewards.wrappers.cache_keys import reward_digest


def when_all_are_there(servers: Sequence[ChatServer], count: int, answer: Callable[[Request], Answer]) -> Any:
    """Answers once so many requests wait at the servers together; those that come one by one get an error."""

    async def script(request: Request) -> Answer:
        for _ in range(1500):
            if max(server.at_once for server in servers) >= count:
                return answer(request)
            await asyncio.sleep(0.002)
        return status(400, "alone")

    return script


def two_judges(url: str, **options: Any) -> CompositeReward:
    """Of one endpoint."""
    first, second = (rating(url, f"Is it {what}?", **options) for what in ("kind", "true"))
    return CompositeReward({"kind": (first, 0.5), "true": (second, 0.25)})


def kind_or_true(request: Request) -> Answer:
    return said("Score: 10" if "kind" in request.text else "Score: 1")


def scripted(count: int, answer: Callable[[Request], Answer | Awaitable[Answer]]) -> ChatServer:
    """A server that answers when so many wait at once."""
    servers: list[ChatServer] = []
    servers.append(ChatServer(when_all_are_there(servers, count, answer)))  # type: ignore[arg-type]
    return servers[0]


def test_judges_of_a_sum_are_asked_side_by_side() -> None:
    """One slow request each takes as long as one."""
    with scripted(2, kind_or_true) as server:
        batch = two_judges(server.url)(samples(1))
    assert server.at_once == 2
    assert batch.rewards.tolist() == [0.5]
    assert [batch.parts[name].rewards.tolist() for name in ("kind", "true")] == [[1.0], [0.0]]


def test_batches_of_one_judge_are_asked_side_by_side() -> None:
    """Batches cut the memory that is needed, not the number of requests in flight."""
    with scripted(6, kind_or_true) as server:
        batch = rating(server.url, "Is it kind?", batch_size=2)(samples(6))
    assert server.at_once == 6
    assert batch.rewards.tolist() == [1.0] * 6


def test_groups_are_asked_side_by_side() -> None:
    """All pairs of all groups; all groups that are ranked."""
    groups = [Sample(f"prompt {group}", f"response {number}") for group in range(3) for number in range(2)]
    with scripted(6, lambda request: said("Verdict: A")) as server:
        pairwise = PairwiseJudge("m", "Which?", api_base_url=server.url, **IMPATIENT)
        assert pairwise(groups).rewards.tolist() == [0.5] * 6
    scores = json.dumps({"R1": 10, "R2": 10})
    with scripted(3, lambda request: said(scores)) as server:
        ranking = RankingJudge("m", "Which?", api_base_url=server.url, **IMPATIENT)
        assert ranking(groups).rewards.tolist() == [1.0] * 6


def test_a_buffer_asks_all_judges_while_samples_come() -> None:
    """Before it is told that there are no more."""
    with scripted(4, kind_or_true) as server, RewardBuffer(two_judges(server.url, max_concurrent=4)) as buffer:
        for sample in samples(2):
            buffer.add([sample])
        server.wait_for(4)
        batch = buffer.finalize(timeout=20)
    assert batch.rewards.tolist() == [0.5, 0.5]
    assert [row["verdict"] for row in batch.parts["kind"].metadata] == ["Score: 10"] * 2


def test_one_judge_that_fails_makes_the_sum_fail_for_its_sample_only() -> None:
    """No part of a sum is left out by a failure."""

    def answer(request: Request) -> Answer:
        if "answer 1" in request.text and "true" in request.text:
            return said("Who knows?")
        return kind_or_true(request)

    with ChatServer(answer) as server:
        kind, true = two_judges(server.url).children
        reward = CompositeReward({"kind": (MaskErrors(kind, 0.5), 0.5), "true": (MaskErrors(true, 0.5), 0.25)})
        batch = reward(samples(3))
    np.testing.assert_array_equal(batch.rewards, [0.5, np.nan, 0.5])
    assert "Who knows?" in batch.errors[1]
    assert batch.parts["kind"].rewards.tolist() == [1.0] * 3


def test_a_server_that_is_gone_fails_all_without_a_mask() -> None:
    """With the judge's name."""
    with ChatServer(status(404)) as server, pytest.raises(RemoteError, match="404") as caught:
        two_judges(server.url)(samples(3))
    assert caught.value.reward in ("kind", "true", "RatingJudge")


ODD = "a\x00b \ud800 \u2028 \U0001f600 é\nScore: 10"


def test_an_odd_reply_can_be_kept(tmp_path: Path) -> None:
    """Half a character, a zero: in metadata, a cache on disk, JSON and bytes."""
    with ChatServer(said(ODD)) as server:
        for _ in range(2):
            [row] = Cached(rating(server.url), path=tmp_path / "scores")(samples(1))
            assert row.reward == 1.0
            json.dumps(row.metadata, ensure_ascii=False).encode("utf-8")
        assert len(server.requests) == 1


def test_an_odd_reply_can_be_told() -> None:
    """Errors are printed and logged, where half a character is an error of its own."""
    with ChatServer(said("\ud800 I like it. \x1b[2J\x00")) as server:
        batch = MaskErrors(rating(server.url), 1.0)(samples(1))
    batch.errors[0].encode("utf-8")
    assert "I like it" in batch.errors[0]
    assert not {"\x1b", "\x00"} & set(batch.errors[0])


def test_a_cache_knows_a_judge_by_what_it_asks() -> None:
    """Not by its key, its limits or its patience; but by its model, its address, its words."""
    with ChatServer(said("Score: 10")) as server, ChatServer(said("Score: 10")) as elsewhere:
        same: list[dict[str, Any]] = [
            {},
            {"api_key": "sk-other-key"},
            {"max_concurrent": 3},
            {"requests_per_minute": 900},
            {"timeout": 4.0},
            {"deadline": 19.0},
            {"max_retries": 1},
            {"retry_unreadable": 1},
        ]
        other: list[dict[str, Any]] = [
            {"vlm_model": "other"},
            {"api_base_url": elsewhere.url},
            {"criteria": "Is it bad?"},
            {"score_range": (1, 20)},
            {"temperature": 0.5},
            {"max_tokens": 99},
            {"extra_body": {"seed": 1}},
            {"label": "score"},
            {"fields": ("response", "prompt")},
        ]
        base = rating(server.url).all_parameters
        known_by = [reward_digest(RatingJudge(**{**base, **options})) for options in same + other]
    assert len(set(known_by[: len(same)])) == 1
    assert len(set(known_by)) == 1 + len(other)


class Kind(RewardFunction):
    """Somebody's own reward that asks a judge within."""

    required_fields = ("response",)

    def __init__(self, judge: RubricJudge) -> None:
        super().__init__()
        self.judge = judge

    def compute_rewards(self, samples: Sequence[Sample]) -> list[RewardOutput]:
        batch = self.judge(list(samples))
        return [RewardOutput(1.0 - row.reward, parts=row.parts, metadata=row.metadata) for row in batch]


def test_a_judge_within_a_reward() -> None:
    """May be called there, from several workers; its parts can be handed on."""
    with ChatServer(said('{"kind": 2}')) as server:
        judge = RubricJudge("m", {"kind": "Is it kind?"}, api_base_url=server.url, **IMPATIENT)
        own = Kind(judge)
        batch = CompositeReward([(own, 1.0), (judge, 1.0)])(samples(4))
    assert batch.rewards.tolist() == [1.0] * 4
    assert batch.parts["Kind"].parts["kind"].rewards.tolist() == [0.25] * 4
