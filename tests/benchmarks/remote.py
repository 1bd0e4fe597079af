"""Rewards behind HTTP: the binary exchange against base64 PNGs in JSON, and merged requests against single ones.

    python tests/benchmarks/remote.py

The servers are processes of their own on 127.0.0.1, served by uvicorn; the peer's server and client are written here
from the description of Flow-Factory's wire format: a PNG in base64 for each image, at Pillow's default compression, in
one JSON object; the server decodes them to RGB, and its reward costs nothing. Neither does ours, which gets the images
as PIL, too. Prints two tables: requests a second of one client (medians of interleaved rounds, by kind of image), and
seconds of many requests of one sample each, with and without merging, for a reward whose cost is per call.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import requests
from PIL import Image
from rich.console import Console
from rich.table import Table

from flux_rewards import RewardFunction, Sample
from flux_rewards.remote.remote_reward import RemoteReward

ROUNDS, SECONDS_A_ROUND = 5, 2.0
IMAGES, SIDE = 16, 512
REQUESTS, AT_ONCE, CALL_SECONDS = 256, 32, 0.020
OURS, PEER = "binary", "JSON, base64 PNG"
AIM = 10.0


class Corner(RewardFunction):
    """The red of the first pixel: costs nothing beside the way there."""

    required_fields = ("prompt", "image")
    optional_fields = ()

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        """One score an image."""
        return [image_score(sample.image) for sample in samples]


class PerCall(RewardFunction):
    """A model whose cost is per call, however many samples it is given."""

    required_fields = ("response",)
    optional_fields = ()

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        """Wait, once."""
        time.sleep(CALL_SECONDS)
        return [float(len(str(sample.response))) for sample in samples]


def image_score(image: Any) -> float:
    """Shows that the pixels have come."""
    return float(image.getpixel((0, 0))[0])


def serve_ours(listener: socket.socket, name: str, max_batch: int) -> None:
    """Serve one of the rewards above."""
    import uvicorn  # in the server's process only

    from flux_rewards.server.reward_server import RewardServer  # in the server's process only
    from flux_rewards.server.settings import Limits  # in the server's process only

    reward = {"Corner": Corner, "PerCall": PerCall}[name]()
    server = RewardServer(reward, limits=Limits(max_batch=max_batch))
    uvicorn.Server(uvicorn.Config(server.app, log_level="error")).run(sockets=[listener])


def serve_peer(listener: socket.socket) -> None:
    """The plain server of Flow-Factory's format."""
    import uvicorn  # in the server's process only
    from fastapi import FastAPI, Request  # in the server's process only

    app = FastAPI()

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    async def compute(request: Request) -> dict[str, list[float]]:
        body = await request.json()
        images = [Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB") for text in body["image"]]
        return {"rewards": [image_score(image) for image in images]}

    compute.__annotations__["request"] = Request  # a name of this function
    app.post("/compute")(compute)
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listener])


class PlainClient:
    """The peer's client."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()

    def __call__(self, prompts: Sequence[str], images: Sequence[Image.Image]) -> list[float]:
        """Encode, send, read."""
        encoded = []
        for image in images:
            buffer = io.BytesIO()
            image.save(buffer, format="PNG")
            encoded.append(base64.b64encode(buffer.getvalue()).decode())
        body = {"prompt": prompts, "image": encoded, "video": None, "condition_images": None, "condition_videos": None}
        response = self.session.post(f"{self.url}/compute", json=body, timeout=60)
        response.raise_for_status()
        rewards: list[float] = response.json()["rewards"]
        return rewards


@contextlib.contextmanager
def process(*arguments: str) -> Iterator[str]:
    """One of the servers in a process of its own; its address."""
    # With its protocol told, or asyncio leaves TCP_NODELAY out, and small answers wait 40 ms: the same for both.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        command = [sys.executable, __file__, str(listener.fileno()), *arguments]
        child = subprocess.Popen(command, pass_fds=[listener.fileno()], env=environment)
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"{url}/health", timeout=1).ok:
                    break
            time.sleep(0.05)
        yield url
    finally:
        child.terminate()
        child.wait(20)


def noise() -> Image.Image:
    """What no PNG makes smaller."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))


def smooth() -> Image.Image:
    """Coarse shapes with a little grain, as generated images have."""
    random = np.random.default_rng(1)
    coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize(
        (SIDE, SIDE), Image.Resampling.BICUBIC
    )
    return Image.fromarray(np.clip(np.asarray(coarse) + random.normal(0, 2, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8))


def flat() -> Image.Image:
    """One colour: the best that can happen to a PNG."""
    return Image.new("RGB", (SIDE, SIDE), (90, 120, 200))


KINDS: dict[str, Callable[[], Image.Image]] = {"noise": noise, "like a photograph": smooth, "one colour": flat}


def batch_of(kind: str) -> list[Image.Image]:
    """Images that differ, as those of a group do."""
    base = np.asarray(KINDS[kind]())
    return [Image.fromarray(np.roll(base, 7 * number, axis=1)) for number in range(IMAGES)]


def rate(ask: Callable[[], Any], expected: Sequence[float]) -> float:
    """Requests a second; a fast wrong answer is none."""
    count, started = 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < SECONDS_A_ROUND or count < 2:
        assert list(ask()) == list(expected)
        count += 1
    return count / seconds


def exchange_table() -> Table:
    """One client, 16 images a request."""
    columns = (OURS, PEER, "ratio", "least ratio of a round", "MB sent", "MB sent by the peer")
    title = (
        f"requests a second, {IMAGES} images of {SIDE}x{SIDE}, one client, median of {ROUNDS} rounds; aim {AIM:.0f}x"
    )
    table = Table("images", title=title)
    for column in columns:
        table.add_column(column, justify="right")
    with process("Corner", "64") as our_url, process("peer") as peer_url:
        ours, peer = RemoteReward(our_url), PlainClient(peer_url)
        for kind in KINDS:
            images = batch_of(kind)
            prompts = ["a picture"] * IMAGES
            samples = [Sample(prompt, image=image) for prompt, image in zip(prompts, images, strict=True)]
            expected = [image_score(image) for image in images]
            asks: dict[str, Callable[[], Any]] = {
                OURS: functools.partial(lambda given: ours(given).rewards, samples),
                PEER: functools.partial(peer, prompts, images),
            }
            for ask in asks.values():
                ask()  # connections, and what is imported late
            rounds = [{name: rate(ask, expected) for name, ask in asks.items()} for _ in range(ROUNDS)]
            medians = {name: statistics.median(one[name] for one in rounds) for name in asks}
            least = min(one[OURS] / one[PEER] for one in rounds)
            raw = IMAGES * SIDE * SIDE * 3 / 1e6
            png = sum(4 * -(-png_size(image) // 3) for image in images) / 1e6
            ratio = medians[OURS] / medians[PEER]
            cells = (f"{medians[OURS]:.2f}", f"{medians[PEER]:.2f}", f"{ratio:.1f}", f"{least:.1f}")
            table.add_row(kind, *cells, f"{raw:.1f}", f"{png:.1f}")
    return table


def png_size(image: Image.Image) -> int:
    """Bytes of its PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return len(buffer.getvalue())


def merging_table() -> Table:
    """Many requests of one sample each."""
    title = (
        f"{REQUESTS} requests of one sample, {AT_ONCE} at once, {CALL_SECONDS * 1000:.0f} ms a call, "
        f"median of {ROUNDS} rounds"
    )
    table = Table("server", title=title)
    for column in ("seconds", "longest, s", "ratio", "calls"):
        table.add_column(column, justify="right")
    samples = [Sample(response="x" * (index % 50)) for index in range(REQUESTS)]
    expected = [float(index % 50) for index in range(REQUESTS)]
    seconds: dict[str, list[float]] = {"merging (max_batch=64)": [], "max_batch=1": []}
    with process("PerCall", "64") as merging, process("PerCall", "1") as single:
        urls = dict(zip(seconds, (merging, single), strict=True))
        clients = {name: RemoteReward(url) for name, url in urls.items()}
        before = {name: calls_of(url) for name, url in urls.items()}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for number in range(ROUNDS + 1):
                for name, client in clients.items():
                    started = time.perf_counter()
                    found = list(pool.map(client.compute_rewards, [[sample] for sample in samples]))
                    if number:  # the first one opens the connections
                        seconds[name].append(time.perf_counter() - started)
                    assert [float(one.batch.rewards[0]) for one in found] == expected
        calls = {name: (calls_of(url) - before[name]) / (ROUNDS + 1) for name, url in urls.items()}
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        ratio = f"{medians['max_batch=1'] / median:.1f}"
        table.add_row(name, f"{median:.3f}", f"{max(seconds[name]):.3f}", ratio, f"{calls[name]:.0f}")
    return table


def calls_of(url: str) -> float:
    """Batches that the server has scored."""
    for line in requests.get(f"{url}/metrics", timeout=5).text.splitlines():
        if line.startswith("flux_rewards_batch_samples_count"):
            return float(line.split()[1])
    raise AssertionError("no such metric")


def main() -> None:
    """Measure and print."""
    console = Console(width=120)
    for table in (exchange_table, merging_table):
        console.print(table())


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        inherited = socket.socket(fileno=int(sys.argv[1]))
        if sys.argv[2] == "peer":
            serve_peer(inherited)
        else:
            serve_ours(inherited, sys.argv[2], int(sys.argv[3]))
