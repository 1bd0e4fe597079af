"""Requests of a judge: the library's client against one `asyncio.run` a batch.

    python tests/benchmarks/judge.py

A server in a process of its own answers each request after 200 ms. The peer is written here from the description of
today's judges: an `AsyncOpenAI` and an `asyncio.Semaphore` made in the constructor, and `asyncio.run` for each batch.
Such a client belongs to the loop of its first batch; how that one fares is measured with a new peer each round, and
what becomes of a peer that is kept, in a row of its own.

Prints one table: seconds of 512 requests, 64 at once (medians of interleaved rounds, after one to warm up, as ratios to
the ideal and to the peer), and then how four threads fare that share one client, each with ten batches of 64: calls
that were right, that raised, and that had not returned after a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import statistics
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Column, Table

from flux_rewards import RatingJudge, Sample

REQUESTS, AT_ONCE, ANSWER_SECONDS, ROUNDS = 512, 64, 0.200, 5
IDEAL = REQUESTS / AT_ONCE * ANSWER_SECONDS
THREADS, BATCHES, BATCH, LIMIT = 4, 10, 64, 60.0
TIMEOUT = 20.0
OURS, ANEW, KEPT = "RatingJudge", "loop a batch, client anew", "loop a batch, one client"
QUESTION = "How good is this? End with a line of the form Score: <number from 1 to 10>.\n\n"

Client = Callable[[Sequence[Sample]], Any]


async def serve() -> None:
    """Answer each request with the number that it holds, later; the port is printed."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: *(\d+)", head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                number = re.search(rb"worth (\d+)", body)
                await asyncio.sleep(ANSWER_SECONDS)
                writer.write(answer_with(number[1].decode() if number else "?"))
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)  # until the benchmark ends, however it does
    os._exit(0)


def answer_with(number: str) -> bytes:
    """A completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": f"Score: {number}"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 20, "completion_tokens": 4, "total_tokens": 24}
    facts = {"id": "1", "object": "chat.completion", "created": 0, "model": "judge"}
    body = json.dumps({**facts, "choices": [choice], "usage": usage}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@contextlib.contextmanager
def running_server() -> Iterator[str]:
    """The server's base URL."""
    command = [sys.executable, __file__, "serve"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.communicate()


class LoopABatch:
    """The peer."""

    def __init__(self, url: str) -> None:
        from openai import AsyncOpenAI

        self.client = AsyncOpenAI(base_url=url, api_key="EMPTY", timeout=TIMEOUT)
        self.semaphore = asyncio.Semaphore(AT_ONCE)

    def __call__(self, samples: Sequence[Sample]) -> Any:
        return asyncio.run(self.scores(samples))

    async def scores(self, samples: Sequence[Sample]) -> list[float]:
        """All of a batch."""
        return await asyncio.gather(*map(self.score, samples))

    async def score(self, sample: Sample) -> float:
        """One request."""
        async with self.semaphore:
            completion = await self.client.chat.completions.create(
                model="judge",
                messages=[{"role": "user", "content": f"{QUESTION}{sample.response}"}],
                temperature=0.0,
                max_completion_tokens=1024,
            )
        found = re.search(r"Score: (\d+)", completion.choices[0].message.content or "")
        assert found is not None
        return float(found[1])


def judge(url: str) -> Client:
    """The library's."""
    return RatingJudge(
        "judge",
        criteria="How good is it?",
        fields=("response",),
        scaling="raw",
        api_base_url=url,
        max_concurrent=AT_ONCE,
        timeout=TIMEOUT,
    )


def texts(count: int) -> list[Sample]:
    """Responses, each with a number for the server to find."""
    return [Sample(response=f"This is worth {index % 10 + 1}.") for index in range(count)]


def ask(client: Client, count: int) -> None:
    """A fast wrong answer is none: this is part of what is timed, for all alike."""
    result = client(texts(count))
    np.testing.assert_array_equal(getattr(result, "rewards", result), [index % 10 + 1 for index in range(count)])


def rounds(url: str) -> dict[str, list[float | None]]:
    """Seconds of interleaved rounds; None for one that failed."""
    kept: dict[str, Client] = {OURS: judge(url), KEPT: LoopABatch(url)}
    seconds: dict[str, list[float | None]] = {OURS: [], ANEW: [], KEPT: []}
    for number in range(1 + ROUNDS):
        for name, values in seconds.items():
            client = kept.get(name) or LoopABatch(url)
            started = time.perf_counter()
            try:
                ask(client, REQUESTS)
            except Exception:  # noqa: BLE001  # counted
                values.append(None)
            else:
                values.append(time.perf_counter() - started)
            if number == 0:
                values.clear()  # to warm up
    return seconds


def storm(client: Client) -> tuple[Counter[str], float]:
    """What became of the calls of several threads, and seconds."""
    outcomes: list[str] = []

    def call() -> None:
        for _ in range(BATCHES):
            try:
                ask(client, BATCH)
            except Exception:  # noqa: BLE001  # counted
                outcomes.append("failed")
            else:
                outcomes.append("right")

    threads = [threading.Thread(target=call, daemon=True) for _ in range(THREADS)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, started + LIMIT - time.perf_counter()))
    counts = Counter(outcomes)
    counts["hung"] = THREADS * BATCHES - counts.total()  # and those that were to come after
    return counts, time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # a peer that fails leaves its tasks behind
    warnings.simplefilter("ignore")
    alone = f"{REQUESTS} requests of {ANSWER_SECONDS * 1000:.0f} ms, {AT_ONCE} at once, {ROUNDS} rounds"
    together = f"then {THREADS} threads at once, {BATCHES} calls of {BATCH} requests each"
    table = Table(Column("client", no_wrap=True), title=f"{alone}; {together}")
    columns = ("median, s", "longest, s", f"to the ideal {IDEAL:.1f} s", "to the peer", "failed rounds")
    for column in (*columns, f"{THREADS} threads: right", "failed", "hung", "s"):
        table.add_column(column, justify="right")
    with running_server() as url:
        seconds = rounds(url)
        right = {name: [value for value in values if value is not None] for name, values in seconds.items()}
        medians = {name: statistics.median(values) for name, values in right.items() if values}
        for name, values in right.items():
            cells = ["-"] * 4
            if name in medians:
                ratios = (f"{medians[name] / IDEAL:.3f}", f"{medians[name] / medians[ANEW]:.3f}")
                cells = [f"{medians[name]:.3f}", f"{max(values):.3f}", *ratios]
            cells.append(f"{ROUNDS - len(values)} of {ROUNDS}")
            if name != ANEW:
                counts, took = storm(judge(url) if name == OURS else LoopABatch(url))
                cells += [*(str(counts[what]) for what in ("right", "failed", "hung")), f"{took:.1f}"]
            table.add_row(name, *cells)
    Console(width=150).print(table)
    sys.stdout.flush()
    os._exit(0)  # threads that hang would keep the interpreter


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve())
    else:
        main()
