"""The part of a reply in which a verdict may stand."""

from __future__ import annotations

import re
import unicodedata

from flux_rewards.chat.reply import Reply, clipped
from flux_rewards.errors import JudgeError

__all__ = ["spoken", "tidy"]

_NAMES = "(?:think|thinking|thought|reasoning)"
_THOUGHT = re.compile(rf"<{_NAMES}>.*?</{_NAMES}>", re.DOTALL | re.IGNORECASE)
_OPENED = re.compile(rf"<{_NAMES}>", re.IGNORECASE)
_CLOSED = re.compile(rf".*</{_NAMES}>", re.DOTALL | re.IGNORECASE)
_UNSEEN = dict.fromkeys(
    [0x200B, 0x200C, 0x200D, 0x200E, 0x200F, 0x2060, 0xFEFF, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
)


def spoken(reply: Reply) -> str:
    """The text of a whole reply, without its reasoning.

    Raises:
        JudgeError: It was cut short or refused, or there is nothing in it.

    Examples:
        >>> spoken(Reply("<think>9? No.</think> Score: 3"))
        'Score: 3'
    """
    if reply.finish_reason == "length":
        raise JudgeError("the reply was cut short, and is not scored on what is there; raise max_tokens", "truncated")
    if reply.refusal or reply.finish_reason == "content_filter":
        raise JudgeError(f"the judge refused{f': {clipped(reply.refusal)!r}' if reply.refusal else ''}", "refused")
    text = _CLOSED.sub("", _THOUGHT.sub("", reply.text))
    if _OPENED.search(text):
        raise JudgeError("the reply ends within its reasoning; raise max_tokens")
    if not tidy(text):
        raise JudgeError("the reply is empty, but for its reasoning")
    return text.strip()


def tidy(text: str) -> str:
    """The same text in the characters that a verdict is looked for in: ASCII digits and colons, nothing unseen.

    Examples:
        >>> tidy("分数：８\u200b")
        '分数:8'
    """
    found = text.translate(_UNSEEN).replace("\r\n", "\n").replace("\r", "\n")
    return "".join(map(_plain_form, found)).strip()


def _plain_form(character: str) -> str:
    if character.isascii():
        return character
    digit = unicodedata.decimal(character, None)
    if digit is not None:
        return str(digit)
    if "\uff01" <= character <= "\uff5e":  # full-width forms
        return chr(ord(character) - 0xFEE0)
    if character == "\u066b":  # the Arabic decimal separator
        return "."
    return " " if unicodedata.category(character) == "Zs" else character
