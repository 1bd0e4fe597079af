"""GDPO: every part of a reward is normalized in its group by itself, before they are added up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from flux_rewards.advantages.arrays import Array, lengths_of, namespace
from flux_rewards.advantages.baselines import grpo
from flux_rewards.advantages.group_ids import segments_of
from flux_rewards.advantages.grouped import check_options, standardized, word
from flux_rewards.advantages.parts import Parts
from flux_rewards.errors import ConfigError, brief

__all__ = ["GDPO_VARIANTS", "GdpoVariant", "gdpo"]


@dataclass(frozen=True)
class GdpoVariant:
    """How one implementation of GDPO normalizes; change one with `dataclasses.replace`.

    Attributes:
        ddof: Of the z-score of a part in its group.
        eps: Of the same.
        eps_rule: ``"add"``, ``"max"`` or ``"variance"``, as in `grpo`.
        leave_one_out: Against mean and standard deviation of the others of the group, as in `grpo`.
        singleton: What a part gives the only sample that it scored in a group: ``"zero"`` or ``"reward"``.
        absent: A part without a score for a sample: ``"skip"`` leaves it out, and the sample too where no part has a
            score; ``"zero_reward"`` takes it for a reward of 0; ``"zero_advantage"`` leaves it out of the group and
            counts it as 0 in the sum, so that samples without any score still weigh on the batch.
        batch_ddof: Of the z-score of the sum over the batch.
        batch_eps: Of the same.
        batch_eps_rule: Of the same.
        by_tokens: Over the batch each sample counts as often as it has tokens.

    Examples:
        >>> from dataclasses import replace
        >>> replace(GDPO_VARIANTS["trl"], eps=1e-6).eps
        1e-06
    """

    ddof: int = 1
    eps: float = 1e-4
    eps_rule: str = "add"
    leave_one_out: bool = False
    singleton: str = "zero"
    absent: str = "skip"
    batch_ddof: int = 1
    batch_eps: float = 1e-4
    batch_eps_rule: str = "add"
    by_tokens: bool = False

    def __post_init__(self) -> None:
        check_options(ddof=self.ddof, eps=self.eps, eps_rule=self.eps_rule, singleton=self.singleton)
        check_options(ddof=self.batch_ddof, eps=self.batch_eps, eps_rule=self.batch_eps_rule)
        word(self.absent, "absent", ("skip", "zero_reward", "zero_advantage"))


GDPO_VARIANTS: Mapping[str, GdpoVariant] = MappingProxyType(
    {
        "trl": GdpoVariant(),
        "nvlabs": GdpoVariant(absent="zero_reward"),
        "verl": GdpoVariant(eps=1e-6, singleton="reward", batch_eps=1e-8, batch_eps_rule="variance", by_tokens=True),
        "nemo_rl": GdpoVariant(eps=1e-6, leave_one_out=True, batch_eps=0.0),
        "ms_swift": GdpoVariant(eps=1e-8, absent="zero_advantage", batch_eps=1e-8),
        "flow_factory": GdpoVariant(
            ddof=0, eps=1e-6, eps_rule="max", batch_ddof=0, batch_eps=1e-6, batch_eps_rule="max"
        ),
    }
)
"""The published implementations; ``"trl"`` is the paper's formula, with parts that do not apply left out."""


def gdpo(
    rewards: Any,
    groups: Any,
    weights: Mapping[Any, float] | Sequence[float] | None = None,
    *,
    variant: str | GdpoVariant = "trl",
    lengths: Any = None,
    conditions: Mapping[Any, tuple[Any, float]] | None = None,
    missing: float = math.nan,
) -> Array:
    """Z-score of every part in its group, weighted sum of those, z-score of the sum over the batch.

    A part with a wide range does not drown out the others, and equal sums of unlike parts stay unlike. Since the sum is
    normalized again, only the ratios of the weights matter.

    Args:
        rewards: A `RewardBatch` with parts, a mapping ``{name: rewards}`` of columns of shape (N,), or an array or
            tensor of shape (N, K) with a column a part. A sample with a failed part takes no part.
        groups: Groups of the samples, as everywhere.
        weights: By name (`CompositeReward.weights`), or in the parts' order; 1 each by default for a mapping.
        variant: The implementation that is followed, a name in `GDPO_VARIANTS` or a `GdpoVariant`.
        lengths: Tokens of each response, shape (N,), or a mask of shape (N, T); needed by ``"verl"``.
        conditions: ``{part: (other, at_least)}``: the part counts as it is where the other's reward is at least so
            much, and as 0 elsewhere (equation 8 of the paper).
        missing: For samples without a score.

    Raises:
        ConfigError: There are no parts, weights or conditions do not fit them, `lengths` is needed, or there is no
            such variant.
        InputError: Parts, groups or lengths cannot be used.

    Source: GDPO (arXiv 2601.05242).

    Examples:
        >>> parts = {"correct": [1.0, 0.0, 1.0, 0.0], "short": [0.9, 0.2, 0.1, 0.2]}
        >>> gdpo(parts, 2, weights={"correct": 1.0, "short": 0.5}).round(2)
        array([ 1.16, -1.16,  0.39, -0.39])
    """
    check_options(missing=missing)
    how = _variant(variant)
    parts = Parts.of(rewards).conditioned(conditions)
    weighted_by = parts.weights(weights)
    xp, nan = namespace(parts.failed), float("nan")
    numbers = segments_of(groups, len(parts.failed), parts.form).codes  # once, for all parts
    normalized = {}
    for name, column in parts.columns.items():
        part = xp.where(xp.isnan(column), 0.0, column) if how.absent == "zero_reward" else column
        normalized[name] = grpo(
            xp.where(parts.failed, nan, part),
            numbers,
            ddof=how.ddof,
            eps=how.eps,
            eps_rule=how.eps_rule,
            leave_one_out=how.leave_one_out,
            singleton=how.singleton,
        )
    total, scored = parts.sum_of(normalized, weighted_by)
    counted = ~parts.failed if how.absent != "skip" else scored
    tokens = None
    if how.by_tokens:
        if lengths is None:
            raise ConfigError(
                "this variant of GDPO counts a sample as often as it has tokens: give lengths=..., the tokens of each "
                "response, or a mask of them"
            )
        tokens = lengths_of(lengths, len(total), parts.form)[counted]
    advantages = xp.full_like(total, missing)
    advantages[counted] = standardized(
        total[counted], ddof=how.batch_ddof, eps=how.batch_eps, eps_rule=how.batch_eps_rule, lengths=tokens
    )
    return parts.form.give(advantages)


def _variant(variant: Any) -> GdpoVariant:
    if isinstance(variant, GdpoVariant):
        return variant
    if isinstance(variant, str) and variant in GDPO_VARIANTS:
        return GDPO_VARIANTS[variant]
    raise ConfigError(f"variant must be one of {', '.join(GDPO_VARIANTS)}, or a GdpoVariant, found {brief(variant)}")
