"""`RemoteReward` as a reward among others: what it tells and keeps, and what is built of it."""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scripted_server import LENGTHS, SECRET, TWO, Asked, Reply, lengths, scripted
from served import served

from flux_rewards import (
    Cached,
    CompositeReward,
    ConfigError,
    GroupRank,
    InputError,
    LengthReward,
    MaskErrors,
    RemoteError,
    Retry,
    RewardBuffer,
    RewardFunction,
    Sample,
    load_rewards,
    to_config,
)
from flux_rewards.remote.remote_reward import RemoteReward
from flux_rewards.wire.samples import unpack_samples


def test_the_token_is_sent_and_shown_nowhere(
    pauses: list[float], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Not in what is printed, compared, kept, configured, logged or raised, even where the server repeats it."""
    caplog.set_level(logging.DEBUG)
    echo = Reply(500, {"error": {"type": "Echo", "message": f"you said Bearer {SECRET}"}})
    with scripted(echo) as server:
        remote = RemoteReward(server.url, token=SECRET, name="far")
        with pytest.raises(RemoteError) as caught:
            remote(TWO)
        assert {asked.headers["Authorization"] for asked in server.asked} == {f"Bearer {SECRET}"}
    shown = [repr(remote), str(caught.value), repr(caught.value), caplog.text, str(to_config(remote))]
    shown += [pickle.dumps(remote).decode("latin-1"), repr(pickle.loads(pickle.dumps(remote)))]
    for text in shown:
        assert SECRET not in text


def test_a_netrc_file_does_not_replace_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials for a host are not those for this server; nor are they sent without having been asked for."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password other\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with scripted() as server:
        RemoteReward(server.url, token=SECRET)(TWO)
        assert {asked.headers["Authorization"] for asked in server.asked} == {f"Bearer {SECRET}"}
    with scripted() as server:
        RemoteReward(server.url)(TWO)
        assert {asked.headers["Authorization"] for asked in server.asked} == {None}


def test_only_what_the_server_reads_is_sent() -> None:
    """Other fields stay at home, and so do names of files."""
    sample = Sample("a secret", "abc", image=np.zeros((4, 4, 3)), metadata={"password": "x"}, group_id="g")
    with scripted() as server:
        RemoteReward(server.url)([sample])
        (sent,) = unpack_samples(server.scored[0].body)
    assert (sent.prompt, sent.response, sent.image, dict(sent.metadata)) == (None, "abc", None, {})


def test_the_constructor_asks_for_nothing() -> None:
    """Neither do printing, pickling and comparing it; the first use does, once."""
    with scripted() as server:
        remote = RemoteReward(server.url, num_workers=2)
        assert repr(remote) == f"RemoteReward(server_url={server.url!r}, num_workers=2)"
        assert pickle.loads(pickle.dumps(remote)) == remote == RemoteReward(server.url, num_workers=2)
        assert remote != RemoteReward(server.url, num_workers=3)
        assert not server.asked
        assert (remote.name, remote.scope, tuple(remote.required_fields)) == ("Served", "sample", ("response",))
        remote(TWO)
        assert len(server.to("/v1/rewards")) == 1


MAKERS: dict[str, Callable[[RewardFunction], Any]] = {
    "composite": lambda remote: CompositeReward([(remote, 1.0)]),
    "group rank": GroupRank,
    "masked": MaskErrors,
    "retried": lambda remote: Retry(remote, 2),
    "cached": Cached,
    "configuration": lambda remote: load_rewards(to_config(remote)),
    "composite of composites": lambda remote: CompositeReward([(CompositeReward([(remote, 1.0)]), 1.0)]),
}


@pytest.mark.parametrize("make", MAKERS)
def test_a_tree_is_made_without_asking(make: str) -> None:
    """A trainer may be set up before its servers are."""
    with scripted() as server:
        tree = MAKERS[make](RemoteReward(server.url, name="far"))
        repr(tree)
        assert not server.asked


def test_a_name_of_its_own() -> None:
    """It stands over the server's."""
    with scripted() as server:
        assert RemoteReward(server.url, name="far").name == "far"
        assert not server.asked
        assert list(CompositeReward([(RemoteReward(server.url), 1.0)])(TWO).parts) == ["Served"]


def test_a_required_field_is_missed_before_anything_is_sent() -> None:
    """As everywhere: by the reward's name, the field and the index."""
    with scripted() as server, pytest.raises(InputError) as caught:
        RemoteReward(server.url)([*TWO, Sample("only a prompt")])
    assert (caught.value.reward, caught.value.field, caught.value.index) == ("Served", "response", 2)
    assert not server.scored


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"server_url": "127.0.0.1:8000"}, "http://"),
        ({"server_url": "ftp://127.0.0.1"}, "http://"),
        ({"server_url": "http://"}, "http://"),
        ({"server_url": []}, "address"),
        ({"server_url": 5}, "address"),
        ({"server_url": ["http://a", 5]}, "http://"),
        ({"server_url": "http://user:pass@host"}, "credentials"),
        ({"server_url": "http://host?key=1"}, "credentials"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": "60"}, "timeout"),
        ({"retry_attempts": 0}, "retry_attempts"),
        ({"wait_for_server": -1}, "wait_for_server"),
        ({"num_workers": 0}, "num_workers"),
        ({"protocol": "grpc"}, "protocol"),
        ({"required_fields": ["image"]}, "required_fields"),
        ({"protocol": "flow_factory", "required_fields": ["response"]}, "required_fields"),
        ({"protocol": "flow_factory", "required_fields": "image"}, "required_fields"),
    ],
    ids=str,
)
def test_arguments_that_are_none(arguments: dict[str, Any], what: str) -> None:
    """They are refused when it is made; a password in an address is not repeated."""
    with pytest.raises(ConfigError, match=what) as caught:
        RemoteReward(**{"server_url": "http://127.0.0.1:8000", **arguments})
    assert "pass@" not in str(caught.value)


def test_a_slash_and_a_path() -> None:
    """As addresses are written, behind a proxy, too."""
    with scripted() as server:
        assert RemoteReward(f"{server.url}/")(TWO).rewards.tolist() == LENGTHS
        assert [asked.path for asked in server.asked] == ["/v1/rewards", "/v1/score"]


def test_from_a_configuration(tmp_path: Path) -> None:
    """The entry of a trainer's file, and back to one."""
    with scripted() as server:
        entry = {
            "reward_model": "remote",
            "server_url": server.url,
            "timeout": 30,
            "retry_attempts": 5,
            "num_workers": 8,
            "name": "far",
            "weight": 0.5,
        }
        path = tmp_path / "rewards.yaml"
        path.write_text(yaml.safe_dump({"rewards": [entry]}))
        loaded = load_rewards(path)
        (remote,) = loaded.train.children
        assert isinstance(remote, RemoteReward)
        assert (remote.timeout, remote.retry_attempts, remote.num_workers) == (30, 5, 8)
        config = to_config(loaded)
        assert to_config(load_rewards(config)) == config
        assert loaded.train(TWO).rewards.tolist() == [1.0, 1.5]


def test_in_a_composite() -> None:
    """Beside a reward that is computed here."""
    with scripted() as server:
        tree = CompositeReward([(RemoteReward(server.url, name="far"), 2.0), (LengthReward(target=3), 1.0)])
        local = LengthReward(target=3)(TWO).rewards
        batch = tree(TWO)
        np.testing.assert_array_equal(batch.rewards, 2 * np.array(LENGTHS) + local)
        assert batch.parts["far"].rewards.tolist() == LENGTHS


def test_cached() -> None:
    """What was answered is not asked for again."""
    with scripted() as server:
        cached = Cached(RemoteReward(server.url, name="far"))
        for _ in range(3):
            assert cached([*TWO, TWO[0]]).rewards.tolist() == [*LENGTHS, 2.0]
        assert len(server.scored) == 1
        assert len(unpack_samples(server.scored[0].body)) == 2


def test_a_cache_goes_by_what_is_served(tmp_path: Path) -> None:
    """Another reward at the same address does not get the scores of the one before; the same one does."""
    sample, file = Sample(response="one two three"), tmp_path / "scores.db"
    found, hits, port = [], [], 0
    for target in (3, 6, 3):
        with served(LengthReward(target=target), at=port) as url:
            port = int(url.rpartition(":")[2])
            batch = Cached(RemoteReward(url, name="far"), str(file))([sample])
            found.append(batch.rewards[0])
            hits.append(batch.stats["far"].cache_hits)
    assert found == [LengthReward(target=target)([sample]).rewards[0] for target in (3, 6, 3)]
    assert hits == [0, 0, 1]


def test_in_a_buffer() -> None:
    """Requests of a batch size each, while others are added."""
    with scripted() as server:
        samples = [Sample(response="x" * count) for count in range(10)]
        with RewardBuffer(RemoteReward(server.url, batch_size=4, async_reward=True)) as buffer:
            for sample in samples:
                buffer.add([sample])
            assert buffer.finalize().rewards.tolist() == list(range(10))
        assert sorted(len(unpack_samples(asked.body)) for asked in server.scored) == [2, 4, 4]


def test_requests_in_flight() -> None:
    """As many as there are workers, each of a batch size."""
    open_now, most, lock, together = [0], [0], threading.Lock(), threading.Barrier(4)

    def slow(asked: Asked) -> Reply:
        with lock:
            open_now[0] += 1
            most[0] = max(most[0], open_now[0])
        together.wait(10)
        with lock:
            open_now[0] -= 1
        together.wait(10)
        return lengths(asked)

    with scripted(slow) as server:
        remote = RemoteReward(server.url, batch_size=2, num_workers=4)
        assert remote([Sample(response="x")] * 16).rewards.tolist() == [1.0] * 16
        assert most == [4]
        assert len(server.scored) == 8
