"""More clients than there is room for, clients that go away, and answers that come too late."""

from __future__ import annotations

import asyncio
import collections
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from reward_servers import LIMIT, ServerThread, numbers, on_thread, serving, wait_until
from server_rewards import Notes

from flux_rewards import RemoteError, Sample
from flux_rewards.remote.remote_reward import RemoteReward
from flux_rewards.server.reward_server import RewardServer
from flux_rewards.server.settings import Limits

CLIENTS = 500


def body(*responses: str, **metadata: Any) -> dict[str, Any]:
    return {"samples": [{"prompt": "q", "response": response, "metadata": metadata} for response in responses]}


def post(url: str, told: Any) -> requests.Response:
    return requests.post(f"{url}/v1/score", json=told, timeout=LIMIT)


async def ask(port: int, path: str, told: Any = None) -> tuple[int, dict[str, str], Any]:
    """One request on a connection of its own: status, headers and JSON."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    content = b"" if told is None else json.dumps(told).encode()
    method = "GET" if told is None else "POST"
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    )
    writer.write(f"{head}Connection: close\r\n\r\n".encode() + content)
    try:
        received = await asyncio.wait_for(reader.read(), LIMIT)
    finally:
        writer.close()
    head, _, content_back = received.decode().partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(status.split()[1]), headers, json.loads(content_back)


@pytest.mark.slow
def test_five_hundred_clients_at_once(tmp_path: Path) -> None:
    """Each is scored right or told to come again; nothing is lost or scored twice; /health answers meanwhile."""
    limits = {"max_waiting": 64, "max_batch": 8, "workers": 1}
    options = {"folder": str(tmp_path)}

    async def storm(port: int) -> list[tuple[int, dict[str, str], Any]]:
        held = asyncio.create_task(ask(port, "/v1/score", body("held", gate="gate")))
        while not (tmp_path / "calls").exists():
            assert (await ask(port, "/health"))[0] == 200
        asked = [
            asyncio.create_task(ask(port, "/v1/score", body(f"{number}{'x' * (number % 9)}")))
            for number in range(CLIENTS)
        ]
        while sum(task.done() for task in asked) < CLIENTS - limits["max_waiting"]:
            assert (await ask(port, "/health"))[2] == {"status": "ok"}
            await asyncio.sleep(0.01)
        (tmp_path / "gate").touch()
        answers = await asyncio.gather(*asked)
        assert (await held)[0] == 200
        return answers

    with serving(tmp_path, "server_rewards:Notes", options, limits=limits) as server:
        answers = asyncio.run(storm(int(server.url.rpartition(":")[2])))
        told = numbers(server.url)
    statuses = collections.Counter(status for status, _, _ in answers)
    assert statuses == {200: limits["max_waiting"], 503: CLIENTS - limits["max_waiting"]}
    scored = []
    for number, (status, headers, content) in enumerate(answers):
        response = f"{number}{'x' * (number % 9)}"
        if status == 200:
            assert content["rewards"] == [float(len(response))]
            scored.append(response)
        else:
            assert content["error"]["type"] == "Overloaded"
            assert int(headers["retry-after"]) >= 1
    calls = " ".join(line.split(" ", 1)[1] for line in (tmp_path / "calls").read_text().splitlines()).split()
    assert sorted(calls) == sorted([*scored, "held"])
    assert told['flux_rewards_requests_total{path="/v1/score",status="200"}'] == len(scored) + 1
    assert told['flux_rewards_requests_total{path="/v1/score",status="503"}'] == statuses[503]
    assert told["flux_rewards_samples_total"] == len(scored) + 1
    assert told["flux_rewards_waiting_samples"] == told["flux_rewards_busy_batches"] == 0


@pytest.mark.slow
def test_clients_that_come_again_are_all_served_in_the_end(tmp_path: Path) -> None:
    """`RemoteReward` obeys Retry-After: a queue that is far too small costs time and no samples."""
    limits = Limits(max_waiting=4, max_batch=4, workers=1, window=0.0)
    responses = ["x" * (1 + number % 5) for number in range(120)]
    with on_thread(RewardServer(Notes(str(tmp_path)), limits=limits)) as server:
        reward = RemoteReward(server.url, batch_size=2, num_workers=16, retry_attempts=50)
        batch = reward([Sample("q", response) for response in responses])
    assert batch.rewards.tolist() == [float(len(response)) for response in responses]


def test_a_request_that_is_larger_than_the_queue_is_taken_where_nothing_waits(tmp_path: Path) -> None:
    """Else it could never be scored at all."""
    limits = Limits(max_waiting=4, max_batch=4)
    with on_thread(RewardServer(Notes(str(tmp_path)), limits=limits)) as server:
        assert post(server.url, body(*("a" * 9))).json()["rewards"] == [1.0] * 9


def hang_up(server: ServerThread, told: Any) -> socket.socket:
    """A client that sends a whole request, and will go away."""
    content = json.dumps(told).encode()
    head = ["POST /v1/score HTTP/1.1", "Host: a", "Content-Type: application/json", f"Content-Length: {len(content)}"]
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.sendall("\r\n".join([*head, "", ""]).encode() + content)
    return connection


def test_a_client_that_goes_away_frees_its_place(tmp_path: Path) -> None:
    """What nobody waits for is not scored, and there is room for others."""
    limits = Limits(max_waiting=2, max_batch=1, workers=1, window=0.0)
    with on_thread(RewardServer(Notes(str(tmp_path)), limits=limits)) as server, ThreadPoolExecutor(2) as pool:

        def waiting() -> float:
            return numbers(server.url)["flux_rewards_waiting_samples"]

        held = pool.submit(post, server.url, body("held", gate="gate"))
        wait_until((tmp_path / "calls").exists)
        gone = hang_up(server, body("gone", "gone"))
        wait_until(lambda: waiting() == 2)
        assert post(server.url, body("refused")).status_code == 503
        gone.close()
        wait_until(lambda: waiting() == 0)
        taken = pool.submit(post, server.url, body("taken"))
        wait_until(lambda: waiting() == 1)
        (tmp_path / "gate").touch()
        assert [future.result().json()["rewards"] for future in (held, taken)] == [[4.0], [5.0]]
        told = numbers(server.url)
    calls = (tmp_path / "calls").read_text()
    assert "taken" in calls
    assert "gone" not in calls
    assert "refused" not in calls
    assert not any('status="500"' in name for name in told)


def test_a_client_that_goes_away_while_it_is_scored_spoils_nothing(tmp_path: Path) -> None:
    """Those that were merged with it get their scores."""
    limits = Limits(workers=1, window=0.0)
    with on_thread(RewardServer(Notes(str(tmp_path)), limits=limits)) as server, ThreadPoolExecutor(2) as pool:
        held = pool.submit(post, server.url, body("held", gate="gate"))
        wait_until((tmp_path / "calls").exists)
        gone = hang_up(server, body("gone", gate="second"))
        neighbour = pool.submit(post, server.url, body("neighbour"))
        wait_until(lambda: numbers(server.url)["flux_rewards_waiting_samples"] == 2)
        (tmp_path / "gate").touch()
        wait_until(lambda: "gone" in (tmp_path / "calls").read_text())
        gone.close()
        wait_until(lambda: 'flux_rewards_requests_total{path="/v1/score",status="499"}' in numbers(server.url))
        (tmp_path / "second").touch()
        assert held.result().json()["rewards"] == [4.0]
        assert neighbour.result().json()["rewards"] == [9.0]
        assert post(server.url, body("a")).json()["rewards"] == [1.0]


def test_what_takes_too_long_is_a_504_and_its_place_is_free(tmp_path: Path) -> None:
    """Both for who is being scored and for who still waits; what comes later is scored."""
    limits = Limits(deadline=0.3, max_batch=1, workers=1, window=0.0)
    with on_thread(RewardServer(Notes(str(tmp_path)), limits=limits)) as server, ThreadPoolExecutor(2) as pool:
        held = pool.submit(post, server.url, body("held", gate="gate"))
        wait_until((tmp_path / "calls").exists)
        waiting = pool.submit(post, server.url, body("waiting"))
        for future in (held, waiting):
            assert future.result().status_code == 504
            assert future.result().json()["error"]["type"] == "Deadline"
        assert numbers(server.url)["flux_rewards_waiting_samples"] == 0
        told = requests.post(f"{server.url}/compute", json={"prompt": ["a"]}, timeout=LIMIT)
        assert told.status_code == 422  # this reward needs a response: not a 504, for it is not asked
        (tmp_path / "gate").touch()
        wait_until(lambda: numbers(server.url)["flux_rewards_busy_batches"] == 0)
        assert post(server.url, body("later")).json()["rewards"] == [5.0]
    assert "waiting" not in (tmp_path / "calls").read_text()


def test_a_client_hears_of_the_deadline_of_its_server(tmp_path: Path) -> None:
    """`RemoteReward` raises what happened, and that another try may help."""
    limits = Limits(deadline=0.2, max_batch=1, workers=2, window=0.0)
    with on_thread(RewardServer(Notes(str(tmp_path)), limits=limits)) as server:
        with pytest.raises(RemoteError, match=r"504.*not scored within") as caught:
            RemoteReward(server.url, retry_attempts=1)([Sample("q", "a", metadata={"gate": "gate"})])
        assert caught.value.retryable
        (tmp_path / "gate").touch()


def test_health_answers_while_large_bodies_are_read(tmp_path: Path) -> None:
    """Bodies are read and unpacked beside the loop that answers."""
    with on_thread(RewardServer(Notes(str(tmp_path)))) as server, ThreadPoolExecutor(4) as pool:
        told = json.dumps(body(*["x" * 2000] * 1000))
        sent = [
            pool.submit(
                requests.post,
                f"{server.url}/v1/score",
                data=told,
                headers={"Content-Type": "application/json"},
                timeout=LIMIT,
            )
            for _ in range(4)
        ]
        while not all(future.done() for future in sent):
            assert requests.get(f"{server.url}/health", timeout=LIMIT).json() == {"status": "ok"}
        assert [future.result().status_code for future in sent] == [200] * 4
