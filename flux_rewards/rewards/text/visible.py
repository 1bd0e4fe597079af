"""What of a text says anything: the one place that decides whether there is content."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

__all__ = ["has_content", "printing"]

# Letters and signs of Unicode that print nothing: fillers of Hangul, the blank of Braille.
_FILLERS = frozenset("\u115f\u1160\u3164\uffa0\u2800")
# What ends, pads or begins a sequence, where it was decoded with the text: <|im_end|>, DeepSeek's with its own bars.
_CONTROL_TOKEN = re.compile(
    r"<[|\uff5c][^<>\s]{1,40}[|\uff5c]>|</?s>|<(?:pad|eos|bos|unk|mask|start_of_turn|end_of_turn)>|\[PAD\]"
)


def printing(text: str) -> Iterator[str]:
    r"""The characters of a text that print something by themselves, without those of control tokens.

    Not among them: whitespace, the control, format and private characters of Unicode (zero width spaces and joiners,
    marks of direction), its fillers, and combining marks.

    Examples:
        >>> list(printing("\u200b 7!<|im_end|>"))
        ['7', '!']
    """
    for character in _CONTROL_TOKEN.sub("", text):
        if not character.isspace() and unicodedata.category(character)[0] not in "CM" and character not in _FILLERS:
            yield character


def has_content(text: str) -> bool:
    r"""Whether anything in a text prints; the first character that does decides.

    Examples:
        >>> has_content("7"), has_content(" \u200b\n"), has_content("<|im_end|>")
        (True, False, False)
    """
    return next(printing(text), None) is not None
