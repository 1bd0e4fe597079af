"""Scores for a trainer that knows numbers only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from flux_rewards.errors import ComputeError
from flux_rewards.validation import number

if TYPE_CHECKING:
    from flux_rewards.contract import Scored

__all__ = ["Numbers"]


class Numbers:
    """What a trainer that has no word for "no score" is given: numbers, or an error; nothing else unless asked for.

    Args:
        not_applicable: The number for a sample to which the reward does not apply; None raises.
        on_error: The number for a sample that could not be scored; None raises. The policy learns from it.
        adapter: Whose they are, for messages.

    An `on_error` holds for an outage of everything, too: of samples that a trainer shows one by one nobody knows which
    share failed, so that the `max_failure_rate` of a `MaskErrors` within the reward is not asked there. Where a trainer
    shows batches, it is, and raises.

    Examples:
        >>> import numpy as np
        >>> from flux_rewards import RewardBatch
        >>> from flux_rewards.contract import Scored
        >>> Numbers(0.0, None, "my adapter")(Scored(RewardBatch([0.5, np.nan]), {}))
        [0.5, 0.0]
    """

    def __init__(self, not_applicable: float | None, on_error: float | None, adapter: str) -> None:
        self.adapter = adapter
        self.not_applicable, self.on_error = (
            None if value is None else number(value, f"{adapter}: {what}", "")
            for what, value in (("not_applicable", not_applicable), ("on_error", on_error))
        )

    def __call__(self, scored: Scored) -> list[float]:
        """One number a sample.

        Raises:
            FluxRewardsError: A sample failed, and there is no `on_error`: its own error.
            ComputeError: The reward does not apply to a sample, and there is no `not_applicable`.
        """
        batch = scored.batch
        values: list[float] = batch.rewards.tolist()
        for row, value in enumerate(values):
            if not math.isnan(value):
                continue
            if row in batch.errors:
                if self.on_error is None:
                    raise scored.causes.get(row) or ComputeError(batch.errors[row], index=row)
                values[row] = self.on_error
            elif self.not_applicable is None:
                raise ComputeError(
                    f"the reward does not apply to this sample, and {self.adapter} has no word for that: give "
                    "not_applicable=... to choose a number, or leave such samples out",
                    index=row,
                )
            else:
                values[row] = self.not_applicable
        return values
