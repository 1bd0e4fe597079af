"""How many items two lists have in common."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["F_SCORES", "common_in_order", "overlap_score"]

F_SCORES = ("exact", "recall", "precision", "f1")


def common_in_order(matches: Sequence[int]) -> int:
    """The length of the longest common subsequence of two lists.

    Args:
        matches: For each item of one list, the items of the other that it equals, as bits: the lowest is the first.

    A column of the dynamic programme is held in the bits of an integer: Hyyrö 2004, "Bit-parallel LCS-length
    computation revisited".

    Examples:
        >>> common_in_order([0b001, 0b100, 0b010])  # a, c, b in a, b, c
        2
    """
    length = max(map(int.bit_length, matches), default=0)
    every = (1 << length) - 1
    column = every
    for match in matches:
        taken = column & match
        column = ((column + taken) | (column - taken)) & every
    return length - column.bit_count()


def overlap_score(score: str, common: int, given: int, wanted: int) -> float:
    """Exact, recall, precision or F1 of `common` items among the `given` and the `wanted` ones.

    Where nothing is wanted, only nothing is right.

    Examples:
        >>> overlap_score("f1", 1, 2, 2)
        0.5
    """
    if not given or not wanted:
        return float(given == wanted)
    if score == "exact":
        return float(common == given == wanted)
    return {"recall": common / wanted, "precision": common / given, "f1": 2 * common / (given + wanted)}[score]
