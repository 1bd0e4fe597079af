"""Rewards that other processes import by name."""

from typing import Any

import numpy as np

from flux_rewards import CompositeReward, ExactMatch, LengthReward, RewardFunction, Sample


class CallsSoFar(RewardFunction):
    """How often this object was asked: one that is made anew for each call says 1."""

    required_fields = ("response",)

    def compute_reward(self, sample: Sample) -> float:
        self.count = vars(self).get("count", 0) + 1
        return float(self.count)


class Picky(RewardFunction):
    """1.0 for "good"; says nothing about "skip", and fails at "fail"."""

    required_fields = ("response",)

    def compute_reward(self, sample: Sample) -> float | None:
        if sample.response_text == "skip":
            return None
        if sample.response_text == "fail":
            raise ValueError("cannot be scored")
        return float(sample.response_text == "good")


def both() -> CompositeReward:
    """A reward with two parts: whether it is right, and half of that for two words."""
    return CompositeReward({"right": (ExactMatch(), 1.0), "short": (LengthReward(2, unit="words"), 0.5)})


def brightness(images: Any, prompts: Any, metadata: Any) -> Any:
    """As ddpo-pytorch writes them."""
    assert isinstance(images, np.ndarray)
    assert images.dtype == np.uint8
    return images.mean((1, 2, 3)), {}
