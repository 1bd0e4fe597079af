"""A plugin with one reward."""

from flux_rewards import RewardFunction, Sample


class Vowels(RewardFunction):
    """Share of vowels in the response."""

    required_fields = ("response",)
    bounds = (0.0, 1.0)

    def __init__(self, vowels: str = "aeiou") -> None:
        self.vowels = vowels

    def compute_reward(self, sample: Sample) -> float | None:
        text = sample.response_text
        return sum(letter in self.vowels for letter in text) / len(text) if text else None
