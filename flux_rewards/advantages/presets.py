"""How each trainer computes advantages, as options of the methods here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from flux_rewards.advantages.grouped import word
from flux_rewards.errors import ConfigError

__all__ = ["PRESETS", "preset"]

PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        # TRL 1.16, GRPOTrainer by scale_rewards ("group", "none", "batch") and multi_objective_aggregation; RLOOTrainer
        "trl": {
            "grpo": {"ddof": 1, "eps": 1e-4, "missing": 0.0},
            "dr_grpo": {"missing": 0.0},
            "batch": {"ddof": 1, "eps": 1e-4, "missing": 0.0},
            "rloo": {"ddof": 1, "eps": 1e-4, "missing": 0.0},
            "gdpo": {"variant": "trl", "missing": 0.0},
        },
        "trl_async": {"grpo": {"ddof": 0, "eps": 1e-8, "missing": 0.0}},  # experimental AsyncGRPO
        # verl 0.9.1, by adv_estimator (and norm_adv_by_std_in_grpo=False for dr_grpo)
        "verl": {
            "grpo": {"ddof": 1, "eps": 1e-6, "singleton": "reward"},
            "dr_grpo": {"singleton": "reward"},
            "rloo": {"singleton": "reward"},
            "opo": {"singleton": "reward"},
            "pass_at_k": {"ddof": 1, "eps": 1e-6},
            "gdpo": {"variant": "verl"},
        },
        # OpenRLHF 0.11: group_norm, dr_grpo and rloo; it then whitens over tokens where asked to
        "openrlhf": {"grpo": {"ddof": 1, "eps": 1e-9}, "dr_grpo": {}, "rloo": {}},
        "slime": {"grpo": {"ddof": 1, "eps": 1e-6}, "dr_grpo": {}},  # with and without grpo_std_normalization
        "nemo_rl": {
            "grpo": {"ddof": 1, "eps": 1e-6, "leave_one_out": True},
            "gdpo": {"variant": "nemo_rl"},
        },
        "skyrl": {
            "grpo": {"ddof": 1, "eps": 1e-6, "singleton": "reward"},
            "dr_grpo": {"singleton": "reward"},
            "rloo": {},
            "max_rl": {"eps": 1e-6, "singleton": "reward"},
        },
        "prime_rl": {"dr_grpo": {}, "opo": {}, "max_rl": {"eps": 1e-6}},
        "ms_swift": {
            "grpo": {"ddof": 1, "eps": 1e-4},
            "dr_grpo": {},
            "batch": {"ddof": 1, "eps": 1e-4},
            "rloo": {},
            "gdpo": {"variant": "ms_swift"},
        },
        "nvlabs": {"gdpo": {"variant": "nvlabs"}, "grpo": {"ddof": 1, "eps": 1e-4}},  # TRL 0.18 with GDPO
        # Flow-Factory: "gdpo", and "sum" with global_std=True (batch) or False (grpo)
        "flow_factory": {
            "gdpo": {"variant": "flow_factory"},
            "batch": {"ddof": 0, "eps": 1e-6, "eps_rule": "max"},
            "grpo": {"ddof": 0, "eps": 1e-6, "eps_rule": "max"},
        },
        # flow_grpo: per_prompt_stat_tracking with sample.global_std=True (batch) or False (grpo)
        "flow_grpo": {"batch": {"ddof": 0, "eps": 1e-4}, "grpo": {"ddof": 0, "eps": 1e-4}},
    }
)
"""``PRESETS[trainer][method]``: options that make a method that trainer's; the first method is its default."""


def preset(trainer: str, method: str | None = None) -> tuple[str, dict[str, Any]]:
    """A trainer's method and its options.

    Args:
        trainer: A name in `PRESETS`.
        method: One of its methods; None for its default.

    Raises:
        ConfigError: There is no such trainer, or it has no such method.

    Examples:
        >>> preset("verl")
        ('grpo', {'ddof': 1, 'eps': 1e-06, 'singleton': 'reward'})
    """
    methods = PRESETS[word(trainer, "like", tuple(PRESETS))]
    chosen = next(iter(methods)) if method is None else method
    if chosen not in methods:
        raise ConfigError(
            f"{trainer} has no method {chosen!r} here; it has {', '.join(methods)}. Without like=, every method takes "
            "its options by name"
        )
    return chosen, dict(methods[chosen])
