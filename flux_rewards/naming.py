"""Names that must not repeat, such as those of the parts of a sum."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["distinct"]


def distinct(names: Iterable[str]) -> list[str]:
    """Names with ``_2``, ``_3`` ... appended where they repeat.

    Examples:
        >>> distinct(["length", "length", "format", "length"])
        ['length', 'length_2', 'format', 'length_3']
    """
    given = list(names)
    taken: list[str] = []
    for name in given:
        candidate, number_of = name, 1
        while candidate in taken or (number_of > 1 and candidate in given):
            number_of += 1
            candidate = f"{name}_{number_of}"
        taken.append(candidate)
    return taken
