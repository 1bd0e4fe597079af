"""`RewardBuffer`: what starts when, what comes out of `finalize`, and what happens when something fails."""

import asyncio
import concurrent.futures
import signal
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from rewards_of_our_own import Characters, Gated, GroupMean, Told, Watched, told

from flux_rewards import (
    Cached,
    CompositeReward,
    ComputeError,
    ConfigError,
    ContractError,
    Executor,
    FunctionReward,
    GroupRank,
    InputError,
    LengthReward,
    MaskErrors,
    RewardBuffer,
    RewardFunction,
    Sample,
)

SAMPLES = [Sample(f"p{index // 4}", "x" * index) for index in range(40)]


def wait_for(condition: Any, seconds: float = 60.0) -> None:
    """Until it holds; the tests that use it would wait for ever otherwise."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came so"
        time.sleep(0.001)


@pytest.mark.parametrize("size", [1, 3, 7, 40])
@pytest.mark.parametrize("group_size", [None, 4])
def test_the_result_is_that_of_the_plain_call(size: int, group_size: int | None) -> None:
    """However the samples come, with leaves of every kind, cached and not, in this thread and in others."""
    leaf = Watched(batch_size=6, num_workers=3)
    reward = CompositeReward(
        {
            "rank": (GroupRank(leaf), 1.0),
            "mean": (GroupMean(num_workers=2), -0.5),
            "here": (Watched(async_reward=False, batch_size=5), 0.1),
            "cached": (Cached(Watched(batch_size=4)), 0.01),
            "group": (Cached(GroupMean(async_reward=False)), 0.3),
            "each": (Characters(), 2.0),
        }
    )
    expected = reward(SAMPLES)
    with RewardBuffer(reward, group_size) as buffer:
        for _ in range(2):
            for start in range(0, 40, size):
                buffer.add(SAMPLES[start : start + size])
            batch = buffer.finalize(timeout=60)
            np.testing.assert_array_equal(batch.rewards, expected.rewards)
            assert batch.parts.keys() == expected.parts.keys()
            for name, part in expected.parts.items():
                np.testing.assert_array_equal(batch.parts[name].rewards, part.rewards)
            assert len(buffer) == 0


def test_chunks_start_while_samples_come() -> None:
    """As soon as the batch size is reached; the last ones at the end."""
    leaf = Watched(batch_size=4)
    with RewardBuffer(leaf) as buffer:
        buffer.add(SAMPLES[:3])
        assert leaf.calls == []
        buffer.add(SAMPLES[3:9])
        wait_for(lambda: leaf.calls == [4, 4])
        buffer.add(SAMPLES[9])
        assert buffer.finalize(timeout=60).rewards.tolist() == list(range(10))
        assert leaf.calls == [4, 4, 2]


def test_without_a_batch_size_what_comes_together_is_scored_together() -> None:
    """Waiting for all of them would leave nothing to overlap."""
    leaf = Watched()
    with RewardBuffer(leaf) as buffer:
        buffer.add(SAMPLES[:3])
        wait_for(lambda: leaf.calls == [3])
        buffer.add(SAMPLES[3:10])
        assert buffer.finalize(timeout=60).rewards.tolist() == list(range(10))
    assert leaf.calls == [3, 7]


def test_a_group_starts_when_it_is_complete() -> None:
    """By its size, whatever the order in which its samples come."""
    seen: list[list[str]] = []

    class Groups(RewardFunction):
        scope = "group"

        def compute_rewards(self, samples: Sequence[Sample]) -> Any:
            seen.append(sorted(str(sample.response) for sample in samples))
            return [float(len(samples))] * len(samples)

    with RewardBuffer(Groups(), group_size=2) as buffer:
        buffer.add([Sample("a", "1"), Sample("b", "2")])
        assert seen == []
        buffer.add(Sample("b", "3"))
        wait_for(lambda: seen == [["2", "3"]])
        buffer.add(Sample("a", "4"))
        assert buffer.finalize(timeout=60).rewards.tolist() == [2.0] * 4
    assert seen == [["2", "3"], ["1", "4"]]


def test_the_caller_can_close_a_group() -> None:
    """Then it starts as it is, and takes no more."""
    leaf = GroupMean()
    with RewardBuffer(leaf, group_size=3) as buffer:
        buffer.add([Sample("a", "x"), Sample("a", "xxx"), Sample("b", "x")])
        buffer.close_group(Sample("a"))
        with pytest.raises(InputError, match="the group of the prompt 'a' was complete with 2 samples") as caught:
            buffer.add([Sample("b", "x"), Sample("a", "late")])
        assert caught.value.index == 4
        assert len(buffer) == 3  # none was taken in
        with pytest.raises(InputError, match="no sample of"):
            buffer.close_group(Sample("c"))
        buffer.close_group(Sample("b"))
        assert buffer.finalize(timeout=60).rewards.tolist() == [2.0, 2.0, 1.0]


@pytest.mark.parametrize("reward", [GroupMean(), GroupRank(Characters()), Characters()], ids=repr)
def test_an_incomplete_group_is_named(reward: RewardFunction) -> None:
    """And nothing is lost: the rest can still come."""
    with RewardBuffer(reward, group_size=2) as buffer:
        buffer.add([Sample("a", "1", group_id=7), Sample("b", "2", group_id=8), Sample("a", "3", group_id=7)])
        with pytest.raises(InputError, match="group 8 is incomplete: 1 of group_size=2") as caught:
            buffer.finalize()
        assert caught.value.index == 1
        buffer.add(Sample("b", "4", group_id=8))
        assert len(buffer.finalize(timeout=60)) == 4


def test_a_group_that_is_too_large_is_refused() -> None:
    """Two groups of one prompt cannot be told apart without ids."""
    with RewardBuffer(Characters(), group_size=2) as buffer:
        with pytest.raises(InputError, match="give each a group_id") as caught:
            buffer.add([Sample("a", "x")] * 3)
        assert caught.value.index == 2
        assert len(buffer) == 0


def test_a_failure_in_a_worker_comes_out_of_finalize() -> None:
    """With the sample's index in the step and the reward's name; what has not begun never begins."""
    values: list[Any] = [1.0] * 9
    values[6] = ValueError("bad")
    after = Watched(batch_size=1000)
    with RewardBuffer(CompositeReward([(Told(num_workers=4), 1.0), (after, 1.0)])) as buffer:
        for sample in told(*values):
            buffer.add(Sample(response="x", metadata=sample.metadata))
        wait_for(buffer._step.job.finished.done)
        with pytest.raises(ComputeError, match="bad") as caught:
            buffer.finalize(timeout=60)
        assert (caught.value.reward, caught.value.index) == ("Told", 6)
        assert after.calls == []
        assert len(buffer) == 0  # the next step begins
        buffer.add(Sample(response="x", metadata=told(2.0)[0].metadata))
        assert buffer.finalize(timeout=60).rewards.tolist() == [3.0]


@pytest.mark.parametrize("options", [{}, {"num_workers": 16}, {"batch_size": 32, "num_workers": 2}], ids=str)
def test_one_sample_of_a_thousand_raises(options: dict[str, Any]) -> None:
    """Masked, it alone has no score; unmasked, it is the one that is named."""
    values: list[Any] = [float(index) for index in range(1000)]
    values[617] = RuntimeError("bad")
    for masked in (True, False):
        leaf = Told(**options)
        with RewardBuffer(MaskErrors(leaf) if masked else leaf) as buffer:
            for start in range(0, 1000, 90):
                buffer.add(told(*values)[start : start + 90])
            if masked:
                batch = buffer.finalize(timeout=60)
                assert batch.errors == {617: "RuntimeError: bad"}
                assert np.delete(batch.rewards, 617).tolist() == [float(index) for index in range(1000) if index != 617]
                assert (batch.stats["Told"].samples, batch.stats["Told"].failures) == (1000, 1)
            else:
                with pytest.raises(ComputeError, match="RuntimeError: bad") as caught:
                    buffer.finalize(timeout=60)
                assert (caught.value.reward, caught.value.index) == ("Told", 617)


def test_masked_failures_keep_their_place() -> None:
    """Nothing is lost and nothing moves."""
    values: list[Any] = [float(index) for index in range(12)]
    values[3], values[8] = ValueError("bad"), None
    with RewardBuffer(MaskErrors(Told(num_workers=3))) as buffer:
        for sample in told(*values):
            buffer.add([sample])
        batch = buffer.finalize(timeout=60)
    assert batch.errors == {3: "ValueError: bad"}
    assert np.isnan(batch.rewards).tolist() == [index in (3, 8) for index in range(12)]
    assert batch.stats["Told"].failures == 1


def test_a_missing_field_is_found_when_it_comes() -> None:
    """By its index in the step; the samples before it stay."""
    with RewardBuffer(LengthReward(target=1)) as buffer:
        buffer.add(Sample(response="x"))
        with pytest.raises(InputError, match="sample 2") as caught:
            buffer.add([Sample(response="y"), Sample("no response")])
        assert (caught.value.field, caught.value.index) == ("response", 2)
        assert len(buffer) == 1
        assert buffer.finalize(timeout=60).rewards.tolist() == [1.0]


def test_leaves_that_are_not_async_run_in_the_callers_thread() -> None:
    """In `finalize`, in their batch size; the others run elsewhere."""
    here, there = Watched(async_reward=False, batch_size=16), Watched(batch_size=16)
    with RewardBuffer(CompositeReward([(here, 1.0), (there, 1.0)])) as buffer:
        buffer.add(SAMPLES)
        wait_for(lambda: there.calls == [16, 16])
        assert here.calls == []
        buffer.finalize(timeout=60)
    assert here.threads == {threading.get_ident()}
    assert threading.get_ident() not in there.threads
    assert here.calls == there.calls == [16, 16, 8]


def test_finalize_waits_no_longer_than_asked() -> None:
    """Then names who is late; and the step goes on, to be finalized again."""
    release = threading.Event()

    def slow(sample: Sample) -> float:
        release.wait(60)
        return 1.0

    with RewardBuffer(CompositeReward([(FunctionReward(slow), 1.0), (Characters(), 1.0)])) as buffer:
        buffer.add(Sample(response="a"))
        with pytest.raises(TimeoutError, match=r"not done after 0.05 s: still waiting for slow$"):
            buffer.finalize(timeout=0.05)
        with pytest.raises(ContractError, match="being finalized"):
            buffer.add(Sample(response="b"))
        release.set()
        assert buffer.finalize(timeout=60).rewards.tolist() == [2.0]
        buffer.add(Sample(response="b"))
        assert buffer.finalize(timeout=60).rewards.tolist() == [2.0]


def test_finalize_stops_between_the_chunks_of_this_thread() -> None:
    """What is left is done by the next one, and nothing twice."""
    leaf = Watched(0.05, async_reward=False, batch_size=10)
    with RewardBuffer(leaf) as buffer:
        buffer.add(SAMPLES)
        with pytest.raises(TimeoutError, match="Watched"):
            buffer.finalize(timeout=0.01)
        assert leaf.calls == [10]
        assert buffer.finalize(timeout=60).rewards.tolist() == list(range(40))
    assert leaf.calls == [10] * 4


def test_an_interrupted_finalize_can_be_called_again() -> None:
    """As in a notebook: what is under way goes on, and nothing is scored twice."""
    release = threading.Event()
    leaf = Watched()

    class Slow(RewardFunction):
        def compute_rewards(self, samples: Sequence[Sample]) -> Any:
            release.wait(60)
            return leaf(samples)

    with RewardBuffer(Slow()) as buffer:
        buffer.add(SAMPLES)
        main = threading.get_ident()
        threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt):
                buffer.finalize(timeout=60)
        finally:
            signal.signal(signal.SIGINT, before)
        release.set()
        assert buffer.finalize(timeout=60).rewards.tolist() == list(range(40))
    assert leaf.calls == [40]


def test_the_wait_for_a_lane_has_the_limit_of_finalize() -> None:
    """And an interrupt of it loses no task: the step can be finalized later."""
    leaf = Gated(async_reward=False)
    with concurrent.futures.ThreadPoolExecutor(1) as other, RewardBuffer(leaf) as buffer:
        holds = other.submit(leaf, [Sample(response="theirs")])
        assert leaf.begun.wait(60)
        buffer.add(Sample(response="ours"))
        with pytest.raises(TimeoutError, match="still waiting for Gated"):
            buffer.finalize(timeout=0.1)
        main = threading.get_ident()
        threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt):
                buffer.finalize(timeout=60)
        finally:
            signal.signal(signal.SIGINT, before)
        leaf.release.set()
        assert buffer.finalize(timeout=60).rewards.tolist() == [1.0]
        assert holds.result(60).rewards.tolist() == [1.0]
    assert leaf.scored == ["theirs", "ours"]


def test_clear_drops_the_step() -> None:
    """And what is queued for it; a running call's rows go nowhere."""
    slow = Gated()
    with RewardBuffer(slow) as buffer:
        buffer.add([Sample(response=text) for text in "abc"])
        assert slow.begun.wait(60)
        buffer.clear()
        assert len(buffer) == 0
        slow.release.set()
        buffer.add(Sample(response="d"))
        assert buffer.finalize(timeout=60).rewards.tolist() == [1.0]
    assert slow.scored == ["a", "d"]


def test_a_group_may_be_closed_where_nothing_looks_at_groups() -> None:
    """The loop that adds need not know what the rewards are."""
    with RewardBuffer(GroupRank(Characters())) as buffer:
        buffer.add([Sample("a", "x"), Sample("a", "xx")])
        buffer.close_group(Sample("a"))
        assert buffer.finalize(timeout=60).rewards.tolist() == [0.0, 1.0]


def test_a_failure_says_more_than_an_incomplete_group() -> None:
    """The step is lost anyway: adding the rest would not help."""
    with RewardBuffer(Told(batch_size=1), group_size=2) as buffer:
        buffer.add([Sample("a", group_id=1, metadata=sample.metadata) for sample in told(ValueError("bad"))])
        wait_for(buffer._step.job.finished.done)
        with pytest.raises(ComputeError, match="bad"):
            buffer.finalize(timeout=60)


def test_an_empty_step_has_no_rewards() -> None:
    """As an empty batch has none."""
    with RewardBuffer(CompositeReward([(Characters(), 1.0), (GroupMean(), 1.0)]), group_size=4) as buffer:
        assert len(buffer.finalize()) == 0
        buffer.add([])
        assert len(buffer.finalize()) == 0


def test_finalize_works_inside_a_running_loop() -> None:
    """As in a notebook or an actor."""

    async def main() -> list[float]:
        with RewardBuffer(CompositeReward([(Watched(0.001, batch_size=4, num_workers=4), 1.0)])) as buffer:
            buffer.add(SAMPLES)
            return buffer.finalize(timeout=60).rewards.tolist()  # type: ignore[no-any-return]

    assert asyncio.run(main()) == list(range(40))


def test_two_buffers_share_one_reward_of_one_call() -> None:
    """And a third caller too: the limit is the object's."""
    leaf = Watched(0.001, batch_size=2)
    with (
        Executor(threads=4) as executor,
        RewardBuffer(leaf) as one,
        RewardBuffer(GroupRank(leaf), executor=executor) as two,
        concurrent.futures.ThreadPoolExecutor(1) as caller,
    ):
        plain = caller.submit(leaf, SAMPLES)
        for sample in SAMPLES:
            one.add(sample)
            two.add(sample)
        assert one.finalize(timeout=60).rewards.tolist() == list(range(40))
        assert two.finalize(timeout=60).rewards.tolist() == [0.0, 1 / 3, 2 / 3, 1.0] * 10
        assert plain.result(60).rewards.tolist() == list(range(40))
    assert leaf.most == 1
    assert len(leaf.calls) == 60


def test_samples_may_come_from_several_threads() -> None:
    """Each is scored once, and stands where it was added."""
    leaf = Watched(batch_size=3, num_workers=4)
    with RewardBuffer(leaf) as buffer, concurrent.futures.ThreadPoolExecutor(8) as producers:
        list(producers.map(buffer.add, [[sample] * 5 for sample in SAMPLES]))
        rewards = buffer.finalize(timeout=60).rewards.reshape(40, 5)
    assert (rewards == rewards[:, :1]).all()
    assert sorted(rewards[:, 0]) == list(range(40))
    assert sum(leaf.calls) == 200


def test_progress_is_told() -> None:
    """Rows that are done, of all rows, over all leaves; never fewer than before."""
    told_of: list[tuple[int, int]] = []
    reward = CompositeReward([(Watched(0.02, batch_size=10), 1.0), (Watched(async_reward=False, batch_size=10), 1.0)])
    with RewardBuffer(reward, progress=lambda done, total: told_of.append((done, total))) as buffer:
        buffer.add(SAMPLES)
        buffer.finalize(timeout=60)
    assert told_of == sorted(told_of)
    assert told_of[-1] == (80, 80)


def test_a_bar_is_shown_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr, and not unless it is asked for."""
    for progress in (False, True):
        with RewardBuffer(Watched(), progress=progress) as buffer:
            buffer.add(SAMPLES)
            buffer.finalize(timeout=60)
        shown = capsys.readouterr()
        assert shown.out == ""
        assert ("rewards" in shown.err) is progress


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reward": len}, "reward must be a reward"),
        ({"group_size": 0}, "group_size must be a whole number >= 1"),
        ({"executor": "threads"}, "pool must be a concurrent.futures.Executor"),
    ],
)
def test_a_wrong_argument_is_refused(arguments: dict[str, Any], message: str) -> None:
    """When the buffer is made."""
    with pytest.raises(ConfigError, match=message):
        RewardBuffer(**{"reward": Characters(), **arguments})


def test_stats_count_the_step() -> None:
    """Calls, samples and time, by leaf."""
    leaf = Watched(0.01, batch_size=10)
    with RewardBuffer(CompositeReward([(leaf, 1.0), (GroupMean(), 1.0)])) as buffer:
        buffer.add(SAMPLES)
        stats = buffer.finalize(timeout=60).stats
    assert stats.keys() == {"Watched", "GroupMean"}
    assert (stats["Watched"].calls, stats["Watched"].samples, stats["GroupMean"].calls) == (4, 40, 10)
    assert stats["Watched"].seconds >= 0.04  # what it slept
    assert stats["Watched"].queue_seconds >= 0.06  # the second chunk waited for the first, the third for two ...


@pytest.mark.parametrize("threads", [1, 2])
def test_a_reward_may_use_a_buffer_on_its_own_executor(threads: int) -> None:
    """Even where every worker does so: one that waits runs what it waits for."""
    inner = Watched(batch_size=1, num_workers=3)
    with Executor(threads=threads) as executor:

        class Outer(RewardFunction):
            num_workers = 4

            def compute_reward(self, sample: Sample) -> float:
                with RewardBuffer(Cached(inner), executor=executor) as buffer:
                    buffer.add([sample, *SAMPLES[:3]])
                    in_buffer = buffer.finalize().rewards[0]
                return float(in_buffer + executor.submit(inner, [sample]).result().rewards[0])

        batch = executor.submit(Outer(), SAMPLES).result(timeout=60)
    assert batch.rewards.tolist() == [2.0 * index for index in range(40)]
    assert inner.most <= 3


def test_a_progress_function_that_fails_costs_no_scores(caplog: pytest.LogCaptureFixture) -> None:
    """It is told, and not called again."""
    calls: list[int] = []

    def broken(done: int, total: int) -> None:
        calls.append(done)
        raise ValueError("closed")

    with RewardBuffer(Watched(batch_size=4), progress=broken) as buffer:
        buffer.add(SAMPLES)
        assert buffer.finalize(timeout=60).rewards.tolist() == list(range(40))
    assert len(calls) == 1
    assert "the progress function failed" in caplog.text


@pytest.mark.parametrize(
    "call",
    [
        lambda buffer: buffer.finalize("5"),
        lambda buffer: buffer.finalize(float("nan")),
        lambda buffer: buffer.close_group(None),
        lambda buffer: RewardBuffer(Characters(), progress="yes"),  # type: ignore[arg-type]
        lambda buffer: Executor("4"),  # type: ignore[arg-type]
        lambda buffer: Executor(2.5),  # type: ignore[arg-type]
        lambda buffer: Executor().submit(None, SAMPLES),  # type: ignore[arg-type]
    ],
)
def test_what_is_called_wrongly_is_told_in_words(call: Any) -> None:
    """By an error of the library that says what was expected."""
    with pytest.raises((ConfigError, InputError), match=r"must be|expected"), RewardBuffer(Characters()) as buffer:
        call(buffer)
