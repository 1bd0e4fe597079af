"""ROUGE, as rouge-score computes it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import ConfigError
from flux_rewards.rewards.text.similarity import SimilarityReward, missing_text_extra
from flux_rewards.rewards.text.words import UNSPACED
from flux_rewards.validation import one_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flux_rewards.base import RewardOptions

__all__ = ["ROUGEReward", "unicode_words"]

_KINDS = ("rougeL", "rougeLsum", *(f"rouge{n}" for n in range(1, 10)))
_ALONE = re.compile(f"[{UNSPACED}]")


class ROUGEReward(SimilarityReward):
    """ROUGE-N, ROUGE-L or ROUGE-Lsum, 0 to 1; the best of several references.

    With c = n-grams in common (each as often as in both), or the length of the longest common subsequence of words:
    precision P = c / those of the response, recall R = c / those of the reference, F = 2 P R / (P + R).

    Args:
        kind: ``"rouge1"`` to ``"rouge9"``; ``"rougeL"``: the longest common subsequence; ``"rougeLsum"``: the same line
            by line, as for summaries of a sentence a line.
        score: ``"fmeasure"``, ``"precision"`` or ``"recall"``.
        tokenize: ``"ascii"``: rouge-score's own: lower case, and nothing but a to z and 0 to 9, so that other letters
            are dropped; ``"unicode"``: words of any script in lower case, where scripts without spaces (Chinese,
            Japanese, Thai) are taken character by character.
        stem: Words are cut to their stem (Porter, English). Of ``"ascii"`` only.
        part: What is compared; see `SimilarityReward`.
        **options: Of every reward; see `RewardFunction`.

    With ``"ascii"`` equal to ``rouge_score.rouge_scorer.RougeScorer([kind], use_stemmer=stem)``.

    Bounds: (0, 1). 0.0 where no word is left of the response or of the reference.

    Raises:
        ConfigError: A parameter is none of these.
        InputError: The reference is no text or number, and no list of those.
        MissingDependencyError: rouge-score or rapidfuzz is not installed.

    Does not split sentences. ``"rougeLsum"`` takes as many steps as the two texts' words multiplied, in Python; the
    others are fast on long texts too. Source: Lin, "ROUGE: A Package for Automatic Evaluation of Summaries" (2004).

    Examples:
        >>> rouge = ROUGEReward("rougeL")
        >>> rouge(response=["the cat is on the mat"], reference=["The cat sat on the mat."]).rewards.round(3)
        array([0.833])
        >>> ROUGEReward("rouge1", tokenize="unicode")(response=["東京に行く"], reference=["東京へ行く"]).rewards
        array([0.8])
    """

    example_config = {"kind": "rouge1"}

    def __init__(
        self,
        kind: str = "rougeL",
        score: str = "fmeasure",
        tokenize: str = "ascii",
        *,
        stem: bool = False,
        part: str = "response",
        **options: Unpack[RewardOptions],
    ) -> None:
        super().__init__(part, **options)
        self.kind = one_of(kind, "kind", self.name, _KINDS)
        self.score = one_of(score, "score", self.name, ("fmeasure", "precision", "recall"))
        self.tokenize = one_of(tokenize, "tokenize", self.name, ("ascii", "unicode"))
        self.stem = stem
        if stem and tokenize != "ascii":
            raise ConfigError("stem=True is of tokenize='ascii': the stemmer is one of English", reward=self.name)

    def similarities(self, texts: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
        """The best score over the references of each text."""
        try:
            from rapidfuzz.distance import LCSseq  # noqa: PLC0415  # part of the extra
            from rouge_score import rouge_scorer, scoring, tokenizers  # noqa: PLC0415  # part of the extra
        except ImportError as error:
            raise missing_text_extra("rouge-score and rapidfuzz", error) from error
        split = tokenizers.DefaultTokenizer(self.stem).tokenize if self.tokenize == "ascii" else unicode_words
        words = _Memory(split)
        scorer = rouge_scorer.RougeScorer([self.kind], tokenizer=words)

        def score(reference: str, text: str) -> Any:
            if self.kind != "rougeL":
                return scorer.score(reference, text)[self.kind]
            # The library's own table takes a cell for each pair of words, in Python: seconds for long texts.
            wanted, given = words.tokenize(reference), words.tokenize(text)
            common = LCSseq.similarity(wanted, given)
            precision, recall = common / max(len(given), 1), common / max(len(wanted), 1)
            return scoring.Score(precision, recall, scoring.fmeasure(precision, recall))

        return [
            max(getattr(score(reference, text), self.score) for reference in several)
            for text, several in zip(texts, references, strict=True)
        ]


class _Memory:
    """A tokenizer of rouge-score that splits each text once: responses of a group share their reference."""

    def __init__(self, split: Any) -> None:
        self._split = split
        self._seen: dict[str, list[str]] = {}

    def tokenize(self, text: str) -> list[str]:
        if text not in self._seen:
            self._seen[text] = self._split(text)
        return self._seen[text]


class _Plain(dict[int, int | str]):
    """What becomes of each character: letters, digits and their marks stay, what parts words is a space."""

    def __missing__(self, character: int) -> int | str:
        self[character] = " " if unicodedata.category(chr(character))[0] in "PSZC" else character
        return self[character]


_PLAIN = _Plain()


def unicode_words(text: str) -> list[str]:
    """The words of a text of any script in lower case (composed, NFC); scripts without spaces by character.

    Examples:
        >>> unicode_words("L'été, 東京 2024")
        ['l', 'été', '東', '京', '2024']
    """
    plain = unicodedata.normalize("NFC", text).casefold().translate(_PLAIN)
    return _ALONE.sub(r" \g<0> ", plain).split()
