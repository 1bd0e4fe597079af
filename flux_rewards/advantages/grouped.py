"""Rewards with their groups: those that there are, and the way back to all samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flux_rewards.advantages.arrays import Array, Form, namespace, values_of
from flux_rewards.advantages.group_ids import segments_of
from flux_rewards.errors import ConfigError, InputError, brief, close_match
from flux_rewards.validation import number

if TYPE_CHECKING:
    from flux_rewards.advantages.segments import Segments

__all__ = ["GroupedRewards", "check_options", "scaled", "standardized", "word"]


@dataclass(frozen=True, eq=False)
class GroupedRewards:
    """The rewards that are numbers, each with its group; samples without a score take no part.

    Attributes:
        rewards: Shape (M,), M <= N.
        segments: The group of each.
        scored: Which of the N samples they are, shape (N,).
        form: How results go out.

    Examples:
        >>> GroupedRewards.of([1.0, None, 3.0], [7, 7, 7]).deviations
        array([-1.,  1.])
    """

    rewards: Array
    segments: Segments
    scored: Array
    form: Form

    @staticmethod
    def of(rewards: Any, groups: Any, form: Form | None = None) -> GroupedRewards:
        """Check rewards and groups, and leave out what has no score."""
        values, form = values_of(rewards, form=form)
        segments = segments_of(groups, len(values), form)
        scored = ~namespace(values).isnan(values)
        if bool(scored.all()):
            return GroupedRewards(values, segments, scored, form)
        return GroupedRewards(values[scored], segments.select(scored), scored, form)

    @cached_property
    def alone(self) -> Array:
        """Which are the only scored ones of their groups, shape (M,)."""
        return self.segments.size == 1

    @cached_property
    def shifted(self) -> Array:
        """The rewards less some reward of their group, shape (M,): exactly 0 where all of a group are equal.

        Sums of these lose no digits to a large common offset, and leave no trace of rounding in equal rewards.
        """
        return self.rewards - self.segments.any_of(self.rewards)

    @cached_property
    def deviations(self) -> Array:
        """The rewards less the mean of their group, shape (M,)."""
        return self.shifted - self.segments.mean(self.shifted)

    @cached_property
    def squares(self) -> Array:
        """For each reward the sum of squared deviations in its group, shape (M,)."""
        return self.segments.sum(self.deviations * self.deviations)[self.segments.codes]

    def std(self, ddof: int) -> Array:
        """For each reward the standard deviation of its group, shape (M,); 0 in a group of one."""
        free = self.segments.size - ddof
        return namespace(free).sqrt(self.squares / namespace(free).where(free > 0, free, 1.0))

    def with_singletons(self, advantages: Array, singleton: str, instead: Array | None = None) -> Array:
        """What the only scored sample of a group gets: 0, or its reward (or what stands for it)."""
        xp = namespace(advantages)
        raw = self.rewards if instead is None else instead
        return xp.where(self.alone, raw if singleton == "reward" else xp.zeros_like(raw), advantages)

    def give(self, advantages: Array, missing: float) -> Array:
        """Back to all N samples, in the form that came in."""
        if len(advantages) < len(self.scored):
            rest = namespace(advantages).full_like(self.scored, missing, dtype=advantages.dtype)
            rest[self.scored] = advantages
            advantages = rest
        return self.form.give(advantages)


def scaled(values: Array, std: Array, eps: float, eps_rule: str) -> Array:
    """Values over a standard deviation that `eps` keeps from 0; 0 where even so nothing is left to divide by.

    Args:
        values: What is divided, shape (M,).
        std: Standard deviations, shape (M,) or ().
        eps: A small number.
        eps_rule: ``"add"``: std + eps; ``"max"``: max(std, eps); ``"variance"``: sqrt(std² + eps).
    """
    xp = namespace(values)
    if eps_rule == "add":
        scale = std + eps
    elif eps_rule == "max":
        scale = xp.where(std > eps, std, eps)
    else:
        scale = xp.sqrt(std * std + eps)
    return xp.where(scale > 0, values / xp.where(scale > 0, scale, 1.0), 0.0)


def standardized(
    values: Array, *, ddof: int, eps: float, eps_rule: str, lengths: Array | None = None, keep_mean: bool = False
) -> Array:
    """Values less their mean, over their standard deviation; each counts as often as its length, once by default."""
    if len(values) == 0:
        return values
    weight = namespace(values).ones_like(values) if lengths is None else lengths
    total = weight.sum()
    if not bool(total > 0):
        raise InputError("every length is 0, so nothing is left to normalize over the batch")
    shifted = values - values[0]  # equal values stay exactly equal
    mean = (shifted * weight).sum() / total
    deviations = shifted - mean
    free = namespace(values).where(total > ddof, total - ddof, 1.0)
    std = namespace(values).sqrt((deviations * deviations * weight).sum() / free)
    result = scaled(deviations, std, eps, eps_rule)
    return result + (mean + values[0]) if keep_mean else result


def word(value: Any, option: str, known: tuple[str, ...]) -> str:
    """One of a few words.

    Raises:
        ConfigError: It is another.

    Examples:
        >>> word("zero", "singleton", ("zero", "reward"))
        'zero'
    """
    if not isinstance(value, str) or value not in known:
        hint = close_match(value, known) if isinstance(value, str) else ""
        raise ConfigError(f"{option} must be one of {', '.join(known)}, found {brief(value)}{hint}")
    return value


def check_options(
    *, ddof: Any = 1, eps: Any = 0.0, eps_rule: Any = "add", singleton: Any = "zero", missing: Any = math.nan
) -> None:
    """Check the options that the methods share.

    Raises:
        ConfigError: One is out of its range.
    """
    if isinstance(ddof, bool) or ddof not in (0, 1):
        raise ConfigError(f"ddof must be 0 (divide by n) or 1 (divide by n - 1), found {brief(ddof)}")
    number(eps, "eps", "", low=0.0)
    word(eps_rule, "eps_rule", ("add", "max", "variance"))
    word(singleton, "singleton", ("zero", "reward"))
    if not (isinstance(missing, float) and math.isnan(missing)):
        number(missing, "missing", "")
