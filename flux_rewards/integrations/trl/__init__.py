"""TRL: rewards of this library in `GRPOTrainer`, `RLOOTrainer` and their kin, and TRL's rewards here."""

from flux_rewards.integrations.trl.foreign import TRLReward, from_trl
from flux_rewards.integrations.trl.functions import AsyncRewardFunc, RewardFunc, reward_func, reward_funcs

__all__ = ["AsyncRewardFunc", "RewardFunc", "TRLReward", "from_trl", "reward_func", "reward_funcs"]
