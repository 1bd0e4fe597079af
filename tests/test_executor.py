"""Leaves, chunks, lanes and folds: what runs, how often, where, and what happens when something fails."""

import asyncio
import concurrent.futures
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from rewards_of_our_own import Characters, Gated, GroupMean, Told, Watched, told

from flux_rewards import (
    Batched,
    Clip,
    CompositeReward,
    ComputeError,
    ConfigError,
    ContractError,
    Executor,
    FunctionReward,
    Gate,
    GroupRank,
    InputError,
    MaskErrors,
    RewardFunction,
    Sample,
    Scale,
)
from flux_rewards.executor import default_executor
from flux_rewards.lanes import Lanes

SAMPLES = [Sample(f"p{index // 4}", "x" * index) for index in range(40)]


def nested(leaf: RewardFunction | None = None) -> CompositeReward:
    """A composite of composites with a shared leaf, ranks and gates."""
    shared = leaf or Characters()
    inner = CompositeReward([(shared, 0.5), (GroupRank(shared), 2.0), (GroupMean(), -0.1)])
    return CompositeReward({"inner": (inner, 1.0), "gate": (Gate(Scale(shared, 3.0), shared, 10.0), 0.25)})


def with_group_ids(samples: Sequence[Sample]) -> list[Sample]:
    """The same samples with explicit groups."""
    return [Sample(sample.prompt, sample.response, group_id=sample.prompt) for sample in samples]


def test_a_leaf_that_is_reached_twice_is_computed_once() -> None:
    """By identity, through any combinators."""
    leaf = Watched()
    nested(leaf)(SAMPLES)
    assert leaf.calls == [40]


@pytest.mark.parametrize(
    ("options", "sizes"),
    [({}, [40]), ({"batch_size": 16}, [16, 16, 8]), ({"batch_size": 64}, [40]), ({"num_workers": 4}, [40])],
)
def test_chunks_follow_the_batch_size(options: dict[str, Any], sizes: list[int]) -> None:
    """In order, the last one smaller."""
    leaf = Watched(**options)
    batch = leaf(SAMPLES)
    assert leaf.calls == sizes
    assert batch.rewards.tolist() == list(range(40))


def test_a_wrappers_batch_size_holds_for_its_own_use() -> None:
    """One object may score training in small batches and evaluation in large ones; the smaller one wins in one tree."""
    leaf = Watched(batch_size=20)
    Batched(leaf, 10)(SAMPLES)
    leaf(SAMPLES)
    CompositeReward([(Batched(leaf, 30), 1.0), (Batched(Scale(leaf), 25), 1.0)])(SAMPLES)
    assert leaf.calls == [10] * 4 + [20] * 2 + [25, 15]


def test_scoring_sample_by_sample_uses_every_worker() -> None:
    """With several workers a call is one sample, or nothing would overlap."""
    barrier = threading.Barrier(4, timeout=60)

    class Meeting(RewardFunction):
        num_workers = 4

        def compute_reward(self, sample: Sample) -> float:
            barrier.wait()  # passes only when four calls are in flight at once
            return 1.0

    assert Meeting()([Sample()] * 8).rewards.sum() == 8


def test_the_plain_call_stays_in_its_thread() -> None:
    """No thread is started unless a leaf asks for more than one call in flight."""
    before = threading.active_count()
    leaf = Watched(batch_size=3)
    nested(leaf)(SAMPLES)
    assert leaf.threads == {threading.get_ident()}
    assert threading.active_count() == before


def test_num_workers_is_a_limit_of_the_object() -> None:
    """However many calls, threads and executors share it."""
    leaf = Watched(0.002, batch_size=4, num_workers=3)
    with Executor() as one, Executor() as other, concurrent.futures.ThreadPoolExecutor(6) as callers:
        pending = [executor.submit(CompositeReward([(leaf, 1.0)]), SAMPLES) for executor in (one, other) * 3]
        plain = list(callers.map(leaf, [SAMPLES] * 6))
        batches = [entry.result(60) for entry in pending] + plain
    assert leaf.most <= 3
    assert len(leaf.calls) == 12 * 10
    for batch in batches:
        assert batch.rewards.tolist() == list(range(40))


def test_one_worker_means_one_call_at_a_time() -> None:
    """For a model that is not thread-safe."""
    leaf = Watched(0.001, batch_size=10)
    with concurrent.futures.ThreadPoolExecutor(8) as callers:
        list(callers.map(leaf, [SAMPLES] * 8))
    assert leaf.most == 1


def test_slow_leaves_overlap() -> None:
    """Two leaves of one worker each run side by side when submitted."""
    barrier = threading.Barrier(2, timeout=60)

    class Meeting(RewardFunction):
        def compute_rewards(self, samples: Sequence[Sample]) -> Any:
            barrier.wait()
            return [1.0] * len(samples)

    with Executor() as executor:
        batch = executor.submit(CompositeReward([(Meeting(), 1.0), (Meeting(), 2.0)]), SAMPLES).result(60)
    assert set(batch.rewards.tolist()) == {3.0}


def test_many_services_overlap_in_full() -> None:
    """Each reward has its workers, beside those of the others."""
    barrier = threading.Barrier(90, timeout=60)

    class Meeting(RewardFunction):
        num_workers = 30

        def compute_reward(self, sample: Sample) -> float:
            barrier.wait()  # passes only when all ninety calls are in flight at once
            return 1.0

    reward = CompositeReward([(Meeting(), 1.0) for _ in range(3)])
    assert reward([Sample()] * 60).rewards.tolist() == [3.0] * 60


def test_no_more_threads_start_than_find_a_lane() -> None:
    """However many chunks there are."""
    with Executor() as executor:
        executor.submit(Watched(0.001, batch_size=1, num_workers=2), SAMPLES * 10).result(60)
        assert executor._own is not None
        assert len(executor._own[1]._threads) <= 4  # one may set out when another is just about to leave


def test_fifty_threads_agree_with_the_plain_call() -> None:
    """Through one nested composite, whose leaves have one or several workers."""
    reward = nested(Watched(num_workers=3, batch_size=7))
    samples = with_group_ids(SAMPLES)
    expected = reward(samples)
    with concurrent.futures.ThreadPoolExecutor(50) as callers:
        for batch in callers.map(reward, [samples] * 50):
            np.testing.assert_array_equal(batch.rewards, expected.rewards)
            for part in expected.parts:
                np.testing.assert_array_equal(batch.parts[part].rewards, expected.parts[part].rewards)


def test_a_thirty_deep_tree_runs_on_one_thread() -> None:
    """No worker ever waits for another."""
    leaf = Watched(batch_size=5, num_workers=4)
    reward: RewardFunction = leaf
    for depth in range(30):
        reward = CompositeReward([(Scale(reward, 1.0), 1.0), (Clip(leaf, low=0.0), 0.0 if depth else 1.0)])
    with Executor(threads=1) as executor:
        batch = executor.submit(reward, SAMPLES).result(timeout=60)
    np.testing.assert_array_equal(batch.rewards, 2.0 * np.arange(40))
    assert leaf.calls == [5] * 8


def test_a_tree_with_many_paths_is_walked_once() -> None:
    """Forty levels that share their child have 2**40 paths."""
    leaf = Watched()
    reward: RewardFunction = leaf
    for _ in range(40):
        reward = CompositeReward([(reward, 0.5), (reward, 0.5)])
    assert reward(SAMPLES).rewards.tolist() == list(range(40))
    assert leaf.calls == [40]


def test_a_failure_stops_the_rest() -> None:
    """Chunks that have not begun never begin."""
    started: list[int] = []

    class Failing(RewardFunction):
        batch_size = 1

        def compute_rewards(self, samples: Sequence[Sample]) -> Any:
            started.append(1)
            if len(started) == 3:
                raise OSError("the third call")
            return [1.0]

    with pytest.raises(ComputeError, match="the third call") as caught:
        Failing()(SAMPLES)
    assert caught.value.index == 2
    assert len(started) == 3
    started.clear()
    with Executor(threads=1) as executor, pytest.raises(ComputeError, match="the third call"):
        executor.submit(Failing(), SAMPLES).result(60)
    assert len(started) == 3


def test_a_failure_in_a_worker_has_index_and_name() -> None:
    """As in the plain call."""
    values: list[Any] = [1.0] * 9
    values[6] = ValueError("bad")
    reward = CompositeReward([(Told(num_workers=4), 1.0)])
    calls: list[Callable[[], Any]] = [
        lambda: reward(told(*values)),
        lambda: default_executor().submit(reward, told(*values)).result(60),
    ]
    for call in calls:
        with pytest.raises(ComputeError) as caught:
            call()
        assert (caught.value.reward, caught.value.index) == ("Told", 6)
        assert isinstance(caught.value.__cause__, ValueError)


def test_a_shared_leaf_is_masked_only_if_every_path_is() -> None:
    """One use without a mask is enough to raise."""
    leaf = Told()
    masked = MaskErrors(leaf, 1.0)
    samples = told(1.0, ValueError("bad"))
    assert CompositeReward([(masked, 1.0), (MaskErrors(Scale(leaf), 1.0), 1.0)])(samples).failed.tolist() == [
        False,
        True,
    ]
    with pytest.raises(ComputeError, match="bad"):
        CompositeReward([(masked, 1.0), (Scale(leaf), 1.0)])(samples)


def test_fields_are_checked_before_anything_runs() -> None:
    """`submit` raises at once."""
    leaf = Watched()
    with Executor() as executor, pytest.raises(InputError):
        executor.submit(CompositeReward([(leaf, 1.0), (Characters(), 1.0)]), [Sample("p")])
    assert leaf.calls == []


def test_result_waits_no_longer_than_asked() -> None:
    """The message names who is late, and the call goes on."""
    release = threading.Event()

    class Slow(RewardFunction):
        def compute_reward(self, sample: Sample) -> float:
            release.wait(60)
            return 1.0

    with Executor() as executor:
        pending = executor.submit(CompositeReward([(Slow(), 1.0), (Characters(), 1.0)]), [Sample(response="a")])
        with pytest.raises(TimeoutError, match="Slow"):
            pending.result(timeout=0.05)
        assert not pending.done()
        release.set()
        assert pending.result(timeout=60).rewards.tolist() == [2.0]
        assert pending.done()
        assert pending.result() is pending.result()


def test_cancel_starts_nothing_more() -> None:
    """What runs ends by itself; its rows are dropped."""
    slow = Gated()
    with Executor() as executor:
        pending = executor.submit(slow, SAMPLES)
        assert slow.begun.wait(60)
        pending.cancel()
        with pytest.raises(concurrent.futures.CancelledError):
            pending.result(60)
        slow.release.set()
    assert len(slow.scored) == 1


def test_pending_is_awaitable() -> None:
    """Inside a running loop, many at once, and again."""

    async def main() -> list[list[float]]:
        with Executor() as executor:
            pending = [executor.submit(Watched(0.001, batch_size=8, num_workers=4), SAMPLES) for _ in range(5)]
            first = [await entry for entry in pending]
            again = await pending[0]
        return [batch.rewards.tolist() for batch in [*first, again]]

    assert asyncio.run(main()) == [list(range(40))] * 6


def test_awaiting_a_failure_raises_it() -> None:
    """The same error as from `result`."""

    async def main() -> None:
        await default_executor().submit(Told(num_workers=2), told(1.0, ValueError("bad")))

    with pytest.raises(ComputeError, match="bad"):
        asyncio.run(main())


def test_giving_up_an_await_leaves_the_call_to_others() -> None:
    """As `asyncio.wait_for` does at its time-out; `cancel` ends it."""
    release = threading.Event()

    class Slow(RewardFunction):
        def compute_reward(self, sample: Sample) -> float:
            release.wait(60)
            return 1.0

    async def main(executor: Executor) -> list[float]:
        pending = executor.submit(Slow(), [Sample()])

        async def ask() -> Any:
            return await pending

        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(ask(), 0.05)
        release.set()
        return (await pending).rewards.tolist()  # type: ignore[no-any-return]

    with Executor() as executor:
        assert asyncio.run(main(executor)) == [1.0]


def test_the_callers_list_may_be_used_again() -> None:
    """As a rollout buffer is, while its samples are scored."""
    slow = Gated()
    samples = [Sample(response="a")] * 4
    with Executor() as executor:
        pending = executor.submit(slow, samples)
        assert slow.begun.wait(60)
        samples[:] = [Sample(response="other")] * 4
        slow.release.set()
        assert pending.result(60).rewards.tolist() == [1.0] * 4


def test_the_plain_call_works_inside_a_running_loop() -> None:
    """As in a notebook or an actor: nothing calls asyncio.run."""

    async def main() -> list[float]:
        return Watched(batch_size=4, num_workers=4)(SAMPLES).rewards.tolist()  # type: ignore[no-any-return]

    assert asyncio.run(main()) == list(range(40))


def test_a_reward_may_call_another_from_its_own_code() -> None:
    """Even itself, and even from a worker of a pool of one thread."""
    inner = Watched(batch_size=2, num_workers=3)

    class Outer(RewardFunction):
        def compute_rewards(self, samples: Sequence[Sample]) -> Any:
            if len(samples) > 10:
                return self(samples[:10]).rewards.tolist() + [0.0] * (len(samples) - 10)
            return inner(samples)

    expected = [*range(10), *[0.0] * 30]
    assert Outer()(SAMPLES).rewards.tolist() == expected
    with Executor(threads=1) as executor:
        assert executor.submit(Outer(), SAMPLES).result(60).rewards.tolist() == expected


def test_an_interrupt_frees_the_lane() -> None:
    """Ctrl-C in a reward must not lock it for good."""

    class Interrupted(RewardFunction):
        fail = True

        def compute_reward(self, sample: Sample) -> float:
            if self.fail:
                raise KeyboardInterrupt
            return 1.0

    reward = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        reward([Sample()])
    reward.fail = False
    assert reward([Sample()]).rewards.tolist() == [1.0]


def test_a_closed_executor_refuses_calls() -> None:
    """And closing cancels what has not begun, rather than wait for it."""
    executor = Executor(threads=1)
    executor.submit(Characters(), SAMPLES).result(60)
    executor.close()
    with pytest.raises(ContractError, match="closed"):
        executor.submit(Characters(), SAMPLES)
    with pytest.raises(ConfigError, match="threads must be a whole number >= 1"):
        Executor(threads=0)


def test_closing_does_not_leave_anyone_waiting() -> None:
    """A call that was cut off raises."""
    slow = Gated()
    executor = Executor(threads=1)
    pending = executor.submit(CompositeReward([(slow, 1.0), (Gated(), 1.0)]), SAMPLES)
    assert slow.begun.wait(60)
    closer = threading.Thread(target=executor.close)
    closer.start()
    time.sleep(0.05)
    slow.release.set()
    closer.join(60)
    with pytest.raises(ContractError, match="closed"):
        pending.result(timeout=60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is not there")
def test_a_forked_child_can_score() -> None:
    """Its parent's threads are not there, and a lane that they held is free."""
    leaf = Watched(0.05, batch_size=4, num_workers=2)
    pending = default_executor().submit(leaf, SAMPLES)  # lanes are taken while we fork
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            leaf.lock = threading.Lock()
            total = leaf(SAMPLES).rewards.sum()
            os.write(write, str(total).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    assert answer == str(float(sum(range(40))))
    assert pending.result(60).rewards.sum() == sum(range(40))


def test_a_nested_call_waits_for_running_calls_only() -> None:
    """A lane is not held by a chunk that is stuck in the queue behind the one that waits for it."""
    inner = Watched(batch_size=4)

    class Outer(RewardFunction):
        def compute_rewards(self, samples: Sequence[Sample]) -> Any:
            return inner(samples)

    with Executor(threads=1) as executor:
        tree = CompositeReward([(Outer(batch_size=5), 1.0), (inner, 1.0), (Outer(), 1.0)])
        batch = executor.submit(tree, SAMPLES).result(timeout=60)
    np.testing.assert_array_equal(batch.rewards, 3.0 * np.arange(40))
    assert inner.most == 1


def test_closing_frees_every_lane() -> None:
    """A reward whose call was cut off can be used again, at once."""
    slow = Gated()
    queued = Watched(batch_size=1)
    executor = Executor(threads=1)
    pending = executor.submit(CompositeReward([(slow, 1.0), (queued, 1.0)]), [Sample(response="a")] * 2000)
    assert slow.begun.wait(60)
    closer = threading.Thread(target=executor.close)
    closer.start()
    with pytest.raises(ContractError, match="closed before the call ended"):
        pending.result(timeout=60)
    slow.release.set()
    closer.join(60)
    assert queued.calls == []
    assert queued([Sample(response="ab")]).rewards.tolist() == [2.0]
    assert slow([Sample()]).rewards.tolist() == [1.0]


def test_a_free_lane_wakes_all_that_could_use_it() -> None:
    """A queued call that is gone is passed over, and one that stands behind a blocked thread does not hold it up."""
    lanes = Lanes()
    woken: list[str] = []

    def gone() -> bool:
        woken.append("gone")
        return False

    def queued() -> bool:
        woken.append("queued")
        return True

    lane = lanes.enter(1, queued)
    assert lane is not None
    assert not lanes.enter(1, gone)
    assert not lanes.enter(1, queued)
    blocked = threading.Thread(target=lanes.wait, args=(1,))
    blocked.start()
    while not lanes._blocked:
        time.sleep(0.001)
    lane.leave()
    blocked.join(60)
    assert not blocked.is_alive()
    assert woken == ["gone", "queued"]


def test_many_trees_share_leaves_nested_calls_and_small_pools() -> None:
    """Nothing waits for ever, whoever cancels, and no limit is exceeded."""
    generator = random.Random(0)
    leaves = [Watched(0.0002, batch_size=size, num_workers=workers) for size, workers in [(1, 1), (3, 2), (7, 4)]]

    class Outer(RewardFunction):
        def __init__(self, inner: RewardFunction) -> None:
            self.inner = inner

        def compute_rewards(self, samples: Sequence[Sample]) -> Any:
            return self.inner(samples)

    nodes: list[RewardFunction] = [*leaves, *(Outer(leaf) for leaf in leaves)]
    trees = [CompositeReward([(generator.choice(nodes), 1.0) for _ in range(3)]) for _ in range(60)]
    executors = [Executor(threads=count) for count in (1, 2, 3)]

    def call(number: int) -> None:
        tree = trees[number]
        if number % 3 == 0:
            batch = tree(SAMPLES)
        else:
            pending = executors[number % 2 + number % 5 % 2].submit(tree, SAMPLES)
            if number % 7 == 0:
                pending.cancel()
                return
            batch = pending.result(timeout=120)
        np.testing.assert_array_equal(batch.rewards, 3.0 * np.arange(40))

    with concurrent.futures.ThreadPoolExecutor(12) as callers:
        list(callers.map(call, range(len(trees)), timeout=240))
    for executor in executors:
        executor.close()
    for leaf in leaves:
        assert leaf.most <= leaf.num_workers


def test_a_watcher_that_fails_ends_the_call() -> None:
    """Its error is the call's: whoever waits does not wait for ever."""

    def watch() -> None:
        raise ValueError("the watcher failed")

    with Executor() as executor:
        pending = executor.submit(FunctionReward(lambda _: 1.0), [Sample("q")], on_progress=watch)
        with pytest.raises(ValueError, match="the watcher failed"):
            pending.result(timeout=30)
