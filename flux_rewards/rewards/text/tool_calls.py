"""Whether a response calls the tools that it should."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.data import RewardOutput, Sample
from flux_rewards.errors import InputError, brief
from flux_rewards.rewards.text.code_blocks import code_blocks
from flux_rewards.rewards.text.json_text import comparable, parse_json
from flux_rewards.rewards.text.matching import common_in_order, overlap_score
from flux_rewards.rewards.text.parts import part_of
from flux_rewards.validation import one_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ToolCallMatch"]

_NAME = re.compile(r"[\w.-]{1,64}")
_OPENING, _CLOSING = "<tool_call>", "</tool_call>"
_MAX_NAMED = 20


class _Call(NamedTuple):
    name: str
    arguments: Hashable | None
    """None in a reference: they don't matter."""


class ToolCallMatch(RewardFunction):
    r"""How far the tool calls of the response are those of the reference.

    ``"exact"``: 1.0 where the response makes the wanted calls and no others, else 0.0. With c = calls in common:
    ``"recall"``: c / wanted calls; ``"precision"``: c / calls made; ``"f1"``: 2 c / (both together).

    Args:
        score: ``"exact"``, ``"recall"``, ``"precision"`` or ``"f1"``.
        ordered: Whether the calls must come in the order of the reference; those in common are then the longest common
            subsequence.
        compare: ``"arguments"``: a call is its name and arguments; ``"name"``: its name alone.
        **options: Of every reward; see `RewardFunction`.

    The calls of a response, in order: ``tool_calls`` (and ``function_call``) of all its assistant messages, in OpenAI's
    form, ``{"function": {"name": ..., "arguments": ...}}`` or without the ``function`` around it; and in the text of
    these messages, or of a plain response, ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``, the form of
    Hermes and Qwen, one call or a list of them a block. In a text with thinking only what follows ``</think>`` counts,
    and what a fenced code block quotes is no call. Arguments are a mapping or its JSON text; none at all, null
    and empty text are ``{}``. They are compared as JSON values: 1 is 1.0, and names have no order. A call that cannot
    be read is a wrong one.

    The reference is one call or a list of calls in the same forms, or the JSON text of either; or the name of a
    function, or a list with names in it: then the arguments don't matter. An empty list: no call is right.

    Bounds: (0, 1). A response without calls scores 1.0 where none are wanted, else 0.0. Metadata: ``calls``, the names
    of those that were made, up to 20, None for one that cannot be read.

    Raises:
        ConfigError: A parameter is none of these.
        InputError: The reference is anything else, or the response is neither text nor messages.

    Does not read Python-like and XML-like calls, does not run tools, and does not fill in defaults of arguments.

    Examples:
        >>> reference = [{"name": "weather", "arguments": {"city": "Rome", "days": 1}}]
        >>> made = '<tool_call>{"name": "weather", "arguments": {"days": 1.0, "city": "Rome"}}</tool_call>'
        >>> ToolCallMatch()(response=[made, "It is sunny."], reference=[reference] * 2).rewards
        array([1., 0.])
        >>> messages = [{"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": "{}"}}]}]
        >>> ToolCallMatch()(response=[messages], reference=["weather"]).rewards
        array([1.])
    """

    required_fields = ("response", "reference")
    optional_fields = ()
    bounds = (0.0, 1.0)
    example_config = {"score": "f1", "compare": "name"}

    def __init__(
        self,
        score: str = "exact",
        ordered: bool = False,
        compare: str = "arguments",
        **options: Unpack[RewardOptions],
    ) -> None:
        super().__init__(**options)
        self.score = one_of(score, "score", self.name, ("exact", "recall", "precision", "f1"))
        self.ordered = ordered
        self.compare = one_of(compare, "compare", self.name, ("arguments", "name"))

    def compute_reward(self, sample: Sample) -> RewardOutput:
        """The agreement, and the names of the calls."""
        wanted = _wanted(sample.reference)
        made = list(_calls_of(sample))
        if self.compare == "name":
            wanted = [_Call(call.name, None) for call in wanted]
        common = _common_in_order(made, wanted) if self.ordered else _common(made, wanted)
        names = [None if call is None else call.name for call in made[:_MAX_NAMED]]
        return RewardOutput(overlap_score(self.score, common, len(made), len(wanted)), metadata={"calls": names})


def _common(made: Sequence[_Call | None], wanted: Sequence[_Call]) -> int:
    left = Counter(call for call in made if call is not None)
    exact = left & Counter(call for call in wanted if call.arguments is not None)
    left -= exact
    # What is left of each name may stand for those whose arguments don't matter.
    names = Counter(call.name for call in left.elements())
    return exact.total() + (names & Counter(call.name for call in wanted if call.arguments is None)).total()


def _common_in_order(made: Sequence[_Call | None], wanted: Sequence[_Call]) -> int:
    places: dict[_Call, int] = {}
    for position, call in enumerate(wanted):
        places[call] = places.get(call, 0) | 1 << position
    return common_in_order(
        [0 if call is None else places.get(call, 0) | places.get(_Call(call.name, None), 0) for call in made]
    )


def _calls_of(sample: Sample) -> Iterator[_Call | None]:
    response = sample.response
    if isinstance(response, str):
        yield from _calls_in_text(response)
        return
    _ = sample.response_text  # messages with an assistant among them, or an error that says so
    for message in response or ():
        if message.get("role") != "assistant":
            continue
        alone = Sample(response=[message]).response_text
        yield from _calls_in_text(alone)
        old = message.get("function_call")
        made = message.get("tool_calls") or ([] if old is None else [old])
        for call in made if isinstance(made, (list, tuple)) else [None]:
            yield _read(call)


def _calls_in_text(response: str) -> Iterator[_Call | None]:
    text = _unquoted(part_of(response, "final") or "")
    end = 0
    while (start := text.find(_OPENING, end)) >= 0:
        start += len(_OPENING)
        end = text.find(_CLOSING, start)
        if end < 0:
            yield None
            return
        try:
            content = parse_json(text[start:end])
        except ValueError:
            yield None
            continue
        for call in content if isinstance(content, list) else [content]:
            yield _read(call)


def _unquoted(text: str) -> str:
    """Without fenced code blocks."""
    if _OPENING not in text:
        return text
    blocks = code_blocks(text)
    starts = [0, *(block.end for block in blocks)]
    ends = [*(block.start for block in blocks), len(text)]
    return "".join(text[start:end] for start, end in zip(starts, ends, strict=True))


def _read(call: Any) -> _Call | None:
    """A call in any of its forms, or None."""
    if isinstance(call, Mapping) and isinstance(call.get("function"), Mapping):
        call = call["function"]
    if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
        return None
    arguments = call.get("arguments", call.get("parameters"))
    try:
        if isinstance(arguments, str) and arguments.strip():
            arguments = parse_json(arguments)
        arguments = {} if arguments is None or arguments == "" or isinstance(arguments, str) else arguments
        return _Call(call["name"], comparable(arguments)) if isinstance(arguments, Mapping) else None
    except ValueError:
        return None


def _wanted(reference: Any) -> list[_Call]:
    given = reference
    if isinstance(given, str) and not _NAME.fullmatch(given):
        try:
            given = parse_json(given)
        except ValueError as error:
            raise _no_calls(reference) from error
    entries = given if isinstance(given, (list, tuple)) else [given]
    calls = [
        _Call(entry, None) if isinstance(entry, str) and _NAME.fullmatch(entry) else _read(entry) for entry in entries
    ]
    if None in calls:
        raise _no_calls(reference)
    return [call for call in calls if call is not None]


def _no_calls(reference: Any) -> InputError:
    return InputError(
        "expected calls such as {'name': 'weather', 'arguments': {'city': 'Rome'}}, a list of them, their JSON text, "
        f"or names of functions, found {brief(reference)}",
        field="reference",
    )
