"""`Timeout`: what is over its time, what becomes of it, and what it holds."""

import concurrent.futures
import contextvars
import re
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from rewards_of_our_own import Watched

from flux_rewards import (
    CompositeReward,
    ComputeError,
    ConfigError,
    Executor,
    FunctionReward,
    MaskErrors,
    Retry,
    RewardFunction,
    Sample,
    Timeout,
)
from flux_rewards.lanes import lanes_of


class Hangs(RewardFunction):
    """Hangs until it is released where the response says so."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.release = threading.Event()
        self.lock = threading.Lock()
        self.inside = 0
        self.most = 0

    def compute_reward(self, sample: Sample) -> float:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        try:
            if sample.response == "hang":
                self.release.wait(60)
            return float(len(str(sample.response)))
        finally:
            with self.lock:
                self.inside -= 1


def texts(*responses: str) -> list[Sample]:
    """A sample for each."""
    return [Sample(response=response) for response in responses]


@pytest.mark.parametrize("in_pool", [False, True])
def test_a_call_that_hangs_fails_alone(in_pool: bool) -> None:
    """From any thread: the others are scored, in their places."""
    leaf = Hangs(num_workers=4)
    reward = MaskErrors(Timeout(leaf, 0.1))
    batch_of = texts("a", "hang", "ccc", "hang", "eeeee", "ffffff")
    try:
        if in_pool:
            with Executor() as executor:
                batch = executor.submit(reward, batch_of).result(timeout=60)
        else:
            batch = reward(batch_of)
    finally:
        leaf.release.set()
    assert batch.errors == dict.fromkeys((1, 3), "TimeoutError: not done after 0.1 s")
    assert batch.rewards[[0, 2, 4, 5]].tolist() == [1.0, 3.0, 5.0, 6.0]
    assert batch.stats["Hangs"].failures == 2


def test_unmasked_it_raises_with_the_index() -> None:
    """The cause is a `TimeoutError`, and another try may help."""
    leaf = Hangs(num_workers=2)
    try:
        with pytest.raises(ComputeError, match=r"not done after 0\.05 s") as caught:
            Timeout(leaf, 0.05)(texts("a", "hang"))
    finally:
        leaf.release.set()
    assert (caught.value.reward, caught.value.index, caught.value.retryable) == ("Hangs", 1, True)
    assert isinstance(caught.value.__cause__, TimeoutError)


def test_a_call_that_still_runs_keeps_its_lane() -> None:
    """The limit holds even so; what finds every lane taken for good fails in time, and says why."""
    leaf = Hangs()
    reward = MaskErrors(Timeout(leaf, 0.1), 1.0)
    try:
        batch = reward(texts("hang", "a", "b"))
        assert leaf.most == 1
        assert batch.errors[0] == "TimeoutError: not done after 0.1 s"
        for index in (1, 2):
            assert re.search("not begun.*a larger num_workers leaves room for such calls", batch.errors[index])
        with Executor() as executor:
            late = executor.submit(reward, texts("a", "b", "c")).result(timeout=60)
        assert list(late.errors) == [0, 1, 2]
    finally:
        leaf.release.set()
    while lanes_of(leaf)._in_flight:
        time.sleep(0.001)
    assert reward(texts("a", "bb")).rewards.tolist() == [1.0, 2.0]
    assert leaf.most == 1


def test_calls_that_queue_for_lost_lanes_fail_together() -> None:
    """Not one after the other: a hundred samples take no longer than a few."""
    leaf = Hangs(num_workers=2)
    reward = MaskErrors(Timeout(leaf, 0.2), 1.0)
    try:
        with Executor(threads=4) as executor:
            started = time.monotonic()
            batch = executor.submit(reward, texts("hang", "hang", *["a"] * 100)).result(timeout=60)
            assert time.monotonic() - started < 10  # 0.2 s for the calls and 0.2 s for the lanes, not 100 times that
    finally:
        leaf.release.set()
    assert len(batch.errors) == 102
    assert leaf.most == 2


def test_a_lane_that_comes_free_in_time_is_used() -> None:
    """A call that was only slow holds nobody up for longer than it takes."""
    leaf = Hangs()
    reward = MaskErrors(Timeout(leaf, 5.0), 1.0)
    impatient = MaskErrors(Timeout(leaf, 0.05), 1.0)
    with concurrent.futures.ThreadPoolExecutor(1) as caller:
        assert list(impatient(texts("hang")).errors) == [0]
        waiting = caller.submit(reward, texts("abc"))
        time.sleep(0.05)
        leaf.release.set()
        assert waiting.result(60).rewards.tolist() == [3.0]


def test_a_batch_has_one_limit() -> None:
    """The author's code is called once for all of it."""

    class Slow(RewardFunction):
        batch_size = 2

        def compute_rewards(self, samples: Sequence[Sample]) -> Any:
            if samples[0].response == "hang":
                time.sleep(0.3)
            return [1.0] * len(samples)

    with pytest.raises(ComputeError) as caught:
        Timeout(Slow(), 0.1)(texts("a", "b", "hang", "c"))
    assert caught.value.index is None  # neither of the two is to blame
    batch = MaskErrors(Timeout(Slow(num_workers=2), 0.1), 1.0)(texts("a", "b", "hang", "c"))
    assert sorted(batch.errors) == [2, 3]


def test_around_a_retry_it_limits_all_attempts() -> None:
    """And the retries end there."""
    asked: list[int] = []

    def fails(sample: Sample) -> float:
        asked.append(1)
        raise ConnectionError("reset")

    reward = Timeout(Retry(FunctionReward(fails), 1000, wait=0.05, max_wait=0.05), 0.3)
    with pytest.raises(ComputeError, match=r"not done after 0\.3 s"):
        reward([Sample()])
    seen = len(asked)
    assert seen >= 2
    time.sleep(0.3)
    assert len(asked) <= seen + 1


def test_errors_come_out_as_they_are() -> None:
    """From the thread of their own."""
    with pytest.raises(ComputeError, match="ZeroDivisionError") as caught:
        Timeout(FunctionReward(lambda sample: 1 / 0), 10.0)([Sample()])
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_reward_may_call_itself_and_others_within_its_limit() -> None:
    """Its lane is its own there, too, on the smallest pool."""
    inner = Watched(batch_size=2, num_workers=3)

    class Outer(RewardFunction):
        def compute_rewards(self, samples: Sequence[Sample]) -> Any:
            if len(samples) > 2:
                return self(samples[:2]).rewards.tolist() + inner(samples[2:]).rewards.tolist()
            return [0.0] * len(samples)

    batch_of = texts("a", "b", "ccc", "dddd")
    reward = Timeout(Outer(), 30.0)
    assert reward(batch_of).rewards.tolist() == [0.0, 0.0, 3.0, 4.0]
    with Executor(threads=1) as executor:
        assert executor.submit(reward, batch_of).result(timeout=60).rewards.tolist() == [0.0, 0.0, 3.0, 4.0]


def test_the_thread_of_a_call_stands_in_for_its_caller() -> None:
    """Gradient mode and context variables are the caller's."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="lost")
    seen: list[Any] = []

    def look(sample: Sample) -> float:
        seen.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled(), variable.get()))
        return 1.0

    token = variable.set("kept")
    try:
        reward = Timeout(FunctionReward(look), 60.0)
        reward([Sample()])
        with torch.no_grad():
            reward([Sample()])
        with torch.inference_mode():
            reward([Sample()])
    finally:
        variable.reset(token)
    assert seen == [(True, False, "kept"), (False, False, "kept"), (False, True, "kept")]


def test_a_pool_survives_calls_that_hang() -> None:
    """Closing does not wait for them, and other rewards go on."""
    leaf, other = Hangs(num_workers=8), Watched(batch_size=1, num_workers=2)
    reward = CompositeReward({"hangs": (MaskErrors(Timeout(leaf, 0.05), 1.0), 1.0), "other": (other, 1.0)})
    try:
        with Executor(threads=2) as executor:
            batch = executor.submit(reward, texts(*["hang"] * 6)).result(timeout=60)
    finally:
        leaf.release.set()
    assert len(batch.errors) == 6
    np.testing.assert_array_equal(batch.parts["other"].rewards, [4.0] * 6)


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), "1"])
def test_a_limit_is_a_positive_number(seconds: Any) -> None:
    """Of seconds."""
    with pytest.raises(ConfigError, match="seconds"):
        Timeout(Hangs(), seconds)
