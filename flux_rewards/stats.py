"""What a leaf did during one call: how often it was asked, how long that took, and what went wrong."""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["RewardStats"]


@dataclass
class RewardStats:
    """Counters of one leaf of a tree during one call, summed over its chunks.

    Attributes:
        calls: Calls of the reward; for one that scores sample by sample, its chunks. Retries count again.
        samples: Samples that went through, cached ones too.
        seconds: Time spent in the reward's own code, summed over threads; without pauses between retries.
        queue_seconds: Time that chunks waited for a thread and a lane, summed over chunks.
        retries: Calls that were made again after a failure.
        failures: Samples that have no score in the end.
        cache_hits: Samples whose score was known.

    Examples:
        >>> stats = RewardStats(calls=1, samples=8)
        >>> stats.add(RewardStats(calls=2, samples=8, retries=1))
        >>> stats.calls, stats.samples, stats.retries
        (3, 16, 1)
    """

    calls: int = 0
    samples: int = 0
    seconds: float = 0.0
    queue_seconds: float = 0.0
    retries: int = 0
    failures: int = 0
    cache_hits: int = 0

    def add(self, other: RewardStats) -> None:
        """Count what another one counted, too."""
        for field in _NAMES:
            setattr(self, field, getattr(self, field) + getattr(other, field))


_NAMES = tuple(field.name for field in fields(RewardStats))
