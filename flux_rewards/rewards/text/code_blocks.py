"""Fenced code blocks, as CommonMark defines them, found in one pass over the lines."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["CodeBlock", "code_blocks"]

_FENCE = re.compile(r" {0,3}(?P<fence>`{3,}|~{3,})(?P<info>.*)")


class CodeBlock(NamedTuple):
    """A fenced block of a text."""

    language: str
    """The first word behind the opening fence, in lower case; empty where there is none."""
    content: str
    """The lines between the fences."""
    start: int
    """The character of the text at which the opening fence's line begins."""
    end: int
    """The character behind the closing fence's line."""
    closed: bool
    """Whether there is a closing fence; a block without one goes to the end of the text."""


def code_blocks(text: str) -> list[CodeBlock]:
    r"""The fenced code blocks of a text, in order: lines between two fences of three or more backticks or tildes.

    The closing fence has the same character, at least as many of it, and nothing else on its line, so that a block
    may hold shorter fences. Source: the CommonMark specification 0.31.2, part 4.5.

    Does not see blocks within quotes and lists, and no indented code.

    Examples:
        >>> [block[:2] for block in code_blocks("Look:\n```Python\nprint(1)\n```\nDone.")]
        [('python', 'print(1)')]
    """
    found: list[CodeBlock] = []
    fence, language, start, lines = "", "", 0, list[str]()
    position = 0
    for line in text.split("\n"):
        match = _FENCE.fullmatch(line.rstrip("\r"))
        end = min(position + len(line) + 1, len(text))
        if not fence:
            # Backticks behind backticks are code within a line.
            if match is not None and not (match["fence"][0] == "`" and "`" in match["info"]):
                words = match["info"].split()
                fence, language, start, lines = match["fence"], words[0].lower() if words else "", position, []
        elif (
            match is not None
            and match["fence"][0] == fence[0]
            and len(match["fence"]) >= len(fence)
            and not match["info"].strip()
        ):
            found.append(CodeBlock(language, "\n".join(lines), start, end, closed=True))
            fence = ""
        else:
            lines.append(line)
        position = end
    if fence:
        found.append(CodeBlock(language, "\n".join(lines), start, len(text), closed=False))
    return found
