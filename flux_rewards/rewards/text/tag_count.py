"""How many of some tags a response has exactly once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.data import RewardOutput, Sample
from flux_rewards.rewards.text.format import checked_tags

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["TagCount"]


class TagCount(RewardFunction):
    """(tags that occur exactly once) / tags: 0.25 for each of ``<think>``, ``</think>``, ``<answer>``, ``</answer>``.

    A soft form of `FormatReward`, for policies that seldom get the whole form right.

    Args:
        tags: Names of the blocks, without brackets; each has an opening and a closing tag.
        **options: Of every reward; see `RewardFunction`.

    Bounds: (0, 1). An empty response scores 0.0. Metadata: ``wrong``, the tags that are missing or repeated.

    Raises:
        ConfigError: A tag is no name, or listed twice.

    Does not look at the order of the tags, or at what is around them; `FormatReward` does. Source: the
    ``tag_count_reward`` of open-r1, which wants newlines beside the tags; this doesn't.

    Examples:
        >>> TagCount()(response=["<think>a</think><answer>7</answer>", "<think>a</think>7", "<think><think>"]).rewards
        array([1. , 0.5, 0. ])
    """

    required_fields = ("response",)
    optional_fields = ()
    bounds = (0.0, 1.0)
    example_config = {"tags": ["think", "result"]}

    def __init__(self, tags: Sequence[str] = ("think", "answer"), **options: Unpack[RewardOptions]) -> None:
        super().__init__(**options)
        self.tags = tags
        self._tags = [tag for name in checked_tags(tags, self.name) for tag in (f"<{name}>", f"</{name}>")]

    def compute_reward(self, sample: Sample) -> RewardOutput:
        """The share of right tags, and the wrong ones."""
        text = sample.response_text
        wrong = [tag for tag in self._tags if text.count(tag) != 1]
        return RewardOutput(1.0 - len(wrong) / len(self._tags), metadata={"wrong": wrong})
