"""The edit distance against values worked by hand and the textbook's table."""

import random

import pytest

from flux_rewards.rewards.text.edit_distance import edit_distance


def textbook(first: str, second: str) -> int:
    """Wagner and Fischer's table, cell by cell."""
    above = list(range(len(second) + 1))
    for row, one in enumerate(first, 1):
        line = [row]
        for column, other in enumerate(second, 1):
            line.append(min(above[column] + 1, line[-1] + 1, above[column - 1] + (one != other)))
        above = line
    return above[-1]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("", "", 0),
        ("", "abc", 3),
        ("a", "a", 0),
        ("a", "b", 1),
        ("ab", "ba", 2),  # a swap is two
        ("kitten", "sitting", 3),
        ("saturday", "sunday", 3),
        ("intention", "execution", 5),
        ("日本語", "日本", 1),
        ("🙂🙂", "🙂🙃", 1),
        ("a" * 200, "a" * 150, 50),  # beyond the bits of a machine word
        ("a" * 100, "b" * 300, 300),
    ],
)
def test_known_distances(first: str, second: str, expected: int) -> None:
    """Both ways round."""
    assert edit_distance(first, second) == expected
    assert edit_distance(second, first) == expected


def test_equals_the_textbook() -> None:
    """On random texts over small alphabets, of lengths around those of machine words."""
    generator = random.Random(0)
    for _ in range(300):
        letters = "abcdefgh"[: generator.choice((2, 4, 8))]
        lengths = [generator.choice((0, 1, 2, 7, 31, 33, 63, 64, 65, 90)) for _ in range(2)]
        first, second = ("".join(generator.choices(letters, k=length)) for length in lengths)
        assert edit_distance(first, second) == textbook(first, second), (first, second)
