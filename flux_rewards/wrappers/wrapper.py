"""The bases of wrappers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flux_rewards.combinator import UnaryCombinator
from flux_rewards.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from flux_rewards.base import RewardFunction
    from flux_rewards.chunks import Chunk, Proceed, Recalled
    from flux_rewards.contract import Scored
    from flux_rewards.data import RewardBatch, Sample

__all__ = ["CallWrapper", "Wrapper"]


class Wrapper(UnaryCombinator, abstract=True):
    """Base of wrappers of one reward: its name, bounds, parts and tokens are those of the reward.

    Args:
        reward: The reward to wrap.
        name: What it is called; the reward's name by default.
    """

    def __init__(self, reward: RewardFunction, *, name: str | None = None) -> None:
        super().__init__(reward, name=name)
        self.label = self.name  # in errors about its own parameters
        if name is None:
            self.name = reward.name
        self.bounds = reward.bounds

    def combine(self, batches: Sequence[RewardBatch], samples: Sequence[Sample]) -> RewardBatch:  # noqa: ARG002
        """The reward's own result."""
        return batches[0]

    def fold(self, scores: Sequence[torch.Tensor]) -> torch.Tensor:
        """The reward's own scores."""
        return scores[0]


class CallWrapper(Wrapper, abstract=True):
    """Base of wrappers that stand around every call of the reward; of a composite, of each of its leaves.

    A subclass overrides `around`. Where wrappers are nested the outer one goes first. A reward that stands in one tree
    with and without a wrapper is computed for each.

    Attributes:
        patience: Seconds to wait for a lane where all are held by calls that are over their time; None: for ever.
        remembers: Whether `recall` may know scores, so that no call is needed; `remember` is told of those that a call
            in another process has given, where the wrapper itself is not sent.
        skips_missing: Whether the reward is not called with samples that lack a field that it requires, and does not
            apply to them.
    """

    wraps_calls = True
    patience: float | None = None
    remembers: bool = False
    skips_missing: bool = False

    def around(self, chunk: Chunk, proceed: Proceed) -> Scored:  # noqa: ARG002
        """Run a chunk.

        Args:
            chunk: Samples of one leaf. A part of them may be run, or one part after the other.
            proceed: Runs a chunk through what lies below.

        Returns:
            The chunk's rows, failures among them.
        """
        raise ContractError("must override around(self, chunk, proceed)", reward=self.name)

    def recall(self, chunk: Chunk, units: Sequence[Sequence[int]]) -> Recalled:  # noqa: ARG002
        """What is known of a chunk before anything is called; asked where `remembers`.

        Args:
            chunk: Samples of one leaf.
            units: Rows of it that are known together or not at all: single ones, or whole groups.
        """
        raise ContractError("must override recall(self, chunk, units)", reward=self.name)

    def remember(self, chunk: Chunk, scored: Scored) -> None:  # noqa: ARG002
        """What was computed where `around` was not."""
        raise ContractError("must override remember(self, chunk, scored)", reward=self.name)
