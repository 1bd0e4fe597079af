"""What the tests of the client share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from served import served

from flux_rewards.remote.servers import Servers

if TYPE_CHECKING:
    from flux_rewards import RewardFunction


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client would have waited before another try."""
    waited: list[float] = []
    monkeypatch.setattr(Servers, "_rest", staticmethod(waited.append))
    return waited


@pytest.fixture(scope="module")
def servers() -> Iterator[Callable[[RewardFunction], str]]:
    """The address of a server of a reward, started once."""
    urls: dict[int, str] = {}
    with contextlib.ExitStack() as stack:

        def url_of(reward: RewardFunction) -> str:
            if id(reward) not in urls:
                urls[id(reward)] = stack.enter_context(served(reward))
            return urls[id(reward)]

        yield url_of
