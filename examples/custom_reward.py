"""Rewards of your own: one sample at a time, in batches, by whole groups, and for images."""

from collections.abc import Sequence

import numpy as np

from flux_rewards import RewardFunction, RewardOutput, Sample


class Politeness(RewardFunction):
    """One sample at a time; None where it does not apply."""

    required_fields = ("response",)
    bounds = (0.0, 1.0)

    def __init__(self, word: str = "please") -> None:
        self.word = word

    def compute_reward(self, sample: Sample) -> float | RewardOutput | None:
        """1 where the word is there."""
        text = sample.response_text.lower()
        if not text:
            return None
        return RewardOutput(float(self.word in text), metadata={"words": len(text.split())})


class Brightness(RewardFunction):
    """Many samples a call, here images as tensors."""

    required_fields = ("image",)
    use_tensor_inputs = True
    batch_size = 16
    bounds = (0.0, 1.0)

    def compute_rewards(self, samples: Sequence[Sample]) -> list[float]:
        """The mean of all pixels."""
        return [float(sample.image.mean()) for sample in samples]


class Novelty(RewardFunction):
    """A whole group at a time: how many of the others say something else."""

    required_fields = ("response",)
    scope = "group"
    bounds = (0.0, 1.0)

    def compute_rewards(self, samples: Sequence[Sample]) -> list[float | None]:
        """The share of other answers that differ; None in a group of one."""
        texts = [sample.response_text for sample in samples]
        if len(texts) == 1:
            return [None]
        return [sum(other != text for other in texts) / (len(texts) - 1) for text in texts]


def main() -> None:
    """Score a few samples."""
    print(Politeness()(response=["Please sit down.", "Sit!", ""]).rewards)
    white, black = np.full((4, 4, 3), 255, dtype=np.uint8), np.zeros((4, 4, 3), dtype=np.uint8)
    print(Brightness()(image=[white, black]).rewards)
    print(Novelty()(prompt=["2 + 2?"] * 3, response=["4", "4", "5"]).rewards)


if __name__ == "__main__":
    main()
