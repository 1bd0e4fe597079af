"""Our scores with real weights, beside the published ones and those of the original code."""

from flux_rewards.verification.verify import VERIFIABLE, Comparison, verify

__all__ = ["VERIFIABLE", "Comparison", "verify"]
