"""How few edits lead from a response to the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from flux_rewards.rewards.text.normalization import NORMALIZERS
from flux_rewards.rewards.text.similarity import SimilarityReward, missing_text_extra
from flux_rewards.validation import one_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flux_rewards.base import RewardOptions

__all__ = ["EditSimilarity"]

_KINDS = {"levenshtein": "Levenshtein", "osa": "OSA", "indel": "Indel", "lcs": "LCSseq"}


class EditSimilarity(SimilarityReward):
    """1 - edits / (as many as there could be); the best of several references.

    - ``"levenshtein"``: 1 - (insertions, deletions and replacements) / length of the longer text.
    - ``"osa"``: the same, where a swap of two neighbours is one edit too.
    - ``"indel"``: 1 - (insertions and deletions) / (both lengths together): 2 c / (both lengths together) with c = the
      length of the longest common subsequence.
    - ``"lcs"``: c / length of the longer text.

    Args:
        kind: ``"levenshtein"``, ``"osa"``, ``"indel"`` or ``"lcs"``.
        unit: What is edited: ``"characters"`` (code points), or ``"words"`` (what whitespace separates).
        normalize: What is done to both first: ``"none"``, ``"strip"``, ``"casefold"`` or ``"squad"``; see `ExactMatch`.
        part: What is compared; see `SimilarityReward`.
        **options: Of every reward; see `RewardFunction`.

    Bounds: (0, 1). An empty response scores 0.0, but 1.0 against an empty reference.

    Raises:
        ConfigError: A parameter is none of these.
        InputError: The reference is no text or number, and no list of those.
        MissingDependencyError: rapidfuzz is not installed.

    Does not weigh edits. Source: Levenshtein (1966), through rapidfuzz, whose bit-parallel code compares texts of
    thousands of characters in well under a millisecond.

    Examples:
        >>> EditSimilarity()(response=["kitten", "Paris"], reference=["sitting", ["Rome", "Paris"]]).rewards.round(3)
        array([0.571, 1.   ])
        >>> EditSimilarity("indel", "words")(response=["a big dog"], reference=["a dog"]).rewards
        array([0.8])
    """

    example_config = {"kind": "indel"}

    def __init__(
        self,
        kind: str = "levenshtein",
        unit: str = "characters",
        normalize: str = "none",
        part: str = "response",
        **options: Unpack[RewardOptions],
    ) -> None:
        super().__init__(part, **options)
        self.kind = one_of(kind, "kind", self.name, tuple(_KINDS))
        self.unit = one_of(unit, "unit", self.name, ("characters", "words"))
        self.normalize = one_of(normalize, "normalize", self.name, tuple(NORMALIZERS))

    def similarities(self, texts: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
        """All pairs in one call, and the best of each text."""
        try:
            from rapidfuzz import distance, process  # noqa: PLC0415  # part of the extra
        except ImportError as error:
            raise missing_text_extra("rapidfuzz", error) from error
        if not texts:
            return []
        given = [text for text, several in zip(texts, references, strict=True) for _ in several]
        wanted = [reference for several in references for reference in several]
        scorer = getattr(distance, _KINDS[self.kind]).normalized_similarity
        scores = process.cpdist(given, wanted, scorer=scorer, processor=self._processor(), dtype=np.float64)
        starts = np.cumsum([0, *(len(several) for several in references[:-1])])
        best: list[float] = np.maximum.reduceat(scores, starts).tolist()
        return best

    def _processor(self) -> Callable[[str], str | list[str]] | None:
        """What is done to each text first, if anything."""
        if self.unit == "characters":
            return None if self.normalize == "none" else NORMALIZERS[self.normalize]
        return lambda text: NORMALIZERS[self.normalize](text).split()
