"""flow_grpo, ddpo-pytorch, DiffusionNFT and their forks: ``fn(images, prompts, metadata) -> (scores, info)``.

The contract is that of flow_grpo at ac4c86e and 54809b5, ddpo-pytorch at 1958463 and DiffusionNFT at 24af555. Images
are a float tensor (N, C, H, W) in [0, 1] or a uint8 array (N, H, W, C); videos have one axis more, after the first.
"""

from flux_rewards.integrations.flow_grpo.foreign import FlowGRPOFunction, from_flow_grpo
from flux_rewards.integrations.flow_grpo.functions import differentiable_reward_fn, reward_fn, score_factory

__all__ = ["FlowGRPOFunction", "differentiable_reward_fn", "from_flow_grpo", "reward_fn", "score_factory"]
