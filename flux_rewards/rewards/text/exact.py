"""Whether a response is the reference, word for word."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.data import RewardOutput, Sample
from flux_rewards.rewards.text.normalization import NORMALIZERS, accepted_texts
from flux_rewards.rewards.text.parts import PARTS, part_of
from flux_rewards.rewards.text.words import Keywords
from flux_rewards.validation import one_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ExactMatch"]


class ExactMatch(RewardFunction):
    r"""1.0 where the response equals the reference, or one of several accepted ones; else 0.0.

    Args:
        normalize: What is done to both before they are compared. ``"none"``: nothing; ``"strip"``: whitespace
            around them is dropped; ``"casefold"``: capitals, the amount of whitespace and the form of accents (NFC)
            don't matter; ``"squad"``: the normalisation of the SQuAD evaluation script: lower case, without ASCII
            punctuation, without the articles a, an and the, whitespace squeezed.
        part: What is compared: ``"response"``: all of it; ``"final"``: what follows the last ``</think>``, and all of
            it without that tag; in the final part, ``"answer"``: what the last ``<answer>...</answer>`` holds;
            ``"boxed"``: what the last ``\boxed{...}`` holds; ``"last_line"``: the last line that is not blank;
            ``"code_block"``: what the one fenced code block holds. Thinking that never ends has none of these parts.
        contained: A response that holds the reference as whole words, and more, scores len(reference) / len(response)
            in characters after normalisation, so that naming many answers earns little.
        **options: Of every reward; see `RewardFunction`.

    The reference is a text, a number (compared as Python prints it: ``18`` is not ``18.0``), or a list of those.

    Bounds: (0, 1); only these two values, unless `contained`. An empty response equals an empty reference, and
    nothing else. A response without the wanted part scores 0.0. Metadata, where a part is asked for: ``answer``, that
    part, or None.

    Raises:
        ConfigError: `normalize` or `part` is none of these.
        InputError: The reference is anything else, or an empty list.

    Does not compare values; `NumericAnswerReward` does. Under ``"squad"`` the texts 3.5 and 35 are alike, since the
    published rule drops every full stop. Sources: Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine
    Comprehension of Text" (2016), evaluate-v1.1.py; the rule of `contained` is that of reasoning-gym's datasets, but
    for whole words.

    Examples:
        >>> ExactMatch()(response=[" Paris\n", "paris"], reference=["Paris", "Paris"]).rewards
        array([1., 0.])
        >>> ExactMatch("squad")(response=["The Eiffel Tower!"], reference=[["eiffel tower", "tour Eiffel"]]).rewards
        array([1.])
        >>> ExactMatch(part="answer")(response=["It is <answer>Paris</answer>"], reference=["Paris"]).rewards
        array([1.])
    """

    required_fields = ("response", "reference")
    optional_fields = ()
    bounds = (0.0, 1.0)
    example_config = {"normalize": "squad", "part": "answer"}

    def __init__(
        self,
        normalize: str = "strip",
        part: str = "response",
        contained: bool = False,
        **options: Unpack[RewardOptions],
    ) -> None:
        super().__init__(**options)
        self.normalize = one_of(normalize, "normalize", self.name, tuple(NORMALIZERS))
        self.part = one_of(part, "part", self.name, tuple(PARTS))
        self.contained = contained

    def compute_reward(self, sample: Sample) -> RewardOutput:
        """1.0, 0.0, or the part of the response that the reference is."""
        accepted = accepted_texts(sample.reference)
        answer = part_of(sample.response_text, self.part)
        noted = {} if self.part == "response" else {"answer": answer}
        return RewardOutput(0.0 if answer is None else self._score(answer, accepted), metadata=noted)

    def _score(self, answer: str, accepted: list[str]) -> float:
        normalized = NORMALIZERS[self.normalize]
        given, wanted = normalized(answer), [normalized(text) for text in accepted]
        if given in wanted:
            return 1.0
        held = [text for text in wanted if self.contained and text.strip() and _keyword(text).present(given)]
        return max((len(text) / len(given) for text in held if len(text) < len(given)), default=0.0)


@lru_cache(maxsize=1024)
def _keyword(text: str) -> Keywords:
    """Cached: a group of responses shares its reference."""
    return Keywords([text], ignore_case=False)
