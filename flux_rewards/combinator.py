"""Rewards that fold other rewards: the base of all of them, and of those that hold just one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from flux_rewards.base import RewardFunction
from flux_rewards.errors import ConfigError, ContractError, brief

if TYPE_CHECKING:
    import torch

    from flux_rewards.data import RewardBatch, Sample

__all__ = ["Combinator", "UnaryCombinator"]


class Combinator(RewardFunction, abstract=True):
    """A reward that is a pure fold of its children's results. It never computes.

    A subclass stores its arguments and its `children`, and overrides `combine`. Every child's result arrives for
    all samples, in order; failures arrive as `RewardBatch.errors` and must be carried up.

    Does not choose where its children run: that is the executor's part, and the same child twice runs once.

    Examples:
        >>> import numpy as np
        >>> from flux_rewards import FunctionReward, RewardBatch, Sample
        >>> class Best(Combinator):
        ...     def __init__(self, first, second):
        ...         self.children = (first, second)
        ...     def combine(self, batches, samples):
        ...         return RewardBatch(np.fmax(batches[0].rewards, batches[1].rewards))
        >>> Best(FunctionReward(lambda s: 1.0), FunctionReward(lambda s: 2.0))([Sample()]).rewards
        array([2.])
    """

    group_wise: ClassVar[bool] = False
    """Whether `combine` compares the samples of a group."""

    def __init_subclass__(cls, *, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(abstract=True, **kwargs)
        if not abstract and cls.combine is RewardFunction.combine:
            raise ContractError(f"{cls.__name__} must override combine(self, batches, samples)")

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name=name)  # the other options are for leaves: a fold computes nothing

    @property
    def required_fields(self) -> Sequence[str]:  # type: ignore[override]  # not an author's choice here
        """The fields that any leaf below reads."""
        return tuple(dict.fromkeys(field for child in self.children for field in child.required_fields))

    @property
    def scope(self) -> str:  # type: ignore[override]
        """``"group"`` where anything in the tree compares the samples of a group."""
        return "group" if self.group_wise or any(child.scope == "group" for child in self.children) else "sample"

    def fold(self, scores: Sequence[torch.Tensor]) -> torch.Tensor:  # noqa: ARG002
        """Fold the children's scores on the gradient path, each (N,), as `combine` folds their results.

        A combinator that overrides it is differentiable where all of its children are.
        """
        raise ContractError("has no fold for the gradient path", reward=self.name)

    @property
    def differentiable(self) -> bool:  # type: ignore[override]  # not an author's choice here
        """Whether it, and all that it folds, offers a gradient."""
        return type(self).fold is not Combinator.fold and all(child.differentiable for child in self.children)

    def forward(
        self, pixels: torch.Tensor, prompts: Sequence[str] | None = None, **columns: Sequence[Any]
    ) -> torch.Tensor:
        """Fold what the children give for the pixels; see `RewardFunction`."""
        if not self.differentiable:
            return super().forward(pixels, prompts, **columns)
        scores: dict[int, torch.Tensor] = {}
        for child in self.children:
            if id(child) not in scores:
                scores[id(child)] = child.forward(pixels, prompts, **columns)
        return self.fold([scores[id(child)] for child in self.children])

    def compute_rewards(self, samples: Sequence[Sample]) -> RewardBatch:
        """The same as calling it."""
        return self(samples)


class UnaryCombinator(Combinator, abstract=True):
    """A combinator of one reward, such as a transform or a wrapper.

    Args:
        reward: The reward.
        name: What it is called; ``Kind(reward)`` by default.

    Raises:
        ConfigError: `reward` is not a reward.

    Examples:
        >>> from flux_rewards import FunctionReward, RewardBatch, Sample
        >>> class Half(UnaryCombinator):
        ...     def combine(self, batches, samples):
        ...         return RewardBatch(batches[0].rewards / 2, errors=batches[0].errors)
        >>> Half(FunctionReward(lambda s: 1.0, name="one")).name
        'Half(one)'
    """

    example_config = {"reward": {"reward_model": "length", "target": 40}}

    def __init__(self, reward: RewardFunction, *, name: str | None = None) -> None:
        if not isinstance(reward, RewardFunction):
            raise ConfigError(f"reward must be a reward, found {brief(reward)}", reward=type(self).__name__)
        super().__init__(name=name or f"{type(self).__name__}({reward.name})")
        self.reward = reward
        self.children = (reward,)
        self.higher_is_better = reward.higher_is_better
