"""Whether a response chooses the right option."""

from __future__ import annotations

import string
from collections.abc import Sequence
from functools import lru_cache
from numbers import Integral
from typing import TYPE_CHECKING, Any

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.data import RewardOutput, Sample
from flux_rewards.errors import ConfigError, InputError, brief
from flux_rewards.rewards.text.choices import OptionReader
from flux_rewards.validation import checked_text, texts

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["MultipleChoice"]


class MultipleChoice(RewardFunction):
    r"""1.0 where the response chooses the right option, by its letter or its text; else 0.0.

    Which option. Of a response with thinking, what follows ``</think>`` is read; thinking that never ends has no
    answer. The last of these markers decides: ``\boxed{...}``, ``<answer>...</answer>``, ``answer is``, ``answer:``,
    ``choice is``, ``option is``, ``choose``, ``pick``, ``select``, ``答案是``, ``选``. What stands there is the letter,
    alone or before what it stands for (``B``, ``(B)``, ``B) Paris``, ``**B.**``, ``\text{B}``, ``B because ...``), or
    the option's text and nothing else. A marker of words with neither behind it (``the answer is obvious``) leaves it
    to the one before. Without a marker it is the last line, where that is a letter or an option's text; else the first
    or last line that begins with ``B)``, ``B.`` or ``(B)``; else the last ``B is correct`` (``B是正确的``); else the
    only letter in brackets on the last line. Full-width letters are letters.

    Nothing is found inside other words, and ``a`` and ``I`` as words are no options. Two options at once (``A or B``,
    ``(A), (B)``) are no answer, nor are the options copied: several with their letters on one line or line by line, or
    their letters or texts one below the other.

    Args:
        options: The options' texts, where all samples have the same ones, such as ``["yes", "no"]``.
        options_key: The key of `Sample.metadata` with a list of the sample's options, where `options` are not given.
            A sample without it is read by letters alone.
        labels: The options' letters in order; a sample with fewer options uses the first ones.
        **options_of_rewards: Of every reward; see `RewardFunction`.

    The reference is a letter, the option's position (a whole number, from 0), or the option's text. A text that is
    none of these: the reward does not apply (None).

    Bounds: (0, 1); only these two values. An empty response scores 0.0. Metadata: ``answer``, the letter that was
    read, or None, and then ``why``: ``"ambiguous"`` or ``"no answer"``.

    Raises:
        ConfigError: A parameter is out of its range.
        InputError: The reference is no text and no position of an option, or the options are no list of texts.

    Does not weigh answers with several right options, and does not guess from an option's text inside a sentence.

    Examples:
        >>> choice = MultipleChoice()
        >>> choice(response=["So the answer is (B).", "A or B", r"\boxed{C}"], reference=["B", "B", 1]).rewards
        array([1., 0., 0.])
        >>> MultipleChoice(["Rome", "Paris"])(response=["The answer is Paris."], reference=["Paris"]).rewards
        array([1.])
    """

    required_fields = ("response", "reference")
    optional_fields = ("metadata",)
    bounds = (0.0, 1.0)
    example_config = {"options": ["3", "4"]}

    def __init__(
        self,
        options: Sequence[str] | None = None,
        options_key: str = "options",
        labels: str = "ABCDEFGHIJ",
        **options_of_rewards: Unpack[RewardOptions],
    ) -> None:
        super().__init__(**options_of_rewards)
        self.labels = checked_text(labels, "labels", self.name)
        allowed = set(string.ascii_letters + string.digits)
        if not set(labels) <= allowed or len(set(labels)) < len(labels):
            raise ConfigError(f"labels must be different letters or digits, found {brief(labels)}", reward=self.name)
        self.options = options
        if options is not None and not 1 < len(texts(options, "options", self.name)) <= len(labels):
            raise ConfigError(f"options must be 2 to {len(labels)} texts, found {brief(options)}", reward=self.name)
        self.options_key = checked_text(options_key, "options_key", self.name)

    def compute_reward(self, sample: Sample) -> RewardOutput | None:
        """1.0 or 0.0, and the letter behind it; None where the reference names no option."""
        options = self.options if self.options is not None else self._options_of(sample)
        reader = _reader(self.labels, tuple(options))
        expected = _expected(sample.reference, reader)
        if expected is None:
            return None
        label, why = reader.read(sample.response_text)
        noted = {"answer": label} if label is not None else {"answer": None, "why": why}
        return RewardOutput(float(label == expected), metadata=noted)

    def _options_of(self, sample: Sample) -> Sequence[str]:
        given: Any = sample.metadata.get(self.options_key)
        if given is None:
            return ()
        ok = isinstance(given, (list, tuple)) and all(isinstance(text, str) and text.strip() for text in given)
        if not ok or not 0 < len(given) <= len(self.labels):
            raise InputError(
                f"expected 1 to {len(self.labels)} texts under {self.options_key!r}, found {brief(given)}; "
                "give the options' texts in the order of the labels",
                field="metadata",
            )
        return list(given)


@lru_cache(maxsize=1024)
def _reader(labels: str, options: tuple[str, ...]) -> OptionReader:
    """Cached: a group of responses shares its question."""
    return OptionReader(labels, options)


def _expected(reference: Any, reader: OptionReader) -> str | None:
    if isinstance(reference, str):
        return reader.label_of(reference)
    if isinstance(reference, bool) or not isinstance(reference, Integral):
        raise InputError(
            f"expected a letter, a position or an option's text, found {brief(reference)}", field="reference"
        )
    if not 0 <= int(reference) < len(reader.labels):
        raise InputError(
            f"expected a position from 0 to {len(reader.labels) - 1}, found {reference}", field="reference"
        )
    return reader.labels[int(reference)]
