"""ToolCallMatch beyond the table of cases."""

import itertools
import json
from typing import Any

import pytest

from flux_rewards import ConfigError, InputError
from flux_rewards.rewards.text.tool_calls import ToolCallMatch

ROME = {"name": "weather", "arguments": {"city": "Rome", "days": 1}}


def assistant(*calls: Any, content: Any = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


@pytest.mark.parametrize(
    "response",
    [
        [assistant({"function": {"name": "weather", "arguments": '{"days": 1, "city": "Rome"}'}})],
        [assistant({"type": "function", "id": "x", "function": ROME})],
        [assistant(ROME)],
        [{"role": "assistant", "function_call": {"name": "weather", "arguments": json.dumps(ROME["arguments"])}}],
        [assistant(content=[{"type": "text", "text": f"<tool_call>\n{json.dumps(ROME)}\n</tool_call>"}])],
        f"<think>Hm.</think><tool_call>{json.dumps(ROME)}</tool_call>",
        f"<tool_call>{json.dumps({'name': 'weather', 'parameters': ROME['arguments']})}</tool_call>",
        f"<tool_call>{json.dumps({'function': ROME})}</tool_call>",
        [assistant(ROME), {"role": "tool", "content": "22"}, {"role": "assistant", "content": "It has 22 degrees."}],
    ],
)
@pytest.mark.parametrize("reference", [ROME, [ROME], json.dumps(ROME), json.dumps([{"function": ROME}])])
def test_all_forms_are_one(response: Any, reference: Any) -> None:
    """Of a call, and of a reference."""
    batch = ToolCallMatch()(response=[response], reference=[reference])
    assert batch.rewards.tolist() == [1.0]
    assert batch.metadata == [{"calls": ["weather"]}]


@pytest.mark.parametrize(
    "call",
    [None, 3, {}, {"name": 3}, {"function": {}}, {"name": "f", "arguments": "{"}, {"name": "f", "arguments": [1]},
     {"name": "f", "arguments": "[1]"}],
)  # fmt: skip
def test_a_call_that_cannot_be_read_is_a_wrong_one(call: Any) -> None:
    """Not none at all."""
    batch = ToolCallMatch("f1")(response=[[assistant(call, {"name": "f"})]], reference=[["f"]])
    assert batch.rewards.tolist() == [pytest.approx(2 / 3)]
    assert batch.metadata == [{"calls": [None, "f"]}]


@pytest.mark.parametrize("made", list(itertools.product("ab", repeat=3)))
@pytest.mark.parametrize("ordered", [False, True])
def test_calls_in_common(made: tuple[str, ...], ordered: bool) -> None:
    """By pairs in any order, or by the longest common subsequence, tried out."""
    wanted = ("a", "b", "a")
    if ordered:
        some = [set(itertools.combinations(names, size)) for names in (made, wanted) for size in range(4)]
        common = max(size for size in range(4) if some[size] & some[4 + size])
    else:
        common = sum(min(made.count(name), wanted.count(name)) for name in "ab")
    calls = [{"name": name, "arguments": {}} for name in made]
    reward = ToolCallMatch("recall", ordered)
    for reference in ([{"name": name} for name in wanted], list(wanted)):
        assert reward(response=[[assistant(*calls)]], reference=[reference]).rewards[0] == common / 3


def test_a_name_takes_what_the_whole_calls_leave() -> None:
    """A call with its arguments is matched first."""
    made = [assistant({"name": "f", "arguments": {"x": 1}}, {"name": "f", "arguments": {"x": 2}})]
    reference = ["f", {"name": "f", "arguments": {"x": 1}}]
    assert ToolCallMatch()(response=[made], reference=[reference]).rewards[0] == 1.0


@pytest.mark.parametrize(
    "reference", [3, "two words", [3], [{"nom": "f"}], {"name": "f", "arguments": "{"}, '{"a": 1}']
)
def test_what_is_no_reference(reference: Any) -> None:
    """Refused by name and place."""
    with pytest.raises(InputError, match="'ToolCallMatch', sample 0, field 'reference': expected calls such as"):
        ToolCallMatch()(response=["a"], reference=[reference])


def test_impossible_parameters_and_hostile_length() -> None:
    """Refused, and taken in one pass."""
    with pytest.raises(ConfigError, match="compare must be one of arguments, name"):
        ToolCallMatch(compare="names")
    responses = [mark * 50_000 for mark in ("<tool_call>", "<tool_call>{</tool_call>", "</tool_call>")]
    batch = ToolCallMatch("f1", ordered=True)(response=responses, reference=["f"] * 3)
    assert batch.rewards.tolist() == [0.0] * 3
    assert max(len(noted["calls"]) for noted in batch.metadata) == 20
