"""A server that reads every field, with small limits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from malformed_bodies import MAX_BODY, MAX_PIXELS, MAX_SAMPLES
from reward_servers import ServerThread, on_thread
from server_rewards import Everything

from flux_rewards.server.reward_server import RewardServer
from flux_rewards.server.settings import Limits


@pytest.fixture(scope="package")
def strict_server() -> Iterator[ServerThread]:
    limits = Limits(max_body=MAX_BODY, max_pixels=MAX_PIXELS, max_samples=MAX_SAMPLES, body_timeout=0.5, window=0.0)
    with on_thread(RewardServer(Everything(), limits=limits)) as running:
        yield running
