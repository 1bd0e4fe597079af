"""Which tokens of a response belong to good and bad words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.data import RewardOutput, Sample
from flux_rewards.rewards.text.words import good_and_bad
from flux_rewards.rewards.tokens.alignment import checked_offsets, tokens_of_spans
from flux_rewards.validation import number, one_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["TokenKeywordReward"]


class TokenKeywordReward(RewardFunction):
    """One value a token: `good_weight` where it overlaps a good keyword, plus `bad_weight` where it overlaps a bad one.

    `token_rewards` has one value a token of `token_ids`; `reward` is their mean, so the dense and the scalar view
    say the same: ``sum(token_rewards) == reward * len(token_ids)``. A token that overlaps several good occurrences
    counts once.

    Warning:
        Each occurrence of a good keyword is paid, and the mean is a density: ``because because because`` scores 1.0,
        and a sentence with one ``because`` far less, so a policy learns to repeat it and to be brief. With
        ``occurrences="first"`` repeating a keyword earns nothing; the mean still falls with the length, so take
        `KeywordReward` for the score of a whole response.

    Args:
        good: Words and phrases whose tokens are rewarded.
        bad: Words and phrases whose tokens are punished.
        good_weight: Value of a token of a good keyword.
        bad_weight: Value of a token of a bad keyword; as it is added, a penalty is negative.
        ignore_case: Whether capitals don't matter.
        occurrences: ``"all"``: each occurrence of a good keyword is paid; ``"first"``: the first of each keyword. Bad
            ones always count each time.
        **options: Of every reward; see `RewardFunction`.

    Whole words and phrases only, as for `KeywordReward`; see `Keywords`. Unlike there, each occurrence counts.
    Offsets are (start, end) characters of the text that is judged (`Sample.response_text`); an empty span, such as
    the (0, 0) of a special token, overlaps nothing. A space that a tokenizer keeps in front of a word does no harm:
    touching is not overlapping.

    Bounds: the least and greatest of 0 and what the weights can add up to; (-1, 1) by default with both lists. Does
    not apply (None) to a response without tokens. Metadata: ``good`` and ``bad``, how many tokens overlap each.

    Raises:
        ConfigError: Both lists are empty, a keyword is blank, or one is listed twice or in both; a weight is no
            number; `occurrences` is neither of these.
        InputError: `token_offsets` differ from `token_ids` in number, or are no spans of the text.

    Does not tokenize, and does not guess offsets: a fast tokenizer gives them (``return_offsets_mapping=True``), and
    `offsets_of` finds those of tokens that a policy sampled.

    Examples:
        >>> reward = TokenKeywordReward(good=["because"], bad=["maybe"])
        >>> offsets = [(0, 5), (5, 8), (8, 13)]
        >>> reward(response=["maybe because"], token_ids=[[5, 6, 7]], token_offsets=[offsets]).token_rewards
        [array([-1.,  1.,  1.])]
    """

    required_fields = ("response", "token_ids", "token_offsets")
    optional_fields = ()
    bounds = (-1.0, 1.0)
    example_config = {"good": ["because", "therefore"], "bad": ["maybe"]}

    def __init__(
        self,
        good: Sequence[str] = (),
        bad: Sequence[str] = (),
        good_weight: float = 1.0,
        bad_weight: float = -1.0,
        ignore_case: bool = True,
        *,
        occurrences: str = "all",
        **options: Unpack[RewardOptions],
    ) -> None:
        gain = number(good_weight, "good_weight", self.name) if good else 0.0
        loss = number(bad_weight, "bad_weight", self.name) if bad else 0.0
        reached = (0.0, gain, loss, gain + loss)
        # Before the base rescales them.
        self.bounds = (min(reached), max(reached))
        super().__init__(**options)
        self._good, self._bad = good_and_bad(good, bad, self.name, ignore_case=ignore_case)
        self.good = good
        self.bad = bad
        self.good_weight = good_weight
        self.bad_weight = bad_weight
        self.ignore_case = ignore_case
        self.occurrences = one_of(occurrences, "occurrences", self.name, ("all", "first"))

    def compute_reward(self, sample: Sample) -> RewardOutput | None:
        """One value a token, and their mean."""
        text = sample.response_text
        offsets = checked_offsets(sample)
        if not len(offsets):
            return None
        good = tokens_of_spans(self._good.spans(text, first_only=self.occurrences == "first"), offsets)
        bad = tokens_of_spans(self._bad.spans(text), offsets)
        values = good * float(self.good_weight) + bad * float(self.bad_weight)
        return RewardOutput(
            float(values.mean()),
            token_rewards=values,  # type: ignore[arg-type]  # an array is a sequence of numbers here
            metadata={"good": int(good.sum()), "bad": int(bad.sum())},
        )
