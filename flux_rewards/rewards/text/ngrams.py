"""Runs of n tokens, words or characters as single numbers, so that counting them is sorting them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Codes = NDArray[np.int64]

__all__ = ["distinct", "ngrams", "repeated"]


def ngrams(sequence: Codes, n: int) -> Codes:
    """One number for each n-gram, shape (max(0, length - n + 1),) int64: equal where, and only where, the n-grams are.

    The numbers of an n-gram are packed side by side into 63 bits. Where they do not fit, its two halves are numbered
    first and those numbers packed, so that nothing is hashed and nothing can collide.

    Examples:
        >>> ngrams(np.array([1, 2, 1, 2]), 2)
        array([6, 9, 6])
    """
    total = len(sequence) - n + 1
    if total < 1:
        return np.zeros(0, dtype=np.int64)
    if n == 1:
        return sequence
    bits = int(sequence.max()).bit_length()
    if n * bits <= 63 and sequence.min() >= 0:
        packed = sequence[:total].copy()
        for place in range(1, n):
            packed <<= bits
            packed |= sequence[place : place + total]
        return packed
    half = (n + 1) // 2
    _, numbered = np.unique(ngrams(sequence, half), return_inverse=True)  # each below 2**31
    packed = numbered[:total].astype(np.int64) << 32
    packed |= numbered[n - half : n - half + total]
    return packed


def distinct(codes: Codes) -> int:
    """How many different numbers there are.

    Examples:
        >>> distinct(np.array([3, 1, 3]))
        2
    """
    if not len(codes):
        return 0
    ordered = np.sort(codes)
    return 1 + int(np.count_nonzero(ordered[1:] != ordered[:-1]))


def repeated(codes: Codes) -> NDArray[np.bool_]:
    """Which numbers stood earlier in the row already, shape (length,).

    Examples:
        >>> repeated(np.array([3, 1, 3, 3])).tolist()
        [False, False, True, True]
    """
    again = np.ones(len(codes), dtype=np.bool_)
    again[np.unique(codes, return_index=True)[1]] = False
    return again
