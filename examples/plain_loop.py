"""A hand-written loop: sample groups, score them, and turn rewards into advantages."""

import random

import numpy as np

from flux_rewards import CompositeReward, GroupNormalize, LengthReward, NumericAnswerReward, Sample

GROUP_SIZE = 4


def sample_from_policy(prompt: str, generator: random.Random) -> str:
    """Stands for the policy: it can add, most of the time."""
    left, right = (int(word.strip("?")) for word in prompt.split(" + "))
    return f"Let me see. The answer is {left + right + generator.choice([0, 0, 1])}."


def main() -> None:
    """Three steps."""
    generator = random.Random(0)  # noqa: S311  # a toy policy
    rewards = CompositeReward({"correct": (NumericAnswerReward(), 1.0), "brief": (LengthReward(target=6), 0.2)})
    advantages = GroupNormalize(rewards)  # (reward - mean of the group) / (std + 1e-4), as TRL has it
    for step in range(3):
        prompts = [f"{generator.randrange(9)} + {generator.randrange(9)}?" for _ in range(2)]
        samples = [
            Sample(
                prompt,
                sample_from_policy(prompt, generator),
                reference=sum(int(word.strip("?")) for word in prompt.split(" + ")),
                group_id=f"{step}-{number}",
            )
            for number, prompt in enumerate(prompts)
            for _ in range(GROUP_SIZE)
        ]
        batch = advantages(samples)
        scored = batch.parts["CompositeReward"]
        correct = scored.parts["correct"].rewards.mean()
        print(f"step {step}: reward {scored.rewards.mean():.3f}, correct {correct:.2f}")
        # NaN where nothing could be scored: those samples have no advantage, and stay out of the loss.
        in_loss = np.flatnonzero(~np.isnan(batch.rewards))
        print(f"  {len(in_loss)} samples to learn from, advantages", batch.rewards[in_loss].round(2).tolist())


if __name__ == "__main__":
    main()
