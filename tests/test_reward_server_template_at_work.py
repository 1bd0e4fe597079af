"""`examples/reward_server/`: what the template does while it loads, scores and ends, and whom it lets ask."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from reward_server_copies import (
    FOLDER,
    OBEDIENT,
    PATIENCE,
    Server,
    answers,
    brightness,
    encoded,
    noise,
    refused,
    serving,
    until,
)

from flux_rewards import RemoteReward

TOKEN = "s3cret"  # noqa: S105


@pytest.fixture(scope="module")
def shared_obedient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With the score of `OBEDIENT`, and low limits."""
    with serving(tmp_path_factory.mktemp("obedient"), OBEDIENT) as server:
        yield server


@pytest.fixture
def obedient(shared_obedient: Server) -> Server:
    """The same, without the traces of the test before."""
    for name in ("scored", "started", "go", "sizes"):
        (shared_obedient.folder / name).unlink(missing_ok=True)
    return shared_obedient


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """For clients that wait."""
    with ThreadPoolExecutor(16) as pool:
        yield pool


def started(server: Server, threads: ThreadPoolExecutor) -> Future[Any]:
    """A request that is being scored, until ``go`` is touched."""
    waiting = threads.submit(server.post, {"prompt": ["wait", "b"]})
    until((server.folder / "started").exists)
    return waiting


# While it scores


def test_health_while_it_scores(obedient: Server, threads: ThreadPoolExecutor) -> None:
    """Scoring runs beside the event loop."""
    waiting = started(obedient, threads)
    assert obedient.status() == (200, {"status": "ok"})
    assert not waiting.done()
    (obedient.folder / "go").touch()
    assert waiting.result(PATIENCE).json() == {"rewards": [0.0, 1.0]}


def test_a_full_queue(obedient: Server, threads: ThreadPoolExecutor) -> None:
    """One is scored and three wait; nine others are asked to come back, at once. Later there is room again."""
    waiting = started(obedient, threads)
    others = [threads.submit(obedient.post, {"prompt": [f"other {index}"]}) for index in range(12)]
    until(lambda: sum(other.done() for other in others) == 9)
    for other in others:
        if other.done():
            assert "4 requests are waiting" in refused(other.result(), 503)
            assert int(other.result().headers["Retry-After"]) >= 1
    assert (obedient.folder / "scored").read_text() == "wait b\n"  # one batch at a time
    (obedient.folder / "go").touch()
    statuses = [other.result(PATIENCE).status_code for other in others]
    assert (waiting.result(PATIENCE).status_code, sorted(statuses)) == (200, [200] * 3 + [503] * 9)
    assert obedient.post({"prompt": ["later"]}).status_code == 200


def test_a_client_that_left_is_not_scored(obedient: Server, threads: ThreadPoolExecutor) -> None:
    """Neither with its body sent nor in the middle of it; its place is free again."""
    waiting = started(obedient, threads)
    body = b'{"prompt": ["gone"]}'
    head = "POST /compute HTTP/1.1\nHost: a\nContent-Type: application/json\nContent-Length: "
    for size in (len(body), len(body), 100):
        with obedient.raw(f"{head}{size}", body):
            obedient.status()
            obedient.status()  # by now it is in line
    obedient.status()  # and by now it is known to have left
    (obedient.folder / "go").touch()
    assert waiting.result(PATIENCE).status_code == 200
    until(lambda: obedient.post({"prompt": ["later"]}).status_code == 200)
    assert "gone" not in (obedient.folder / "scored").read_text()


def test_sigterm_lets_the_batch_at_hand_finish(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    """It listens no more, answers those who are in line, and ends."""
    with serving(tmp_path, OBEDIENT) as server:
        waiting = started(server, threads)
        others = [threads.submit(server.post, {"prompt": ["in line"]}) for _ in range(4)]
        until(lambda: any(other.done() for other in others))  # one too many: the others are in line
        server.process.send_signal(signal.SIGTERM)
        until(lambda: not answers(server.url))
        assert server.process.poll() is None
        (tmp_path / "go").touch()
        assert waiting.result(PATIENCE).json() == {"rewards": [0.0, 1.0]}
        statuses = [other.result(PATIENCE).status_code for other in others]
        assert sorted(statuses) == [200, 200, 200, 503]
        assert server.process.wait(PATIENCE) in (0, -signal.SIGTERM)


# Before it scores

LOADING = """
def load():
    import time
    from pathlib import Path
    here = Path(__file__).parent
    while not (here / "weights").exists():
        time.sleep(0.005)
    return float((here / "weights").read_text())

def score(model, prompts, images, videos, condition_images, condition_videos):
    return [model] * len(prompts)
"""


def test_while_weights_load(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    """/health and /compute say so, and a trainer waits; then `score` receives what `load` returned."""
    with serving(tmp_path, LOADING, loaded=False) as server:
        assert server.status() == (503, {"status": "loading"})
        answer = server.post({"prompt": ["a"]})
        assert "loading" in refused(answer, 503)
        assert int(answer.headers["Retry-After"]) >= 1
        reward = RemoteReward(server.url, protocol="flow_factory", retry_attempts=1)
        waiting = threads.submit(reward, prompt=["a", "b"])
        (tmp_path / "weights").write_text("0.75")
        assert waiting.result(PATIENCE).rewards.tolist() == [0.75, 0.75]
        assert server.status() == (200, {"status": "ok"})


def test_weights_that_do_not_load(tmp_path: Path) -> None:
    """It stays up and says so; why is in its log alone. Nothing is scored."""
    with serving(tmp_path, LOADING, loaded=False) as server:
        (tmp_path / "weights").write_text("no number, in /secret/weights.bin")
        until(lambda: server.status() == (503, {"status": "failed"}))
        assert (
            refused(server.post({"prompt": ["a"]}), 500) == "load() failed with ValueError; the server's log has more"
        )
        assert "/secret/weights.bin" in (tmp_path / "log").read_text()


def test_sigterm_while_weights_load(tmp_path: Path) -> None:
    """They are not waited for."""
    with serving(tmp_path, LOADING, loaded=False) as server:
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(PATIENCE)


# Who may ask


def test_a_token(tmp_path: Path) -> None:
    """Every score needs the whole of it; /health needs none. It is neither shown nor logged."""
    token = f"{TOKEN}-ü"
    with serving(tmp_path, token=token) as server:
        assert server.status() == (200, {"status": "ok"})
        body = {"prompt": ["a"], "image": [encoded(noise(1))]}
        whole = token.encode().decode("latin-1")
        for wrong in ("", whole, "Bearer", "Bearer ", f"Bearer {whole[:-1]}", f"Bearer {whole}x", f"Basic {whole}"):
            assert "token" in refused(server.post(body, Authorization=wrong), 401)
        assert "token" in refused(server.post(b"no JSON"), 401)  # before anything is read
        right = server.post(body, Authorization=f"Bearer {whole}")
        assert right.json() == {"rewards": pytest.approx([brightness(noise(1))])}
        assert TOKEN not in (tmp_path / "log").read_text()


def test_a_trainer_with_the_token(tmp_path: Path) -> None:
    """`RemoteReward` sends the one that it was given."""
    with serving(tmp_path, host="127.0.0.2", token=TOKEN) as server:
        fields = ("prompt", "image")
        reward = RemoteReward(server.url, protocol="flow_factory", required_fields=fields, token=TOKEN)
        batch = reward(prompt=["a", "b"], image=[noise(1), noise(2)])
        assert batch.rewards == pytest.approx([brightness(noise(1)), brightness(noise(2))], rel=1e-14)


def run(host: str, *options: str, token: str = "") -> subprocess.CompletedProcess[str]:
    """The template, which is expected to end by itself."""
    command = [sys.executable, "-I", str(FOLDER / "server.py"), "--host", host, "--port", "1", *options]
    environment = {**os.environ, "REWARD_TOKEN": token}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("host", ["127.0.0.2", "192.0.2.1", "reward.invalid", "::", ""])
def test_no_open_server_by_accident(host: str) -> None:
    """At any host but loopback it does not start without a token, and says what to do."""
    done = run(host)
    assert done.returncode == 2
    assert "set REWARD_TOKEN in the environment, or add --no-token" in done.stderr


def test_an_open_server_by_name(tmp_path: Path) -> None:
    """--no-token is the way, whatever the environment holds."""
    with serving(tmp_path, "", "--no-token", host="127.0.0.2", token=TOKEN) as server:
        assert server.post({"prompt": ["a"], "image": [encoded(noise(1))]}).status_code == 200
