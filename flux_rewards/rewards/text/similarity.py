"""What rewards of similarity to a reference have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.errors import FluxRewardsError, MissingDependencyError
from flux_rewards.rewards.text.normalization import accepted_texts
from flux_rewards.rewards.text.parts import PARTS, part_of
from flux_rewards.validation import one_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flux_rewards.data import Sample

__all__ = ["SimilarityReward", "missing_text_extra"]


class SimilarityReward(RewardFunction, abstract=True):
    r"""Base of rewards that compare the text of a response with one or several reference texts.

    A subclass overrides `similarities`. A response without the wanted part scores 0.0.

    Args:
        part: What is compared: ``"response"``: all of it; ``"final"``: what follows the last ``</think>``;
            ``"answer"``, ``"boxed"``, ``"last_line"`` or ``"code_block"``; see `ExactMatch`.
        **options: Of every reward; see `RewardFunction`.

    Raises:
        ConfigError: `part` is none of these.
        InputError: The reference is no text or number, and no list of those, or an empty list.

    Examples:
        >>> class SameLength(SimilarityReward):
        ...     def similarities(self, texts, references):
        ...         return [max(float(len(text) == len(one)) for one in several)
        ...                 for text, several in zip(texts, references)]
        >>> SameLength()(response=["abc"], reference=[["ab", "xyz"]]).rewards
        array([1.])
    """

    required_fields = ("response", "reference")
    optional_fields = ()
    bounds = (0.0, 1.0)

    def __init__(self, part: str = "response", **options: Unpack[RewardOptions]) -> None:
        super().__init__(**options)
        self.part = one_of(part, "part", self.name, tuple(PARTS))

    def similarities(self, texts: Sequence[str], references: Sequence[Sequence[str]]) -> Sequence[float]:
        """For each text how similar it is to its references, of which each has one at least; 0 to 1."""
        raise NotImplementedError

    def compute_rewards(self, samples: Sequence[Sample]) -> list[Any]:
        """One score a sample."""
        rows: list[Any] = [0.0] * len(samples)
        texts: list[str] = []
        references: list[list[str]] = []
        places: list[int] = []
        for place, sample in enumerate(samples):
            try:
                accepted = accepted_texts(sample.reference)
                text = part_of(sample.response_text, self.part)
            except FluxRewardsError as error:
                rows[place] = error  # its neighbours are scored all the same
                continue
            if text is not None:
                texts.append(text)
                references.append(accepted)
                places.append(place)
        for place, score in zip(places, self.similarities(texts, references), strict=True):
            rows[place] = float(score)
        return rows


def missing_text_extra(package: str, error: ImportError) -> MissingDependencyError:
    """What to raise where a package of the extra ``text`` is not installed.

    Examples:
        >>> print(missing_text_extra("rapidfuzz", ImportError("no module")))
        needs rapidfuzz (no module): pip install "flux_rewards[text]"
    """
    return MissingDependencyError(f'needs {package} ({error}): pip install "flux_rewards[text]"')
