"""How many words a response shares with the reference."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.data import RewardOutput, Sample
from flux_rewards.rewards.text.normalization import NORMALIZERS, accepted_texts
from flux_rewards.rewards.text.parts import PARTS, part_of
from flux_rewards.validation import one_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["TokenF1"]


class TokenF1(RewardFunction):
    r"""2 P R / (P + R) over the words that a response and the reference share; the best of several references.

    With P = shared words / words of the response, R = shared words / words of the reference, each word counted as
    often as it occurs in both.

    Args:
        normalize: What is done to both first: ``"squad"`` (lower case, without ASCII punctuation and articles),
            ``"casefold"``, ``"strip"`` or ``"none"``; see `ExactMatch`.
        unit: ``"words"``: what whitespace separates; ``"characters"``: every character that is not whitespace, for
            scripts without spaces.
        part: What is compared: ``"response"``, ``"final"``, ``"answer"``, ``"boxed"``, ``"last_line"`` or
            ``"code_block"``; see `ExactMatch`.
        **options: Of every reward; see `RewardFunction`.

    The reference is a text, a number, or a list of those.

    Bounds: (0, 1). Where nothing is left of one of the two after normalisation: 1.0 if nothing is left of both, else
    0.0, as in the script for SQuAD 2.0. A response without the wanted part scores 0.0. Metadata: ``precision`` and
    ``recall`` against the best reference.

    Raises:
        ConfigError: A parameter is none of these.
        InputError: The reference is anything else, or an empty list.

    Does not stem, and does not see the order of the words. Source: Rajpurkar et al., "Know What You Don't Know:
    Unanswerable Questions for SQuAD" (2018), evaluate-v2.0.py.

    Examples:
        >>> f1 = TokenF1()
        >>> f1(response=["It is the Eiffel Tower."], reference=[["Eiffel Tower", "tour Eiffel"]]).rewards.round(3)
        array([0.667])
        >>> TokenF1(unit="characters")(response=["東京都"], reference=["東京"]).rewards.round(3)
        array([0.8])
    """

    required_fields = ("response", "reference")
    optional_fields = ()
    bounds = (0.0, 1.0)
    example_config = {"part": "answer"}

    def __init__(
        self,
        normalize: str = "squad",
        unit: str = "words",
        part: str = "response",
        **options: Unpack[RewardOptions],
    ) -> None:
        super().__init__(**options)
        self.normalize = one_of(normalize, "normalize", self.name, tuple(NORMALIZERS))
        self.unit = one_of(unit, "unit", self.name, ("words", "characters"))
        self.part = one_of(part, "part", self.name, tuple(PARTS))

    def compute_reward(self, sample: Sample) -> RewardOutput:
        """The best F1, with its precision and recall."""
        accepted = accepted_texts(sample.reference)
        answer = part_of(sample.response_text, self.part)
        if answer is None:
            return RewardOutput(0.0, metadata={"precision": 0.0, "recall": 0.0})
        given = _counted(answer, self.normalize, self.unit)
        scores = [_f1(given, _reference_counts(text, self.normalize, self.unit)) for text in accepted]
        f1, precision, recall = max(scores)
        return RewardOutput(f1, metadata={"precision": precision, "recall": recall})


def _f1(given: Counter[str], wanted: Counter[str]) -> tuple[float, float, float]:
    if not given or not wanted:
        same = float(given == wanted)
        return same, same, same
    shared, total, needed = (given & wanted).total(), given.total(), wanted.total()
    return 2 * shared / (total + needed), shared / total, shared / needed


def _counted(text: str, normalize: str, unit: str) -> Counter[str]:
    normalized = NORMALIZERS[normalize](text)
    return Counter(normalized.split() if unit == "words" else "".join(normalized.split()))


@lru_cache(maxsize=1024)
def _reference_counts(text: str, normalize: str, unit: str) -> Counter[str]:
    """Cached: a group of responses shares its reference."""
    return _counted(text, normalize, unit)
