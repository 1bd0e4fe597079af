"""The parts of a reward by name, their weights, and their weighted sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flux_rewards.advantages.arrays import Array, Form, namespace, values_of
from flux_rewards.data import RewardBatch
from flux_rewards.errors import ConfigError, InputError, brief, close_match
from flux_rewards.validation import number

__all__ = ["Parts", "has_parts"]

Name = Any  # of a part: text, or the number of its column


def has_parts(rewards: Any) -> bool:
    """Whether rewards come by part: a mapping of columns, or an array of shape (N, K).

    Examples:
        >>> has_parts({"length": [1.0]}), has_parts([1.0])
        (True, False)
    """
    return isinstance(rewards, Mapping) or getattr(rewards, "ndim", 1) == 2


@dataclass(frozen=True)
class Parts:
    """What each part of a reward said about N samples.

    Attributes:
        columns: By name, in order, each of shape (N,), NaN where the part has no score.
        failed: The samples that have no total since a part failed, shape (N,).
        form: How results go out.
        named: Whether the caller named them, one by one, so that each counts 1 where no weights are given.

    Examples:
        >>> parts = Parts.of({"correct": [1.0, 0.0], "short": [0.5, None]})
        >>> parts.weighted_sum(parts.weights({"short": 2.0, "correct": 1.0}))
        array([2., 0.])
    """

    columns: dict[Name, Array]
    failed: Array
    form: Form
    named: bool = False

    @staticmethod
    def of(rewards: Any) -> Parts:
        """The parts of a `RewardBatch`, of a mapping of columns, or of an array with a column a part, (N, K).

        Raises:
            ConfigError: There are no parts.
            InputError: They differ in length, or do not consist of finite numbers and NaN.
        """
        if isinstance(rewards, RewardBatch):
            if not rewards.parts:
                raise ConfigError("this batch has no parts; score with a CompositeReward, or pass {name: rewards, ...}")
            given: Mapping[Name, Any] = {name: part.rewards for name, part in rewards.parts.items()}
        elif isinstance(rewards, Mapping):
            given = rewards
        elif has_parts(rewards):
            given = dict(enumerate(rewards.T))
        else:
            raise ConfigError(
                f"rewards by part are a RewardBatch with parts, a mapping {{name: rewards}} or an array (N, K), found "
                f"{brief(rewards)}"
            )
        if not given:
            raise ConfigError("there are no parts; pass {name: rewards, ...} with at least one")
        form = Form.of(next((column for column in given.values() if Form.of(column).dtype is not None), None))
        columns = {name: values_of(column, f"the rewards of {name!r}", form)[0] for name, column in given.items()}
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise InputError(f"the parts differ in length: {lengths}; each needs one reward a sample")
        first = next(iter(columns.values()))
        failed = namespace(first).zeros_like(first, dtype=bool if form.dtype is None else _torch_bool())
        if isinstance(rewards, RewardBatch) and rewards.errors:
            failed[list(rewards.errors)] = True
        return Parts(columns, failed, form, isinstance(rewards, Mapping))

    def weights(self, weights: Mapping[Name, float] | Sequence[float] | None) -> dict[Name, float]:
        """A weight for each part: by name, in their order, or 1 each.

        Raises:
            ConfigError: A part has no weight, a weight no part, or a weight is not a finite number.
        """
        if weights is None and not self.named and len(self.columns) > 1:
            raise ConfigError(
                f"the rewards have {len(self.columns)} parts, and no weights; pass weights=reward.weights (1.0 each to "
                "count them alike). Rewards of shape (groups, n) are written rewards.reshape(-1), n"
            )
        if weights is None:
            return dict.fromkeys(self.columns, 1.0)
        if not isinstance(weights, Mapping):
            listed = weights.tolist() if hasattr(weights, "tolist") else list(weights)
            if len(listed) != len(self.columns):
                raise ConfigError(f"{len(listed)} weights for {len(self.columns)} parts: {list(self.columns)}")
            weights = dict(zip(self.columns, listed, strict=True))
        for name in weights:
            if name not in self.columns:
                hint = close_match(str(name), map(str, self.columns))
                raise ConfigError(f"weights names {name!r}{hint}; the parts are {list(self.columns)}")
        if absent := [name for name in self.columns if name not in weights]:
            raise ConfigError(f"weights has none for {absent}; give each part one, 0.0 to leave it out")
        return {name: number(weights[name], f"the weight of {name!r}", "") for name in self.columns}

    def weighted_sum(self, weights: Mapping[Name, float]) -> Array:
        """What applies, times its weight, added up; NaN where nothing applies and where a part failed."""
        total, scored = self.sum_of(self.columns, weights)
        return namespace(total).where(scored & ~self.failed, total, float("nan"))

    def sum_of(self, columns: Mapping[Name, Array], weights: Mapping[Name, float]) -> tuple[Array, Array]:
        """The weighted sum of columns without what is NaN, and where there was anything to add, each (N,)."""
        xp = namespace(self.failed)
        total: Array = 0.0
        scored = xp.zeros_like(self.failed)
        for name, column in columns.items():
            applies = ~xp.isnan(column)
            total = total + weights[name] * xp.where(applies, column, 0.0)
            scored = scored | applies
        return total, scored

    def conditioned(self, conditions: Mapping[Name, tuple[Name, float]] | None) -> Parts:
        """Parts that count only where another is high enough, and are 0 elsewhere.

        Args:
            conditions: ``{part: (other, at_least)}``. Where the other has no score, the part has none either.

        Raises:
            ConfigError: A part does not exist, or `at_least` is not a number.
        """
        columns = dict(self.columns)
        condition: Any
        for name, condition in (conditions or {}).items():
            if not isinstance(condition, (tuple, list)) or len(condition) != 2:
                raise ConfigError(f"conditions are {{part: (other part, at_least)}}, found {brief(condition)}")
            other, at_least = condition
            for part in (name, other):
                if part not in self.columns:
                    hint = close_match(str(part), map(str, self.columns))
                    raise ConfigError(f"conditions names {part!r}{hint}; the parts are {list(self.columns)}")
            number(at_least, f"at_least in the condition of {name!r}", "")
            xp, deciding = namespace(columns[name]), self.columns[other]
            counted = xp.where(deciding >= at_least, columns[name], 0.0)
            columns[name] = xp.where(xp.isnan(columns[name]) | xp.isnan(deciding), float("nan"), counted)
        return Parts(columns, self.failed, self.form, self.named)


def _torch_bool() -> Any:
    import torch  # noqa: PLC0415  # the rewards are tensors

    return torch.bool
