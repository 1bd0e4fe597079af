"""How much an endpoint is asked for at a time: on a loop whose clock jumps, so that nobody waits."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any

import pytest

from flux_rewards import RemoteError
from flux_rewards.chat.limits import Limits


class _Jumping(selectors.DefaultSelector):
    """Where there is nothing to do but to wait, the time is over at once."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout is not None:
            self.now += timeout
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop that never waits; its clock says how long it would have."""

    def __init__(self) -> None:
        self.jumping = _Jumping()
        super().__init__(self.jumping)

    def time(self) -> float:
        return self.jumping.now


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """What it returns, in no time."""
    loop = JumpingLoop()
    try:
        return loop.run_until_complete(asyncio.wait_for(work, 1e6))
    finally:
        loop.close()


def now() -> float:
    """Seconds since the start."""
    return asyncio.get_running_loop().time() - 1000.0


async def begun(limits: Limits, count: int, until: float = 1e5) -> list[float]:
    """When each of so many may begin that all want to at once."""

    async def one() -> float:
        await limits.turn(1000.0 + until)
        return now()

    return sorted(await asyncio.gather(*[one() for _ in range(count)]))


def test_without_a_limit_nobody_waits() -> None:
    """However many there are."""
    assert run(begun(Limits(4), 1000)) == [0.0] * 1000


@pytest.mark.parametrize(("per_minute", "count"), [(1, 4), (3, 10), (60, 150)])
def test_requests_a_minute(per_minute: int, count: int) -> None:
    """So many at once, as many a minute later, and so on."""
    expected = [60.0 * (number // per_minute) for number in range(count)]
    assert run(begun(Limits(64, per_minute), count)) == pytest.approx(expected, abs=0.01)


def test_no_minute_has_more() -> None:
    """Wherever it starts; and none has fewer than it could."""

    async def spread() -> list[float]:
        limits, times = Limits(64, 5), []
        for gap in (0.0, 7.0, 7.0, 1.0, 30.0, 0.0, 0.0, 20.0, 0.0, 0.0, 0.0, 45.0, 0.0):
            await asyncio.sleep(gap)
            await limits.turn(1e6)
            times.append(now())
        return times

    times = run(spread())
    assert all(later - first > 60.0 - 0.01 for first, later in zip(times, times[5:], strict=False))
    assert times[:5] == pytest.approx([0.0, 7.0, 14.0, 15.0, 45.0])
    assert times[5:8] == pytest.approx([60.0, 67.0, 87.0], abs=0.05)


def test_a_pause_holds_all_up() -> None:
    """Those who come later, and those who were waiting; the longest counts."""

    async def paused() -> tuple[list[float], list[float]]:
        limits = Limits(4, 2)
        limits.pause(30.0)
        limits.pause(10.0)
        waiting = asyncio.ensure_future(begun(limits, 3))
        await asyncio.sleep(20.0)
        limits.pause(15.0)  # until 35
        return await waiting, await begun(limits, 1)

    first, last = run(paused())
    assert first == pytest.approx([35.0, 35.0, 95.0], abs=0.01)
    assert last == pytest.approx([95.0], abs=0.01)


def test_a_pause_is_over_at_its_end() -> None:
    """No one is held up by one that is past."""

    async def paused() -> list[float]:
        limits = Limits(4)
        limits.pause(5.0)
        await asyncio.sleep(6.0)
        return await begun(limits, 2)

    assert run(paused()) == [6.0, 6.0]


@pytest.mark.parametrize("held_up_by", ["a pause", "requests a minute"])
def test_what_would_be_too_late_does_not_wait(held_up_by: str) -> None:
    """It says so at once, and when it could begin; nor does it use up a turn."""

    async def late() -> tuple[float, float | None, bool, list[float]]:
        limits = Limits(4, 1)
        if held_up_by == "a pause":
            limits.pause(60.0)
        else:
            await limits.turn(2000.0)
        with pytest.raises(RemoteError, match=r"60 s.*deadline") as caught:
            await limits.turn(1059.0)
        return now(), caught.value.retry_after, caught.value.retryable, await begun(limits, 1)

    at, wait, retryable, times = run(late())
    assert (at, retryable) == (0.0, True)
    assert wait == pytest.approx(60.0)
    assert times == pytest.approx([60.0], abs=0.01)


def test_so_many_in_flight() -> None:
    """A place that is left is taken; one that is given up while waiting is no loss."""

    async def crowd() -> tuple[int, float]:
        limits, inside, most = Limits(3), 0, 0

        async def one() -> None:
            nonlocal inside, most
            async with limits.slots:
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(1.0)
                inside -= 1

        tasks = [asyncio.ensure_future(one()) for _ in range(12)]
        await asyncio.sleep(0.5)
        for task in tasks[3:6]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return most, now()

    most, at = run(crowd())
    assert most == 3
    assert at == pytest.approx(3.0)  # nine, three at a time
