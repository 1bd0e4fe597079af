"""Small rewards that several tests share; importable, so that they pickle and can be named in a configuration."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from flux_rewards import RewardBatch, RewardFunction, RewardOutput, Sample, Trajectory


class QualityReward(RewardFunction):
    """The seed's example, word for word: no call of the base constructor."""

    def __init__(self) -> None:
        self.good_words = ["because", "therefore", "example"]
        self.bad_words = ["maybe", "perhaps", "idk"]

    def compute_reward(self, trajectory: Trajectory) -> RewardOutput:
        text = str(trajectory.response).lower()
        good = sum(word in text for word in self.good_words)
        bad = sum(word in text for word in self.bad_words)
        score = 0.5 + 0.1 * good - 0.1 * bad
        return RewardOutput(reward=score, metadata={"raw_score": score})


class Characters(RewardFunction):
    """The number of characters, scored in batches."""

    required_fields = ("response",)

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        return np.array([float(len(str(sample.response))) for sample in samples])


class Told(RewardFunction):
    """Whatever the sample's metadata say: a number, None, or an exception to raise."""

    def __init__(self, key: str = "told", **options: Any) -> None:
        super().__init__(**options)
        self.key = key

    def compute_reward(self, sample: Sample) -> Any:
        told = sample.metadata[self.key]
        if isinstance(told, Exception):
            raise told
        return told


class Returns(RewardFunction):
    """Returns a given object for any batch."""

    def __init__(self, returned: Any) -> None:
        self.returned = returned

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        return self.returned


class GroupMean(RewardFunction):
    """The mean length in the group, by an author who receives whole groups."""

    required_fields = ("response",)
    scope = "group"

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        assert len({sample.group_id for sample in samples}) == 1
        mean = float(np.mean([len(str(sample.response)) for sample in samples]))
        return [RewardOutput(mean, metadata={"group_size": len(samples)}) for _ in samples]


class Watched(RewardFunction):
    """Counts its calls, and how many were in flight at once."""

    def __init__(self, seconds: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.seconds = seconds
        self.lock = threading.Lock()
        self.calls: list[int] = []
        self.threads: set[int] = set()
        self.in_flight = 0
        self.most = 0

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        with self.lock:
            self.calls.append(len(samples))
            self.threads.add(threading.get_ident())
            self.in_flight += 1
            self.most = max(self.most, self.in_flight)
        time.sleep(self.seconds)
        with self.lock:
            self.in_flight -= 1
        return [float(len(str(sample.response or ""))) for sample in samples]


class Aspects(RewardFunction):
    """A leaf with parts of its own, as a judge of several aspects has."""

    def compute_rewards(self, samples: Sequence[Sample]) -> RewardBatch:
        one = np.arange(len(samples), dtype=np.float64)
        return RewardBatch(one, parts={"aspect": RewardBatch(one * 2)})


def told(*values: Any, prompt: str = "q") -> list[Sample]:
    """Samples of one prompt that carry the values that `Told` returns."""
    return [Sample(prompt, "r", metadata={"told": value}) for value in values]


def doubled(value: float) -> float:
    """For configurations of `Map`."""
    return 2 * value


def brevity(sample: Sample) -> float:
    """For configurations of `FunctionReward`."""
    return 1 / (1 + len(str(sample.response)))


class Longer(RewardFunction):
    """Whether the response is longer than a threshold that is set later."""

    threshold = 0.0

    def compute_reward(self, sample: Sample) -> float:
        return float(len(str(sample.response)) > self.threshold)


def set_afterwards(threshold: float) -> Longer:
    """A factory whose parameter the reward's constructor does not know."""
    reward = Longer()
    reward.threshold = threshold
    return reward


class Counted(RewardFunction):
    """The length of the response times a factor; notes whom it was asked for."""

    required_fields = ("response",)
    optional_fields: Sequence[str] | None = ()

    def __init__(self, factor: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.factor = factor
        self.asked: list[str] = []

    def compute_reward(self, sample: Sample) -> float:
        self.asked.append(str(sample.response))
        return self.factor * len(str(sample.response))


class CountedAll(Counted):
    """The same, by an author who does not say which fields it reads."""

    optional_fields = None


class Gated(RewardFunction):
    """Tells that it has begun, and ends when it is released; notes whom it has scored."""

    batch_size = 1

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.begun, self.release = threading.Event(), threading.Event()
        self.scored: list[Any] = []

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        self.begun.set()
        self.release.wait(60)
        self.scored += [sample.response for sample in samples]
        return [1.0] * len(samples)
