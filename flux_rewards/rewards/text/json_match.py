"""Whether a response is the JSON value that the reference is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.data import RewardOutput, Sample
from flux_rewards.errors import InputError, brief
from flux_rewards.rewards.text.json_text import comparable, leaves, parse_json
from flux_rewards.rewards.text.matching import F_SCORES, overlap_score
from flux_rewards.rewards.text.parts import PARTS, part_of
from flux_rewards.validation import one_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["JSONMatch"]


class _Value(NamedTuple):
    whole: Hashable
    leaves: Counter[Hashable]


class JSONMatch(RewardFunction):
    r"""How far the JSON value of the response is that of the reference.

    ``"exact"``: 1.0 where both are equal, else 0.0. The others go by leaves: the texts, numbers, truth values, nulls
    and empty lists and objects inside, each with its path. With c = leaves in common: ``"recall"``: c / leaves of the
    reference; ``"precision"``: c / leaves of the response; ``"f1"``: 2 c / (leaves of both).

    Args:
        score: ``"exact"``, ``"recall"``, ``"precision"`` or ``"f1"``.
        ordered: Whether the order of a list's items counts; for the leaves, whether their positions do.
        part: What is read: ``"response"``, ``"final"``, ``"answer"``, ``"boxed"``, ``"last_line"`` or ``"code_block"``;
            see `ExactMatch`.
        **options: Of every reward; see `RewardFunction`.

    Equality is that of JSON Schema: 1 is 1.0, ``true`` is not 1, texts are equal character by character, and the names
    of an object have no order. Without ``ordered`` leaves of several objects in one list are mixed; ``"exact"`` keeps
    them apart.

    The reference is a mapping, a list, a number, a truth value, or the JSON text of any value.

    Bounds: (0, 1). A response that is no JSON (see `JSONFormat` for what is) scores 0.0, an empty one too. Metadata:
    ``error``, why it is none, where it is.

    Raises:
        ConfigError: A parameter is none of these.
        InputError: The reference is anything else.

    Does not tolerate rounded numbers.

    Examples:
        >>> match = JSONMatch()
        >>> match(response=['{"b": [1, 2], "a": 1.0}', '{"a": 1}'], reference=[{"a": 1, "b": [1, 2]}] * 2).rewards
        array([1., 0.])
        >>> JSONMatch("recall")(response=['{"a": 1}'], reference=['{"a": 1, "b": [1, 2]}']).rewards.round(3)
        array([0.333])
    """

    required_fields = ("response", "reference")
    optional_fields = ()
    bounds = (0.0, 1.0)
    example_config = {"part": "answer"}

    def __init__(
        self,
        score: str = "exact",
        ordered: bool = True,
        part: str = "response",
        **options: Unpack[RewardOptions],
    ) -> None:
        super().__init__(**options)
        self.score = one_of(score, "score", self.name, F_SCORES)
        self.ordered = ordered
        self.part = one_of(part, "part", self.name, tuple(PARTS))

    def compute_reward(self, sample: Sample) -> RewardOutput:
        """The agreement of the two values."""
        wanted = self._reference(sample.reference)
        text = part_of(sample.response_text, self.part)
        try:
            given = _read(parse_json(text or ""), ordered=self.ordered)
        except ValueError as error:
            return RewardOutput(0.0, metadata={"error": str(error)[:200]})
        if self.score == "exact":
            return RewardOutput(float(given.whole == wanted.whole))
        common = (given.leaves & wanted.leaves).total()
        return RewardOutput(overlap_score(self.score, common, given.leaves.total(), wanted.leaves.total()))

    def _reference(self, reference: Any) -> _Value:
        try:
            if isinstance(reference, str):
                return _read_text(reference, self.ordered)
            return _read(reference, ordered=self.ordered)
        except ValueError as error:
            raise InputError(
                f"expected a JSON value, or its text, found {brief(reference)}: {error}", field="reference"
            ) from error


def _read(value: Any, *, ordered: bool) -> _Value:
    return _Value(comparable(value, ordered=ordered), leaves(value, ordered=ordered))


@lru_cache(maxsize=1024)
def _read_text(text: str, ordered: bool) -> _Value:
    """Cached: a group of responses shares its reference."""
    return _read(parse_json(text), ordered=ordered)
