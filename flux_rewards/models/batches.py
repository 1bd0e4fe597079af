"""Rows of different lengths in batches with little padding."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

__all__ = ["distinct", "length_sorted"]


def distinct(keys: Sequence[Hashable]) -> tuple[list[int], list[int]]:
    """Where each key stands first, and for each key which of those it is.

    Equal rows of a batch differ by rounding, and would get a rank each.

    Examples:
        >>> distinct(["a", "b", "a"])
        ([0, 1], [0, 1, 0])
    """
    numbers: dict[Hashable, int] = {}
    of_each = [numbers.setdefault(key, len(numbers)) for key in keys]
    firsts: dict[int, int] = {}
    for place, number in enumerate(of_each):
        firsts.setdefault(number, place)
    return list(firsts.values()), of_each


def length_sorted(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Rows in batches of equal size in tokens, padding included; the longest first.

    The longest first, so that what does not fit into memory is told at once.

    Args:
        lengths: Tokens of each row.
        max_tokens: Of a batch, each row padded to the longest. A row that is longer is a batch of its own.

    Returns:
        Positions of `lengths`, each once.

    Examples:
        >>> length_sorted([3, 900, 4, 850], max_tokens=2000)
        [[1, 3], [2, 0]]
    """
    batches: list[list[int]] = []
    widest = 0
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        if batches and widest * (len(batches[-1]) + 1) <= max_tokens and lengths[row] * 2 > widest:
            batches[-1].append(row)
        else:
            batches.append([row])
            widest = lengths[row]
    return batches
