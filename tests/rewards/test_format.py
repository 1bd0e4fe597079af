"""FormatReward: the whole response, from its first character to its last."""

from typing import Any

import pytest

from flux_rewards import ConfigError, FormatReward

GOOD = "<think>3 + 4</think><answer>7</answer>"


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (GOOD, 1.0),
        ("<think>\n3 + 4\n</think>\n\n<answer>\n7\n</answer>", 1.0),
        (f"  \n{GOOD}\n ", 1.0),
        ("<think>x < 3 and <b>bold</b></think><answer>ü 🙂</answer>", 1.0),
        (f"{GOOD} trailing", 0.0),
        (f"{GOOD}\ntrailing on another line", 0.0),  # the fault of a multi-line `$`
        (f"Sure! {GOOD}", 0.0),
        ("<think>3 + 4</think> so <answer>7</answer>", 0.0),
        ("<answer>7</answer><think>3 + 4</think>", 0.0),
        (f"{GOOD}{GOOD}", 0.0),
        ("<think>a</think><think>b</think><answer>7</answer>", 0.0),
        ("<think><think>a</think></think><answer>7</answer>", 0.0),
        ("<think>I close with </answer></think><answer>7</answer>", 0.0),
        ("<think>a<answer>7</answer></think>", 0.0),
        ("<think>a</think><answer>7", 0.0),
        ("<think>a<answer>7</answer>", 0.0),
        ("</think>a<think><answer>7</answer>", 0.0),
        ("<Think>a</Think><answer>7</answer>", 0.0),
        ("<think >a</think ><answer>7</answer>", 0.0),
        ("<think></think><answer>7</answer>", 0.0),
        ("<think> \n </think><answer>7</answer>", 0.0),
        ("<think>a</think>", 0.0),
        ("7", 0.0),
        ("", 0.0),
    ],
)
def test_blocks(response: str, expected: float) -> None:
    """Both blocks, in order, each tag once, and nothing else."""
    assert FormatReward(["think", "answer"])(response=[response]).rewards[0] == expected


def test_empty_blocks_where_they_are_allowed() -> None:
    """The option concerns the contents alone."""
    reward = FormatReward(["think", "answer"], allow_empty=True)
    responses = ["<think>\n\n</think><answer></answer>", "<think></think>", "<think></think><answer></answer>."]
    assert reward(response=responses).rewards.tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("pattern", "response", "expected"),
    [
        (r"yes|no", "yes", 1.0),
        (r"yes|no", "yes\n", 0.0),
        (r"yes|no$", "no\nbut", 0.0),
        (r"\{.*\}", "{\n1\n}", 1.0),
        (r"\{.*\}", "{1} trailing", 0.0),
        (r"", "", 1.0),
    ],
)
def test_pattern(pattern: str, response: str, expected: float) -> None:
    """A pattern matches the whole response, over its newlines."""
    assert FormatReward(pattern=pattern)(response=[response]).rewards[0] == expected


def test_hostile_length_takes_one_pass() -> None:
    """A pattern with nested quantifiers would not come back from these."""
    reward = FormatReward(["think", "answer"])
    responses = ["<think>" * 100_000, "<think>" + "<" * 1_000_000, " " * 1_000_000, "<think>a</think>" * 50_000]
    assert reward(response=responses).rewards.tolist() == [0.0] * 4


def test_a_conversation_is_judged_by_its_last_answer() -> None:
    """Messages are as good as text."""
    said = [{"role": "assistant", "content": "hm"}, {"role": "assistant", "content": GOOD}]
    assert FormatReward(["think", "answer"])(response=[said]).rewards[0] == 1.0


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "exactly one of tags and pattern"),
        ({"tags": ["think"], "pattern": "a"}, "exactly one of tags and pattern"),
        ({"tags": []}, "one or more different names"),
        ({"tags": "think"}, "tags must be a list of non-empty texts, found 'think'"),
        ({"tags": ["think", "think"]}, "one or more different names"),
        ({"tags": ["<think>"]}, "without brackets and spaces, found '<think>'"),
        ({"pattern": "(a"}, r"'\(a' is no regular expression: .*unterminated"),
        ({"pattern": 3}, "pattern must be text, found 3"),
    ],
)
def test_impossible_parameters(parameters: dict[str, Any], message: str) -> None:
    """Refused when the reward is built."""
    with pytest.raises(ConfigError, match=message):
        FormatReward(**parameters)
