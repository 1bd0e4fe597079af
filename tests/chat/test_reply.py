"""What an endpoint answered: bodies good and bad."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from flux_rewards import RemoteError
from flux_rewards.chat.reply import clipped, read_reply

URL = "http://there/v1"


def body(message: Any = None, **choice: Any) -> str:
    """Of one choice."""
    spoken = {"role": "assistant", "content": "Yes"} if message is None else message
    return json.dumps({"choices": [{"index": 0, "message": spoken, "finish_reason": "stop", **choice}]})


def listed(*top: Any) -> dict[str, Any]:
    """Log-probabilities of the first token, and of a second one."""
    second = {"token": "!", "logprob": 0.0, "top_logprobs": [{"token": "!", "logprob": 0.0}]}
    return {"content": [{"token": "Yes", "logprob": -0.1, "top_logprobs": list(top)}, second]}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("Yes", "Yes"),
        ("", ""),
        (None, ""),
        (7, ""),
        ([{"type": "text", "text": "Ye"}, {"type": "text", "text": "s"}], "Yes"),
        ([{"type": "image_url"}, {"type": "text", "text": None}, "odd", {"type": "text", "text": "Yes"}], "Yes"),
        ("  <think>\n</think> 8 \n", "  <think>\n</think> 8 \n"),
    ],
)
def test_what_it_said(content: Any, text: str) -> None:
    """Text, or parts of it; nothing is none."""
    assert read_reply(body({"content": content}), url=URL).text == text
    assert read_reply(body({}), url=URL).text == ""


def test_all_that_is_told() -> None:
    """Why it stopped, what it took, what it refused."""
    answer = json.loads(body({"content": None, "refusal": "No."}, finish_reason="content_filter"))
    answer["usage"] = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
    reply = read_reply(json.dumps(answer), url=URL)
    assert (reply.text, reply.refusal, reply.finish_reason) == ("", "No.", "content_filter")
    assert (reply.prompt_tokens, reply.completion_tokens, reply.first_token) == (12, 3, None)


@pytest.mark.parametrize("usage", [None, [], "many", {}, {"prompt_tokens": "12"}, {"prompt_tokens": True}])
def test_usage_that_is_none_is_not_told(usage: Any) -> None:
    """It is no reason to lose a verdict."""
    answer = {**json.loads(body()), "usage": usage}
    reply = read_reply(json.dumps(answer), url=URL)
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens) == ("Yes", None, None)


def test_only_the_first_choice_counts() -> None:
    """Where there are several."""
    answer = json.loads(body())
    answer["choices"].append({"message": {"content": "No"}, "finish_reason": "length"})
    assert read_reply(json.dumps(answer), url=URL).text == "Yes"


@pytest.mark.parametrize(
    ("given", "reason"),
    [(None, None), ("stop", "stop"), ("LENGTH", "length"), ({"type": "length", "length": 9}, "length"), ({}, None)],
)
def test_why_it_stopped(given: Any, reason: str | None) -> None:
    """In whatever form: what was cut short must be known as such."""
    assert read_reply(body(finish_reason=given), url=URL).finish_reason == reason


def test_the_first_tokens() -> None:
    """Each once, in their order; minus infinity has its number, rounding above 0 is 0."""
    top = [
        {"token": "Yes", "logprob": -0.25, "bytes": [89]},
        {"token": " yes", "logprob": -9999.0},
        {"token": "No", "logprob": 1e-6},
        {"token": "Yes", "logprob": -0.25},
        {"token": "Yes", "logprob": -3},
    ]
    reply = read_reply(body(logprobs=listed(*top)), url=URL)
    assert reply.first_token == [("Yes", -0.25), (" yes", -9999.0), ("No", 0.0), ("Yes", -3.0)]
    infinite = read_reply(body(logprobs=listed({"token": "No", "logprob": -math.inf})), url=URL)
    assert infinite.first_token == [("No", -math.inf)]


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        {},
        [],
        "none",
        {"content": None},
        {"content": []},
        {"content": ["Yes"]},
        {"content": [{"token": "Yes", "logprob": -0.1}]},
        listed(),
        {"tokens": ["Yes"], "token_logprobs": [-0.1], "top_logprobs": [{"Yes": -0.1}]},  # of the old completions
    ],
)
def test_no_log_probabilities_are_none(logprobs: Any) -> None:
    """The text is there all the same, and the judge that needs them says so."""
    reply = read_reply(body(logprobs=logprobs), url=URL)
    assert (reply.text, reply.first_token) == ("Yes", None)


@pytest.mark.parametrize(
    "entry",
    [
        {"token": "Yes", "logprob": math.nan},
        {"token": "Yes", "logprob": math.inf},
        {"token": "Yes", "logprob": 0.5},
        {"token": "Yes", "logprob": "-0.1"},
        {"token": "Yes", "logprob": True},
        {"token": "Yes", "logprob": None},
        {"token": "Yes"},
        {"token": 7, "logprob": -0.1},
        {"logprob": -0.1},
        "Yes",
        None,
    ],
)
def test_a_log_probability_that_is_none_is_an_error(entry: Any) -> None:
    """One that is wrong makes the others worthless: a share of what is left would be made up."""
    with pytest.raises(RemoteError, match="log-probability") as caught:
        read_reply(body(logprobs=listed({"token": "No", "logprob": -0.1}, entry)), url=URL)
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("given", "retryable", "says"),
    [
        ("", False, "JSON"),
        ("   \n", False, "JSON"),
        ("<html><title>Welcome</title></html>", False, "api_base_url"),
        ("data: {}\n\ndata: [DONE]\n\n", False, "JSON"),  # a stream
        ('{"choices": [{"message": {"cont', True, "cont"),
        ('{"choices": [}', True, "JSON"),
        ("[" * 100_000, True, "JSON"),
        ("null", True, "choices"),
        ("17", True, "choices"),
        ('"Yes"', True, "choices"),
        ("[]", True, "choices"),
        ("{}", True, "choices"),
        ('{"choices": null}', True, "choices"),
        ('{"choices": {}}', True, "choices"),
        ('{"choices": []}', True, "choices"),
        ('{"choices": ["Yes"]}', True, "choices"),
        ('{"choices": [{"text": "Yes"}]}', True, "choices"),
        ('{"choices": [{"message": "Yes"}]}', True, "choices"),
        ('{"error": "overloaded"}', False, "overloaded"),
        ('{"error": {"message": "slow down", "code": 429}}', True, "slow down"),
        ('{"error": {"message": "broken", "code": 503}}', True, "broken"),
        ('{"error": {"message": "no model", "code": 404}}', False, "no model"),
        ('{"error": {"message": "odd", "code": "server_error"}, "choices": []}', False, "odd"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_reply(given: str, retryable: bool, says: str) -> None:
    """Says what came, and from where; what was cut may come whole."""
    with pytest.raises(RemoteError, match=says) as caught:
        read_reply(given, url=URL)
    assert URL in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert caught.value.retryable is retryable


def test_an_error_of_nothing_is_none() -> None:
    """Some servers send the key with every answer."""
    nothings: tuple[Any, ...] = (None, {}, "")
    for nothing in nothings:
        answer = {**json.loads(body()), "error": nothing}
        assert read_reply(json.dumps(answer), url=URL).text == "Yes"


@pytest.mark.parametrize("refusal", [True, 7, {"why": "no"}, ["no"]])
def test_a_refusal_that_is_no_text(refusal: Any) -> None:
    """Is read as one all the same: a text, or none."""
    found = read_reply(body({"content": "Yes", "refusal": refusal}), url=URL).refusal
    assert found is None or isinstance(found, str)


def test_a_long_text_is_cut_in_its_middle() -> None:
    """A verdict stands at the end, what it is about at the beginning."""
    text = "begin" + "x" * 1000 + "Score: 8"
    assert clipped(text, 40).startswith("beginxxx")
    assert clipped(text, 40).endswith("Score: 8")
    assert len(clipped(text, 40)) < 60
    assert clipped("  short \n", 40) == "short"
    assert clipped("x" * 40, 40) == "x" * 40
