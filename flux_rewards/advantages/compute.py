"""One call for every method: from rewards and groups to advantages."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from flux_rewards.advantages.baselines import batch, dr_grpo, grpo, max_rl, opo, rloo
from flux_rewards.advantages.gdpo import gdpo
from flux_rewards.advantages.grouped import word
from flux_rewards.advantages.parts import Parts, has_parts
from flux_rewards.advantages.presets import preset
from flux_rewards.advantages.ranks import best_worst, pass_at_k, rank
from flux_rewards.errors import ConfigError, close_match

if TYPE_CHECKING:
    from flux_rewards.advantages.arrays import Array

__all__ = ["METHODS", "compute_advantages"]

METHODS: Mapping[str, Callable[..., Array]] = MappingProxyType(
    {
        "grpo": grpo,
        "dr_grpo": dr_grpo,
        "rloo": rloo,
        "batch": batch,
        "rank": rank,
        "opo": opo,
        "pass_at_k": pass_at_k,
        "best_worst": best_worst,
        "max_rl": max_rl,
        "gdpo": gdpo,
    }
)
"""The methods by name; ``"sum"`` is another name of ``"grpo"``."""


def compute_advantages(
    rewards: Any,
    groups: Any,
    method: str | None = None,
    *,
    weights: Mapping[Any, float] | Sequence[float] | None = None,
    like: str | None = None,
    **options: Any,
) -> Array:
    """Advantages of N samples, shape (N,), from their rewards and groups.

    Args:
        rewards: A `RewardBatch`; numbers of shape (N,), NaN and None for no score; or rewards by part: a mapping
            ``{name: rewards}``, or an array of shape (N, K) with a column a part.
        groups: Which samples answer one prompt: one hashable id each, an integer array or tensor, the list of samples
            (by `group_id`, or equal prompt and condition media), or a whole number n for consecutive groups of n.
        method: A name in `METHODS`, or ``"sum"`` for the weighted sum and then ``"grpo"``; ``"grpo"`` by default, or
            with `like` that trainer's default.
        weights: Of the parts, by name or in their order. Parts are added up with them (``"gdpo"``: after each was
            normalized). Without them a `RewardBatch` counts as it is (for ``"gdpo"``, which needs its parts, they must
            be given), and the parts of a mapping count 1 each.
        like: A trainer in `PRESETS`: the options that give its numbers. Options that are given win.
        **options: Of the method, such as `ddof`, `eps`, `singleton`, `missing`, `lengths`.

    Returns:
        A float64 array; or a tensor of the rewards' type on their device where tensors came in. NaN for samples
        without a score, unless `missing` is given.

    Raises:
        ConfigError: There is no such method, trainer, part or option.
        InputError: Rewards or groups cannot be used.

    Does not gather over processes: pass whole groups, and for what looks at the whole batch (``"batch"``, ``"gdpo"``)
    the whole batch.

    Examples:
        >>> compute_advantages([1.0, 0.0, None, 1.0, 1.0], ["p", "p", "p", "q", "q"], like="trl").round(3)
        array([ 0.707, -0.707,  0.   ,  0.   ,  0.   ])
        >>> compute_advantages([3.0, 1.0, 2.0], 3, "rank")
        array([ 0.5, -0.5,  0. ])
    """
    chosen = "grpo" if method == "sum" else method
    if like is not None:
        chosen, defaults = preset(like, chosen)
        options = {**defaults, **options}
    chosen = "grpo" if chosen is None else chosen
    function = METHODS[word(chosen, "method", tuple(METHODS))]
    known = [name for name in inspect.signature(function).parameters if name not in ("rewards", "groups", "weights")]
    for name in options:
        if name not in known:
            hint = close_match(name, known)
            raise ConfigError(f"{chosen} has no option {name!r}{hint}; it takes {', '.join(known)}")
    if chosen == "gdpo":
        return gdpo(rewards, groups, weights, **options)
    if weights is not None or has_parts(rewards):
        parts = Parts.of(rewards)
        rewards = parts.form.give(parts.weighted_sum(parts.weights(weights)))
    return function(rewards, groups, **options)
