"""The parts of a reward under names that never change, for trainers that want the same keys of every sample."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from flux_rewards.combinator import UnaryCombinator
from flux_rewards.errors import ComputeError, ConfigError, ContractError, brief, close_match
from flux_rewards.naming import distinct
from flux_rewards.wrappers.wrapper import Wrapper

if TYPE_CHECKING:
    from flux_rewards.base import RewardFunction
    from flux_rewards.data import RewardBatch
    from flux_rewards.integrations.numbers import Numbers

__all__ = ["NamedParts", "known_parts"]


def known_parts(reward: RewardFunction) -> list[str]:
    """The names of the parts that `reward` is known to have before it scored anything; none for most rewards.

    Examples:
        >>> from flux_rewards import CompositeReward, GroupRank, LengthReward, MaskErrors
        >>> both = CompositeReward([(LengthReward(target=2), 0.5), (LengthReward(target=9), 0.5)])
        >>> known_parts(MaskErrors(both)), known_parts(GroupRank(both)), known_parts(LengthReward(target=2))
        (['LengthReward', 'LengthReward_2'], ['CompositeReward'], [])
    """
    if isinstance(reward, Wrapper):
        return known_parts(reward.reward)
    weights = getattr(reward, "weights", None)
    if reward.children and isinstance(weights, Mapping):
        return list(weights)
    return [child.name for child in reward.children] if isinstance(reward, UnaryCombinator) else []


class NamedParts:
    """The number of each part of each sample, under the same keys whatever the samples.

    Args:
        reward: The reward.
        numbers: What stands for "no score"; where it has no number for that, a part without a score raises.
        names: The parts; None for those that the reward is known to have. A reward whose parts are known only from its
            answers, such as a rubric's, needs them named.
        taken: Keys that are the adapter's own; a part with such a name gets a number behind it.

    Raises:
        ConfigError: A part that the reward has not.

    Examples:
        >>> from flux_rewards import CompositeReward, LengthReward
        >>> from flux_rewards.integrations.numbers import Numbers
        >>> reward = CompositeReward([(LengthReward(target=2, name="brief"), 0.5)])
        >>> NamedParts(reward, Numbers(None, None, "mine"), None, taken=["score"])(reward(response=["two words"]))
        [{'brief': 1.0}]
    """

    def __init__(
        self, reward: RewardFunction, numbers: Numbers, names: Sequence[str] | None, taken: Sequence[str] = ()
    ) -> None:
        self.numbers = numbers
        known = known_parts(reward)
        if isinstance(names, str) or not all(isinstance(name, str) for name in names or ()):
            raise ConfigError(f"{numbers.adapter}: parts must be a list of names, found {brief(names)}")
        for name in names or ():
            if known and name not in known:
                raise ConfigError(
                    f"{numbers.adapter}: there is no part {name!r}{close_match(name, known)}; the parts are "
                    f"{', '.join(known)}",
                    reward=reward.name,
                )
        given = known if names is None else list(names)
        self._unseen = set() if known else set(given)  # nobody knows yet whether there are such parts
        self.keys = dict(zip(given, distinct([*taken, *given])[len(taken) :], strict=True))
        """Key by part."""

    def __call__(self, batch: RewardBatch) -> list[dict[str, float]]:
        """One mapping a sample.

        Raises:
            ComputeError: A part has no score for a sample, and no number stands for that.
            ContractError: A sample was scored, and a part was never seen: its name is a slip, which `not_applicable`
                would hide for ever.
        """
        self._check_there(batch)
        rows: list[dict[str, float]] = [{} for _ in range(len(batch))]
        for name, key in self.keys.items():
            part = batch.parts.get(name)
            for row, entry in enumerate(rows):
                value = float("nan") if part is None else float(part.rewards[row])
                failed = row in batch.errors or (part is not None and row in part.errors)
                entry[key] = self._missing(name, row, failed=failed) if math.isnan(value) else value
        return rows

    def _check_there(self, batch: RewardBatch) -> None:
        self._unseen -= set(batch.parts)
        scores = enumerate(batch.rewards.tolist())
        scored = next((row for row, score in scores if not (math.isnan(score) or _masked(batch, row))), None)
        if self._unseen and scored is not None:
            name = next(name for name in self.keys if name in self._unseen)
            raise ContractError(
                f"{self.numbers.adapter}: parts names {name!r}{close_match(name, batch.parts)}, and this sample was "
                f"scored without such a part; it has {', '.join(batch.parts) or 'none'}. A part that does not apply "
                "is None in RewardOutput(parts=...), not left out",
                index=scored,
            )

    def _missing(self, name: str, row: int, *, failed: bool) -> float:
        value = self.numbers.on_error if failed else self.numbers.not_applicable
        if value is None:
            why, what = ("failed for", "on_error") if failed else ("does not apply to", "not_applicable")
            raise ComputeError(
                f"its part {name!r} {why} this sample, and {self.numbers.adapter} has no word for that: give "
                f"{what}=... to choose a number, or leave the part out of parts=[...]",
                index=row,
            )
        return value


def _masked(batch: RewardBatch, row: int) -> bool:
    """Whether the score is the number of a `MaskErrors` for a sample that failed, and so has no parts."""
    return bool(batch.metadata) and "masked_error" in batch.metadata[row]
