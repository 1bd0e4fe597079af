"""Several servers that serve the same."""

from __future__ import annotations

import time

import pytest
from scripted_server import LENGTHS, TWO, Reply, in_turn, lengths, nobody, scripted

from flux_rewards import (
    RemoteError,
    Sample,
)
from flux_rewards.remote.remote_reward import RemoteReward


def test_servers_are_asked_in_turn() -> None:
    """Each gets its share."""
    with scripted() as one, scripted() as two, scripted() as three:
        remote = RemoteReward([one.url, two.url, three.url], num_workers=1, batch_size=1)
        samples = [Sample(response="x" * count) for count in range(12)]
        assert remote(samples).rewards.tolist() == list(range(12))
        assert [len(server.scored) for server in (one, two, three)] == [4, 4, 4]


@pytest.mark.parametrize("bad", [Reply(500), Reply(does="reset"), Reply(body="<html>"), Reply(429)], ids=str)
def test_another_server_is_asked_at_once(bad: Reply, pauses: list[float]) -> None:
    """A failure of one is no pause for the call, and that one is passed over for a while."""
    with scripted(bad) as broken, scripted() as sound:
        remote = RemoteReward([broken.url, sound.url], num_workers=1, batch_size=1)
        samples = [Sample(response="x" * count) for count in range(20)]
        assert remote(samples).rewards.tolist() == list(range(20))
        assert not pauses
        assert len(broken.scored) == 1
        assert len(sound.scored) == 20


def test_a_server_that_recovered_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is passed over for some seconds, not for ever."""
    monkeypatch.setattr("flux_rewards.remote.servers.SULK_SECONDS", 0.2)
    with scripted(in_turn(Reply(500), lengths)) as one, scripted() as two:
        remote = RemoteReward([one.url, two.url], num_workers=1)
        for _ in range(4):
            remote(TWO)
        assert len(one.scored) == 1
        time.sleep(0.3)
        for _ in range(4):
            remote(TWO)
        assert len(one.scored) == 3


def test_one_of_two_is_not_there(pauses: list[float]) -> None:
    """The other one answers for it, without a wait."""
    with nobody() as url, scripted() as server:
        remote = RemoteReward([url, server.url], num_workers=1)
        for _ in range(4):
            assert remote(TWO).rewards.tolist() == LENGTHS
    assert not pauses


def test_all_of_them_fail(pauses: list[float]) -> None:
    """The attempts are of all together, and there is a pause once none is left to ask."""
    with scripted(Reply(500)) as one, scripted(Reply(502)) as two:
        with pytest.raises(RemoteError, match="attempt 4 of 4"):
            RemoteReward([one.url, two.url], retry_attempts=4)(TWO)
        assert (len(one.scored), len(two.scored)) == (2, 2)
        assert pauses


def test_a_refusal_by_one_is_not_asked_of_the_other() -> None:
    """They serve the same; a sample that is refused here is refused there."""
    with scripted(Reply(422, {"error": "no"})) as one, scripted(Reply(422, {"error": "no"})) as two:
        with pytest.raises(RemoteError, match="422"):
            RemoteReward([one.url, two.url])(TWO)
        assert len(one.scored) + len(two.scored) == 1
