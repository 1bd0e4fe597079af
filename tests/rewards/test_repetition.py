"""RepetitionPenalty against TRL's formula, worked by hand."""

import math
from typing import Any

import numpy as np
import pytest

from flux_rewards import ConfigError, RepetitionPenalty, Sample


@pytest.mark.parametrize(
    ("parameters", "response", "token_ids", "expected"),
    [
        # 4 trigrams of 6 ids: 123, 231, 312, 123
        ({}, "x", [1, 2, 3, 1, 2, 3], -0.25),
        ({}, "x", [7] * 10, -0.875),  # 8 trigrams, one distinct
        ({"max_penalty": -0.5}, "x", [7] * 10, -0.4375),
        ({"n": 1}, "x", [7, 7, 8, 9], -0.25),
        ({}, "a a a a a", [1, 2, 3, 4], 0.0),  # the ids count where they are there
        ({}, "x", [1, 1, 1], 0.0),
        ({}, "x", [1, 1], 0.0),
        ({}, "x", [], 0.0),
        ({}, "", None, 0.0),
        ({}, "word", None, 0.0),
        ({"n": 2}, "to be or not To BE", None, -0.2),  # 5 bigrams, "to be" twice
        ({"n": 2}, "na " * 5, None, -0.75),
        ({"max_penalty": 0}, "x", [7] * 10, 0.0),
        ({"n": 2}, "今天天气很好今天天气很好", None, 0.0),  # one word
    ],
)
def test_formula(parameters: dict[str, Any], response: str, token_ids: list[int] | None, expected: float) -> None:
    """(1 - distinct / all) * max_penalty."""
    reward = RepetitionPenalty(**parameters)
    assert reward([Sample(response=response, token_ids=token_ids)]).rewards[0] == pytest.approx(expected)


def test_no_penalty_is_a_plain_zero() -> None:
    """Not -0.0, which prints as a penalty."""
    assert math.copysign(1.0, RepetitionPenalty()(response=["all of these words differ"]).rewards[0]) == 1.0


def test_ids_of_an_array() -> None:
    """Equal ids are equal, whatever holds them."""
    sample = Sample(response="x", token_ids=np.array([1, 2, 3, 1, 2, 3]))  # type: ignore[arg-type]
    assert RepetitionPenalty()([sample]).rewards[0] == -0.25


def test_a_conversation_is_judged_by_its_last_answer() -> None:
    """Messages are as good as text."""
    said = [{"role": "assistant", "content": "na na na na"}, {"role": "assistant", "content": "Batman"}]
    assert RepetitionPenalty(1)(response=[said]).rewards[0] == 0.0


def test_bounds() -> None:
    """From the penalty, through the options."""
    assert RepetitionPenalty(max_penalty=-0.5).bounds == (-0.5, 0.0)
    assert RepetitionPenalty(max_penalty=-0.5, scale=4.0).bounds == (-2.0, 0.0)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n": 0}, "n must be a whole number >= 1, found 0"),
        ({"n": 2.0}, "n must be a whole number"),
        ({"max_penalty": 0.5}, "max_penalty must be a finite number <= 0, found 0.5"),
    ],
)
def test_impossible_parameters(parameters: dict[str, Any], message: str) -> None:
    """Refused when the reward is built."""
    with pytest.raises(ConfigError, match=message):
        RepetitionPenalty(**parameters)
