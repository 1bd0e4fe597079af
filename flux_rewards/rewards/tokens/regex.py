"""Which tokens of a response belong to what a regular expression matches."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

import numpy as np

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.data import RewardOutput, Sample
from flux_rewards.errors import ConfigError, brief
from flux_rewards.rewards.text.regex import compiled
from flux_rewards.rewards.tokens.alignment import checked_offsets, tokens_of_spans
from flux_rewards.validation import number, one_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["TokenRegexReward"]


class TokenRegexReward(RewardFunction):
    r"""One value a token: `value` where it overlaps a match of the pattern, else 0.

    `token_rewards` has one value a token of `token_ids`; `reward` is their mean, so the dense and the scalar view say
    the same: ``sum(token_rewards) == reward * len(token_ids)``.

    Warning:
        Each match is paid, and the mean is a density: the more often a response says what matches, and the less beside
        it, the higher it scores. With ``occurrences="first"`` repeating earns nothing; the mean still falls with the
        length, so take `RegexReward` for the score of a whole response.

    Args:
        pattern: A regular expression, as Python writes them. Flags go inside: ``(?m)`` lets ``^`` and ``$`` match at
            each line, ``(?s)`` lets ``.`` match newlines.
        value: That of a token of a match; a penalty is negative.
        group: Which group of the pattern counts, by number or name; 0 is the whole match. One that took no part in a
            match counts nowhere.
        ignore_case: Whether capitals don't matter.
        occurrences: ``"all"``: each match counts; ``"first"``: the first that is not empty.
        **options: Of every reward; see `RewardFunction`.

    Matches don't overlap one another, and an empty match overlaps no token. Offsets are (start, end) characters of the
    text that is judged (`Sample.response_text`).

    Bounds: from 0 to `value`. Does not apply (None) to a response without tokens. Metadata: ``matched``, how many
    tokens overlap a match.

    Raises:
        ConfigError: `pattern` is no regular expression or has no such group, `value` is no number, or `occurrences`
            is neither of these.
        InputError: `token_offsets` differ from `token_ids` in number, or are no spans of the text.

    Does not tokenize, and does not guess offsets; see `offsets_of`. Does not limit the time that a pattern takes.

    Examples:
        >>> reward = TokenRegexReward(r"[0-9]+")
        >>> offsets = [(0, 3), (3, 5), (5, 6)]
        >>> reward(response=["is 42."], token_ids=[[5, 6, 7]], token_offsets=[offsets]).token_rewards
        [array([0., 1., 0.])]
    """

    required_fields = ("response", "token_ids", "token_offsets")
    optional_fields = ()
    bounds = (0.0, 1.0)
    example_config = {"pattern": "[0-9]+"}

    def __init__(
        self,
        pattern: str,
        value: float = 1.0,
        group: int | str = 0,
        ignore_case: bool = False,
        *,
        occurrences: str = "all",
        **options: Unpack[RewardOptions],
    ) -> None:
        worth = number(value, "value", self.name)
        self.bounds = (min(0.0, worth), max(0.0, worth))  # before the base rescales them
        super().__init__(**options)
        self.pattern = pattern
        self.value = value
        self.group = group
        self.ignore_case = ignore_case
        self.occurrences = one_of(occurrences, "occurrences", self.name, ("all", "first"))
        self._compiled = compiled(pattern, self.name, re.IGNORECASE if ignore_case else 0)
        known = [*range(self._compiled.groups + 1), *self._compiled.groupindex]
        if isinstance(group, bool) or group not in known:
            raise ConfigError(
                f"group must be one of the pattern's groups, {', '.join(map(str, known))}, found {brief(group)}",
                reward=self.name,
            )

    def compute_reward(self, sample: Sample) -> RewardOutput | None:
        """One value a token, and their mean."""
        offsets = checked_offsets(sample)
        if not len(offsets):
            return None
        # A group that took no part has the span (-1, -1), which is empty.
        spans = (match.span(self.group) for match in self._compiled.finditer(sample.response_text))
        held = (span for span in spans if span[0] < span[1])
        matched = tokens_of_spans(itertools.islice(held, 1 if self.occurrences == "first" else None), offsets)
        values = np.where(matched, float(self.value), 0.0)
        return RewardOutput(
            float(values.mean()),
            token_rewards=values,  # type: ignore[arg-type]  # an array is a sequence of numbers here
            metadata={"matched": int(matched.sum())},
        )
