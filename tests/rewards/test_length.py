"""LengthReward against values worked by hand from its two formulas."""

import math
import pickle
from typing import Any

import numpy as np
import pytest

from flux_rewards import ConfigError, InputError, LengthReward, Sample


def score(reward: LengthReward, **fields: Any) -> float:
    """The reward of one sample."""
    return float(reward([Sample(**fields)]).rewards[0])


@pytest.mark.parametrize(
    ("parameters", "words", "expected"),
    [
        ({"target": 40}, 40, 1.0),
        ({"target": 40}, 30, 0.75),
        ({"target": 40}, 50, 0.75),
        ({"target": 40}, 0, 0.0),
        ({"target": 40}, 80, 0.0),
        ({"target": 40}, 100_000, 0.0),  # never negative
        ({"target": 40, "tolerance": 10}, 35, 0.5),
        ({"target": 40, "tolerance": 10}, 30, 0.0),
        ({"target": 0, "tolerance": 10}, 0, 1.0),
        ({"target": 0, "tolerance": 10}, 4, 0.6),
        ({"target": 40, "tolerance": 10, "shape": "gaussian"}, 40, 1.0),
        ({"target": 40, "tolerance": 10, "shape": "gaussian"}, 50, 0.6065306597126334),  # exp(-1/2)
        ({"target": 40, "tolerance": 10, "shape": "gaussian"}, 20, 0.1353352832366127),  # exp(-2)
        ({"target": 40, "shape": "gaussian"}, 0, 0.6065306597126334),
        ({"target": 1, "shape": "gaussian"}, 1_000, 0.0),  # underflows without a warning
    ],
)
def test_falls_from_the_target(parameters: dict[str, Any], words: int, expected: float) -> None:
    """1 at the target, less on both sides, within [0, 1] at any length."""
    assert score(LengthReward(**parameters), response="word " * words) == pytest.approx(expected, abs=1e-15)


def test_target_is_the_first_argument() -> None:
    """`LengthReward(40)` reads as it should."""
    assert score(LengthReward(40), response="word " * 30) == 0.75


@pytest.mark.parametrize(
    ("unit", "token_ids", "expected"),
    [
        ("auto", [1, 2, 3, 4], 1.0),
        ("auto", None, 0.5),
        ("auto", [], 0.0),  # there are token ids, and they are none
        ("tokens", [1, 2, 3, 4], 1.0),
        ("words", [1, 2, 3, 4], 0.5),
        ("characters", [1, 2, 3, 4], 0.0),
    ],
)
def test_units(unit: str, token_ids: list[int] | None, expected: float) -> None:
    """Tokens where they are there, unless another unit is asked for."""
    assert score(LengthReward(4, unit=unit), response="two words", token_ids=token_ids) == expected


def test_token_ids_may_be_an_array() -> None:
    """Trainers hold ids in arrays."""
    assert score(LengthReward(4), response="two words", token_ids=np.arange(4)) == 1.0


def test_characters_are_code_points() -> None:
    """Not bytes: each of these takes several in UTF-8."""
    assert score(LengthReward(4, unit="characters"), response="日本語🙂") == 1.0


def test_a_conversation_is_judged_by_its_last_answer() -> None:
    """Earlier turns don't count."""
    said = [
        {"role": "assistant", "content": "a long first turn that is no answer"},
        {"role": "tool", "content": "4"},
        {"role": "assistant", "content": "It is four."},
    ]
    assert score(LengthReward(3), response=said) == 1.0


def test_tokens_need_token_ids() -> None:
    """Words are never counted in their place."""
    with pytest.raises(InputError, match=r"'LengthReward', sample 0, field 'token_ids'"):
        LengthReward(4, unit="tokens")(response=["two words"])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"target": 0}, "target must be a finite number > 0, found 0"),
        ({"target": -1, "tolerance": 5}, "target must be a finite number >= 0, found -1"),
        ({"target": math.nan}, "target"),
        ({"target": "40"}, "target must be a finite number > 0, found '40'"),
        ({"target": 40, "tolerance": 0}, "tolerance must be a finite number > 0, found 0"),
        ({"target": 40, "unit": "token"}, r"unit must be one of .*did you mean 'tokens'"),
        ({"target": 40, "shape": "log"}, "shape must be one of linear, gaussian, found 'log'"),
    ],
)
def test_impossible_parameters(parameters: dict[str, Any], message: str) -> None:
    """Refused when the reward is built."""
    with pytest.raises(ConfigError, match=message):
        LengthReward(**parameters)


def test_bounds_follow_the_scale() -> None:
    """What the base makes of the scale and clip options."""
    assert LengthReward(40).bounds == (0.0, 1.0)
    assert LengthReward(40, scale=-2.0).bounds == (-2.0, 0.0)


def test_is_its_parameters() -> None:
    """Prints, compares and pickles."""
    reward = LengthReward(40, unit="words", name="brief")
    assert pickle.loads(pickle.dumps(reward)) == reward
    assert repr(reward) == "LengthReward(target=40, unit='words', name='brief')"
