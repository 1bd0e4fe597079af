"""The part of a response that is judged."""

from __future__ import annotations

import re
from collections.abc import Callable

from flux_rewards.rewards.text.code_blocks import code_blocks

__all__ = ["PARTS", "braced", "last_box", "last_line", "part_of"]

_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BOX = re.compile(r"\\(?:boxed|fbox)\b\s?")


def braced(text: str, start: int) -> str | None:
    r"""What stands between the brace at `start` and the one that closes it, or None where none does.

    Examples:
        >>> braced(r"\boxed{\frac{1}{2}} and so on", 6)
        '\\frac{1}{2}'
    """
    depth = 0
    for brace in _BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return text[start + 1 : brace.start()]
    return None


def last_box(text: str) -> str | None:
    r"""The content of the last ``\boxed{...}`` or ``\fbox{...}``; None without one, and where it is never closed.

    Examples:
        >>> last_box(r"\boxed{1}, no, \boxed{\text{Rome}}")
        '\\text{Rome}'
    """
    boxes = list(_BOX.finditer(text))
    if not boxes or not text.startswith("{", boxes[-1].end()):
        return None
    return braced(text, boxes[-1].end())


def last_line(text: str) -> str:
    r"""The last line that is not blank; empty where all are.

    Examples:
        >>> last_line("Let me think.\nParis\n\n")
        'Paris'
    """
    return text.rstrip().rpartition("\n")[2]


def _final(text: str) -> str | None:
    _, closed, after = text.rpartition("</think>")
    return None if "<think>" in after else after if closed else text


def _answer(text: str) -> str | None:
    _, opened, after = text.rpartition("<answer>")
    content, closed, _ = after.partition("</answer>")
    return content if opened and closed else None


def _code_block(text: str) -> str | None:
    blocks = code_blocks(text)
    return blocks[0].content if len(blocks) == 1 and blocks[0].closed else None


def _of_final(read: Callable[[str], str | None]) -> Callable[[str], str | None]:
    """What was only thought was not said: a part is read in what follows the thinking."""

    def read_final(text: str) -> str | None:
        said = _final(text)
        return None if said is None else read(said)

    return read_final


PARTS: dict[str, Callable[[str], str | None]] = {
    "response": lambda text: text,
    "final": _final,
    "answer": _of_final(_answer),
    "boxed": _of_final(last_box),
    "last_line": _of_final(last_line),
    "code_block": _of_final(_code_block),
}
r"""By name. ``response``: all of it; ``final``: what follows the last ``</think>``, whether ``<think>`` stands before
it or in the prompt, and all of it without that tag. In that final part, ``answer``: what the last
``<answer>...</answer>`` holds; ``boxed``: what the last ``\boxed{...}`` holds; ``last_line``: the last line that is not
blank; ``code_block``: what the one fenced code block holds."""


def part_of(text: str, part: str) -> str | None:
    """The named part of a response, or None where it has no such part: none was begun, or it was cut off inside.

    All but ``response`` are missing where thinking was begun and never closed, ``code_block`` where there are several.

    Examples:
        >>> part_of("<think><answer>Rome</answer>?</think>So: <answer>Paris</answer>", "answer")
        'Paris'
        >>> part_of("<think>Rome?</think>Paris", "final")
        'Paris'
    """
    return PARTS[part](text)
