"""ListMatch against the definitions, written naively."""

import itertools
import random
from collections import Counter
from typing import Any

import pytest

from flux_rewards import ConfigError, InputError
from flux_rewards.rewards.text.list_match import ListMatch
from flux_rewards.rewards.text.matching import common_in_order


def longest_common(one: list[str], other: list[str]) -> int:
    """The textbook's table."""
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for row, column in itertools.product(range(len(one)), range(len(other))):
        same = one[row] == other[column]
        table[row + 1][column + 1] = (
            table[row][column] + 1 if same else max(table[row][column + 1], table[row + 1][column])
        )
    return table[-1][-1]


def most_pairs(one: list[int], other: list[int], tolerance: int) -> int:
    """Every way to pair them off."""
    if not one:
        return 0
    best = most_pairs(one[1:], other, tolerance)
    for place, number in enumerate(other):
        if abs(one[0] - number) <= tolerance:
            best = max(best, 1 + most_pairs(one[1:], other[:place] + other[place + 1 :], tolerance))
    return best


def score(kind: str, common: int, given: int, wanted: int) -> float:
    """The definitions."""
    if not given or not wanted:
        return float(given == wanted)
    precision, recall = common / given, common / wanted
    f1 = 2 * precision * recall / (precision + recall) if common else 0.0
    return {"exact": float(precision == recall == 1), "precision": precision, "recall": recall, "f1": f1}[kind]


@pytest.mark.parametrize("kind", ["exact", "recall", "precision", "f1"])
@pytest.mark.parametrize("order", ["ordered", "multiset", "set"])
def test_equals_the_definition(order: str, kind: str) -> None:
    """Random lists of few letters, so that much is in common and much is repeated."""
    generator = random.Random(f"{order} {kind}")
    reward = ListMatch(order, kind)
    lists = [(generator.choices("abc", k=generator.randrange(6)), generator.choices("abc", k=generator.randrange(6)))
             for _ in range(150)]  # fmt: skip
    expected = []
    for given, wanted in lists:
        if order == "set":
            expected.append(score(kind, len({*given} & {*wanted}), len({*given}), len({*wanted})))
        else:
            pairs = sum((Counter(given) & Counter(wanted)).values())
            common = longest_common(given, wanted) if order == "ordered" else pairs
            expected.append(score(kind, common, len(given), len(wanted)))
    responses = [", ".join(given) for given, _ in lists]
    found = reward(response=responses, reference=[wanted for _, wanted in lists]).rewards
    assert found.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("order", ["multiset", "ordered"])
def test_a_tolerance_pairs_off_as_many_as_it_can(order: str) -> None:
    """As trying every way does; in order, where both lists are sorted, this is the same."""
    generator = random.Random(0)
    reward = ListMatch(order, "recall", "numbers", tolerance=2)
    for _ in range(150):
        lists = [[generator.randrange(15) for _ in range(generator.randrange(1, 6))] for _ in range(2)]
        given, wanted = (sorted(numbers) if order == "ordered" else numbers for numbers in lists)
        response = ", ".join(map(str, given))
        expected = most_pairs(given, wanted, 2) / len(wanted)
        assert reward(response=[response], reference=[wanted]).rewards[0] == pytest.approx(expected), (given, wanted)


def test_long_common_subsequences() -> None:
    """Beyond the bits of a machine word."""
    generator = random.Random(1)
    one, other = generator.choices("abcd", k=150), generator.choices("abcd", k=130)
    bits = [sum(1 << place for place, letter in enumerate(other) if letter == mine) for mine in one]
    assert common_in_order(bits) == longest_common(one, other)


def test_counts_are_noted() -> None:
    """Behind every score."""
    assert ListMatch(score="f1")(response=["a, b, x"], reference=["a, b"]).metadata == [
        {"common": 2, "items": 3, "wanted": 2}
    ]


@pytest.mark.parametrize("reference", [3, {"a": 1}, [True], [["a"]], [None]])
def test_what_is_no_reference(reference: Any) -> None:
    """Refused by name and place."""
    with pytest.raises(InputError, match="'ListMatch', sample 0, field 'reference'"):
        ListMatch()(response=["a"], reference=[reference])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"order": "sorted"}, "order must be one of ordered, multiset, set"),
        ({"score": "f2"}, "score must be one of exact, recall, precision, f1"),
        ({"items": "words"}, "items must be one of texts, numbers"),
        ({"tolerance": -1}, "tolerance must be a finite number >= 0"),
    ],
)
def test_impossible_parameters(parameters: dict[str, Any], message: str) -> None:
    """Refused when the reward is built."""
    with pytest.raises(ConfigError, match=message):
        ListMatch(**parameters)
