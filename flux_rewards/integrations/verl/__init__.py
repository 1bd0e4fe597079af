"""verl: rewards as its scoring functions and reward managers, and its scoring functions as rewards."""

from flux_rewards.integrations.verl.foreign import VerlReward
from flux_rewards.integrations.verl.functions import (
    batch_reward_manager,
    compute_score,
    compute_score_async,
    compute_scores,
    from_verl,
    reward_manager,
)

__all__ = [
    "VerlReward",
    "batch_reward_manager",
    "compute_score",
    "compute_score_async",
    "compute_scores",
    "from_verl",
    "reward_manager",
]
