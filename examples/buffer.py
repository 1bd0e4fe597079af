"""Scoring while sampling goes on: add groups as they are sampled, finalize at the end of the step."""

import time

from flux_rewards import CompositeReward, FunctionReward, LengthReward, RewardBuffer, Sample


def slow_service(sample: Sample) -> float:
    """Stands for a request that takes a while."""
    time.sleep(0.02)
    return float(sample.response_text.count("e"))


def sample_group(prompt: str, group: int) -> list[Sample]:
    """Stands for the policy: four responses to a prompt."""
    time.sleep(0.02)
    return [Sample(prompt, "one two three four"[: 6 + 3 * i], group_id=group) for i in range(4)]


def main() -> None:
    """Two steps of three groups."""
    service = FunctionReward(slow_service, num_workers=8)  # at most 8 requests in flight
    reward = CompositeReward([(service, 0.1), (LengthReward(target=3, async_reward=False), 1.0)])
    with RewardBuffer(reward, group_size=4) as buffer:
        for step in range(2):
            for group in range(3):
                buffer.add(sample_group(f"prompt {group}", group))  # returns at once
            batch = buffer.finalize(timeout=60)
            print("step", step, "mean reward", batch.rewards.mean().round(3))


if __name__ == "__main__":
    main()
