"""OpenRLHF: rewards as the ``reward_func`` of a file, and as the server behind ``--reward.remote_url``."""

from flux_rewards.integrations.openrlhf.functions import END_TOKENS, make_app, reward_func, serve

__all__ = ["END_TOKENS", "make_app", "reward_func", "serve"]
