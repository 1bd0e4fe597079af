"""Rewards made of several: `CompositeReward` (weighted sum), `Product` and `Gate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flux_rewards.base import RewardFunction
from flux_rewards.combinator import Combinator
from flux_rewards.data import RewardBatch
from flux_rewards.errors import ConfigError, ContractError, brief
from flux_rewards.naming import distinct
from flux_rewards.validation import number

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from flux_rewards.data import Sample

__all__ = ["CompositeReward", "Gate", "Product"]

Weighted = tuple[RewardFunction, float]


class CompositeReward(Combinator):
    """Weighted sum of rewards: ``sum(weight * reward)``, weights as given, signs and all.

    A part that does not apply to a sample is left out of that sample's sum; where none applies the total is NaN.
    A part that failed makes the total NaN and carries its reason up: a partial outage must not bias a group.
    `RewardBatch.parts` holds what each part said, before its weight. Token rewards of the parts are added with the
    same weights; parts without any add nothing to them.

    Args:
        rewards: ``[(reward, weight), ...]`` or ``{"name": (reward, weight), ...}``. In a list, a second part of the
            same name is called ``name_2``. Composites nest.
        normalize_weights: Divide the weights by the sum of their absolute values.
        name: What it is called.

    Raises:
        ConfigError: No parts, a part that is not a reward, or a weight that is not a finite number.
        ContractError: On a call, token rewards of two parts differ in length.

    Does not rescale the sum of a sample for the parts that are left out.

    Examples:
        >>> from flux_rewards import FunctionReward, Sample
        >>> length = FunctionReward(lambda sample: len(sample.response), name="length")
        >>> digits = FunctionReward(lambda sample: sum(map(str.isdigit, sample.response)), name="digits")
        >>> batch = CompositeReward([(length, -0.5), (digits, 2.0)])([Sample(response="a 12")])
        >>> batch.rewards, batch.parts["length"].rewards
        (array([2.]), array([4.]))
    """

    example_config = {"rewards": [{"reward_model": "length", "target": 40, "weight": 0.5}]}

    def __init__(
        self,
        rewards: Sequence[Weighted] | Mapping[str, Weighted],
        *,
        normalize_weights: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.rewards = rewards
        self.normalize_weights = normalize_weights
        if not isinstance(rewards, (Mapping, list, tuple)) or not rewards:
            raise ConfigError(
                f"rewards must be [(reward, weight), ...] or {{name: (reward, weight)}} with at least one part, "
                f"found {brief(rewards)}",
                reward=self.name,
            )
        pairs = list(rewards.values()) if isinstance(rewards, Mapping) else list(rewards)
        for position, pair in enumerate(pairs):
            if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not isinstance(pair[0], RewardFunction):
                raise ConfigError(
                    f"part {position} must be (reward, weight), such as (reward, 1.0), found {brief(pair)}",
                    reward=self.name,
                )
            number(pair[1], f"the weight of part {position} ({type(pair[0]).__name__})", self.name)
        self.children = tuple(reward for reward, _ in pairs)
        weights = [float(weight) for _, weight in pairs]
        total = sum(map(abs, weights)) if normalize_weights else 1.0
        if total == 0:
            raise ConfigError("weights that are all zero cannot be normalized", reward=self.name)
        names = list(rewards) if isinstance(rewards, Mapping) else distinct(child.name for child in self.children)
        self.weights: dict[str, float] = {part: weight / total for part, weight in zip(names, weights, strict=True)}
        self.bounds = self._sum_of_bounds()

    def _sum_of_bounds(self) -> tuple[float, float] | None:
        low = high = 0.0
        for child, weight in zip(self.children, self.weights.values(), strict=True):
            if child.bounds is None:
                return None
            ends = (weight * child.bounds[0], weight * child.bounds[1], 0.0)  # 0 where it does not apply
            low, high = low + min(ends), high + max(ends)
        return low, high

    def combine(self, batches: Sequence[RewardBatch], samples: Sequence[Sample]) -> RewardBatch:  # noqa: ARG002
        """Add up what applies; carry up what failed."""
        parts = dict(zip(self.weights, batches, strict=True))
        weights = np.array(list(self.weights.values()))
        values = np.stack([batch.rewards for batch in batches])
        applies = ~np.isnan(values)
        total = (np.where(applies, values, 0.0) * weights[:, None]).sum(axis=0)
        total[~applies.any(axis=0)] = np.nan
        errors = carried(parts)
        total[list(errors)] = np.nan
        return RewardBatch(total, self._tokens(parts, errors), errors=errors, parts=parts)

    def fold(self, scores: Sequence[torch.Tensor]) -> torch.Tensor:
        """The weighted sum of what applies."""
        import torch  # noqa: PLC0415  # loaded already

        total = torch.zeros_like(scores[0])
        for score, weight in zip(scores, self.weights.values(), strict=True):
            total = total + weight * torch.where(torch.isnan(score), 0.0, score)
        none_applies = torch.stack([torch.isnan(score) for score in scores]).all(dim=0)
        return torch.where(none_applies, torch.nan, total)

    def _tokens(self, parts: Mapping[str, RewardBatch], errors: Mapping[int, str]) -> Any:
        dense = {part: batch.token_rewards for part, batch in parts.items() if batch.token_rewards is not None}
        if not dense:
            return None
        count = len(next(iter(parts.values())))
        tokens: list[NDArray[np.float64] | None] = [None] * count
        for index in range(count):
            given = {
                part: rows[index]
                for part, rows in dense.items()
                if rows[index] is not None and not np.isnan(parts[part].rewards[index])
            }
            if not given or index in errors:
                continue
            lengths = {part: len(row) for part, row in given.items() if row is not None}
            if len(set(lengths.values())) > 1:
                raise ContractError(
                    f"token rewards of the parts don't line up: {lengths}; give them one value a token of the same "
                    "token_ids, or drop those of one part with Map or a part of their own",
                    reward=self.name,
                    index=index,
                )
            tokens[index] = sum(
                (self.weights[part] * row for part, row in given.items() if row is not None), np.zeros(())
            )
        return tokens


class Product(Combinator):
    """Product of rewards: the sample must do well on all of them.

    Factors that do not apply to a sample are left out; where none applies the product is NaN. A factor that failed
    makes the product NaN and carries its reason up.

    Args:
        rewards: ``[reward, ...]`` or ``{"name": reward, ...}``.
        name: What it is called.

    Does not keep token rewards: a product has no dense view.

    Examples:
        >>> from flux_rewards import FunctionReward, Sample
        >>> Product([FunctionReward(lambda s: 0.5), FunctionReward(lambda s: 3.0)])([Sample()]).rewards
        array([1.5])
    """

    example_config = {"rewards": [{"reward_model": "length", "target": 40}]}

    def __init__(
        self, rewards: Sequence[RewardFunction] | Mapping[str, RewardFunction], *, name: str | None = None
    ) -> None:
        super().__init__(name=name)
        self.rewards = rewards
        children = list(rewards.values()) if isinstance(rewards, Mapping) else list(rewards)
        for position, child in enumerate(children):
            if not isinstance(child, RewardFunction):
                raise ConfigError(f"factor {position} must be a reward, found {brief(child)}", reward=self.name)
        if not children:
            raise ConfigError("a product needs at least one factor", reward=self.name)
        self.children = tuple(children)
        self.names = list(rewards) if isinstance(rewards, Mapping) else distinct(child.name for child in children)

    def combine(self, batches: Sequence[RewardBatch], samples: Sequence[Sample]) -> RewardBatch:  # noqa: ARG002
        """Multiply what applies; carry up what failed."""
        parts = dict(zip(self.names, batches, strict=True))
        values = np.stack([batch.rewards for batch in batches])
        applies = ~np.isnan(values)
        product = np.where(applies, values, 1.0).prod(axis=0)
        product[~applies.any(axis=0)] = np.nan
        errors = carried(parts)
        product[list(errors)] = np.nan
        return RewardBatch(product, errors=errors, parts=parts)

    def fold(self, scores: Sequence[torch.Tensor]) -> torch.Tensor:
        """The product of what applies."""
        import torch  # noqa: PLC0415  # loaded already

        stacked = torch.stack(list(scores))
        applies = ~torch.isnan(stacked)
        product = torch.where(applies, stacked, 1.0).prod(dim=0)
        return torch.where(applies.any(dim=0), product, torch.nan)


class Gate(Combinator):
    """A reward that counts only where another is high enough: ``reward if when >= at_least else otherwise``.

    The gate shares the result of `when` with the rest of its tree: the same object is computed once. Where `when`
    does not apply, neither does the gate; where it failed, the gate failed.

    Args:
        reward: What counts behind the gate.
        when: What opens it.
        at_least: The gate is open where ``when >= at_least``.
        otherwise: The value where it is closed; None for does not apply.
        name: What it is called.

    Does not save the work of `reward` behind a closed gate: leaves are computed for all samples.
    Source: the conditioned reward of GDPO (arXiv 2601.05242, eq. 8).

    Examples:
        >>> from flux_rewards import FunctionReward, Sample
        >>> correct = FunctionReward(lambda s: float("4" in s.response), name="correct")
        >>> brief = FunctionReward(lambda s: 1 / len(s.response), name="brief")
        >>> Gate(brief, when=correct, at_least=1.0)([Sample(response="4"), Sample(response="5")]).rewards
        array([1., 0.])
    """

    example_config = {
        "reward": {"reward_model": "length", "target": 40},
        "when": {"reward_model": "exact_match"},
        "at_least": 1.0,
    }

    def __init__(
        self,
        reward: RewardFunction,
        when: RewardFunction,
        at_least: float,
        *,
        otherwise: float | None = 0.0,
        name: str | None = None,
    ) -> None:
        for role, child in (("reward", reward), ("when", when)):
            if not isinstance(child, RewardFunction):
                raise ConfigError(f"{role} must be a reward, found {brief(child)}", reward="Gate")
        super().__init__(name=name or f"Gate({reward.name})")
        self.reward = reward
        self.when = when
        self.at_least = number(at_least, "at_least", self.name)
        self.otherwise = otherwise if otherwise is None else number(otherwise, "otherwise", self.name)
        self.children = (reward, when)
        self.higher_is_better = reward.higher_is_better
        if reward.bounds is not None:
            ends = [*reward.bounds, *([] if self.otherwise is None else [self.otherwise])]
            self.bounds = (min(ends), max(ends))

    def combine(self, batches: Sequence[RewardBatch], samples: Sequence[Sample]) -> RewardBatch:  # noqa: ARG002
        """Let through, or not."""
        gated, when = batches
        parts = dict(zip(distinct((self.reward.name, self.when.name)), batches, strict=True))
        is_open = when.rewards >= self.at_least  # False for NaN
        closed = float("nan") if self.otherwise is None else self.otherwise
        values = np.where(is_open, gated.rewards, closed)
        values[np.isnan(when.rewards)] = np.nan
        tokens = gated.token_rewards
        if tokens is not None:
            tokens = [row if is_open[index] else None for index, row in enumerate(tokens)]
        # A failure of the gated reward is none where the gate is closed.
        errors = {
            index: text
            for index, text in carried(parts).items()
            if index in when.errors or (is_open[index] and index in gated.errors)
        }
        return RewardBatch(values, tokens, errors=errors, parts=parts)


def carried(parts: Mapping[str, RewardBatch]) -> dict[int, str]:
    """The reasons of failed samples, each led by the part that failed."""
    reasons: dict[int, list[str]] = {}
    for part, batch in parts.items():
        for index, text in batch.errors.items():
            reasons.setdefault(index, []).append(f"{part}: {text}")
    return {index: "; ".join(texts) for index, texts in sorted(reasons.items())}
