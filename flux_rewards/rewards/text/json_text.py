"""Reads JSON as the standard has it, and compares it."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

__all__ = ["MAX_DEPTH", "comparable", "leaves", "parse_json"]

MAX_DEPTH = 100
"""Lists and objects within one another that are read; deeper ones are no answers, and exhaust Python's stack."""


def parse_json(text: str) -> Any:
    """The value of a JSON text (RFC 8259), and nothing that only Python reads as such.

    Raises:
        ValueError: It is no JSON; it has NaN or Infinity, a number beyond the range of a float, or a name twice in one
            object; or it is nested deeper than `MAX_DEPTH`, or has a whole number of over 4,300 digits. The message
            says which and where.

    Examples:
        >>> parse_json(' {"a": [1, 2.5, null]} ')
        {'a': [1, 2.5, None]}
    """
    try:
        value = json.loads(text, parse_constant=_refused, parse_float=_finite, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH}") from None
    level, depth = _containers([value]), 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        level = [inner for outer in level for inner in _containers(outer)]
    return value


def comparable(value: Any, *, ordered: bool = True) -> Hashable:
    """A form in which equal JSON values are equal: 1 is 1.0, true is not 1, names have no order.

    Args:
        value: As `parse_json` returns it; tuples are lists.
        ordered: Whether the order of a list's items counts; how many there are of each does in any case.

    Raises:
        ValueError: There is something that JSON has no form for, such as a set.

    Examples:
        >>> comparable({"a": 1, "b": [True]}) == comparable({"b": [True], "a": 1.0})
        True
    """
    if value is None or isinstance(value, (str, bool)):
        return type(value).__name__, value
    if isinstance(value, (Real, Decimal)) and math.isfinite(value):
        return "number", int(value) if isinstance(value, Integral) else value
    if isinstance(value, Mapping):
        return "object", frozenset((str(name), comparable(inner, ordered=ordered)) for name, inner in value.items())
    if isinstance(value, (list, tuple)):
        items = [comparable(inner, ordered=ordered) for inner in value]
        return "list", tuple(items) if ordered else frozenset(Counter(items).items())
    raise ValueError(f"{type(value).__name__} is no JSON value")


def leaves(value: Any, *, ordered: bool = True) -> Counter[Hashable]:
    """The scalars of a JSON value, each with its path, and the empty lists and objects; how often each occurs.

    Args:
        value: As `parse_json` returns it.
        ordered: Whether a list's positions are part of the path.

    Examples:
        >>> [path for path, _ in leaves({"a": [1, 2], "b": {}})]
        [('a', 0), ('a', 1), ('b',)]
    """
    return Counter(_leaves(value, (), ordered=ordered))


def _leaves(value: Any, path: tuple[Hashable, ...], *, ordered: bool) -> Iterator[Hashable]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(inner, (*path, str(name)), ordered=ordered)
    elif isinstance(value, (list, tuple)) and value:
        for position, inner in enumerate(value):
            yield from _leaves(inner, (*path, position if ordered else None), ordered=ordered)
    else:
        yield path, comparable(value)


def _containers(outer: Any) -> list[Any]:
    inside = outer.values() if isinstance(outer, dict) else outer
    return [inner for inner in inside if isinstance(inner, (dict, list))]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the name {twice[:40]!r} stands twice in one object")
    return found


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        raise ValueError(f"the number {number[:40]} is too large")
    return value
