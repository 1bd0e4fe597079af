"""Reward servers on 127.0.0.1 for tests: real ones, each in a process of its own, and quick ones on a thread.

Run as a program, it is such a server: ``python reward_servers.py '{"reward": "module:Class", ...}'``.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

TESTS = Path(__file__).parent
LIMIT = 60.0
"""Seconds within which whatever a test waits for must have come."""

# Its standard input ends with the test's process, however that ends: no server outlives its test.
_WATCH = """
import os, sys, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(97)), daemon=True).start()
"""
_OWN_SCRIPT = f"{_WATCH}\nimport reward_servers\nreward_servers.main(sys.argv[1])"
COMMAND = f"{_WATCH}\nfrom flux_rewards.cli import main\nmain()"


@dataclass
class ServerProcess:
    """A server in a process of its own.

    Attributes:
        process: The process.
        log: Where it writes what it prints.
        url: Its address.
    """

    process: subprocess.Popen[bytes]
    log: Path
    url: str = ""

    @property
    def printed(self) -> str:
        """What it printed until now."""
        return self.log.read_text(errors="replace")

    def wait_for_health(self, status: str = "ok") -> None:
        """Until ``/health`` says so."""
        told: Any = None
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            assert self.process.poll() is None, f"the server ended with {self.process.returncode}:\n{self.printed}"
            with contextlib.suppress(requests.RequestException):
                told = requests.get(f"{self.url}/health", timeout=5).json()
                if told["status"] == status:
                    return
            time.sleep(0.02)
        raise AssertionError(f"/health said {told} and not {status!r}:\n{self.printed}")

    def kill(self) -> None:
        """End it at once, as a machine that fails does."""
        self.process.kill()
        self.process.wait(LIMIT)

    def terminate(self) -> None:
        """Ask it to end, as whoever stops a service does."""
        self.process.send_signal(signal.SIGTERM)

    def exit_code(self) -> int:
        """Wait for its end."""
        return self.process.wait(LIMIT)

    def end(self) -> None:
        """Whatever state it is in, it is over."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=LIMIT)


def start(
    folder: Path, code: str, arguments: Sequence[str], environment: Mapping[str, str | None] | None = None
) -> ServerProcess:
    """Start Python with a code in a folder; the caller ends it."""
    log = folder / f"server-{len(list(folder.glob('server-*.log')))}.log"
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    wanted = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **(environment or {})}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={name: value for name, value in wanted.items() if value is not None},
        )
    return ServerProcess(process, log)


@contextlib.contextmanager
def serving(
    folder: Path,
    reward: str,
    options: Mapping[str, Any] | None = None,
    *,
    limits: Mapping[str, Any] | None = None,
    token: str | None = None,
    port: int | None = None,
    healthy: str | None = "ok",
) -> Iterator[ServerProcess]:
    """A `RewardServer` in a process of its own until the end of the context.

    Args:
        folder: Where it runs, and writes what it prints.
        reward: Its class, such as ``"server_rewards:Notes"``.
        options: For its constructor.
        limits: See `flux_rewards.server.settings.Limits`.
        token: That clients must send.
        port: Where it listens; a free one by default.
        healthy: What ``/health`` says when this returns; None to return at once.
    """
    port = free_port() if port is None else port
    told = {"reward": reward, "options": options or {}, "limits": limits or {}, "token": token, "port": port}
    server = start(folder, _OWN_SCRIPT, [json.dumps(told)])
    server.url = f"http://127.0.0.1:{port}"
    try:
        if healthy is not None:
            server.wait_for_health(healthy)
        yield server
    finally:
        server.end()


@contextlib.contextmanager
def command(
    folder: Path,
    config: Any,
    *arguments: str,
    environment: Mapping[str, str | None] | None = None,
    host: str = "127.0.0.1",
    healthy: str | None = "ok",
) -> Iterator[ServerProcess]:
    """``flux-rewards serve`` with a configuration until the end of the context; arguments as of `serving`."""
    port = free_port()
    (folder / "rewards.yaml").write_text(json.dumps(config))
    given = ["serve", str(folder / "rewards.yaml"), "--host", host, "--port", str(port), *arguments]
    server = start(folder, COMMAND, given, {"FLUX_REWARDS_TOKEN": None, **(environment or {})})
    server.url = f"http://127.0.0.1:{port}"
    try:
        if healthy is not None:
            server.wait_for_health(healthy)
        yield server
    finally:
        server.end()


def main(told: str) -> None:
    """Be a server."""
    from flux_rewards.server.reward_server import RewardServer
    from flux_rewards.server.settings import Limits

    given = json.loads(told)
    module, _, name = given["reward"].partition(":")
    made = getattr(importlib.import_module(module), name)(**given["options"])
    limits = Limits(**given["limits"])
    RewardServer(made, port=given["port"], token=given["token"], limits=limits).run()


@dataclass
class ServerThread:
    """A server on a thread of this process.

    Attributes:
        url: Its address.
        port: Where it listens.
        reward: What it serves.
    """

    url: str
    port: int
    reward: Any = field(repr=False)


@contextlib.contextmanager
def on_thread(server: Any, *, ready: bool = True) -> Iterator[ServerThread]:
    """A `RewardServer` on a thread until the end of the context, ready to score unless it need not be."""
    import uvicorn

    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listening:
        port = listening.getsockname()[1]
        config = uvicorn.Config(
            server.app, log_level="error", server_header=False, timeout_graceful_shutdown=10, ws="none"
        )
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, name="test-server")
        thread.start()
        url = f"http://127.0.0.1:{port}"
        try:
            end = time.monotonic() + LIMIT
            while not running.started or (ready and requests.get(f"{url}/health", timeout=LIMIT).status_code != 200):
                assert thread.is_alive(), "the server ended while it started"
                assert time.monotonic() < end, "the server did not start"
                time.sleep(0.005)
            yield ServerThread(url, port, server.reward)
        finally:
            running.should_exit = True
            thread.join(LIMIT)
            assert not thread.is_alive(), "the server did not end"


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def numbers(url: str, headers: Mapping[str, str] | None = None) -> dict[str, float]:
    """The page ``/metrics``, read by Prometheus' own parser: ``name{label="value"}`` to the number."""
    from prometheus_client.parser import text_string_to_metric_families

    response = requests.get(f"{url}/metrics", headers=headers, timeout=LIMIT)
    assert response.status_code == 200
    found = {}
    for family in text_string_to_metric_families(response.text):
        for sample in family.samples:
            labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = float(sample.value)
    return found


def wait_until(happens: Callable[[], bool]) -> None:
    """Until it does."""
    end = time.monotonic() + LIMIT
    while not happens():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)
