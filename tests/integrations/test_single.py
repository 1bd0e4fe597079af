"""Calls that come one by one: merged, answered each by itself, never in an event loop's way."""

from __future__ import annotations

import asyncio
import gc
import math
import multiprocessing
import pickle
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from flux_rewards import GroupRank, LengthReward, RewardFunction, Sample
from flux_rewards.errors import ConfigError, InputError
from flux_rewards.integrations.single import SingleCalls

if TYPE_CHECKING:
    from flux_rewards.contract import Scored

SECONDS = 30.0
"""A limit that only a hang reaches."""


class Recorded(RewardFunction):
    """Scores a response by its number, and remembers how many came together."""

    required_fields = ("response",)

    def __init__(self, gate: threading.Event | None = None) -> None:
        super().__init__()
        self.gate = gate
        self.sizes: list[int] = []

    def compute_rewards(self, samples: Sequence[Sample]) -> list[Any]:
        self.sizes.append(len(samples))
        if self.gate is not None:
            assert self.gate.wait(SECONDS)
        return [ValueError("no number") if s.response == "bad" else float(s.response_text) for s in samples]


class Leaves(RewardFunction):
    """A reward whose author's code ends the process."""

    required_fields = ("response",)

    def compute_reward(self, sample: Sample) -> float:
        raise SystemExit(3)


def batcher_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("flux-rewards-batcher")]


def test_calls_from_threads_are_merged_and_each_gets_its_own_score() -> None:
    """Once calls are seen to overlap, those of a round go together, and every caller has the score of its sample."""
    gate = threading.Event()
    reward = Recorded(gate)
    calls = SingleCalls(reward, max_batch=4, window=1.0)
    with ThreadPoolExecutor(4) as pool:
        round_one = [pool.submit(calls.score, Sample(response=str(n))) for n in range(4)]
        while calls._in_flight < 4:
            pass
        gate.set()
        assert [entry.result(SECONDS).batch.rewards.tolist() for entry in round_one] == [[0.0], [1.0], [2.0], [3.0]]
        before = len(reward.sizes)
        round_two = list(pool.map(lambda n: calls.score(Sample(response=str(n))).batch.rewards[0], range(4)))
    assert round_two == [0.0, 1.0, 2.0, 3.0]
    assert reward.sizes[before:] == [4]


def test_a_call_that_overlaps_no_other_does_not_wait_for_others() -> None:
    """With a window of a minute, calls one after the other are answered at once."""
    calls = SingleCalls(LengthReward(target=2), window=60.0)
    assert [calls.score(Sample(response="two words")).batch.rewards[0] for _ in range(5)] == [1.0] * 5


def test_an_event_loop_is_not_blocked() -> None:
    """A reward that waits for what another coroutine does is answered, so the loop ran on."""
    gate = threading.Event()
    calls = SingleCalls(Recorded(gate))

    async def both() -> Scored:
        waiting = asyncio.ensure_future(calls.ascore(Sample(response="7")))
        await asyncio.sleep(0.01)
        gate.set()
        return await waiting

    assert asyncio.run(both()).batch.rewards.tolist() == [7.0]


def test_many_coroutines_are_merged() -> None:
    """A gather of 256 calls is few batches, and the same numbers."""
    reward = Recorded()
    calls = SingleCalls(reward, max_batch=64)

    async def all_of_them() -> list[Scored]:
        return await asyncio.gather(*(calls.ascore(Sample(response=str(n))) for n in range(256)))

    assert [scored.batch.rewards[0] for scored in asyncio.run(all_of_them())] == list(map(float, range(256)))
    assert sum(reward.sizes) == 256
    assert max(reward.sizes) > 1


def test_one_loop_after_another() -> None:
    """Nothing is bound to the first event loop that asked."""
    calls = SingleCalls(LengthReward(target=1))
    for _ in range(3):
        assert asyncio.run(calls.ascore(Sample(response="one"))).batch.rewards.tolist() == [1.0]


def test_a_failure_is_a_row_and_leaves_others_alone() -> None:
    """Of two calls at once, the one that fails has NaN and its reason, the other its score."""
    calls = SingleCalls(Recorded())

    async def both() -> list[Scored]:
        return await asyncio.gather(*(calls.ascore(Sample(response=text)) for text in ("bad", "2")))

    failed, scored = asyncio.run(both())
    assert math.isnan(failed.batch.rewards[0])
    assert "ValueError: no number" in failed.batch.errors[0]
    assert scored.batch.rewards.tolist() == [2.0]


def test_what_fails_every_sample_raises() -> None:
    """A field that is missing is no accident of one sample."""
    calls = SingleCalls(LengthReward(target=1))
    with pytest.raises(InputError, match="response"):
        calls.score(Sample(prompt="no response"))


def test_an_author_who_ends_the_process_fails_the_call() -> None:
    """A SystemExit in a reward is a failed row, not the end of a worker."""
    calls = SingleCalls(Leaves())
    for _ in range(2):
        assert "SystemExit" in calls.score(Sample(response="x")).batch.errors[0]


@pytest.mark.parametrize("form", ["threads", "event loop"])
def test_a_call_that_is_not_done_in_time_has_failed(form: str) -> None:
    """The limit holds for a reward that hangs, and says so."""
    gate = threading.Event()
    calls = SingleCalls(Recorded(gate), timeout=0.05)
    sample = Sample(response="1")
    scored = calls.score(sample) if form == "threads" else asyncio.run(calls.ascore(sample))
    gate.set()
    assert math.isnan(scored.batch.rewards[0])
    assert "0.05" in scored.batch.errors[0]
    assert scored.causes[0].retryable


def test_a_cancelled_call_is_taken_out() -> None:
    """Whoever gives up waiting leaves nothing behind, and the next call is scored."""
    gate = threading.Event()
    calls = SingleCalls(Recorded(gate))

    async def give_up() -> None:
        waiting = asyncio.ensure_future(calls.ascore(Sample(response="1")))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(give_up())
    gate.set()
    assert calls.score(Sample(response="2")).batch.rewards.tolist() == [2.0]


def test_a_reward_of_groups_is_refused_where_single_samples_are_shown() -> None:
    """The refusal comes at construction, and says what to do."""
    with pytest.raises(ConfigError, match=r"my trainer shows one sample at a time.*form for groups"):
        SingleCalls(GroupRank(LengthReward(target=2)), adapter="my trainer")


def test_what_is_no_reward_is_refused() -> None:
    """A function is not a reward."""
    with pytest.raises(ConfigError, match="expected a reward"):
        SingleCalls(len)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "samples",
    [
        [Sample(response="a b"), Sample(response="a")],
        [Sample("q", "a b"), Sample("q", "a")],
        [Sample("q1", "a b"), Sample("q2", "a")],
        [Sample("q1", "a b", group_id=5), Sample("q2", "a", group_id=5)],
    ],
    ids=["no prompt", "one prompt", "two prompts", "ids"],
)
def test_a_group_is_compared_whole(samples: list[Sample]) -> None:
    """Whatever the samples know of their group, a call is one; the longer answer is the better one of two."""
    calls = SingleCalls(GroupRank(LengthReward(target=9)), groups=True)
    assert calls.score_group(samples).batch.rewards.tolist() == [1.0, 0.0]
    assert asyncio.run(calls.ascore_group(samples)).batch.rewards.tolist() == [1.0, 0.0]


def test_groups_of_calls_at_once_stay_apart() -> None:
    """Two calls with equal prompts are two groups."""
    calls = SingleCalls(GroupRank(LengthReward(target=9)), groups=True)
    groups = [[Sample("q", "a " * n), Sample("q", "a " * (n + 1))] for n in range(1, 6)]

    async def all_of_them() -> list[Scored]:
        return await asyncio.gather(*map(calls.ascore_group, groups))

    assert [scored.batch.rewards.tolist() for scored in asyncio.run(all_of_them())] == [[0.0, 1.0]] * 5


def test_it_pickles_after_it_was_used() -> None:
    """A copy starts what scores anew."""
    calls = SingleCalls(LengthReward(target=2), max_batch=8, timeout=SECONDS)
    calls.score(Sample(response="a"))
    copy = pickle.loads(pickle.dumps(calls))
    assert copy == calls
    assert copy.score(Sample(response="a b")).batch.rewards.tolist() == [1.0]


def _score_in_child(calls: SingleCalls, answers: Any) -> None:
    answers.put(calls.score(Sample(response="a b")).batch.rewards.tolist())


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_starts_its_own() -> None:
    """Threads don't survive a fork; the child's calls are answered all the same."""
    context = multiprocessing.get_context("fork")
    calls = SingleCalls(LengthReward(target=2))
    calls.score(Sample(response="a"))
    answers = context.Queue()
    child = context.Process(target=_score_in_child, args=(calls, answers), daemon=True)
    child.start()
    assert answers.get(timeout=SECONDS) == [1.0]
    child.join(SECONDS)
    assert child.exitcode == 0


def test_threads_end_with_it() -> None:
    """Nothing runs on once nobody holds it."""
    gc.collect()
    before = set(batcher_threads())
    calls = SingleCalls(LengthReward(target=2))
    calls.score(Sample(response="a"))
    (own,) = set(batcher_threads()) - before
    del calls
    gc.collect()
    own.join(SECONDS)
    assert not own.is_alive()
