"""Rewards for a part of the samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from flux_rewards.wrappers.wrapper import CallWrapper

if TYPE_CHECKING:
    from flux_rewards.chunks import Chunk, Proceed
    from flux_rewards.contract import Scored

__all__ = ["WhenGiven"]


class WhenGiven(CallWrapper):
    """A reward that does not apply to samples without a field that it requires, where it would be an `InputError`.

    For mixed data sets: rows with and without a reference, texts and images. The reward is not called with such a
    sample; its score is NaN, and a `CompositeReward` leaves it out of that sample's sum. All other samples are scored
    as without the wrapper. A reward that compares samples sees those of a group that have the fields. Around a
    composite, each leaf goes by its own fields.

    A field that is None is missing; an empty text is not. A wrong name of a column looks like one that is missing
    everywhere, and then nothing is scored: watch how many samples have a score.

    Args:
        reward: The reward whose required fields a sample may lack.
        name: What it is called; the reward's name by default.

    Does not look at `RewardFunction.optional_fields`, or into `Sample.metadata`. ``forward``, the gradient path, is the
    reward's own, and takes no sample without the fields.

    Examples:
        >>> from flux_rewards import CompositeReward, ExactMatch, LengthReward
        >>> mixed = CompositeReward({"right": (WhenGiven(ExactMatch()), 1.0), "brief": (LengthReward(target=1), 0.5)})
        >>> batch = mixed(response=["4", "four"], reference=["4", None])
        >>> batch.parts["right"].rewards, batch.rewards
        (array([ 1., nan]), array([1.5, 0.5]))
    """

    skips_missing = True
    required_fields: ClassVar[tuple[str, ...]] = ()  # type: ignore[misc]  # whatever the reward requires
    example_config: ClassVar = {"reward": {"reward_model": "exact_match"}}

    def around(self, chunk: Chunk, proceed: Proceed) -> Scored:
        """As it is: a chunk holds only samples that have the fields."""
        return proceed(chunk)
