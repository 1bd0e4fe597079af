"""`Retry`: what is tried again, when, and how often."""

import email.utils
import threading
import time
import urllib.error
from collections.abc import Sequence
from email.message import Message
from typing import Any

import numpy as np
import pytest
import requests

from flux_rewards import (
    CompositeReward,
    ComputeError,
    ConfigError,
    Executor,
    FunctionReward,
    MaskErrors,
    RemoteError,
    Retry,
    RewardFunction,
    Sample,
    Timeout,
)
from flux_rewards.transience import is_transient, retry_after


class Failing(RewardFunction, abstract=True):
    """Fails for a sample as often as its metadata say, noting whom it was asked for."""

    def __init__(self, error: Exception, **options: Any) -> None:
        super().__init__(**options)
        self.error = error
        self.asked: list[int] = []

    def answer(self, sample: Sample) -> float | Exception:
        number = sample.metadata["number"]
        self.asked.append(number)
        return self.error if self.asked.count(number) <= sample.metadata["failures"] else float(number)


class Flaky(Failing):
    """One sample at a time."""

    def compute_reward(self, sample: Sample) -> float:
        answer = self.answer(sample)
        if isinstance(answer, Exception):
            raise answer
        return answer


class FlakyBatch(Failing):
    """A batch: rows that fail are exceptions."""

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        return [self.answer(sample) for sample in samples]


def samples(*failures: int) -> list[Sample]:
    """One for each number of failures."""
    return [Sample(metadata={"number": number, "failures": count}) for number, count in enumerate(failures)]


@pytest.mark.parametrize("kind", [Flaky, FlakyBatch])
def test_only_what_failed_is_tried_again(kind: type[Failing]) -> None:
    """As often as needed, up to the limit; order is kept."""
    leaf = kind(ConnectionError("reset"))
    pauses: list[float] = []
    batch = MaskErrors(Retry(leaf, 3, wait=1.0, sleep=pauses.append))(samples(0, 1, 0, 2, 3, 0))
    assert np.isnan(batch.rewards).tolist() == [False] * 4 + [True, False]
    assert batch.rewards[[0, 1, 2, 3, 5]].tolist() == [0.0, 1.0, 2.0, 3.0, 5.0]
    assert [leaf.asked.count(number) for number in range(6)] == [1, 2, 1, 3, 3, 1]
    assert batch.errors == {4: "ConnectionError: reset (the last of 3 attempts)"}
    # One sample after the other pauses once, twice, twice; a batch pauses twice for all of them.
    assert batch.stats[kind.__name__].retries == len(pauses) == (5 if kind is Flaky else 2)


def test_an_unmasked_failure_raises_after_the_last_try() -> None:
    """With the sample's index and the cause; samples behind it are not asked."""
    leaf = Flaky(ConnectionError("reset"))
    with pytest.raises(ComputeError, match="ConnectionError: reset") as caught:
        Retry(leaf, 2, sleep=lambda seconds: None)(samples(0, 1, 5, 0))
    assert (caught.value.reward, caught.value.index) == ("Flaky", 2)
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert leaf.asked == [0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    "error", [ValueError("no number"), ComputeError("told"), RemoteError("400", retryable=False), KeyError("x")]
)
def test_what_cannot_pass_is_not_tried_again(error: Exception) -> None:
    """It would fail again."""
    leaf = Flaky(error)
    MaskErrors(Retry(leaf, 5, sleep=lambda seconds: None), 1.0)(samples(1))
    assert leaf.asked == [0]


def test_pauses_double_with_jitter() -> None:
    """Between half of and the whole of the back-off, up to the longest; and not all alike."""
    pauses: list[float] = []
    retry = Retry(Flaky(ConnectionError()), 6, wait=1.0, max_wait=5.0, sleep=pauses.append)
    MaskErrors(retry, 1.0)(samples(*[9] * 20))
    by_attempt = np.array(pauses).reshape(20, 5)
    longest = np.array([1.0, 2.0, 4.0, 5.0, 5.0])
    assert (by_attempt <= longest).all()
    assert (by_attempt >= longest / 2).all()
    assert (by_attempt.std(axis=0) > 0.05).all()


def test_the_servers_wish_is_obeyed() -> None:
    """No shorter than `Retry-After`, even beyond the longest pause of our own."""
    pauses: list[float] = []
    busy = RemoteError("busy", retryable=True, retry_after=42.0)
    Retry(Flaky(busy), 3, wait=1.0, max_wait=2.0, sleep=pauses.append)(samples(1))
    assert 42.0 <= pauses[0] <= 42.2


def test_no_pause_goes_beyond_the_deadline() -> None:
    """Then the failure stands; an injected sleep counts as if it had taken its time."""
    pauses: list[float] = []
    late = RemoteError("busy", retryable=True, retry_after=61.0)
    leaf = Flaky(late)
    MaskErrors(Retry(leaf, 9, deadline=60.0, sleep=pauses.append), 1.0)(samples(9))
    assert (pauses, leaf.asked) == ([], [0])
    leaf = Flaky(RemoteError("busy", retryable=True, retry_after=25.0))
    MaskErrors(Retry(leaf, 9, deadline=60.0, sleep=pauses.append), 1.0)(samples(9))
    assert (len(pauses), leaf.asked) == (2, [0, 0, 0])


def test_a_retry_that_gives_up_says_why() -> None:
    """After how many attempts, or for which pause; an error that is raised says it too."""
    late = RemoteError("busy", retryable=True, retry_after=60.0)
    batch = MaskErrors(Retry(Flaky(late), 5, deadline=5.0), 1.0)(samples(9))
    assert "(attempt 1 of 5; a pause of 60." in batch.errors[0]
    assert "would end after the deadline of 5 s)" in batch.errors[0]
    with pytest.raises(ComputeError, match=r"sample 0: ConnectionError: x \(the last of 3 attempts\)") as caught:
        Retry(Flaky(ConnectionError("x")), 3, sleep=lambda seconds: None)(samples(9))
    assert isinstance(caught.value.__cause__, ConnectionError)


def test_a_cancelled_call_does_not_sleep_on() -> None:
    """A pause of an hour ends when nobody waits for its end."""
    leaf = Flaky(ConnectionError())
    with Executor(threads=1) as executor:
        pending = executor.submit(Retry(leaf, 3, wait=3600.0, max_wait=3600.0, deadline=None), samples(1))
        until = time.monotonic() + 60
        while not leaf.asked and time.monotonic() < until:
            time.sleep(0.001)
        pending.cancel()
        done = executor.submit(FunctionReward(lambda sample: 1.0), [Sample()]).result(timeout=60)
    assert done.rewards.tolist() == [1.0]
    assert leaf.asked == [0]


def test_a_group_is_scored_as_a_whole() -> None:
    """Comparisons with a sample that was scored in another call would mean nothing."""
    calls: list[int] = []

    class Comparison(RewardFunction):
        scope = "group"

        def compute_rewards(self, samples: Sequence[Sample]) -> Any:
            calls.append(len(samples))
            return [1.0, ConnectionError("reset"), 1.0] if len(calls) == 1 else [2.0, 3.0, 4.0]

    batch = Retry(Comparison(), sleep=lambda seconds: None)(prompt=["q"] * 3)
    assert batch.rewards.tolist() == [2.0, 3.0, 4.0]
    assert calls == [3, 3]


def test_every_leaf_of_a_composite_is_retried() -> None:
    """Only the one that failed is called again."""
    steady, flaky = Flaky(ValueError(), name="steady"), Flaky(ConnectionError(), name="flaky")
    both = CompositeReward([(steady, 1.0), (flaky, 1.0)])
    with pytest.raises(ComputeError):
        both(samples(1))
    steady.asked, flaky.asked = [0], []
    batch = Retry(both, sleep=lambda seconds: None)(samples(1))
    assert batch.rewards.tolist() == [0.0]
    assert (steady.asked, flaky.asked) == ([0, 0], [0, 0])
    assert {name: stats.retries for name, stats in batch.stats.items()} == {"steady": 0, "flaky": 1}


def test_the_same_reward_with_and_without_a_retry() -> None:
    """Each use has its own failures; used alike, it is computed once."""
    leaf = Flaky(ConnectionError())
    retry = Retry(leaf, sleep=lambda seconds: None)
    batch = CompositeReward([(retry, 1.0), (retry, 2.0)])(samples(1))
    assert leaf.asked == [0, 0]
    leaf.asked.clear()
    batch = CompositeReward({"a": (MaskErrors(leaf, 1.0), 1.0), "b": (retry, 1.0)})(samples(1, 1))
    assert list(batch.parts["a"].errors) == [0, 1]
    assert batch.parts["b"].rewards.tolist() == [0.0, 1.0]
    assert list(batch.stats) == ["Flaky", "Flaky_2"]


def test_each_attempt_can_have_a_limit() -> None:
    """`Retry(Timeout(...))`: the second attempt has a lane of its own."""
    release = threading.Event()
    asked: list[int] = []

    def hangs_once(sample: Sample) -> float:
        asked.append(1)
        if len(asked) == 1:
            release.wait(60)
        return 1.0

    reward = Retry(Timeout(FunctionReward(hangs_once, num_workers=2), 0.05), sleep=lambda seconds: None)
    try:
        assert reward([Sample()]).rewards.tolist() == [1.0]
    finally:
        release.set()
    assert asked == [1, 1]


@pytest.mark.parametrize("call_in_pool", [False, True])
def test_a_fifth_of_all_calls_fails(call_in_pool: bool) -> None:
    """At random, over a thousand calls: order is kept, nothing is lost, nothing is counted twice."""
    generator = np.random.default_rng(0)
    fails = generator.random((1000, 12)) < 0.2
    asked = np.zeros(1000, dtype=int)

    class Random(RewardFunction):
        num_workers = 16

        def compute_reward(self, sample: Sample) -> float:
            number = int(str(sample.response))
            asked[number] += 1
            if fails[number, asked[number] - 1]:
                raise ConnectionError("reset")
            return float(number)

    reward = Retry(Random(), 12, wait=0.001)
    batch_of = [Sample(response=str(number)) for number in range(1000)]
    if call_in_pool:
        with Executor() as executor:
            batch = executor.submit(reward, batch_of).result(timeout=120)
    else:
        batch = reward(batch_of)
    needed = fails.argmin(axis=1) + 1  # until the first that does not fail
    assert batch.rewards.tolist() == list(range(1000))
    assert asked.tolist() == needed.tolist()
    assert (batch.stats["Random"].calls, batch.stats["Random"].retries) == (needed.sum(), needed.sum() - 1000)


@pytest.mark.parametrize(
    "arguments", [{"attempts": 0}, {"wait": -1.0}, {"max_wait": float("inf")}, {"deadline": 0.0}, {"sleep": 3}]
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any]) -> None:
    """By name, and as the wrapper's own."""
    with pytest.raises(ConfigError, match=rf"reward 'Retry\(Flaky\)': {next(iter(arguments))}"):
        Retry(Flaky(ValueError()), **arguments)


def answer(status: int, **headers: str) -> requests.Response:
    """What requests has in hand when it raises."""
    response = requests.Response()
    response.status_code = status
    response.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return response


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (RuntimeError("CUDA error"), True),
        (OSError("broken pipe"), True),
        (FileNotFoundError("x.png"), False),
        (ZeroDivisionError(), False),
        (AttributeError(), False),
        (requests.ConnectionError(), True),
        (requests.ReadTimeout(), True),
        (requests.HTTPError(response=answer(503)), True),
        (requests.HTTPError(response=answer(429)), True),
        (requests.HTTPError(response=answer(401)), False),
        (requests.exceptions.InvalidURL("x"), False),
        (urllib.error.HTTPError("http://x", 502, "bad gateway", Message(), None), True),
        (urllib.error.HTTPError("http://x", 404, "not found", Message(), None), False),
        (RemoteError("x", retryable=True), True),
        (RemoteError("x"), False),
    ],
    ids=repr,
)
def test_which_failures_may_pass(error: Exception, transient: bool) -> None:
    """As RFC 9110 has it for statuses; mistakes of code and input do not pass."""
    assert is_transient(error) is transient


def test_retry_after_is_read_in_either_form() -> None:
    """Seconds, or a date."""
    in_a_minute = email.utils.formatdate(time.time() + 60, usegmt=True)
    assert retry_after(requests.HTTPError(response=answer(429, Retry_After="7"))) == 7.0
    assert 55 < (retry_after(requests.HTTPError(response=answer(429, Retry_After=in_a_minute))) or 0) <= 60
    for nothing in ("soon", "nan", "-inf"):
        assert retry_after(requests.HTTPError(response=answer(429, Retry_After=nothing))) is None
    assert retry_after(requests.HTTPError(response=answer(429, Retry_After="-3"))) == 0.0
