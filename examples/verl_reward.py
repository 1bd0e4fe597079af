"""The reward of a verl run, in the file that verl's configuration names.

verl loads it by path: reward.custom_reward_function.path=examples/verl_reward.py
                       reward.custom_reward_function.name=compute_score
"""

import asyncio

from flux_rewards import CompositeReward, FormatReward, LengthReward, NumericAnswerReward
from flux_rewards.integrations import verl

reward = CompositeReward(
    {
        "acc": (NumericAnswerReward(), 1.0),  # verl's validation follows what is called acc
        "format": (FormatReward(tags=["think", "answer"]), 0.2),
        "brevity": (LengthReward(target=40), 0.1),
    }
)
compute_score = verl.compute_score_async(reward, not_applicable=0.0)


async def main() -> None:
    """Call it as verl does."""
    row = {"data_source": "openai/gsm8k", "ground_truth": "42", "extra_info": {"question": "6 * 7?", "index": 0}}
    answers = ["<think>6 * 7 is 42.</think><answer>42</answer>", "It is 41."]
    scores = await asyncio.gather(*(compute_score(solution_str=answer, **row) for answer in answers))
    for answer, score in zip(answers, scores, strict=True):
        print(score, answer)


if __name__ == "__main__":
    asyncio.run(main())
