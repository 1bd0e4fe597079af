"""Servers that die, load slowly or not at all, and are told to end, with clients that are in the middle of a call."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from reward_servers import COMMAND, LIMIT, ServerProcess, command, free_port, numbers, serving, start
from server_rewards import wait_until_there

from flux_rewards import RemoteError, Sample
from flux_rewards.remote.remote_reward import RemoteReward
from flux_rewards.wrappers.mask_errors import MaskErrors

NOTES = "server_rewards:Notes"
RESPONSES = [f"{'x' * (number % 7)}{number}" for number in range(24)]
LENGTHS = [float(len(response)) for response in RESPONSES]


def samples(gate: str | None = None, gated: int = 7) -> list[Sample]:
    """Samples with known scores; one of them waits for the gate."""
    metadata = [{"gate": gate} if gate is not None and number == gated else {} for number in range(len(RESPONSES))]
    return [Sample("q", response, metadata=entry) for response, entry in zip(RESPONSES, metadata, strict=True)]


def in_background(call: Callable[[], Any]) -> Future[Any]:
    """A call on a thread of its own."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001  # the test asks for it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def wait_for_call(folder: Path, gated: str) -> None:
    """Until a server has begun the call that holds this response."""
    calls = folder / "calls"
    end = time.monotonic() + LIMIT
    while not (calls.exists() and gated in calls.read_text().split()):
        assert time.monotonic() < end, "the call did not come"
        time.sleep(0.005)


def remote(url: Any, **options: Any) -> RemoteReward:
    return RemoteReward(url, **{"timeout": LIMIT, "wait_for_server": LIMIT, "batch_size": 8, **options})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with serving(tmp_path, NOTES, {"folder": str(tmp_path)}) as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 4])
def test_a_server_that_is_killed_and_started_again_loses_nothing(tmp_path: Path, num_workers: int) -> None:
    """With -9 in the middle of a batch: every sample of the call gets its own score, once."""
    port = free_port()
    options = {"folder": str(tmp_path)}
    with serving(tmp_path, NOTES, options, port=port) as first:
        reward = remote(first.url, num_workers=num_workers)
        call = in_background(lambda: reward(samples("gate")))
        wait_for_call(tmp_path, RESPONSES[7])
        first.kill()
    (tmp_path / "gate").touch()
    with serving(tmp_path, NOTES, options, port=port):
        batch = call.result(LIMIT)
    assert batch.rewards.tolist() == LENGTHS
    assert not batch.errors
    assert len(batch) == len(RESPONSES)


@pytest.mark.slow
def test_a_server_that_is_killed_and_does_not_come_back_is_an_error(tmp_path: Path) -> None:
    """No sample gets a number that nobody computed: the call raises, and masked every sample of it has its reason."""
    with serving(tmp_path, NOTES, {"folder": str(tmp_path)}) as server:
        reward = remote(server.url, wait_for_server=0.5)
        masked = MaskErrors(remote(server.url, wait_for_server=0.5), max_failure_rate=1.0)
        reward.load()
        masked.load()
        calls = [in_background(lambda: reward(samples("never"))), in_background(lambda: masked(samples("never")))]
        wait_for_call(tmp_path, RESPONSES[7])
        server.kill()
        with pytest.raises(RemoteError, match=str(server.url)) as caught:
            calls[0].result(LIMIT)
        assert caught.value.retryable
        batch = calls[1].result(LIMIT)
    scored = {row: value for row, value in enumerate(batch.rewards.tolist()) if row not in batch.errors}
    assert 7 in batch.errors
    assert scored == {row: LENGTHS[row] for row in scored}


@pytest.mark.slow
def test_one_of_two_servers_dies(tmp_path: Path) -> None:
    """The other one takes over what was under way, and every sample is scored."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    with (
        serving(folders[0], NOTES, {"folder": str(folders[0])}) as one,
        serving(folders[1], NOTES, {"folder": str(folders[1])}) as two,
    ):
        (folders[1] / "gate").touch()
        reward = remote([one.url, two.url], batch_size=1, num_workers=2)
        call = in_background(lambda: reward([replace(sample, metadata={"gate": "gate"}) for sample in samples()]))
        wait_until_there(folders[0] / "calls")  # asked in turn, one of them has a request, which waits
        one.kill()
        assert call.result(LIMIT).rewards.tolist() == LENGTHS
        assert reward(samples()).rewards.tolist() == LENGTHS  # and so it goes on


@pytest.mark.slow
def test_two_servers_are_asked_in_turn(tmp_path: Path) -> None:
    """Each gets its half of the requests, and the scores keep their places."""
    with (
        serving(tmp_path, NOTES, {"folder": str(tmp_path)}) as one,
        serving(tmp_path, NOTES, {"folder": str(tmp_path)}) as two,
    ):
        reward = remote([one.url, two.url], batch_size=2, num_workers=3)
        assert reward(samples()).rewards.tolist() == LENGTHS
        asked = [
            numbers(server.url)['flux_rewards_requests_total{path="/v1/score",status="200"}'] for server in (one, two)
        ]
        assert sum(asked) == 12
        assert abs(asked[0] - asked[1]) <= 1


@pytest.mark.slow
def test_a_server_that_loads_says_so_and_then_that_it_is_ready(tmp_path: Path) -> None:
    """503 with Retry-After until the weights are there; a client waits, and gets its scores."""
    with serving(tmp_path, "server_rewards:SlowToLoad", {"folder": str(tmp_path)}, healthy="loading") as server:
        health = requests.get(f"{server.url}/health", timeout=LIMIT)
        assert (health.status_code, health.json()) == (503, {"status": "loading"})
        for path, body in (("/v1/score", {"samples": [{"response": "a"}]}), ("/compute", {"prompt": ["a"]})):
            refused = requests.post(server.url + path, json=body, timeout=LIMIT)
            assert refused.status_code == 503
            assert int(refused.headers["Retry-After"]) >= 1
        call = in_background(lambda: remote(server.url)(samples()))
        wait_until_there(tmp_path / "loading")
        while numbers(server.url)['flux_rewards_requests_total{path="/v1/score",status="503"}'] < 2:
            assert not call.done()
        (tmp_path / "loaded").touch()
        assert call.result(LIMIT).rewards.tolist() == LENGTHS
        server.wait_for_health()
        health = requests.get(f"{server.url}/health", timeout=LIMIT)
        assert (health.status_code, health.json()) == (200, {"status": "ok"})


def test_a_client_waits_for_a_server_no_longer_than_it_was_told(tmp_path: Path) -> None:
    """A server that never ends loading is an error that says so, and can be tried again later."""
    with serving(tmp_path, "server_rewards:SlowToLoad", {"folder": str(tmp_path)}, healthy="loading") as server:
        with pytest.raises(RemoteError, match="loading") as caught:
            remote(server.url, wait_for_server=0.3)(samples())
        assert caught.value.retryable
        assert requests.get(f"{server.url}/health", timeout=LIMIT).json() == {"status": "loading"}


@pytest.mark.slow
def test_a_client_waits_for_a_server_that_is_not_there_yet(tmp_path: Path) -> None:
    """Started in any order, they meet."""
    port = free_port()
    call = in_background(lambda: remote(f"http://127.0.0.1:{port}")(samples()))
    with serving(tmp_path, NOTES, {"folder": str(tmp_path)}, port=port):
        assert call.result(LIMIT).rewards.tolist() == LENGTHS


def test_where_there_is_no_server_the_error_names_the_address() -> None:
    """Nobody listens: the first call raises, and not the constructor."""
    url = f"http://127.0.0.1:{free_port()}"
    reward = remote(url, wait_for_server=0.3)
    with pytest.raises(RemoteError, match=url) as caught:
        reward(samples())
    assert caught.value.retryable


@pytest.mark.parametrize("library", [True, False], ids=["an error of the library", "another error"])
def test_a_server_that_cannot_load_says_that_it_failed(tmp_path: Path, library: bool) -> None:
    """It stays there to be asked what happened, tells no path, and scores nothing."""
    options = {"library": library}
    with serving(tmp_path, "server_rewards:CannotLoad", options, healthy="failed") as server:
        health = requests.get(f"{server.url}/health", timeout=LIMIT)
        assert health.status_code == 503
        assert health.json()["status"] == "failed"
        assert "/srv" not in health.text
        assert ("there are no weights" in health.json()["error"]) == library
        with pytest.raises(RemoteError, match="failed") as caught:
            remote(server.url, wait_for_server=0.3)(samples())
        assert "/srv" not in str(caught.value)
        assert "/srv/secret/models/clip.pt" in server.printed  # its own log has all of it


@pytest.mark.parametrize("path", ["/v1/score", "/compute"])
def test_a_server_that_is_told_to_end_answers_what_is_under_way(tmp_path: Path, path: str) -> None:
    """On SIGTERM new requests are refused, those that wait and those being scored are answered, and the code is 0."""
    options, limits = {"folder": str(tmp_path)}, {"max_batch": 1, "window": 0.0, "workers": 1}
    kind = NOTES if path == "/v1/score" else "server_rewards:GatedPrompts"
    with serving(tmp_path, kind, options, limits=limits) as server:

        def ask(response: str) -> requests.Response:
            body = {"samples": [{"response": response, "metadata": {"gate": "gate"}}]}
            return requests.post(
                server.url + path, json=body if path == "/v1/score" else {"prompt": [response]}, timeout=LIMIT
            )

        calls = [in_background(lambda: ask("scored"))]
        wait_for_call(tmp_path, "scored")
        calls.append(in_background(lambda: ask("waiting")))
        while numbers(server.url)["flux_rewards_waiting_samples"] < 1:
            pass
        server.terminate()
        wait_until_refused(server)
        assert not any(call.done() for call in calls)
        (tmp_path / "gate").touch()
        answers = [call.result(LIMIT) for call in calls]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert [answer.json()["rewards"] for answer in answers] == [[6.0], [7.0]]
        assert server.exit_code() == 0
        assert "Traceback" not in server.printed


def wait_until_refused(server: ServerProcess) -> None:
    """Until a new request is refused: nobody listens, or the answer is 503."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        try:
            if requests.get(f"{server.url}/health", timeout=5).status_code == 503:
                return
        except requests.ConnectionError:
            return
        time.sleep(0.01)
    raise AssertionError("new requests are still taken")


@pytest.mark.slow
def test_a_server_that_is_told_to_end_while_it_loads_ends(tmp_path: Path) -> None:
    """Nobody has to wait for weights that nobody wants any more."""
    with serving(tmp_path, "server_rewards:SlowToLoad", {"folder": str(tmp_path)}, healthy="loading") as server:
        server.terminate()
        assert server.exit_code() == 0
        assert not (tmp_path / "loaded").exists()
        assert "Traceback" not in server.printed


@pytest.mark.slow
def test_a_server_that_is_told_to_end_does_not_wait_for_ever(tmp_path: Path) -> None:
    """What is not done within `drain` seconds is given up, and its client hears of it."""
    options, limits = {"folder": str(tmp_path)}, {"drain": 0.5}
    with serving(tmp_path, NOTES, options, limits=limits) as server:
        body = {"samples": [{"response": "stuck", "metadata": {"gate": "never"}}]}
        call = in_background(lambda: requests.post(f"{server.url}/v1/score", json=body, timeout=LIMIT))
        wait_for_call(tmp_path, "stuck")
        server.terminate()
        server.exit_code()
        with contextlib.suppress(requests.ConnectionError):
            assert call.result(LIMIT).status_code >= 500


@pytest.mark.slow
def test_a_server_with_an_idle_client_ends(server: ServerProcess) -> None:
    """A connection that is kept open by a client keeps no server."""
    with requests.Session() as session, socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))):
        assert session.get(f"{server.url}/health", timeout=LIMIT).status_code == 200
        server.terminate()
        assert server.exit_code() == 0


def test_the_command_serves_a_configuration(tmp_path: Path) -> None:
    """`flux-rewards serve`: one reward by itself is itself; it tells where it listens, and ends with 0."""
    config = {"rewards": [{"reward_model": "length", "target": 4, "unit": "characters", "name": "brief"}]}
    with command(tmp_path, config) as server:
        reward = RemoteReward(server.url)
        batch = reward(response=["four", "ab", ""])
        assert batch.rewards.tolist() == [1.0, 0.5, 0.0]
        assert reward.name == "brief"
        assert server.url in server.printed
        server.terminate()
        assert server.exit_code() == 0


@pytest.mark.slow
def test_the_command_serves_several_rewards_as_their_composite(tmp_path: Path) -> None:
    """The parts and the weighted sum are those of the same configuration in this process; `--eval` takes the other."""
    from flux_rewards.config import load_rewards

    length = {"reward_model": "length", "target": 4, "unit": "characters"}
    config = {
        "rewards": [{**length, "weight": 0.5}, {"reward_model": "server_rewards:Everything", "weight": 2.0}],
        "eval_rewards": [{**length, "target": 2, "name": "short"}],
    }
    here = load_rewards(config).train(response=["four", "ab", ""])
    with command(tmp_path, config) as server:
        there = RemoteReward(server.url)(response=["four", "ab", ""])
        assert there.rewards.tolist() == here.rewards.tolist() == [2.5, 2.25, 2.0]
        assert {name: part.rewards.tolist() for name, part in there.parts.items()} == {
            name: part.rewards.tolist() for name, part in here.parts.items()
        }
    with command(tmp_path, config, "--eval") as server:
        assert RemoteReward(server.url)(response=["ab"]).rewards.tolist() == [1.0]


@pytest.mark.parametrize("config", ['{"rewards": []}', "[", '{"rewards": [{"reward_model": "nothing_like_it"}]}'])
def test_the_command_refuses_what_it_cannot_read(tmp_path: Path, config: str) -> None:
    """Before it listens, in a line that names the file."""
    (tmp_path / "rewards.yaml").write_text(config)
    server = start(tmp_path, COMMAND, ["serve", "rewards.yaml", "--port", "0"])
    try:
        assert server.exit_code() not in (0, 97)
        assert "rewards.yaml" in server.printed
        assert "Traceback" not in server.printed
    finally:
        server.end()


@pytest.mark.slow
def test_a_port_that_is_taken_is_said(server: ServerProcess, tmp_path: Path) -> None:
    """The second server ends with an error that names the port, and the first one goes on."""
    port = server.url.rpartition(":")[2]
    config = {"rewards": [{"reward_model": "length", "target": 4}]}
    (tmp_path / "rewards.yaml").write_text(json.dumps(config))
    second = start(tmp_path, COMMAND, ["serve", "rewards.yaml", "--port", port])
    try:
        assert second.exit_code() not in (0, 97)
        assert port in second.printed
        assert "Traceback" not in second.printed
    finally:
        second.end()
    assert requests.get(f"{server.url}/health", timeout=LIMIT).status_code == 200
