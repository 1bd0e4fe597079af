"""TagCount, SectionsReward, ReasoningSteps and CodeFormat beyond the table of cases."""

import itertools
from typing import Any

import pytest

from flux_rewards import ConfigError, RewardFunction
from flux_rewards.rewards.text.code_format import CodeFormat
from flux_rewards.rewards.text.reasoning_steps import ReasoningSteps
from flux_rewards.rewards.text.sections import SectionsReward
from flux_rewards.rewards.text.tag_count import TagCount

CODE = "```python\nprint(1)\n```"


def test_tags_that_are_wrong_are_named() -> None:
    """Missing or repeated."""
    batch = TagCount()(response=["<think>a</think></think><answer>"])
    assert batch.rewards.tolist() == [0.5]
    assert batch.metadata == [{"wrong": ["</think>", "</answer>"]}]


@pytest.mark.parametrize("order", list(itertools.permutations(["Alpha", "Beta", "Gamma", "Delta"])))
def test_as_many_sections_count_as_stand_in_order(order: tuple[str, ...]) -> None:
    """The longest rising run, by trying all of them."""
    wanted = ["Alpha", "Beta", "Gamma", "Delta"]
    places = [order.index(name) for name in wanted]
    longest = max(
        size for size in range(1, 5) for some in itertools.combinations(places, size) if list(some) == sorted(some)
    )
    response = "\n".join(f"## {name}\ntext" for name in order)
    assert SectionsReward(wanted)(response=[response]).rewards[0] == longest / 4
    assert SectionsReward(wanted, "anywhere")(response=[response]).rewards[0] == longest / 4


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("Key results", True),
        ("### KEY  RESULTS ###", True),
        ("**Key results**", True),
        ("**Key results:** good", True),
        ("__Key results__:", True),
        ("3) Key results", True),
        ("> - *Key results*", True),
        ("Key results\uff1agood", True),
        ("Key results are good", False),
        ("The key results: good", False),
        ("Key resultsof", False),
        ("Key: results", False),
    ],
)
def test_forms_of_a_heading(line: str, found: bool) -> None:
    """A line of its own, or the beginning of one before a colon."""
    batch = SectionsReward(["Key results"])(response=[f"{line}\nSome text."])
    assert batch.rewards[0] == float(found)
    assert batch.metadata == [{"missing": [] if found else ["Key results"]}]


def test_capitals_of_sections_may_count() -> None:
    """Where they are asked to."""
    reward = SectionsReward(["Summary"], ignore_case=False)
    assert reward(response=["SUMMARY\na", "Summary\na"]).rewards.tolist() == [0.0, 1.0]


def test_steps_are_counted() -> None:
    """Where open-r1's pattern finds one: in the numbered list that begins behind other text."""
    batch = ReasoningSteps()(
        response=["Let me think.\n1. Add 3.\n2. Halve it.\n3. Round.", "Step 1: a\n- b\nFinally, c"]
    )
    assert batch.rewards.tolist() == [1.0, 1.0]
    assert batch.metadata == [{"steps": 3}, {"steps": 3}]


@pytest.mark.parametrize(
    ("parameters", "response", "why"),
    [
        ({}, CODE, None),
        ({}, f"{CODE}\nBye", "text follows the code block"),
        ({}, "a", "expected one code block, found 0"),
        ({}, f"{CODE}\n{CODE}", "expected one code block, found 2"),
        ({}, "```\na", "the code block is never closed"),
        ({}, "```\n```", "the code block is empty"),
        ({"language": "java"}, CODE, "the code block is marked 'python'"),
        ({"text_before": False}, f"a\n{CODE}", "text stands before the code block"),
        ({"inside": "answer"}, CODE, "expected <answer>...</answer> once, at the end"),
        ({"inside": "answer"}, f"<answer>{CODE}</answer>", None),  # what the tags hold is a text of its own
        ({"inside": "answer"}, f"a<answer>{CODE}\n</answer>\n", None),
        ({"inside": "answer", "text_before": False}, f"a<answer>{CODE}\n</answer>", "text stands before <answer>"),
        ({"part": "final"}, f"<think>{CODE}", "the thinking never ends"),
        ({"language": "PYTHON"}, CODE, None),
    ],
)
def test_what_is_wrong_with_a_code_block(parameters: dict[str, Any], response: str, why: str | None) -> None:
    """Is noted beside the zero."""
    batch = CodeFormat(**parameters)(response=[response])
    assert batch.rewards.tolist() == [float(why is None)]
    assert batch.metadata == [{} if why is None else {"why": why}]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TagCount(["a b"]), "tags must be names such as 'think'"),
        (lambda: TagCount([]), "tags must be one or more different names"),
        (lambda: SectionsReward([]), "sections: needs at least one keyword"),
        (lambda: SectionsReward(["a", "A"]), "sections: good lists 'A' twice"),
        (lambda: SectionsReward(["a"], "line"), "where must be one of heading, anywhere"),
        (lambda: ReasoningSteps(0), "min_steps must be a whole number >= 1"),
        (lambda: CodeFormat([]), "language must be one or more names"),
        (lambda: CodeFormat(" "), "language must be one or more names"),
        (lambda: CodeFormat(inside="<answer>"), "tags must be names such as 'think'"),
        (lambda: CodeFormat(part="answer"), "part must be one of response, final"),
    ],
)
def test_impossible_parameters(make: Any, message: str) -> None:
    """Refused when the reward is built."""
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    "reward",
    [TagCount(), SectionsReward(["Summary", "Step"]), SectionsReward(["summary"], "anywhere"), ReasoningSteps(),
     CodeFormat("python"), CodeFormat("python", "answer")],
    ids=repr,
)  # fmt: skip
def test_hostile_length_takes_one_pass(reward: RewardFunction) -> None:
    """Marks without end."""
    marks = ["<think>", "```\n", "`", "#", "* ", "## Summary\n", "Step 1 ", "1. ", " ", "\n", "<answer>", "First, "]
    rewards = reward(response=[mark * 100_000 for mark in marks]).rewards
    assert ((rewards >= 0) & (rewards <= 1)).all()
