"""One value a token, and how it combines."""

from flux_rewards import CompositeReward, RewardFunction, RewardOutput, Sample, TokenKeywordReward


class LastToken(RewardFunction):
    """A reward for the whole response, placed on its last token."""

    required_fields = ("token_ids",)

    def compute_reward(self, sample: Sample) -> RewardOutput:
        """1 for the response, and for its last token."""
        tokens = [0.0] * len(sample.token_ids or ())
        tokens[-1] = 1.0
        return RewardOutput(1.0, token_rewards=tokens)


def main() -> None:
    """Score one response of three tokens."""
    sample = Sample(
        "Why?",
        "maybe because",
        token_ids=[5, 6, 7],
        token_offsets=[(0, 5), (5, 8), (8, 13)],  # as a fast tokenizer gives them
    )
    words = TokenKeywordReward(good=["because"], bad=["maybe"])
    batch = CompositeReward([(words, 0.5), (LastToken(), 1.0)])([sample])
    print("reward", batch.rewards, "token rewards", batch.token_rewards)


if __name__ == "__main__":
    main()
