"""The part of a reply in which a verdict may stand."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from flux_rewards.chat.reply import clipped
from flux_rewards.errors import JudgeError

if TYPE_CHECKING:
    from flux_rewards.chat.reply import Reply

__all__ = ["check_ended", "spoken", "tidy"]

_ENDED = (None, "stop", "eos", "eos_token", "end_turn", "stop_sequence", "stop_token")
_CUT = ("length", "max_tokens", "max_length", "model_length")
_REFUSED = ("content_filter", "safety", "refusal")

_THINKING = re.compile(
    r"[<\[◁](/?)(?:seed:)?(?:think|thinking|thought|reasoning|analysis)(?:\s[^<>\[\]\n]{0,80})?[>\]▷]", re.IGNORECASE
)
_CHANNEL, _FINAL = "<|channel|>", "<|channel|>final<|message|>"
_END_TOKEN = re.compile(r"(?:\s{0,8}(?:<[|｜][^<>\s]{1,40}[|｜]>|</s>|<end_of_turn>|<eos>|<turn\|>)){1,4}\s{0,8}$")
"""What a server with a wrong end token leaves behind a reply."""
_UNSEEN = dict.fromkeys(
    [0x200B, 0x200C, 0x200D, 0x200E, 0x200F, 0x2060, 0xFEFF, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
)


def spoken(reply: Reply) -> str:
    """The text of a whole reply, without its reasoning.

    Raises:
        JudgeError: It was cut short or refused, or there is nothing in it.

    Examples:
        >>> from flux_rewards.chat.reply import Reply
        >>> spoken(Reply("<think>9? No.</think> Score: 3"))
        'Score: 3'
    """
    check_ended(reply)
    text = _without_reasoning(reply.text)
    if not tidy(text):
        raise JudgeError(
            "the reply is empty, but for reasoning if there was any; raise max_tokens, or switch reasoning off"
        )
    return _END_TOKEN.sub("", text).strip()


def check_ended(reply: Reply, *, may_be_cut: bool = False) -> None:
    """Raise a `JudgeError` unless a reply is whole.

    Args:
        reply: The reply.
        may_be_cut: Its first token is all that is wanted.

    Examples:
        >>> from flux_rewards.chat.reply import Reply
        >>> check_ended(Reply("Yes", finish_reason="length"), may_be_cut=True)
    """
    reason = reply.finish_reason
    if reply.refusal or reason in _REFUSED:
        raise JudgeError(f"the judge refused{f': {clipped(reply.refusal)!r}' if reply.refusal else ''}", "refused")
    if reason in _CUT and not may_be_cut:
        raise JudgeError("the reply was cut short, and is not scored on what is there; raise max_tokens", "truncated")
    if reason not in (*_ENDED, *_CUT):
        raise JudgeError(f"the reply ended by {reason!r}, and is not scored on what is there", "truncated")


def _without_reasoning(text: str) -> str:
    """What stands outside of its tags; one that is only closed was opened by the chat template."""
    if _CHANNEL in text:
        if _FINAL not in text:
            raise JudgeError("the reply has no final channel; raise max_tokens")
        text = text.rpartition(_FINAL)[2].partition("<|")[0]
    kept: list[str] = []
    position, inside = 0, False
    for tag in _THINKING.finditer(text):
        if tag[1]:
            if not inside:
                kept.clear()
            inside = False
        elif not inside:
            kept.append(text[position : tag.start()])
            inside = True
        position = tag.end()
    if inside:
        raise JudgeError("the reply ends within its reasoning; raise max_tokens")
    return "".join([*kept, text[position:]])


def tidy(text: str) -> str:
    """The same text in the characters that a verdict is looked for in: ASCII digits and colons, nothing unseen.

    Examples:
        >>> tidy("分数：８\u200b")
        '分数:8'
    """
    found = text.translate(_UNSEEN).replace("\r\n", "\n").replace("\r", "\n")
    return found.strip() if found.isascii() else "".join(map(_plain_form, found)).strip()


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
