"""What an endpoint answered: bytes in, a reply or an error out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flux_rewards.errors import RemoteError, brief

__all__ = ["Reply", "clipped", "read_reply"]


@dataclass(frozen=True)
class Reply:
    """One reply of a chat model.

    Attributes:
        text: What it said; empty where it said nothing.
        finish_reason: Why it stopped: ``"stop"``, ``"length"``, ``"content_filter"``, ...; None where it is not told.
            In lower case.
        first_token: The likeliest tokens at its first place, with their log-probabilities; None where none came.
        refusal: What it said instead of an answer.
        prompt_tokens: Tokens of the question; None where it is not told.
        completion_tokens: Tokens of the answer, those of its reasoning too.
        latency: Seconds that this request took.
        attempts: Requests that were made for it.
    """

    text: str
    finish_reason: str | None = "stop"
    first_token: Sequence[tuple[str, float]] | None = None
    refusal: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    latency: float = 0.0
    attempts: int = 1


def clipped(text: str, length: int = 300) -> str:
    """A text for a message: its beginning and its end, where a verdict usually stands.

    Examples:
        >>> clipped("a" * 20 + "Score: 8", 20)
        'aaaaaaaaaa [...] aaScore: 8'
    """
    text = text.strip()
    half = length // 2
    return text if len(text) <= length else f"{text[:half]} [...] {text[-half:]}"


def read_reply(body: str, *, url: str, hide: Callable[[str], str] = str) -> Reply:
    """Read the body of an answer with status 200.

    Args:
        body: JSON in the form of OpenAI's chat completions.
        url: Who sent it, for messages.
        hide: Takes credentials out of a text, before it is cut short for a message.

    Raises:
        RemoteError: It is something else: another page, JSON that was cut short, an error, no choices.

    Examples:
        >>> read_reply('{"choices": [{"message": {"content": "Yes"}, "finish_reason": "stop"}]}', url="").text
        'Yes'
    """
    try:
        answer: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        looks_cut = body.lstrip()[:1] in ("{", "[")
        hint = "" if looks_cut else "; is api_base_url right? It usually ends in /v1"
        found = clipped(hide(body))
        message = f"{url} answered with something that is not JSON ({error}): {found!r}{hint}"
        raise RemoteError(message, retryable=looks_cut) from None
    failure: Any = answer.get("error") if isinstance(answer, dict) else None
    if failure:
        code = failure.get("code") if isinstance(failure, dict) else None
        transient = isinstance(code, int) and (code == 429 or code >= 500)
        raise RemoteError(f"{url} answered with an error: {clipped(hide(str(failure)))}", retryable=transient)
    choices = answer.get("choices") if isinstance(answer, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    said = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(said, dict):
        raise RemoteError(f"{url} answered without choices[0].message: {clipped(hide(body))!r}", retryable=True)
    usage = answer.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return Reply(
        _text(said.get("content")),
        finish_reason=_reason(choice.get("finish_reason")),
        first_token=_first_token(choice.get("logprobs"), url),
        refusal=str(said["refusal"]) if said.get("refusal") else None,
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
    )


def _text(content: Any) -> str:
    """Text, or parts of which some are text."""
    if isinstance(content, list):
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    # Half a character could not be written to a file.
    return content.encode(errors="replace").decode() if isinstance(content, str) else ""


def _reason(value: Any) -> str | None:
    """A word; some servers send an object of which that is the type."""
    if isinstance(value, Mapping):
        value = value.get("type")
    return None if value is None else str(value).lower()


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _first_token(logprobs: Any, url: str) -> list[tuple[str, float]] | None:
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(content, list) or not content or not isinstance(content[0], dict):
        return None
    listed = content[0].get("top_logprobs")
    if not isinstance(listed, list) or not listed:
        return None
    found: dict[tuple[str, float], None] = {}  # the one that was sampled may be listed twice
    for entry in listed:
        token = entry.get("token") if isinstance(entry, dict) else None
        value: Any = entry.get("logprob") if isinstance(entry, dict) else None
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        # Rounding may leave a little more than 0; OpenAI writes -9999 for minus infinity.
        if not isinstance(token, str) or not number or math.isnan(value) or value > 1e-3:
            raise RemoteError(f"{url} sent a log-probability that is none: {brief(entry)}", retryable=True)
        found[token, min(float(value), 0.0)] = None
    return list(found)
