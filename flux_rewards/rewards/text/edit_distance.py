"""How many letters two texts differ by."""

from __future__ import annotations

__all__ = ["edit_distance"]


def edit_distance(first: str, second: str) -> int:
    """The Levenshtein distance: the fewest insertions, deletions and replacements of a character between two texts.

    Whole columns of the dynamic programme are held in the bits of two integers, so that it takes as many steps as the
    longer text has characters: Myers 1999, "A fast bit-vector algorithm for approximate string matching", in Hyyrö's
    form (2003).

    Examples:
        >>> edit_distance("kitten", "sitting")
        3
        >>> edit_distance("", "abc")
        3
    """
    pattern, text = sorted((first, second), key=len)
    if not pattern:
        return len(text)
    places: dict[str, int] = {}  # where in the pattern a character stands, as bits
    for position, character in enumerate(pattern):
        places[character] = places.get(character, 0) | 1 << position
    every, last = (1 << len(pattern)) - 1, 1 << (len(pattern) - 1)
    # Down the column, the distance rises by one where `rises` has a bit, and falls by one where `falls` has one.
    rises, falls, distance = every, 0, len(pattern)
    for character in text:
        equal = places.get(character, 0)
        unchanged = equal | falls
        diagonal = (((equal & rises) + rises) ^ rises) | equal
        # The same from the column before to this one.
        right_rises = falls | (every & ~(diagonal | rises))
        right_falls = rises & diagonal
        if right_rises & last:
            distance += 1
        elif right_falls & last:
            distance -= 1
        right_rises = right_rises << 1 | 1  # the top row counts up
        right_falls <<= 1
        rises = every & (right_falls | ~(unchanged | right_rises))
        falls = every & right_rises & unchanged
    return distance
