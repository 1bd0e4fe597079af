"""Which of some words a response uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.data import RewardOutput, Sample
from flux_rewards.rewards.text.words import good_and_bad

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["KeywordReward"]


class KeywordReward(RewardFunction):
    """(good keywords present / good keywords) - (bad keywords present / bad keywords).

    A keyword is present or not, however often it occurs, so repeating one earns nothing. A term without keywords is
    0.

    Args:
        good: Words and phrases that are wanted.
        bad: Words and phrases that are not.
        ignore_case: Whether capitals don't matter.
        **options: Of every reward; see `RewardFunction`.

    Whole words and phrases only: ``cat`` is not in ``concatenate``; see `Keywords` for words such as ``C++`` and
    for scripts without spaces.

    Bounds: (0, 1) with good keywords only, (-1, 0) with bad ones only, (-1, 1) with both. An empty response scores
    0.0. Metadata: ``good`` and ``bad``, the keywords that are present.

    Raises:
        ConfigError: Both lists are empty, a keyword is blank, or one is listed twice or in both.

    Does not stem (``cats`` is not ``cat``), and does not normalise Unicode.

    Examples:
        >>> reward = KeywordReward(good=["because", "therefore"], bad=["as an AI"])
        >>> reward(response=["Because of rain.", "As an AI, I cannot.", "Therefore, because."]).rewards
        array([ 0.5, -1. ,  1. ])
    """

    required_fields = ("response",)
    optional_fields = ()
    bounds = (-1.0, 1.0)
    example_config = {"good": ["because", "therefore"], "bad": ["maybe"]}

    def __init__(
        self,
        good: Sequence[str] = (),
        bad: Sequence[str] = (),
        ignore_case: bool = True,
        **options: Unpack[RewardOptions],
    ) -> None:
        # Before the base rescales them.
        self.bounds = (-1.0 if bad else 0.0, 1.0 if good else 0.0)
        super().__init__(**options)
        self._good, self._bad = good_and_bad(good, bad, self.name, ignore_case=ignore_case)
        self.good = good
        self.bad = bad
        self.ignore_case = ignore_case

    def compute_reward(self, sample: Sample) -> RewardOutput:
        """One score, and the keywords behind it."""
        text = sample.response_text
        good, bad = self._good.present(text), self._bad.present(text)
        score = len(good) / max(len(self._good.words), 1) - len(bad) / max(len(self._bad.words), 1)
        return RewardOutput(score, metadata={"good": good, "bad": bad})
