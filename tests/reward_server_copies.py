"""Copies of `examples/reward_server/server.py`, filled in and served by processes of their own on loopback."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import requests
from PIL import Image

FOLDER = Path(__file__).parent.parent / "examples" / "reward_server"
PATIENCE = 30.0  # seconds, where nothing should take one
HIDDEN = {"flux_rewards", "numpy", "torch", "requests", "safetensors", "transformers"}
# Standard input ends with the test's process, however that ends: no server outlives its test.
RUN_WITHOUT = f"""
import os, runpy, sys, threading

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HIDDEN!r}:
            raise ModuleNotFoundError(f"there is no {{name}} here")

sys.meta_path.insert(0, Hidden())
threading.Thread(target=lambda: (os.read(0, 1), os._exit(0)), daemon=True).start()
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# Does what the first prompt says.
OBEDIENT = """
import json
import time
from pathlib import Path

MAX_BODY, MAX_SAMPLES, MAX_PIXELS, MAX_WAITING, BODY_SECONDS = 2**20, 8, 2**18, 4, 0.5
HERE = Path(__file__).parent

def score(model, prompts, images, videos, condition_images, condition_videos):
    with (HERE / "scored").open("a") as scored:
        print(*prompts, file=scored)
    word = prompts[0]
    if word == "wait":
        (HERE / "started").touch()
        while not (HERE / "go").exists():
            time.sleep(0.005)
    if word == "raise":
        raise RuntimeError("no such file: /secret/weights.bin")
    if word == "refuse":
        raise HTTPException(422, "the prompt is too short")
    returned = {"nan": float("nan"), "inf": float("-inf"), "text": "0.5", "list": [1.0], "count": 1.0}
    if word in returned:
        return [None] + [returned[word]] * (len(prompts) - 1 + (word == "count"))
    if word == "one number":
        return 0.5
    if word == "sizes":
        fields = [images, videos, condition_images, condition_videos]
        sizes = lambda value: value.size if hasattr(value, "size") else [sizes(entry) for entry in value]
        (HERE / "sizes").write_text(json.dumps([None if field is None else sizes(field) for field in fields]))
    return [float(index) for index in range(len(prompts))]
"""


@dataclass
class Server:
    """A process that serves a copy of the template."""

    process: subprocess.Popen[bytes]
    url: str
    folder: Path

    def post(self, body: Mapping[str, Any] | bytes, **headers: str) -> requests.Response:
        """To /compute; a mapping as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {
            "Content-Type": "application/json",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        return requests.post(f"{self.url}/compute", data=data, headers=given, timeout=PATIENCE)

    def status(self) -> tuple[int, Any]:
        """Of /health."""
        answer = requests.get(f"{self.url}/health", timeout=PATIENCE)
        return answer.status_code, answer.json()

    def raw(self, head: str, body: bytes = b"") -> socket.socket:
        """A connection on which this was sent."""
        host, port = self.url.removeprefix("http://").split(":")
        connection = socket.create_connection((host, int(port)), timeout=PATIENCE)
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        return connection


def until(ready: Callable[[], bool], process: subprocess.Popen[bytes] | None = None, log: Path | None = None) -> None:
    """Wait for it, within bounds."""
    end = time.monotonic() + PATIENCE
    while not ready():
        told = log.read_text()[-3000:] if log else ""
        assert process is None or process.poll() is None, f"the server ended:\n{told}"
        assert time.monotonic() < end, f"not within {PATIENCE} s:\n{told}"
        time.sleep(0.01)


def answers(url: str) -> bool:
    """Whether anything does."""
    with contextlib.suppress(requests.ConnectionError):
        return requests.get(f"{url}/health", timeout=PATIENCE).status_code > 0
    return False


@contextlib.contextmanager
def serving(
    folder: Path, written: str = "", *options: str, host: str = "127.0.0.1", token: str = "", loaded: bool = True
) -> Iterator[Server]:
    """Serve a copy of the template into which this was written; ends that process alone."""
    folder.mkdir(exist_ok=True)
    copy, log = folder / "server.py", folder / "log"
    template = (FOLDER / "server.py").read_text()
    copy.write_text(template.replace('\nif __name__ == "__main__"', f'{written}\n\nif __name__ == "__main__"'))
    with socket.socket() as listener:
        listener.bind((host, 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-I", "-W", "error", "-c", RUN_WITHOUT, str(copy), "--host", host, "--port", str(port)]
    environment = {**os.environ, "REWARD_TOKEN": token}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *options], stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment
        )
    server = Server(process, f"http://{host}:{port}", folder)
    try:
        until(lambda: answers(server.url), process, log)
        if loaded:
            until(lambda: server.status() == (200, {"status": "ok"}), process, log)
        yield server
    finally:
        try:
            process.communicate(timeout=10)  # closes its standard input, and waits for the end
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> str:
    """Plain base64."""
    return base64.b64encode(file_of(image, kind, **options)).decode("ascii")


def file_of(image: Image.Image, kind: str, **options: Any) -> bytes:
    written = io.BytesIO()
    image.save(written, kind, **options)
    return written.getvalue()


def noise(seed: int, width: int = 24, height: int = 16) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def brightness(image: Image.Image) -> float:
    """The mean of Pillow's luma, ITU-R 601-2 in 16-bit fixed point, pixel by pixel."""
    red, green, blue = np.asarray(image.convert("RGB"), dtype=np.int64).transpose(2, 0, 1)
    luma = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
    total = int(luma.sum())
    return total / int(luma.size) / 255


def refused(answer: requests.Response, status: int) -> str:
    """What an error says: that and nothing else, and nothing of the server's inside."""
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert list(told) == ["error"]
    assert not any(word in told["error"] for word in ("Traceback", "/srv", "/home", "/secret", ".py", "line "))
    return str(told["error"])
