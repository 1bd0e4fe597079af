"""Failures that may pass as NaN, as long as they are few."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from flux_rewards.errors import ComputeError
from flux_rewards.validation import number
from flux_rewards.wrappers.wrapper import Wrapper

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flux_rewards.base import RewardFunction
    from flux_rewards.data import RewardBatch, Sample

__all__ = ["MaskErrors"]


class MaskErrors(Wrapper):
    """Failures of a reward become NaN with a reason in `RewardBatch.errors`, as long as they are few.

    Without it the first failure raises. Mistakes in the set-up (a wrong configuration, a missing package, a checkpoint
    that does not fit, a missing field, a wrong number of rows) raise all the same: they are no accident of one sample.

    Args:
        reward: The reward whose failures are masked; of a composite, those of all its parts.
        max_failure_rate: Raise once more than this share of a batch has failed, in [0, 1].
        on_error: A number to use for failed samples instead of NaN. The policy will learn from it. The reason moves to
            ``metadata["masked_error"]``, since the sample then counts as scored.
        name: What it is called.

    Raises:
        ComputeError: On a call, more than `max_failure_rate` of the batch failed.

    Examples:
        >>> from flux_rewards import FunctionReward
        >>> inverse = MaskErrors(FunctionReward(lambda s: 1 / len(s.response), name="inverse"))
        >>> batch = inverse(response=["ab", ""])
        >>> batch.rewards, batch.errors
        (array([0.5, nan]), {1: 'ZeroDivisionError: division by zero'})
    """

    masks_failures = True
    example_config: ClassVar = {**Wrapper.example_config, "max_failure_rate": 0.25}

    def __init__(
        self,
        reward: RewardFunction,
        max_failure_rate: float = 0.5,
        *,
        on_error: float | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(reward, name=name)
        self.max_failure_rate = number(max_failure_rate, "max_failure_rate", self.label, low=0.0, high=1.0)
        self.on_error = on_error if on_error is None else number(on_error, "on_error", self.label)
        if self.bounds is not None and self.on_error is not None:
            self.bounds = (min(self.bounds[0], self.on_error), max(self.bounds[1], self.on_error))

    def combine(self, batches: Sequence[RewardBatch], samples: Sequence[Sample]) -> RewardBatch:  # noqa: ARG002
        """Let few failures pass."""
        (batch,) = batches
        count, failed = len(batch), len(batch.errors)
        if count and failed / count > self.max_failure_rate:
            first, reason = next(iter(sorted(batch.errors.items())))
            raise ComputeError(
                f"{failed} of {count} samples failed, more than max_failure_rate={self.max_failure_rate:g} allows; "
                f"the first: {reason}",
                reward=self.name,
                index=first,
            )
        if self.on_error is None or not failed:
            return batch
        metadata = list(batch.metadata)
        for index, reason in batch.errors.items():
            metadata[index] = {**metadata[index], "masked_error": reason}
        rewards = np.where(batch.failed, self.on_error, batch.rewards)
        return replace(batch, rewards=rewards, metadata=metadata, errors={})
