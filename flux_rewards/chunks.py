"""A chunk: samples of one leaf on their way through the wrappers above it to the reward, and back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from flux_rewards.contract import Scored
from flux_rewards.stats import RewardStats
from flux_rewards.threads import Stop, this_thread

if TYPE_CHECKING:
    from flux_rewards.data import RewardBatch, Sample
    from flux_rewards.lanes import Claim
    from flux_rewards.tree import Node

__all__ = ["Chunk", "Proceed", "Recalled", "Run", "compute"]


@dataclass
class Run:
    """What the parts of a chunk share while it runs.

    Attributes:
        stopped: Set when nobody wants the result any more: a pause must end, and nothing new begin.
        claim: The right to call the reward, while the chunk runs.
        stats: What the chunk adds to the leaf's counters.
        shared: What the rewards of the batch may share, such as features of its images.
        in_line: Whether a call waits for a lane: those of the chunk are held by calls that are over their time.
    """

    stopped: Stop
    claim: Claim | None = None
    shared: dict[Any, Any] = field(default_factory=dict)
    stats: RewardStats = field(default_factory=RewardStats)
    in_line: bool = False


@dataclass(frozen=True, eq=False)
class Chunk:
    """Samples of one leaf that travel together.

    Attributes:
        reward: The leaf.
        samples: The samples.
        positions: Their positions in the caller's batch.
        run: What is shared with the other parts of the chunk.
        stop_at_failure: Nothing above masks failures, so the first one is enough.
        notes: What wrappers noted about the chunk's samples when they first saw them, by wrapper and position.
    """

    reward: Node
    samples: Sequence[Sample]
    positions: Sequence[int]
    run: Run
    stop_at_failure: bool
    notes: dict[int, dict[int, Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.samples)

    def part(self, rows: Sequence[int]) -> Chunk:
        """Some of its rows; the chunk itself where those are all."""
        if len(rows) == len(self.samples):
            return self
        return replace(
            self,
            samples=[self.samples[row] for row in rows],
            positions=[self.positions[row] for row in rows],
        )

    def failure(self, error: Exception) -> Scored:
        """All of it failed, for one reason."""
        return Scored.failure(error, reward=self.reward.name, indices=self.positions)

    def each_call(self, proceed: Proceed) -> Scored:
        """Let the author's code see as little at a time as it is made for: one sample, or the chunk."""
        if len(self) == 1 or self.reward.scope == "group" or not self.reward.scores_by_sample:
            return proceed(self)
        pieces: list[tuple[list[int], Scored]] = []
        for row in range(len(self)):
            if self.run.stopped.is_set():
                raise CancelledError
            scored = proceed(self.part([row]))
            pieces.append(([row], scored))
            if scored.causes and self.stop_at_failure:
                break
        return Scored.scatter(len(self), pieces)


class Recalled(NamedTuple):
    """What a wrapper knows of the units of a chunk: single rows, or whole groups.

    Attributes:
        known: Numbers of the units that are known.
        batch: Their rows, one unit after the other.
        twins: Other units to an earlier one of the same content, whose rows they are to get.
    """

    known: Sequence[int]
    batch: RewardBatch
    twins: Mapping[int, int]


Proceed = Callable[[Chunk], Scored]
"""What runs a chunk: the next wrapper, or the reward itself."""


def compute(chunk: Chunk) -> Scored:
    """Run the reward's own code, innermost of all."""
    run, reward = chunk.run, chunk.reward
    lane = None
    if run.claim is not None:
        run.in_line = True
        try:
            lane = run.claim.call(run.stopped.is_set)
        except TimeoutError as error:
            return chunk.failure(error)
        run.in_line = False
    before = this_thread.busy, this_thread.shared, this_thread.stopped, this_thread.stop_at_failure
    this_thread.busy, this_thread.shared = (*this_thread.busy, id(reward)), run.shared
    this_thread.stopped, this_thread.stop_at_failure = run.stopped, chunk.stop_at_failure
    started = time.perf_counter()
    try:
        return reward.score_chunk(chunk.samples, chunk.positions, stop_at_failure=chunk.stop_at_failure)
    finally:
        run.stats.calls += 1
        run.stats.seconds += time.perf_counter() - started
        this_thread.busy, this_thread.shared, this_thread.stopped, this_thread.stop_at_failure = before
        if lane is not None:
            lane.unshare()
