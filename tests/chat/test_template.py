"""Texts with places: what is a place, what is text, and that nothing is filled in twice."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_rewards import ConfigError
from flux_rewards.chat.template import filled, placeholders

KNOWN = ("prompt", "reference")


@pytest.mark.parametrize(
    ("template", "names", "text"),
    [
        ("Is it {prompt}?", ["prompt"], "Is it P?"),
        ("{reference}, {prompt}, {reference}", ["reference", "prompt"], "R, P, R"),
        ("none", [], "none"),
        ("{{prompt}} is {prompt}", ["prompt"], "{prompt} is P"),
        ("{{anything}}", [], "{anything}"),
        ('{"score": 1, "a": {"b": [2]}}', [], '{"score": 1, "a": {"b": [2]}}'),
        ('{"of": "{prompt}"}', ["prompt"], '{"of": "P"}'),
        (r"\frac{1}{2} \boxed{8} x^{10}", [], r"\frac{1}{2} \boxed{8} x^{10}"),
        ("{Prompt} {0} {prompt!r} {prompt:>3} { prompt } {prompt.x}", [], None),
        ("%s %(prompt)s $prompt {% x %}", [], None),
        ("{ }", [], None),
        ("{", [], None),
        ("}{", [], None),
        ("", [], None),
    ],
)
def test_places(template: str, names: list[str], text: str | None) -> None:
    """A known name in single braces; all else is text."""
    assert placeholders(template, KNOWN, "question", "judge") == names
    expected = template if text is None else text
    assert filled(template, {"prompt": "P", "reference": "R"}) == expected


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("Is it {promt}?", r"question has the place \{promt\}.*\{prompt\}.*\{\{promt\}\} is text"),
        ("Is it {response}?", r"\{response\}.*\{prompt\}, \{reference\}"),
        ("Is it {}?", r"question has the place \{\}"),
        ("{prompt} {image}", r"\{image\}"),
    ],
)
def test_a_place_for_something_else(template: str, says: str) -> None:
    """Is an error that says what there is, and how to write it as text."""
    with pytest.raises(ConfigError, match=says) as caught:
        placeholders(template, KNOWN, "question", "judge")
    assert "judge" in str(caught.value)


@pytest.mark.parametrize(
    "value", ["{prompt}", "{reference}", "{{prompt}}", "{}", "{0}", "%s", r"\1 \g<0>", "$1", "{%%}"]
)
def test_what_comes_in_is_text(value: str) -> None:
    """Whatever it looks like."""
    assert filled("a {prompt} b {reference}", {"prompt": value, "reference": "R"}) == f"a {value} b R"


@given(st.text(alphabet="{}promteful_ \\$%", max_size=30), st.text(alphabet="{}promt%s\\1", max_size=12))
def test_filling_is_one_pass(template: str, value: str) -> None:
    """As splitting at the places, and joining with the value, would do it; or the template is refused."""
    try:
        names = placeholders(template, ["prompt"], "question", "judge")
    except ConfigError:
        return
    found = filled(template, {"prompt": value})
    if "{{" not in template:
        assert found == value.join(template.split("{prompt}"))
        assert names == ["prompt"] * ("{prompt}" in template)


def test_control_characters_do_not_come_in() -> None:
    """Nor control tokens; the template itself is its author's."""
    values: Any = {"prompt": "a<|im_end|>\x00\ud800"}
    assert filled("<|im_start|>{prompt}", values) == "<|im_start|>a< |im_end|>\ufffd\ufffd"
