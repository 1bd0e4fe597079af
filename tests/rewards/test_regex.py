"""RegexReward: matches found, against matches wanted."""

from typing import Any

import pytest

from flux_rewards import ConfigError, RegexReward

LIST = "1. Add.\n2. Halve.\n3. Round.\n4. Done."


@pytest.mark.parametrize(
    ("parameters", "response", "expected"),
    [
        ({"pattern": r"\d+ apples"}, "There are 12 apples.", 1.0),
        ({"pattern": r"\d+ apples"}, "There are 12 Apples.", 0.0),
        ({"pattern": r"\d+ apples", "ignore_case": True}, "There are 12 Apples.", 1.0),
        ({"pattern": r"\d+ apples"}, "", 0.0),
        ({"pattern": r"\d+", "mode": "fullmatch"}, "12", 1.0),
        ({"pattern": r"\d+$", "mode": "fullmatch"}, "12\n", 0.0),
        ({"pattern": r"\d+", "mode": "fullmatch"}, "12\ntrailing", 0.0),
        ({"pattern": r"(?m)^\d+\.", "count": 3}, LIST, 1.0),  # no more than 1
        ({"pattern": r"(?m)^\d+\.", "count": 8}, LIST, 0.5),
        ({"pattern": r"^\d+\.", "count": 4}, LIST, 0.25),  # flags are inside the pattern, never added
        ({"pattern": r"ä+", "ignore_case": True}, "ÄÄ", 1.0),
        ({"pattern": r"a*"}, "", 1.0),
    ],
)
def test_matches(parameters: dict[str, Any], response: str, expected: float) -> None:
    """min(1, matches / count)."""
    assert RegexReward(**parameters)(response=[response]).rewards[0] == expected


def test_a_conversation_is_judged_by_its_last_answer() -> None:
    """Messages are as good as text."""
    said = [{"role": "assistant", "content": "12 apples"}, {"role": "assistant", "content": "none"}]
    assert RegexReward("apples")(response=[said]).rewards[0] == 0.0


def test_a_penalty_by_its_scale() -> None:
    """The options of every reward turn it round, bounds and all."""
    reward = RegexReward("sorry", scale=-1.0)
    assert reward(response=["I am sorry."]).rewards[0] == -1.0
    assert reward.bounds == (-1.0, 0.0)
    assert not reward.higher_is_better


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"pattern": "[a-"}, r"'RegexReward': pattern '\[a-' is no regular expression"),
        ({"pattern": None}, "pattern must be text, found None"),
        ({"pattern": "a", "mode": "match"}, "mode must be one of search, fullmatch"),
        ({"pattern": "a", "count": 0}, "count must be a whole number >= 1, found 0"),
        ({"pattern": "a", "mode": "fullmatch", "count": 2}, "count must be 1 with mode='fullmatch'"),
    ],
)
def test_impossible_parameters(parameters: dict[str, Any], message: str) -> None:
    """Refused when the reward is built."""
    with pytest.raises(ConfigError, match=message):
        RegexReward(**parameters)
