"""Parts of a response, and the code blocks in it."""

import random

import pytest

from flux_rewards.rewards.text.code_blocks import code_blocks
from flux_rewards.rewards.text.parts import PARTS, part_of


@pytest.mark.parametrize(
    ("part", "text", "expected"),
    [
        ("response", " a\n", " a\n"),
        ("final", "a", "a"),
        ("final", "<think>a</think>b", "b"),
        ("final", "<think>a</think>b<think>c</think>d", "d"),
        ("final", "a</think>b", "b"),  # the template opened it
        ("final", "<think>a</think>b<think>c", None),
        ("final", "", ""),
        ("answer", "<answer>a</answer>b", "a"),
        ("answer", "<answer>a</answer><answer>b", None),
        ("answer", "a</answer>", None),
        ("answer", "<answer></answer>", ""),
        ("answer", "<think><answer>a</answer></think>b", None),
        ("answer", "<think><answer>a</answer></think><answer>b</answer>", "b"),
        ("answer", "a</think><answer>b</answer>", "b"),
        ("answer", "<think><answer>a</answer>", None),
        ("boxed", r"<think>\boxed{a}</think>b", None),
        ("boxed", r"<think>\boxed{a}", None),
        ("last_line", "<think>\na", None),
        ("code_block", "<think>\n```\na\n```\n</think>\n```\nb\n```", "b"),
        ("response", "<think>a", "<think>a"),
        ("boxed", r"\boxed{a}", "a"),
        ("boxed", r"\fbox{a}", "a"),
        ("boxed", r"\boxed {a}", "a"),
        ("boxed", r"\boxed{a{b}c} and \boxed{d\}e}", r"d\}e"),
        ("boxed", r"\boxed{a} and \boxed{b", None),
        ("boxed", r"\boxed a", None),
        ("boxed", r"\boxedness{a}", None),
        ("last_line", "a\n b \n\n", " b"),
        ("last_line", "\n", ""),
        ("code_block", "```py\na\n```", "a"),
        ("code_block", "```py\na", None),
        ("code_block", "a", None),
    ],
)
def test_parts(part: str, text: str, expected: str | None) -> None:
    """The last one of its kind; None where there is none, or where it was cut off."""
    assert part_of(text, part) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("```\na\nb\n```", [("", "a\nb", True)]),
        ("``` Python 3\na\n```", [("python", "a", True)]),
        ("  ~~~js\na\n   ~~~  \nb", [("js", "a", True)]),
        ("````\n```\na\n```\n````", [("", "```\na\n```", True)]),
        ("~~~\n```\n~~~", [("", "```", True)]),
        ("```\na\n``` x\n```", [("", "a\n``` x", True)]),  # a closing fence has nothing behind it
        ("    ```\na", []),  # four spaces are indented code
        ("``` a`b", []),
        ("``\na\n``", []),
        ("```\na", [("", "a", False)]),
        ("```\n```\n```\n```", [("", "", True), ("", "", True)]),
        ("```py\r\na\r\n```\r\n", [("py", "a\r", True)]),
        ("", []),
    ],
)
def test_code_blocks(text: str, expected: list[tuple[str, str, bool]]) -> None:
    """Fences by the rules of CommonMark."""
    blocks = code_blocks(text)
    assert [(block.language, block.content, block.closed) for block in blocks] == expected


def test_blocks_stand_where_they_say() -> None:
    """The lines from start to end are the block's, with its fences."""
    text = "before\n```py\na\n```\nbetween\n~~~\nb\n~~~"
    assert [text[block.start : block.end] for block in code_blocks(text)] == ["```py\na\n```\n", "~~~\nb\n~~~"]


def test_no_text_breaks_them() -> None:
    """Scraps of all marks, in any order."""
    generator = random.Random(0)
    scraps = ["<think>", "</think>", "<answer>", "</answer>", "\\boxed{", "}", "{", "```", "\n", "~~~~", " ", "a", "\\"]
    for _ in range(2000):
        text = "".join(generator.choices(scraps, k=generator.randrange(20)))
        for part in PARTS:
            found = part_of(text, part)
            assert found is None or found in text.replace("\r", "")
