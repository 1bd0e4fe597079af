"""Groups whose samples lie on several processes."""

from flux_rewards.integrations.distributed.groups import DistributedGroups

__all__ = ["DistributedGroups"]
