"""FormatReward: the whole response, from its first character to its last."""

from typing import Any

import pytest

from flux_rewards import ConfigError, FormatReward
from flux_rewards.rewards.text.format import ThinkAnswerFormat, ThinkFormat

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
        ({"tags": ["a"], "text_after": "some"}, "text_after must be one of none, allowed, required"),
    ],
)
def test_impossible_parameters(parameters: dict[str, Any], message: str) -> None:
    """Refused when the reward is built."""
    with pytest.raises(ConfigError, match=message):
        FormatReward(**parameters)


@pytest.mark.slow
@pytest.mark.parametrize(
    "response",
    [
        "<think>a</think>b",
        "<think>\na\n</think>\nb\n",
        "<think></think>",
        "<think>a</think>",
        "<think>a<think>b</think>c",
        "<think>a</think>b<think>",
        "a<think>b</think>",
        "<think>a",
        "a</think>b",
        "</think><think>",
        "<Think>a</Think>b",
        "",
        "7",
        "<think>\u601d\u8003</think>\u7b54",
    ],
)
def test_think_format_says_what_trl_says(response: str) -> None:
    """But for the two differences that it tells of."""
    from trl.rewards import think_format_reward

    expected = think_format_reward([[{"role": "assistant", "content": response}]])
    assert ThinkFormat()(response=[response]).rewards.tolist() == expected


@pytest.mark.slow
def test_where_think_format_differs_from_trl() -> None:
    """Whitespace before the block is no fault, a second closing tag is one."""
    from trl.rewards import think_format_reward

    responses = [" <think>a</think>b", "<think>a</think>b</think>c"]
    assert think_format_reward([[{"role": "assistant", "content": text}] for text in responses]) == [0.0, 1.0]
    assert ThinkFormat()(response=responses).rewards.tolist() == [1.0, 0.0]


def test_a_block_that_the_prompt_opened() -> None:
    """The response begins inside it; one that opens it again has the tag twice."""
    responses = ["a</think><answer>7</answer>", "<think>a</think><answer>7</answer>"]
    assert ThinkAnswerFormat(opened_by_prompt=True)(response=responses).rewards.tolist() == [1.0, 0.0]
    assert ThinkAnswerFormat()(response=responses).rewards.tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("text_after", "expected"), [("none", [1, 1, 0]), ("allowed", [1] * 3), ("required", [0, 0, 1])]
)
def test_text_after_the_blocks(text_after: str, expected: list[float]) -> None:
    """None, any, or some; whitespace is none."""
    reward = FormatReward(["plan"], text_after=text_after)
    responses = ["<plan>a</plan>", "<plan>a</plan>\n", "<plan>a</plan> b"]
    assert reward(response=responses).rewards.tolist() == expected
