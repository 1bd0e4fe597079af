"""Whether a response lists what the reference lists."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from numbers import Real
from typing import TYPE_CHECKING, Any

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.data import RewardOutput, Sample
from flux_rewards.errors import InputError, brief
from flux_rewards.rewards.text.matching import F_SCORES, common_in_order, overlap_score
from flux_rewards.rewards.text.normalization import NORMALIZERS
from flux_rewards.rewards.text.numbers import only_number
from flux_rewards.rewards.text.parts import PARTS, part_of
from flux_rewards.validation import number, one_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ListMatch"]

_BULLET = re.compile(r"\s*(?:[-*•+]\s|\d{1,3}[.)]\s)\s*")
_ENCLOSED = {"[": "]", "(": ")", "{": "}"}
_LINE, _SEMICOLON, _COMMA = re.compile(r"\n"), re.compile("[;\uff1b]"), re.compile("[,\uff0c、]")
# Where commas have spaces behind them, one between digits belongs to a number.
_LOOSE_COMMA = re.compile(r"(?<!\d),|,(?!\d)|[\uff0c、]")
_Items = Sequence[Fraction | str | None]


class ListMatch(RewardFunction):
    r"""How well the items that a response lists agree with those of the reference.

    With c = items in common: ``"exact"``: 1.0 where both lists have these c items and no others, else 0.0;
    ``"recall"``: c / items of the reference; ``"precision"``: c / items of the response; ``"f1"``: 2 c / (items of
    both).

    Args:
        order: ``"ordered"``: the items in common are the longest common subsequence; ``"multiset"``: order doesn't
            matter, but how often an item occurs; ``"set"``: that doesn't either.
        score: ``"exact"``, ``"recall"``, ``"precision"`` or ``"f1"``.
        items: ``"texts"``: equal after `normalize`; ``"numbers"``: each item is read as `NumericAnswerReward` reads a
            box: one number, perhaps with a name and a unit; an item with none or several (``1 or 2``) equals nothing.
        tolerance: Greatest distance at which two numbers are one, in their unit. Of ``"numbers"`` only.
        normalize: ``"casefold"``, ``"squad"``, ``"strip"`` or ``"none"``; see `ExactMatch`. Of ``"texts"`` only.
        part: Where the list stands: ``"response"``, ``"final"``, ``"answer"``, ``"boxed"``, ``"last_line"`` or
            ``"code_block"``; see `ExactMatch`.
        **options: Of every reward; see `RewardFunction`.

    How a text is read as a list: as JSON, where it is a JSON list of texts and numbers; else without brackets around
    it, item by line, or, on a single line, by semicolons, or else by commas. Bullets (``-``, ``*``, ``1.``), quotation
    marks, an ``and`` before the last item of several and a full stop behind it are dropped, blank items too. ``1,2,3``
    are three items; where commas have spaces behind them, as in ``1,200, 3,400``, those between digits belong to the
    numbers.

    The reference is a list of texts and numbers, or a text that is read in the same way.

    Bounds: (0, 1). Where one of the two lists is empty: 1.0 if both are, else 0.0. A response without the wanted part
    scores 0.0. Metadata: ``common``, ``items`` of the response and ``wanted`` ones, their numbers.

    Raises:
        ConfigError: A parameter is out of its range.
        InputError: The reference, or an item of it, is anything else, or an item is no number where numbers are asked
            for.

    Does not read nested lists.

    Examples:
        >>> ListMatch()(response=["blue, Red, green"], reference=[["red", "green", "blue"]]).rewards
        array([1.])
        >>> numbers = ListMatch("ordered", "f1", "numbers", tolerance=0.01)
        >>> numbers(response=["[1.5, 2.004, 7]"], reference=["1.5, 2, 3, 7"]).rewards.round(3)
        array([0.857])
    """

    required_fields = ("response", "reference")
    optional_fields = ()
    bounds = (0.0, 1.0)
    example_config = {"score": "f1", "items": "numbers", "part": "answer"}

    def __init__(
        self,
        order: str = "set",
        score: str = "exact",
        items: str = "texts",
        *,
        tolerance: float = 0,
        normalize: str = "casefold",
        part: str = "response",
        **options: Unpack[RewardOptions],
    ) -> None:
        super().__init__(**options)
        self.order = one_of(order, "order", self.name, ("ordered", "multiset", "set"))
        self.score = one_of(score, "score", self.name, F_SCORES)
        self.items = one_of(items, "items", self.name, ("texts", "numbers"))
        number(tolerance, "tolerance", self.name, low=0)
        self.tolerance = tolerance
        self.normalize = one_of(normalize, "normalize", self.name, tuple(NORMALIZERS))
        self.part = one_of(part, "part", self.name, tuple(PARTS))
        # By way of its text: what the user wrote, not its nearest binary fraction.
        self._tolerance = Fraction(str(tolerance))

    def compute_reward(self, sample: Sample) -> RewardOutput:
        """The agreement, and the counts behind it."""
        wanted = self._reference(sample.reference)
        answer = part_of(sample.response_text, self.part)
        given = [] if answer is None else self._items(_listed(answer))
        common, count, needed = self._compare(given, wanted)
        score = 0.0 if answer is None else overlap_score(self.score, common, count, needed)
        return RewardOutput(score, metadata={"common": common, "items": count, "wanted": needed})

    def _reference(self, reference: Any) -> _Items:
        if isinstance(reference, str):
            items: _Items = _read_reference(reference, self.items, self.normalize)
        elif isinstance(reference, (list, tuple, set, frozenset)):
            items = self._items([_text(item) for item in reference])
        else:
            raise InputError(f"expected a list, or a text that is one, found {brief(reference)}", field="reference")
        if None in items:
            raise InputError(
                f"expected a list of numbers, found {brief(reference)}; write items='texts' for other lists",
                field="reference",
            )
        return items

    def _items(self, texts: Sequence[str]) -> _Items:
        return _read(texts, self.items, self.normalize)

    def _compare(self, given: _Items, wanted: _Items) -> tuple[int, int, int]:
        if self.order == "ordered":
            common = common_in_order(self._matches(given, wanted))
            return common, len(given), len(wanted)
        if self.order == "set":
            unread = [item for item in given if item is None]
            given = [*dict.fromkeys(item for item in given if item is not None), *unread]
            wanted = list(dict.fromkeys(wanted))
        if self.items == "texts" or not self._tolerance:
            common = (
                Counter(item for item in given if item is not None)
                & Counter(item for item in wanted if item is not None)
            ).total()
        else:
            common = _close(given, wanted, self._tolerance)
        return common, len(given), len(wanted)

    def _matches(self, given: _Items, wanted: _Items) -> list[int]:
        """For each item of the response those of the reference that it equals, as bits."""
        places: dict[Any, int] = {}
        for position, item in enumerate(wanted):
            places[item] = places.get(item, 0) | 1 << position
        if self.items == "texts" or not self._tolerance:
            return [0 if item is None else places.get(item, 0) for item in given]
        found = dict.fromkeys(given, 0)
        for item in found:
            for other, bits in places.items():
                if isinstance(item, Fraction) and abs(item - other) <= self._tolerance:
                    found[item] |= bits
        return [found[item] for item in given]


def _close(given: _Items, wanted: _Items, tolerance: Fraction) -> int:
    """Pairs of numbers within the tolerance: as many as there can be, by going through both from the smallest."""
    ours = sorted(item for item in given if isinstance(item, Fraction))
    theirs = sorted(item for item in wanted if isinstance(item, Fraction))
    common, position = 0, 0
    for item in ours:
        while position < len(theirs) and theirs[position] < item - tolerance:
            position += 1
        if position < len(theirs) and theirs[position] <= item + tolerance:
            common, position = common + 1, position + 1
    return common


def _text(item: Any) -> str:
    if isinstance(item, bool) or not isinstance(item, (str, Real, Decimal)):
        raise InputError(f"expected a list of texts and numbers, found {brief(item)} in it", field="reference")
    return str(item)


@lru_cache(maxsize=1024)
def _read_reference(text: str, items: str, normalize: str) -> tuple[Fraction | str | None, ...]:
    """Cached: a group of responses shares its reference."""
    return tuple(_read(_listed(text), items, normalize))


def _read(texts: Sequence[str], items: str, normalize: str) -> list[Fraction | str | None]:
    if items == "numbers":
        return [only_number(text) for text in texts]
    return [NORMALIZERS[normalize](text) for text in texts]


def _listed(text: str) -> list[str]:
    text = text.strip()
    if text.startswith("["):
        try:
            listed = json.loads(text)
        except (ValueError, RecursionError):
            listed = None
        if isinstance(listed, list) and all(isinstance(item, (str, int, float)) for item in listed):
            return [str(item) for item in listed]
    if text and _ENCLOSED.get(text[0]) == text[-1]:
        text = text[1:-1].strip()
    if "\n" in text:
        separator = _LINE
    elif _SEMICOLON.search(text):
        separator = _SEMICOLON
    else:
        separator = _LOOSE_COMMA if re.search(r",\s", text) else _COMMA
    pieces = separator.split(text)
    if separator is _LINE:
        pieces = [piece.strip().rstrip(",;") for piece in pieces]
    elif len(pieces) > 1:
        pieces[-1] = re.sub(r"^\s*and\s+", "", pieces[-1])
        pieces[-1] = pieces[-1].rstrip().removesuffix(".")
    bare = (_BULLET.sub("", piece, count=1).strip() if _BULLET.match(piece) else piece.strip() for piece in pieces)
    return [item for item in (piece.strip("\"'\u2018\u2019\u201c\u201d") for piece in bare) if item]
