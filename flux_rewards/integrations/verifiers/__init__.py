"""verifiers: rewards as its rubrics (0.3) and task rewards (0.4), and its reward functions as rewards."""

from flux_rewards.integrations.verifiers.foreign import VerifiersReward, from_verifiers
from flux_rewards.integrations.verifiers.functions import RewardFuncs, reward_funcs, rubric, task_reward

__all__ = ["RewardFuncs", "VerifiersReward", "from_verifiers", "reward_funcs", "rubric", "task_reward"]
