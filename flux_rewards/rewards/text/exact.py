"""Whether a response is the reference, word for word."""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from decimal import Decimal
from numbers import Real
from typing import TYPE_CHECKING, Any

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.errors import InputError, brief
from flux_rewards.validation import one_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flux_rewards.data import Sample

__all__ = ["ExactMatch"]

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def _squad(text: str) -> str:
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


_NORMALIZERS: dict[str, Callable[[str], str]] = {
    "none": lambda text: text,
    "strip": str.strip,
    "squad": _squad,
}


class ExactMatch(RewardFunction):
    r"""1.0 where the response equals the reference, or one of several accepted ones; else 0.0.

    Args:
        normalize: What is done to both before they are compared. ``"none"``: nothing; ``"strip"``: whitespace
            around them is dropped; ``"squad"``: the normalisation of the SQuAD evaluation script: lower case,
            without ASCII punctuation, without the articles a, an and the, whitespace squeezed.
        **options: Of every reward; see `RewardFunction`.

    The reference is a text, a number (compared as Python prints it: ``18`` is not ``18.0``), or a list of those.

    Bounds: (0, 1); only these two values. An empty response equals an empty reference, and nothing else.

    Raises:
        ConfigError: `normalize` is none of these.
        InputError: The reference is anything else, or an empty list.

    Does not find an answer inside a longer response, and does not compare values; `NumericAnswerReward` does both.
    Under ``"squad"`` the texts 3.5 and 35 are alike, since the published rule drops every full stop. Source of that
    rule: Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension of Text" (2016), evaluate-v1.1.py.

    Examples:
        >>> ExactMatch()(response=[" Paris\n", "paris"], reference=["Paris", "Paris"]).rewards
        array([1., 0.])
        >>> ExactMatch("squad")(response=["The Eiffel Tower!"], reference=[["eiffel tower", "tour Eiffel"]]).rewards
        array([1.])
    """

    required_fields = ("response", "reference")
    optional_fields = ()
    bounds = (0.0, 1.0)
    example_config = {"normalize": "squad"}

    def __init__(self, normalize: str = "strip", **options: Unpack[RewardOptions]) -> None:
        super().__init__(**options)
        self.normalize = one_of(normalize, "normalize", self.name, tuple(_NORMALIZERS))

    def compute_reward(self, sample: Sample) -> float:
        """1.0 or 0.0."""
        normalized = _NORMALIZERS[self.normalize]
        response = normalized(sample.response_text)
        return float(any(normalized(text) == response for text in _accepted(sample.reference)))


def _accepted(reference: Any) -> list[str]:
    several = isinstance(reference, (list, tuple, set, frozenset))
    references = list(reference) if several else [reference]
    for entry in references:
        # A truth value is refused: nobody can know whether the response should say True, true or yes.
        if isinstance(entry, bool) or not isinstance(entry, (str, Real, Decimal)):
            raise InputError(
                f"expected a text, a number or a list of those, found {brief(entry)}; write the text to match",
                field="reference",
            )
    if not references:
        raise InputError("expected at least one accepted text, found an empty list", field="reference")
    return [str(entry) for entry in references]
