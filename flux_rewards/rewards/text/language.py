"""Whether a response is in the language that it should be in."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.data import RewardOutput, Sample
from flux_rewards.errors import ConfigError, InputError, MissingDependencyError, brief
from flux_rewards.rewards.text.language_parts import parts_of
from flux_rewards.rewards.text.language_prose import letters_in, prose_of
from flux_rewards.validation import checked_text, texts, whole_number

if TYPE_CHECKING:
    from lingua import LanguageDetector, LanguageDetectorBuilder
    from typing_extensions import Unpack

__all__ = ["LanguageReward"]

_NEEDS = 'pip install "flux_rewards[language]"'


class LanguageReward(RewardFunction):
    """letters of parts in the wanted language / letters of all parts.

    A part is a sentence or more, in one script: short sentences are taken together until there is enough to tell. Code,
    formulas, tags, addresses and numbers are left out first. Each part counts for the language that lingua finds in it.

    Left out is what stands between two delimiters; one that is never closed hides nothing, so code that was cut off
    counts. Within them, sentences (five words in a row, such as a long comment) and words in another script than Latin
    and Greek count all the same. And where formulas, tags and the like hold more letters, in different words, than the
    rest of the response (and more than 150), they count too: a response cannot hide what it is written in.

    Args:
        language: The wanted language of all responses, such as ``"de"`` (ISO 639-1; ``"de-AT"`` counts as ``"de"``).
        metadata_key: Where ``Sample.metadata`` names the wanted language instead. With neither of the two it is that of
            the prompt: the language of most of its letters.
        languages: Those to tell apart, such as ``["en", "de", "zh"]``; None for all 75 that lingua knows. With few it
            is faster, surer, and small: all take 1.1 GB of memory and some ten seconds to load. A part in a language
            that is not among them is taken for one that is.
        min_letters: With fewer letters than this in the response, or in a prompt that decides, it does not apply: the
            language of ``OK`` is anybody's guess.
        **options: Of every reward; see `RewardFunction`.

    Bounds: (0, 1). Does not apply (None) to a response that is too short, or code alone, nor where the metadata hold
    None or the prompt is too short to tell. Metadata: ``wanted``; ``letters``, how many are in which language;
    ``left_out``, the share of all letters that are in code, formulas, tags and addresses, and were not judged.

    Raises:
        ConfigError: `language` and `metadata_key` are both given, or a language is none that lingua knows, or none of
            `languages`.
        InputError: The metadata lack `metadata_key`, or name no known language.
        MissingDependencyError: At the first call: lingua is not installed.

    Does not see a single foreign word in a sentence of the same script, and tells close languages (Norwegian and
    Danish, Malay and Indonesian) apart only in long parts. Source: the language consistency reward of DeepSeek-R1
    (arXiv 2501.12948), the share of the words that are in the wanted language; the detector is lingua.

    Examples:
        >>> reward = LanguageReward("en", languages=["en", "de"])
        >>> reward(response=["The sum of two and three is five.", "Die Summe von zwei und drei ist fünf."]).rewards
        array([1., 0.])
    """

    required_fields: Sequence[str] = ("response",)
    optional_fields: Sequence[str] | None = ()
    bounds = (0.0, 1.0)
    example_config = {"language": "en", "languages": ["en", "de"]}

    def __init__(
        self,
        language: str | None = None,
        metadata_key: str | None = None,
        languages: Sequence[str] | None = None,
        min_letters: int = 10,
        **options: Unpack[RewardOptions],
    ) -> None:
        super().__init__(**options)
        if language is not None and metadata_key is not None:
            raise ConfigError("give language or metadata_key, not both", reward=self.name)
        self.language = language if language is None else checked_text(language, "language", self.name)
        self.metadata_key = metadata_key
        if metadata_key is not None:
            checked_text(metadata_key, "metadata_key", self.name)
            self.optional_fields = ("metadata",)
        elif language is None:
            self.required_fields = ("prompt", "response")
        if languages is not None:
            codes = {_primary(code) for code in texts(languages, "languages", self.name)}
            if len(codes) < 2:
                raise ConfigError(
                    f"languages must name two to tell apart, found {brief(languages)}; add those that a response may "
                    "slip into",
                    reward=self.name,
                )
            if language is not None and _primary(language) not in codes:
                raise ConfigError(
                    f"language must be one of languages, found {language!r} and {brief(languages)}", reward=self.name
                )
        self.languages = languages
        self.min_letters = whole_number(min_letters, "min_letters", self.name, low=1)

    def load(self) -> None:
        """Read the models of all the languages; without it, each is read when it is first needed."""
        self._detector()
        _builder(self._wanted_languages()).with_preloaded_language_models().build()

    def compute_reward(self, sample: Sample) -> RewardOutput | None:
        """One score, and what languages it is made of."""
        detector = self._detector()
        wanted = self._wanted(sample)
        if wanted is None:
            return None
        text = sample.response_text
        letters = self._letters(detector, text)
        total = sum(letters.values())
        if total < self.min_letters:
            return None
        left_out = prose_of(text).left_out / letters_in(text)
        noted = {"wanted": wanted, "letters": dict(letters), "left_out": left_out}
        return RewardOutput(letters[wanted] / total, metadata=noted)

    def _wanted(self, sample: Sample) -> str | None:
        if self.language is not None:
            return _primary(self.language)
        if self.metadata_key is None:
            letters = self._letters(self._detector(), sample.prompt_text)
            return max(letters, key=letters.__getitem__) if sum(letters.values()) >= self.min_letters else None
        if self.metadata_key not in sample.metadata:
            raise InputError(
                f"expected a language at {self.metadata_key!r} (None where there is none to ask for), found "
                f"{brief(sorted(map(str, sample.metadata)))}",
                field="metadata",
            )
        named = sample.metadata[self.metadata_key]
        if named is None:
            return None
        known = _codes(self._wanted_languages())
        if not isinstance(named, str) or _primary(named) not in known:
            raise InputError(
                f"expected one of {', '.join(sorted(known))} at {self.metadata_key!r}, found {brief(named)}",
                field="metadata",
            )
        return _primary(named)

    def _letters(self, detector: LanguageDetector, text: str) -> Counter[str]:
        """How many letters are in which language."""
        letters: Counter[str] = Counter()
        for part in parts_of(prose_of(text).text):
            found = detector.detect_language_of(part)
            if found is not None:
                letters[found.iso_code_639_1.name.lower()] += letters_in(part)
        return letters

    def _wanted_languages(self) -> frozenset[str] | None:
        return None if self.languages is None else frozenset(map(_primary, self.languages))

    def _detector(self) -> LanguageDetector:
        chosen = self._wanted_languages()
        known = _codes(None)
        asked = {*(chosen or ()), *([] if self.language is None else [_primary(self.language)])}
        if not asked <= known:
            raise ConfigError(
                f"languages are named by their codes, {', '.join(sorted(known))}; found {', '.join(asked - known)}",
                reward=self.name,
            )
        return _detector(chosen)


def _primary(code: str) -> str:
    """``"zh"`` of ``"zh-Hans"``."""
    return re.split("[-_.]", code.strip(), maxsplit=1)[0].lower()


def _lingua() -> Any:
    try:
        import lingua  # noqa: PLC0415  # of an extra
    except ImportError as error:
        raise MissingDependencyError(f"languages are told apart by lingua, which is not installed: {_NEEDS}") from error
    return lingua


@lru_cache(maxsize=64)
def _codes(chosen: frozenset[str] | None) -> frozenset[str]:
    return chosen or frozenset(language.iso_code_639_1.name.lower() for language in _lingua().Language.all())


@lru_cache(maxsize=8)
def _detector(chosen: frozenset[str] | None) -> LanguageDetector:
    """One for all rewards of the same languages; lingua holds the models themselves once a process."""
    return _builder(chosen).build()


def _builder(chosen: frozenset[str] | None) -> LanguageDetectorBuilder:
    lingua = _lingua()
    if chosen is None:
        return lingua.LanguageDetectorBuilder.from_all_languages()  # type: ignore[no-any-return]
    codes = [lingua.IsoCode639_1.from_str(code.upper()) for code in sorted(chosen)]
    return lingua.LanguageDetectorBuilder.from_iso_codes_639_1(*codes)  # type: ignore[no-any-return]
