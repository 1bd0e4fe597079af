"""MultipleChoice beyond the table of cases: what it notes, refuses and survives."""

from typing import Any

import numpy as np
import pytest

from flux_rewards import ConfigError, InputError
from flux_rewards.rewards.text.multiple_choice import MultipleChoice


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("The answer is (B).", {"answer": "B"}),
        ("A or B", {"answer": None, "why": "no answer"}),
        ("The answer is A or B", {"answer": None, "why": "ambiguous"}),
        ("The answer is (A), (B)", {"answer": None, "why": "ambiguous"}),
        ("(A) red (B) blue", {"answer": None, "why": "ambiguous"}),
        ("A\nB", {"answer": None, "why": "ambiguous"}),
        ("<think>The answer is B", {"answer": None, "why": "no answer"}),
        ("", {"answer": None, "why": "no answer"}),
    ],
)
def test_what_was_read_is_noted(response: str, expected: dict[str, Any]) -> None:
    """The letter, or why there is none."""
    assert MultipleChoice()(response=[response], reference=["B"]).metadata == [expected]


@pytest.mark.parametrize("label", "ABCDEFGHIJ")
@pytest.mark.parametrize(
    "form",
    [
        "{}", "({})", "{})", "{}.", "**{}**", "The answer is {}", "The answer is {}.", "The correct answer is: ({})",
        "the answer is **{}**", "Answer: {}", "**Answer**: {}", "ANSWER: {}) some text", "Final Answer: {}.",
        r"\boxed{{{}}}", r"$\boxed{{\text{{{}}}}}$", r"\boxed{{({})}}", "<answer>{}</answer>",
        "<answer>\n({})\n</answer>",
        "Well.\n\n{}", "Well.\n{}) something", "The correct option is ({})", "So it is ({}).", "答案\uff1a{}",
        "The answer is option {}.", "Answer:\n{}", "[{}]",
        "I choose {}.", "{} is correct", "\u6545\u9009{}", "<think>A or B?</think>{}",
    ],
)  # fmt: skip
def test_every_label_in_every_form(label: str, form: str) -> None:
    """Whatever the letter: A and I, too, where they cannot be words."""
    assert MultipleChoice()(response=[form.format(label)], reference=[label]).rewards[0] == 1.0


@pytest.mark.parametrize("reference", ["B", "b", "(B)", "B.", " B ", 1, np.int64(1), "Rome", "rome", "Rome."])
def test_forms_of_a_reference(reference: Any) -> None:
    """A letter, a position or the option's text."""
    reward = MultipleChoice(["Paris", "Rome"])
    assert reward(response=["B", "A"], reference=[reference] * 2).rewards.tolist() == [1.0, 0.0]


@pytest.mark.parametrize(("reference", "message"), [(2, "from 0 to 1, found 2"), (-1, "found -1"), (1.0, "found 1.0")])
def test_what_is_no_reference(reference: Any, message: str) -> None:
    """Refused by name and place."""
    with pytest.raises(InputError, match=rf"'MultipleChoice', sample 0, field 'reference': .*{message}"):
        MultipleChoice(["Paris", "Rome"])(response=["A"], reference=[reference])


def test_other_labels() -> None:
    """Small letters and digits are labels where they are said to be."""
    assert MultipleChoice(labels="1234")(response=["The answer is (3)."], reference=["3"]).rewards[0] == 1.0
    assert MultipleChoice(labels="abcd")(response=[r"\boxed{B}"], reference=["b"]).rewards[0] == 1.0


@pytest.mark.parametrize("options", [[], ["a", 3], ["a", " "], list("abcdefghijk"), {"A": "x"}])
def test_options_that_are_none(options: Any) -> None:
    """The sample's metadata are checked."""
    with pytest.raises(InputError, match="field 'metadata': expected 1 to 10 texts under 'choices'"):
        MultipleChoice(options_key="choices")(response=["A"], reference=["A"], metadata=[{"choices": options}])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"options": ["a"]}, "options must be 2 to 10 texts"),
        ({"options": "ab"}, "options must be a list of non-empty texts"),
        ({"labels": "AAB"}, "labels must be different letters or digits"),
        ({"labels": "A-"}, "labels must be different letters or digits"),
        ({"options_key": ""}, "options_key must be a text"),
    ],
)
def test_impossible_parameters(parameters: dict[str, Any], message: str) -> None:
    """Refused when the reward is built."""
    with pytest.raises(ConfigError, match=message):
        MultipleChoice(**parameters)


def test_hostile_length_takes_one_pass() -> None:
    """Marks without end."""
    marks = ["the answer is ", "<answer>", r"\boxed{", "A) x\n", "(A)", "answer is B ", "答案是", "A or "]
    responses = [mark * 50_000 for mark in marks]
    assert MultipleChoice()(response=responses, reference=["C"] * len(marks)).rewards.tolist() == [0.0] * len(marks)
