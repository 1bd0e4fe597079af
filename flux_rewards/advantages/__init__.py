"""From rewards to advantages, as the trainers compute them: over groups of any size, NumPy and PyTorch, NaN-aware.

`compute_advantages` is the front door; `PRESETS` says what each trainer does. Importing this loads no torch.
"""

from flux_rewards.advantages.baselines import batch, dr_grpo, grpo, max_rl, opo, rloo
from flux_rewards.advantages.compute import METHODS, compute_advantages
from flux_rewards.advantages.gdpo import GDPO_VARIANTS, GdpoVariant, gdpo
from flux_rewards.advantages.presets import PRESETS, preset
from flux_rewards.advantages.ranks import best_worst, pass_at_k, rank
from flux_rewards.advantages.tokens import at_last_token, broadcast, returns
from flux_rewards.advantages.whitening import masked_whiten, reinforce_plus_plus, reinforce_plus_plus_baseline

__all__ = [
    "GDPO_VARIANTS",
    "METHODS",
    "PRESETS",
    "GdpoVariant",
    "at_last_token",
    "batch",
    "best_worst",
    "broadcast",
    "compute_advantages",
    "dr_grpo",
    "gdpo",
    "grpo",
    "masked_whiten",
    "max_rl",
    "opo",
    "pass_at_k",
    "preset",
    "rank",
    "reinforce_plus_plus",
    "reinforce_plus_plus_baseline",
    "returns",
    "rloo",
]
