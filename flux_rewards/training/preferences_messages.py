"""Conversations of preference pairs: what is one, and what two of them share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import InputError, brief, close_match
from flux_rewards.fingerprint import same

if TYPE_CHECKING:
    from flux_rewards.data import Messages

__all__ = ["check_conversation", "is_conversation", "split_shared_prompt", "texts_of"]

_TOOLS = ("tool", "function")
_ROLES = ("system", "developer", "user", "assistant", *_TOOLS)


def is_conversation(value: Any) -> bool:
    """Whether a value is meant as chat messages: a list, and no text.

    Examples:
        >>> is_conversation([{"role": "user", "content": "Hi"}]), is_conversation("Hi")
        (True, False)
    """
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def check_conversation(messages: Any, field: str) -> None:
    """Raise unless a value is chat messages, each with a known role and something in it.

    Raises:
        InputError: It is not; names the message.

    Examples:
        >>> check_conversation([{"role": "user", "content": "Hi"}], "prompt")
    """
    if not messages:
        raise InputError("is an empty list; expected chat messages", field=field)
    for number, message in enumerate(messages):
        where = f"message {number}"
        if not isinstance(message, Mapping):
            raise InputError(
                f"{where} must be a mapping with 'role' and 'content', found {brief(message)}", field=field
            )
        if "role" not in message:
            keys = ", ".join(map(str, message)) or "nothing"
            hint = "; rename 'from' to 'role' and 'value' to 'content'" if "from" in message else ""
            raise InputError(f"{where} has no 'role'; it has {keys}{hint}", field=field)
        role = message["role"]
        if role not in _ROLES:
            hint = close_match(role, _ROLES) if isinstance(role, str) else ""
            raise InputError(
                f"{where} has the role {brief(role)}{hint}; the known ones are {', '.join(_ROLES)}", field=field
            )
        _check_content(message, where, field)


def _check_content(message: Mapping[str, Any], where: str, field: str) -> None:
    content: Any = message.get("content")
    if isinstance(content, str):
        empty = not content.strip()
    elif is_conversation(content):
        if not all(isinstance(part, Mapping) for part in content):
            raise InputError(f"{where} has parts that are no mappings: {brief(content)}", field=field)
        empty = not content
    elif content is None:
        empty = True
    else:
        raise InputError(f"the content of {where} must be text or a list of parts, found {brief(content)}", field=field)
    # A call of a tool says nothing, and a tool may answer nothing.
    if empty and not message.get("tool_calls") and message["role"] not in _TOOLS:
        raise InputError(f"{where} ({message['role']}) is empty", field=field)


def split_shared_prompt(chosen: Messages, rejected: Messages) -> tuple[Messages, Messages, Messages]:
    """Split two whole conversations into the prompt that they share and the two responses.

    The prompt is what they begin with alike, up to the assistant's message at which they part: TRL calls it the
    implicit prompt. Where they part at the answer of a tool, the call of the tool belongs to the responses too. Where
    one ends and the other goes on, or both are the same, the last answer that they have in common is a response.

    Returns:
        (prompt, chosen, rejected). The prompt is empty where they part at the first message, and it is an assistant's.

    Raises:
        InputError: They part at another message than an assistant's.

    Examples:
        >>> user, good, bad = ({"role": role, "content": text}
        ...                    for role, text in (("user", "2 + 2?"), ("assistant", "4"), ("assistant", "5")))
        >>> split_shared_prompt([user, good], [user, bad]) == ([user], [good], [bad])
        True
    """
    shorter = min(len(chosen), len(rejected))
    parted = next((at for at in range(shorter) if not same(chosen[at], rejected[at])), shorter)
    at = min(parted, shorter - 1)
    both = (chosen, rejected)
    goes_on = [messages[parted] for messages in both if len(messages) > parted]
    asks_on = parted == shorter and any(message["role"] not in ("assistant", *_TOOLS) for message in goes_on)
    while at > 0 and any(messages[at]["role"] in _TOOLS for messages in both):
        at -= 1
    if asks_on or any(messages[at]["role"] != "assistant" for messages in both):
        found = " against ".join(brief(messages[parted]) if parted < len(messages) else "its end" for messages in both)
        raise InputError(
            f"the conversations part at message {parted}, {found}, and not at an assistant's answer; "
            "both must answer the same prompt",
            field="rejected",
        )
    return chosen[:at], chosen[at:], rejected[at:]


def texts_of(messages: Messages) -> list[tuple[str, str]]:
    """(role, text) of each message; parts that are no text are left out.

    Examples:
        >>> texts_of([{"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image"}]}])
        [('user', 'Hi')]
    """
    return [(str(message["role"]), _text(message.get("content"))) for message in messages]


def _text(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(str(part.get("text") or "") for part in content if part.get("type", "text") == "text")
