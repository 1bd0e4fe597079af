"""Answers of a scripted chat server, good and bad; see `chat_server`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

__all__ = [
    "MODEL",
    "Answer",
    "endless",
    "first_token",
    "hanging_up",
    "raw",
    "reset",
    "said",
    "slow",
    "spoken",
    "status",
]

MODEL = "scripted"


@dataclass(frozen=True)
class Answer:
    """One answer, good or bad."""

    body: bytes = b""
    code: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    after: float = 0.0
    """Seconds before the first byte."""
    pause: float | None = None
    """Where given the body never ends: it is sent again and again, with so many seconds between."""
    resets: str = ""
    """``"at once"`` or ``"amid the body"``: the connection is reset there."""
    hangs_up: bool = False
    """The connection is closed behind the answer, without a word that it would be."""


def said(
    text: str | None,
    finish_reason: str | None = "stop",
    tokens: tuple[int, int] | None = (10, 5),
    after: float = 0.0,
    **message: Any,
) -> Answer:
    """An assistant's message.

    Args:
        text: What the assistant says.
        finish_reason: Why it stopped.
        tokens: Of the prompt and of the completion; None for a reply that tells no usage.
        after: Seconds before the first byte.
        **message: Further keys of the message, such as ``reasoning_content``.
    """
    return replace(_completion(finish_reason, tokens, content=text, **message), after=after)


def first_token(
    top: Mapping[str, float], said: str | None = None, finish_reason: str = "length", tokens: tuple[int, int] = (10, 1)
) -> Answer:
    """One token and its ``top_logprobs``; what is said is the likeliest unless told otherwise."""
    return spoken([top], said, finish_reason, tokens)


def spoken(
    steps: Sequence[Mapping[str, float]],
    said: str | None = None,
    finish_reason: str = "stop",
    tokens: tuple[int, int] | None = None,
) -> Answer:
    """Several tokens, each with its ``top_logprobs``, the one that is said among them: the likeliest.

    Args:
        steps: Of each token that is said, what might have stood there: text to log probability.
        said: The text of the message; the likeliest tokens by default.
        finish_reason: Why it stopped.
        tokens: Of the prompt and of the completion.
    """
    chosen = [max(top, key=lambda token: (not math.isnan(top[token]), top[token]), default="") for top in steps]
    if said is not None and len(steps) == 1:
        chosen = [said]
    content = [
        {**_candidate(token, top.get(token, -9999.0)), "top_logprobs": [_candidate(*each) for each in top.items()]}
        for token, top in zip(chosen, steps, strict=True)
    ]
    text = "".join(chosen) if said is None else said
    return _completion(finish_reason, tokens or (10, len(steps)), {"content": content}, content=text)


def status(code: int, body: str | bytes | Mapping[str, Any] | None = None, headers: Mapping[str, str] = {}) -> Answer:
    """An error, in the form that OpenAI gives them unless the body is told."""
    if body is None:
        body = {"error": {"message": HTTPStatus(code).phrase, "type": "error", "param": None, "code": code}}
    if isinstance(body, Mapping):
        body = json.dumps(body)
    return Answer(body.encode() if isinstance(body, str) else body, code, headers=dict(headers))


def raw(
    body: bytes | str | Mapping[str, Any],
    content_type: str = "application/json",
    headers: Mapping[str, str] = {},
) -> Answer:
    """These bytes, or this as JSON, with the status 200."""
    if isinstance(body, Mapping):
        body = json.dumps(body)
    return Answer(body.encode() if isinstance(body, str) else body, content_type=content_type, headers=dict(headers))


def reset(after_headers: bool = False) -> Answer:
    """The connection is reset (RST): before any byte, or when the headers and half of the body have been sent."""
    return replace(said("cut"), resets="amid the body" if after_headers else "at once")


def endless(fast: bool = False) -> Answer:
    """A body that never ends: a blank every 20 ms, or megabytes as fast as they are taken."""
    return Answer(b" " * 65536 if fast else b" ", pause=0.0 if fast else 0.02)


def slow(seconds: float, answer: Answer) -> Answer:
    """The answer, its first byte so many seconds later."""
    return replace(answer, after=answer.after + seconds)


def hanging_up(answer: Answer) -> Answer:
    """The answer, and behind it the end of the connection."""
    return replace(answer, hangs_up=True)


def _completion(
    finish_reason: str | None, tokens: tuple[int, int] | None, logprobs: Mapping[str, Any] | None = None, **message: Any
) -> Answer:
    spoken = {"role": "assistant", **message}
    choice = {"index": 0, "message": spoken, "logprobs": logprobs, "finish_reason": finish_reason}
    facts = {"id": "chatcmpl-0", "object": "chat.completion", "created": 0, "model": MODEL, "choices": [choice]}
    if tokens is not None:
        facts["usage"] = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
    return Answer(json.dumps(facts).encode())  # NaN is written as Python does


def _candidate(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}
