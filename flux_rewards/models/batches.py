"""Rows of different lengths in batches with little padding."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["length_sorted"]


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
