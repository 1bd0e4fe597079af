"""What TRL logs of a batch, beside the values that it takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from flux_rewards.wrappers.retry import Retry

if TYPE_CHECKING:
    from flux_rewards.base import RewardFunction
    from flux_rewards.data import RewardBatch
    from flux_rewards.stats import RewardStats

__all__ = ["Log", "numbers_of"]


class Log:
    """Tells TRL, through its ``log_metric`` and ``log_extra``, what it does not see itself.

    Metrics, each ``rewards/<name>/...``: ``failed`` and ``not_applicable``, shares of the batch, of the total and its
    parts; ``mean`` and ``std`` of parts that are no functions of their own to TRL; ``mean`` of the parts of parts;
    ``seconds`` of every leaf, and ``retries`` and ``cache_hits`` where something retries or caches; ``weight``, where
    weights go by a schedule. Columns: ``<name>/error``, the reasons of failures, and the scores that TRL does not see.

    Args:
        reward: The reward.
        separate: Whether its parts are functions of their own to TRL.

    Examples:
        >>> from flux_rewards import CompositeReward, LengthReward
        >>> reward = CompositeReward({"brief": (LengthReward(target=2), 1.0)})
        >>> metrics = {}
        >>> Log(reward, separate=False)(reward(response=["a", "a b"]), {}, metrics.__setitem__, None)
        >>> metrics["rewards/CompositeReward/brief/mean"], metrics["rewards/CompositeReward/failed"]
        (0.75, 0.0)
    """

    def __init__(self, reward: RewardFunction, *, separate: bool) -> None:
        self._reward = reward
        self._separate = separate
        nodes = list(_nodes(reward))
        self._counters = [("seconds", True)]
        self._counters.append(("retries", any(isinstance(node, Retry) for node in nodes)))
        self._counters.append(("cache_hits", any(getattr(node, "remembers", False) for node in nodes)))
        self._seen: dict[str, None] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, (self._reward, self._separate)

    def __call__(
        self,
        batch: RewardBatch,
        weights: Mapping[str, float],
        log_metric: Callable[[str, float], Any] | None,
        log_extra: Callable[[str, list[Any]], Any] | None,
    ) -> None:
        """Log a batch.

        Args:
            batch: What the reward said.
            weights: Those of a schedule.
            log_metric: TRL's; None where it has none.
            log_extra: TRL's; None where it has none.
        """
        if log_metric is not None and len(batch):
            for name, value in {**self._scores(batch), **self._statistics(batch.stats)}.items():
                log_metric(name, value)
            for name, weight in weights.items():
                log_metric(f"rewards/{self._reward.name}/{name}/weight", weight)
        if log_extra is not None:
            table = self._table(batch)
            self._seen.update(dict.fromkeys(table))
            for column in self._seen:  # TRL's table of several batches has no place for one that some of them lack
                log_extra(column, table.get(column, [None] * len(batch)))

    def _parts(self, batch: RewardBatch) -> Iterator[tuple[str, RewardBatch, int]]:
        """All parts by their path, and how deep they are."""
        prefix = "" if self._separate else f"{self._reward.name}/"
        waiting = [(f"{prefix}{name}", part, 1) for name, part in batch.parts.items()]
        while waiting:
            path, part, depth = waiting.pop(0)
            yield path, part, depth
            waiting += [(f"{path}/{name}", inner, depth + 1) for name, inner in part.parts.items()]

    def _scores(self, batch: RewardBatch) -> dict[str, float]:
        # TRL averages over processes and batches, so that none of the numbers may be NaN.
        found = _shares(self._reward.name, batch)
        for path, part, depth in self._parts(batch):
            scored = part.rewards[~np.isnan(part.rewards)]
            if depth == 1:
                found.update(_shares(path, part))
            if len(scored) and (depth > 1 or not self._separate):
                found[f"rewards/{path}/mean"] = float(scored.mean())
            if len(scored) and depth == 1 and not self._separate:
                found[f"rewards/{path}/std"] = float(scored.std(ddof=1)) if len(scored) > 1 else 0.0
        return found

    def _statistics(self, stats: Mapping[str, RewardStats]) -> dict[str, float]:
        return {
            f"rewards/{leaf}/{counter}": float(getattr(of_leaf, counter))
            for leaf, of_leaf in stats.items()
            for counter, counts in self._counters
            if counts
        }

    def _table(self, batch: RewardBatch) -> dict[str, list[Any]]:
        table: dict[str, list[Any]] = {
            f"{self._reward.name}/error": [batch.errors.get(row) for row in range(len(batch))]
        }
        for path, part, depth in self._parts(batch):
            if depth > 1 or not self._separate:
                table[path] = numbers_of(part.rewards)
        return table


def _shares(path: str, batch: RewardBatch) -> dict[str, float]:
    return {
        f"rewards/{path}/failed": float(batch.failed.mean()),
        f"rewards/{path}/not_applicable": float(batch.not_applicable.mean()),
    }


def _nodes(reward: RewardFunction) -> Iterator[RewardFunction]:
    yield reward
    for child in reward.children:
        yield from _nodes(child)


def _remade(reward: RewardFunction, separate: bool) -> Log:
    return Log(reward, separate=separate)


def numbers_of(values: Any) -> list[float | None]:
    """An array as TRL takes it: None for NaN.

    Examples:
        >>> numbers_of(np.array([0.5, np.nan]))
        [0.5, None]
    """
    return [None if math.isnan(value) else value for value in values.tolist()]
