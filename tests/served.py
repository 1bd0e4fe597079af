"""A reward server of the library on 127.0.0.1, in a thread of this process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import uvicorn

from flux_rewards.server.reward_server import RewardServer

if TYPE_CHECKING:
    from flux_rewards import RewardFunction


class _Prompt(uvicorn.Server):
    """Ends within milliseconds, not at the next tenth of a second: tests start many."""

    async def main_loop(self) -> None:
        await self.on_tick(0)
        while not self.should_exit:  # noqa: ASYNC110  # a plain attribute: uvicorn has no event for it
            await asyncio.sleep(0.002)


@contextlib.contextmanager
def served(reward: RewardFunction, at: int = 0, **options: Any) -> Iterator[str]:
    """Serve a reward until the end of the context; its address.

    Args:
        reward: What is served.
        at: The port; 0 for a free one.
        **options: Of `RewardServer`.
    """
    app = RewardServer(reward, port=0, **options).app
    # With its protocol told, or asyncio does not set TCP_NODELAY, and each answer waits for an acknowledgement.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", at))
    server = _Prompt(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="reward server", daemon=True)
    thread.start()
    try:
        end = time.monotonic() + 20.0
        while not server.started:
            assert thread.is_alive(), "the server does not start"
            assert time.monotonic() < end, "the server does not start in time"
            time.sleep(0.005)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10.0)
        listening.close()
        assert not thread.is_alive(), "the server does not end"
