"""Scoring beside other work: submit, go on, and await the result."""

import asyncio
import time

from flux_rewards import CompositeReward, Executor, FunctionReward, LengthReward, Sample


def slow_service(sample: Sample) -> float:
    """Stands for a request that takes a while."""
    time.sleep(0.02)
    return float(len(sample.response_text))


async def main() -> None:
    """Score two batches at once."""
    service = FunctionReward(slow_service, num_workers=8)  # at most 8 requests in flight, over all batches
    reward = CompositeReward([(service, 0.1), (LengthReward(target=3), 1.0)])
    batches = [[Sample(f"prompt {i}", "one two three"[: 3 + i % 8]) for i in range(32)] for _ in range(2)]
    with Executor() as executor:
        pending = [executor.submit(reward, samples) for samples in batches]
        print("sampling goes on while", len(pending), "batches are scored")
        for entry in pending:
            batch = await entry
            print(len(batch), "rewards, mean", batch.rewards.mean().round(3))


if __name__ == "__main__":
    asyncio.run(main())
