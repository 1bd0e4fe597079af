"""ExactMatch against the published SQuAD rule and plain equality."""

from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from flux_rewards import ConfigError, ExactMatch, InputError


@pytest.mark.parametrize(
    ("normalize", "response", "reference", "expected"),
    [
        ("strip", " Paris\n", "Paris", 1.0),
        ("strip", "paris", "Paris", 0.0),
        ("strip", "Paris or Rome", "Rome", 0.0),
        ("strip", "3.5", "35", 0.0),  # no full stop is dropped
        ("strip", "a", "abc", 0.0),
        ("strip", "18", 18, 1.0),
        ("strip", "18.0", 18, 0.0),
        ("strip", "3.5", 3.5, 1.0),
        ("strip", "3.50", Decimal("3.50"), 1.0),
        ("strip", "18", np.int64(18), 1.0),
        ("strip", "Rome", ["Roma", "Rome"], 1.0),
        ("strip", "7", [6, "7"], 1.0),
        ("strip", "", "Rome", 0.0),
        ("strip", "", "", 1.0),
        ("strip", "Zürich 🙂", "Zürich 🙂", 1.0),
        ("none", "Paris\n", "Paris", 0.0),
        ("none", "Paris", "Paris", 1.0),
        ("squad", "The  Eiffel-Tower!", "eiffeltower", 1.0),
        ("squad", "An apple a day.", "apple day", 1.0),
        ("squad", "theatre", "atre", 0.0),
        ("squad", "3.5", "35", 1.0),  # the published rule, and documented
        ("squad", "cats", "cat", 0.0),
    ],
)
def test_equality(normalize: str, response: str, reference: Any, expected: float) -> None:
    """Equal after the same thing was done to both."""
    assert ExactMatch(normalize)(response=[response], reference=[reference]).rewards[0] == expected


def test_a_conversation_is_judged_by_its_last_answer() -> None:
    """Messages are as good as text."""
    said = [{"role": "assistant", "content": "Rome"}, {"role": "assistant", "content": "Paris"}]
    assert ExactMatch()(response=[said, said], reference=["Paris", "Rome"]).rewards.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("reference", [True, [], [None], {"answer": "Paris"}, b"Paris"])
def test_what_is_no_reference(reference: Any) -> None:
    """Refused by name and place, never compared by its repr."""
    with pytest.raises(InputError, match=r"'ExactMatch', sample 1, field 'reference'"):
        ExactMatch()(response=["Paris", "Paris"], reference=["Paris", reference])


def test_needs_a_reference() -> None:
    """A sample without one is an error, not a zero."""
    with pytest.raises(InputError, match=r"sample 0, field 'reference'"):
        ExactMatch()(response=["Paris"])


def test_unknown_normalisation() -> None:
    """Refused when the reward is built."""
    with pytest.raises(ConfigError, match="normalize must be one of none, strip, casefold, squad, found 'lower'"):
        ExactMatch("lower")


def test_the_part_that_was_compared_is_noted() -> None:
    """None where there is no such part; nothing where all of the response was compared."""
    batch = ExactMatch(part="answer")(response=["<answer> 7</answer>", "7"], reference=["7", "7"])
    assert batch.rewards.tolist() == [1.0, 0.0]
    assert batch.metadata == [{"answer": " 7"}, {"answer": None}]
    assert ExactMatch()(response=["7"], reference=["7"]).metadata == [{}]


def test_a_hedge_of_many_answers_earns_little() -> None:
    """The share of the response that the reference is, of the longest accepted text in it."""
    reward = ExactMatch("casefold", contained=True)
    responses = ["Paris, Rome or Oslo", "Paris, FRANCE"]
    found = reward(response=responses, reference=[["paris", "paris, france"]] * 2)
    assert found.rewards.tolist() == [5 / 19, 1.0]
