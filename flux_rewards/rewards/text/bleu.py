"""BLEU and chrF, as sacrebleu computes them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import ConfigError
from flux_rewards.rewards.text.similarity import SimilarityReward, missing_text_extra
from flux_rewards.validation import number, one_of, whole_number

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flux_rewards.base import RewardOptions

__all__ = ["BLEUReward", "ChrFReward"]

# sacrebleu has others, which download their model.
_TOKENIZERS = ("13a", "intl", "char", "zh", "ja-mecab", "ko-mecab", "none")
_SMOOTHING = ("exp", "floor", "add-k", "none")


class _SacrebleuReward(SimilarityReward, abstract=True):
    """A score of sacrebleu, from 0 to 100, divided by 100."""

    def similarities(self, texts: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
        """One score a text; the n-grams of references that several texts share are counted once."""
        split = self._splitter()
        metrics: dict[tuple[str, ...], Any] = {}
        scores: list[float] = []
        for text, several in zip(texts, references, strict=True):
            shared = tuple(several)
            if shared not in metrics:
                metrics[shared] = self._metric([[split(reference)] for reference in several])
            # A corpus of one, against the references that the metric holds: the sentence's score.
            scores.append(min(metrics[shared].corpus_score([split(text)], None).score / 100, 1.0))
        return scores

    def _splitter(self) -> Callable[[str], str]:
        """What is done to a text before the metric sees it."""
        return str

    def _metric(self, references: list[list[str]]) -> Any:
        raise NotImplementedError


class BLEUReward(_SacrebleuReward):
    """Sentence BLEU, 0 to 1: exp(mean of the logarithms of the n-gram precisions) * brevity penalty.

    Equal to ``sacrebleu.BLEU(effective_order=True).sentence_score(response, references).score / 100``. Several
    references are BLEU's own: each n-gram may be in any, and the reference closest in length decides on brevity.

    Args:
        max_n: Longest n-grams.
        tokenize: ``"13a"`` (that of WMT), ``"intl"`` (by the classes of Unicode), ``"char"``, ``"zh"``, ``"ja-mecab"``
            and ``"ko-mecab"`` (packages of their own: ``pip install "sacrebleu[ja]"``), or ``"none"`` (whitespace).
        smoothing: What is put for a precision of 0: ``"exp"`` (1/2, 1/4, ... of one n-gram), ``"floor"``, ``"add-k"``,
            or ``"none"``.
        smooth_value: Of ``"floor"`` (0.1 by default) and ``"add-k"`` (1 by default).
        effective_order: In a response of fewer words than `max_n` only the n-grams that fit count.
        lowercase: Whether capitals don't matter.
        part: What is compared; see `SimilarityReward`.
        **options: Of every reward; see `RewardFunction`.

    Bounds: (0, 1). 0.0 where no word is shared, so for an empty response or reference too.

    Raises:
        ConfigError: A parameter is out of its range.
        InputError: The reference is no text or number, and no list of those.
        MissingDependencyError: sacrebleu is not installed, or the package behind a tokenizer.

    Does not see words in Chinese, Japanese or Thai with ``"13a"``: use ``"char"``, or the language's own. Source:
    Papineni et al., "BLEU" (2002); Post, "A Call for Clarity in Reporting BLEU Scores" (2018).

    Examples:
        >>> bleu = BLEUReward()
        >>> bleu(response=["the cat sat on the mat", "a dog"], reference=["the cat sat on a mat"] * 2).rewards.round(3)
        array([0.537, 0.068])
    """

    example_config = {"tokenize": "char"}

    def __init__(
        self,
        max_n: int = 4,
        tokenize: str = "13a",
        smoothing: str = "exp",
        *,
        smooth_value: float | None = None,
        effective_order: bool = True,
        lowercase: bool = False,
        part: str = "response",
        **options: Unpack[RewardOptions],
    ) -> None:
        super().__init__(part, **options)
        self.max_n = whole_number(max_n, "max_n", self.name, low=1)
        self.tokenize = one_of(tokenize, "tokenize", self.name, _TOKENIZERS)
        self.smoothing = one_of(smoothing, "smoothing", self.name, _SMOOTHING)
        if smooth_value is not None:
            number(smooth_value, "smooth_value", self.name, above=0)
            if smoothing not in ("floor", "add-k"):
                raise ConfigError(
                    f"smooth_value is of smoothing 'floor' and 'add-k', found {smoothing!r}", reward=self.name
                )
        self.smooth_value = smooth_value
        self.effective_order = effective_order
        self.lowercase = lowercase

    def _splitter(self) -> Callable[[str], str]:
        split = _without_memory(self._bleu(tokenize=self.tokenize).tokenizer)
        return lambda text: split((text.lower() if self.lowercase else text).rstrip())

    def _metric(self, references: list[list[str]]) -> Any:
        return self._bleu(tokenize="none", references=references)

    def _bleu(self, **options: Any) -> Any:
        try:
            from sacrebleu.metrics.bleu import BLEU  # noqa: PLC0415  # part of the extra

            return BLEU(
                force=True,
                smooth_method=self.smoothing,
                smooth_value=self.smooth_value,
                max_ngram_order=self.max_n,
                effective_order=self.effective_order,
                **options,
            )
        except (ImportError, RuntimeError) as error:  # RuntimeError: a tokenizer without its package
            raise missing_text_extra("sacrebleu", ImportError(str(error))) from error


def _without_memory(tokenizer: Any) -> Callable[[str], str]:
    """A tokenizer of sacrebleu that does not keep the last 65,536 texts, which are gigabytes in a long run."""
    inner = vars(tokenizer).get("_post_tokenizer")
    if inner is not None:
        tokenizer._post_tokenizer = _without_memory(inner)  # noqa: SLF001  # the memory is nowhere else
    call = type(tokenizer).__call__
    return functools.partial(getattr(call, "__wrapped__", call), tokenizer)


class ChrFReward(_SacrebleuReward):
    """chrF, 0 to 1: the F-score of character n-grams, recall counting `beta` times as much as precision.

    Equal to ``sacrebleu.CHRF(...).sentence_score(response, references).score / 100``; the best of several references.

    Args:
        char_order: Longest n-grams of characters.
        word_order: Longest n-grams of words; 0 is chrF, 2 is chrF++.
        beta: Weight of recall, at least 1.
        lowercase: Whether capitals don't matter.
        whitespace: Whether whitespace counts as a character.
        part: What is compared; see `SimilarityReward`.
        **options: Of every reward; see `RewardFunction`.

    Bounds: (0, 1). 0.0 for an empty response or reference.

    Raises:
        ConfigError: A parameter is out of its range.
        InputError: The reference is no text or number, and no list of those.
        MissingDependencyError: sacrebleu is not installed.

    Does not normalise Unicode. Source: Popović, "chrF" (2015) and "chrF++" (2017).

    Examples:
        >>> ChrFReward()(response=["the cat sat", "le chat"], reference=["the cats sat", "le chat"]).rewards.round(3)
        array([0.687, 1.   ])
    """

    example_config = {"char_order": 4}

    def __init__(
        self,
        char_order: int = 6,
        word_order: int = 0,
        beta: int = 2,
        *,
        lowercase: bool = False,
        whitespace: bool = False,
        part: str = "response",
        **options: Unpack[RewardOptions],
    ) -> None:
        super().__init__(part, **options)
        self.char_order = whole_number(char_order, "char_order", self.name, low=1)
        self.word_order = whole_number(word_order, "word_order", self.name, low=0)
        self.beta = whole_number(beta, "beta", self.name, low=1)
        self.lowercase = lowercase
        self.whitespace = whitespace

    def _metric(self, references: list[list[str]]) -> Any:
        try:
            from sacrebleu.metrics.chrf import CHRF  # noqa: PLC0415  # part of the extra
        except ImportError as error:
            raise missing_text_extra("sacrebleu", error) from error
        return CHRF(
            char_order=self.char_order,
            word_order=self.word_order,
            beta=self.beta,
            lowercase=self.lowercase,
            whitespace=self.whitespace,
            references=references,
        )
