"""EnsembleReward: several rewards that measure the same, and how far they disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flux_rewards.base import RewardFunction
from flux_rewards.combinator import Combinator
from flux_rewards.composite import carried
from flux_rewards.data import RewardBatch
from flux_rewards.errors import ConfigError, InputError, brief
from flux_rewards.naming import distinct
from flux_rewards.validation import number, one_of

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from flux_rewards.data import Sample

__all__ = ["EnsembleReward"]

_AGGREGATES = ("mean", "median", "min", "mean_minus_variance")


class EnsembleReward(Combinator):
    """Several rewards that measure the same thing, such as reward models of different seeds, folded into one.

    | `aggregate` | value |
    |---|---|
    | ``"mean"`` | the mean of the members |
    | ``"median"`` | their median |
    | ``"min"`` | the least favourable: what the most critical member says |
    | ``"mean_minus_variance"`` | mean - `penalty` * variance: what they don't agree about counts less |

    Where less is better (``higher_is_better=False``, for all members alike), the most critical member says the highest,
    and the variance is added: disagreement never makes a sample look better.

    Reward models have a scale and an offset of their own: give `scales`, (mean, standard deviation) of each member on
    data that stay the same, and each is taken as ``(reward - mean) / deviation``; `measured` finds them. They are
    constants: of a batch they would make a sample's reward depend on its neighbours. To compare within groups, put
    `GroupNormalize` around the members.

    A member that does not apply to a sample is left out of that sample's fold; where none applies, nor does the
    ensemble. A member that failed makes the sample NaN and carries its reason up. `RewardBatch.parts` holds what each
    member said, in its own units. Metadata: ``disagreement``, the standard deviation of the members as they are folded,
    and ``members``, how many applied.

    Args:
        rewards: ``[reward, ...]`` or ``{"name": reward, ...}``.
        aggregate: See above.
        penalty: What the variance is multiplied by.
        ddof: Variance and deviation are divided by the number of members less this: 0 (they are all there is, as in
            best-of-n of Coste et al.), or 1 (they stand for more, as in their PPO). With 1, one member alone has no
            variance: the ensemble does not apply where it asks for one.
        scales: (mean, deviation) of each member, in their order or by name; None takes them as they are.
        name: What it is called.

    Raises:
        ConfigError: No members, a member that is no reward, or an argument that cannot be used.

    Source: Coste et al., "Reward Model Ensembles Help Mitigate Overoptimization" (arXiv 2310.02743).

    Does not keep token rewards.

    Examples:
        >>> from flux_rewards import FunctionReward, Sample
        >>> members = [FunctionReward(lambda sample: 1.0), FunctionReward(lambda sample: 3.0)]
        >>> batch = EnsembleReward(members, "mean_minus_variance", penalty=0.5)([Sample()])
        >>> batch.rewards, batch.metadata
        (array([1.5]), [{'disagreement': 1.0, 'members': 2}])
    """

    example_config = {"rewards": [{"reward_model": "length", "target": 40}, {"reward_model": "repetition_penalty"}]}

    def __init__(
        self,
        rewards: Sequence[RewardFunction] | Mapping[str, RewardFunction],
        aggregate: str = "mean",
        *,
        penalty: float = 1.0,
        ddof: int = 0,
        scales: Sequence[tuple[float, float]] | Mapping[str, tuple[float, float]] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        if not isinstance(rewards, (Mapping, list, tuple)) or not rewards:
            raise ConfigError(
                f"rewards must be [reward, ...] or {{name: reward}} with at least one member, found {brief(rewards)}",
                reward=self.name,
            )
        members = list(rewards.values()) if isinstance(rewards, Mapping) else list(rewards)
        for position, member in enumerate(members):
            if not isinstance(member, RewardFunction):
                raise ConfigError(f"member {position} must be a reward, found {brief(member)}", reward=self.name)
        self.rewards = rewards
        self.children = tuple(members)
        self.names = list(rewards) if isinstance(rewards, Mapping) else distinct(member.name for member in members)
        self.aggregate = one_of(aggregate, "aggregate", self.name, _AGGREGATES)
        self.penalty = number(penalty, "penalty", self.name, low=0)
        if ddof not in (0, 1):
            raise ConfigError(f"ddof must be 0 or 1, found {brief(ddof)}", reward=self.name)
        self.ddof = ddof
        self.scales = scales
        self._means, self._deviations = self._checked(scales)
        if len({member.higher_is_better for member in members}) > 1:
            raise ConfigError("of some members more is better, and of others less; scale these by -1", reward=self.name)
        self.higher_is_better = members[0].higher_is_better
        self._sign = 1.0 if self.higher_is_better else -1.0
        self.bounds = self._own_bounds()

    def _checked(self, scales: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        count = len(self.children)
        if scales is None:
            return np.zeros(count), np.ones(count)
        wanted = "scales must be one (mean, deviation) a member"
        if isinstance(scales, Mapping):
            if set(scales) != set(self.names):
                raise ConfigError(f"{wanted}, of {self.names}; found {list(scales)}", reward=self.name)
            scales = [scales[name] for name in self.names]
        if not isinstance(scales, (list, tuple)) or len(scales) != count:
            raise ConfigError(f"{wanted}; found {brief(scales)} for {count}", reward=self.name)
        for name, scale in zip(self.names, scales, strict=True):
            if not isinstance(scale, (list, tuple)) or len(scale) != 2:
                raise ConfigError(f"{wanted}; found {brief(scale)} for {name}", reward=self.name)
            number(scale[0], f"the mean of {name}", self.name)
            number(scale[1], f"the deviation of {name}", self.name, above=0)
        means, deviations = np.array(scales, dtype=np.float64).T
        return means, deviations

    def _own_bounds(self) -> tuple[float, float] | None:
        """All folds but the variance's stay between the members' bounds."""
        bounds = [member.bounds for member in self.children]
        found = [bound for bound in bounds if bound is not None]
        if len(found) < len(bounds) or self.aggregate == "mean_minus_variance":
            return None
        scaled = (np.array(found) - self._means[:, None]) / self._deviations[:, None]
        return float(scaled[:, 0].min()), float(scaled[:, 1].max())

    @classmethod
    def measured(
        cls,
        rewards: Sequence[RewardFunction] | Mapping[str, RewardFunction],
        samples: Sequence[Sample],
        aggregate: str = "mean",
        **options: Any,
    ) -> EnsembleReward:
        """An ensemble whose `scales` are the mean and deviation (ddof 0) of each member on these samples.

        Args:
            rewards: The members.
            samples: Data of the kind that is scored later, and that no member was trained on.
            aggregate: As in the constructor.
            **options: As in the constructor.

        Raises:
            InputError: A member says the same of all samples, or applies to fewer than two.

        Examples:
            >>> from flux_rewards import FunctionReward, Sample
            >>> length = FunctionReward(lambda sample: len(sample.response), name="length")
            >>> EnsembleReward.measured([length], [Sample(response="ab"), Sample(response="abcd")]).scales
            {'length': (3.0, 1.0)}
        """
        plain = cls(rewards, aggregate, **options)
        scales: dict[str, tuple[float, float]] = {}
        for name, batch in plain(samples).parts.items():
            scores = batch.rewards[~np.isnan(batch.rewards)]
            if len(scores) < 2 or scores.std() == 0:
                raise InputError(
                    f"the member {name} says {len(set(scores.tolist()))} different things of the samples; "
                    "its scale cannot be measured",
                    reward=plain.name,
                )
            scales[name] = (float(scores.mean()), float(scores.std()))
        return cls(rewards, aggregate, scales=scales, **options)

    def combine(self, batches: Sequence[RewardBatch], samples: Sequence[Sample]) -> RewardBatch:  # noqa: ARG002
        """Fold what applies; carry up what failed."""
        parts = dict(zip(self.names, batches, strict=True))
        scores = np.stack([batch.rewards for batch in batches])
        values = (scores - self._means[:, None]) / self._deviations[:, None]
        counts = (~np.isnan(values)).sum(axis=0)
        variance = self._variance(values, counts)
        folded = self._folded(values, counts, variance)
        errors = carried(parts)
        folded[list(errors)] = np.nan
        metadata: list[Mapping[str, Any]] = [
            {"disagreement": None if np.isnan(spread) else float(spread), "members": int(count)}
            for spread, count in zip(np.sqrt(variance), counts, strict=True)
        ]
        return RewardBatch(folded, metadata=metadata, errors=errors, parts=parts)

    def _variance(self, values: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """(N,), NaN where too few members apply."""
        divisor = np.where(counts > self.ddof, counts - self.ddof, np.nan)
        centred = values - self._mean(values, counts)
        return np.asarray(np.nansum(centred**2, axis=0) / divisor)

    @staticmethod
    def _mean(values: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(np.nansum(values, axis=0) / np.where(counts > 0, counts, np.nan))

    def _folded(
        self, values: NDArray[np.float64], counts: NDArray[np.int64], variance: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        if self.aggregate == "mean":
            return self._mean(values, counts)
        if self.aggregate == "mean_minus_variance":
            return self._mean(values, counts) - self._sign * self.penalty * variance
        folded = np.full(values.shape[1], np.nan)
        known = counts > 0
        if self.aggregate == "median":
            folded[known] = np.nanmedian(values[:, known], axis=0)
        else:
            folded[known] = self._sign * np.nanmin(self._sign * values[:, known], axis=0)
        return folded

    def fold(self, scores: Sequence[torch.Tensor]) -> torch.Tensor:
        """The same on the gradient path, where the members' scores have a gradient."""
        import torch  # noqa: PLC0415  # loaded already

        means, deviations = (torch.as_tensor(row).to(scores[0]) for row in (self._means, self._deviations))
        values = (torch.stack(list(scores)) - means[:, None]) / deviations[:, None]
        applies = ~values.isnan()
        counts = applies.sum(dim=0)
        if self.aggregate == "min":
            folded = self._sign * torch.where(applies, self._sign * values, torch.inf).min(dim=0).values
        elif self.aggregate == "median":
            rising = torch.where(applies, values, torch.inf).sort(dim=0).values
            middle = torch.stack([(counts - 1).clamp(min=0) // 2, counts.clamp(max=len(scores) - 1) // 2])
            folded = rising.gather(0, middle).mean(dim=0)
        else:
            known = torch.where(applies, values, 0.0)
            folded = known.sum(dim=0) / counts
            if self.aggregate == "mean_minus_variance":
                squares = torch.where(applies, known - folded, 0.0).square().sum(dim=0)
                folded = folded - self._sign * self.penalty * squares / torch.where(
                    counts > self.ddof, counts - self.ddof, torch.nan
                )
        return torch.where(counts > 0, folded, torch.nan)
