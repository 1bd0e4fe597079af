"""YesNoJudge: the probability of an answer, worked out by hand, and what is asked for it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from chat_server import Answer, ChatServer, Request, first_token, in_turn, raw
from impatient_judges import IMPATIENT
from PIL import Image

from flux_rewards import ConfigError, InputError, JudgeError, MaskErrors, Sample, YesNoJudge

EVEN = first_token({"Yes": math.log(0.5), "No": math.log(0.5)})
RED = Image.new("RGB", (4, 4), "red")


def judge(url: str = "http://127.0.0.1:9/v1", question: Any = "Is it good? Answer Yes or No.", **options: Any) -> Any:
    """Of a response, unless told otherwise."""
    return YesNoJudge("m", question, api_base_url=url, **{"fields": ("response",), **IMPATIENT, **options})


def probable(*tokens: tuple[str, float]) -> Answer:
    """A reply that lists these first tokens with these probabilities, in this order, twice where it is told twice."""
    answer = first_token({"?": -0.1})
    body = json.loads(answer.body)
    body["choices"][0]["logprobs"]["content"][0]["top_logprobs"] = [
        {"token": token, "logprob": math.log(share) if share else -9999.0, "bytes": None} for token, share in tokens
    ]
    return replace(answer, body=json.dumps(body).encode())


def score(answer: Answer, **options: Any) -> Any:
    """The row of one sample."""
    with ChatServer(answer) as server:
        return judge(server.url, **options)([Sample("q", "r")])[0]


VARIANTS = [("Yes", 0.3), ("yes", 0.1), (" Yes", 0.05), ("YES", 0.05), ("No", 0.1), (" no", 0.1), ("\nNO", 0.1)]


@pytest.mark.parametrize(
    ("tokens", "options", "expected", "mass"),
    [
        ([("Yes", 0.6), ("No", 0.2)], {}, 0.75, 0.8),
        ([("No", 0.6), ("Well", 0.2), ("Yes", 0.2)], {}, 0.25, 0.8),
        (VARIANTS, {}, 0.5 / 0.8, 0.8),
        (VARIANTS, {"merge_variants": False}, 0.3 / 0.4, 0.4),
        ([("yes", 0.5), ("No", 0.25)], {"merge_variants": False}, 0.0, 0.25),
        ([("Yesterday", 0.5), ("Not", 0.2), ("Nope", 0.1), ("Yes", 0.05), ("No", 0.05)], {}, 0.5, 0.1),
        ([("Yes", 0.4), ("Well", 0.6)], {}, 1.0, 0.4),  # beyond the 20 likeliest counts as 0
        ([("No", 0.4), ("Well", 0.6)], {}, 0.0, 0.4),
        ([("Yes", 0.0), ("No", 0.7)], {}, 0.0, 0.7),  # -9999 is minus infinity
        ([("Yes", 0.6), ("No", 0.2), ("Yes", 0.6)], {}, 0.75, 0.8),  # the sampled one listed again
        ([("Yes", 1.0), ("No", 1e-9)], {}, 1 / (1 + 1e-9), 1.0),
        ([("Yes", 0.006), ("No", 0.004)], {}, 0.6, 0.01),
        ([("Yes", 0.003), ("No", 0.001)], {"min_mass": 0.0}, 0.75, 0.004),
        ([("A", 0.2), ("B", 0.6), ("Yes", 0.2)], {"positive": "A", "negative": "B"}, 0.25, 0.8),
        ([("real", 0.2), (" Real", 0.2), ("fake", 0.4)], {"positive": "Real", "negative": "Fake"}, 0.5, 0.8),
        ([("有", 0.6), ("无", 0.2)], {"positive": "有", "negative": "无"}, 0.75, 0.8),
    ],
)
def test_the_share_of_yes(tokens: Any, options: Any, expected: float, mass: float) -> None:
    """P(Yes) / (P(Yes) + P(No)) over what is listed for the first token; the metadata say how much that was."""
    row = score(probable(*tokens), **{"min_mass": 0.01, **options})
    assert row.reward == pytest.approx(expected, abs=1e-12)
    assert row.metadata["mass"] == pytest.approx(mass)


@pytest.mark.parametrize(
    ("tokens", "options"),
    [
        ([("Well", 0.9), ("It", 0.1)], {}),
        ([("Well", 0.9), ("It", 0.1)], {"min_mass": 0.0}),
        ([("Yes", 0.0), ("No", 0.0), ("Well", 1.0)], {"min_mass": 0.0}),
        ([("yes", 0.6), ("no", 0.4)], {"merge_variants": False}),
        ([("Yes", 0.005), ("No", 0.0049), ("<think>", 0.99)], {}),
        ([("Yes", 0.3), ("No", 0.1), ("Well", 0.6)], {"min_mass": 0.5}),
        ([("Yes", 0.9), ("No", 0.1)], {"positive": "A", "negative": "B"}),
    ],
)
def test_no_score_where_it_would_say_something_else(tokens: Any, options: Any) -> None:
    """An error that says what it would have said; neither 0 nor 1/2."""
    with pytest.raises(JudgeError, match=tokens[-1][0] if options.get("min_mass") else tokens[0][0]) as caught:
        score(probable(*tokens), **options)
    assert (caught.value.reward, caught.value.index) == ("YesNoJudge", 0)


def test_what_it_says_makes_no_difference() -> None:
    """The likeliest token may not be the one that was sampled, and its text is no verdict."""
    answer = first_token({"Yes": math.log(0.2), "No": math.log(0.6)}, said="Yes", finish_reason="stop")
    assert score(answer).reward == pytest.approx(0.25)


def test_only_the_first_token_counts() -> None:
    """Where a server sends more than was asked for."""
    body = json.loads(first_token({"Yes": math.log(0.6), "No": math.log(0.2)}).body)
    steps = body["choices"][0]["logprobs"]["content"]
    steps.append({**steps[0], "top_logprobs": [{"token": "No", "logprob": 0.0}]})
    assert score(raw(body)).reward == pytest.approx(0.75)


def test_the_request() -> None:
    """One token, its likeliest 20 alternatives, nothing sampled; what is judged stands before the question."""
    with ChatServer(EVEN) as server:
        judge(server.url)([Sample("q", "My answer.")])
        [request] = server.requests
    [message] = request.body.pop("messages")
    assert request.body == {
        "model": "m",
        "temperature": 0.0,
        "max_completion_tokens": 1,
        "logprobs": True,
        "top_logprobs": 20,
    }
    assert message["role"] == "user"
    assert isinstance(message["content"], str)
    assert message["content"].index("My answer.") < message["content"].index("Is it good? Answer Yes or No.")
    assert message["content"].endswith("Is it good? Answer Yes or No.")


@pytest.mark.parametrize("prompt", ["a red cat", 'a "{prompt}" {0}', "100 % {{x}} %s", "two\nlines", "eine Ähre 猫"])
def test_without_further_ado_it_is_vqascore(prompt: str) -> None:
    """An image, and its authors' question to the letter; whatever the prompt holds."""
    with ChatServer(EVEN) as server:
        YesNoJudge("m", api_base_url=server.url, **IMPATIENT)([Sample(prompt, image=RED)])
        [request] = server.requests
    [message] = request.body["messages"]
    assert [part["type"] for part in message["content"]] == ["image_url", "text"]
    assert message["content"][-1]["text"] == f'Does this figure show "{prompt}"? Please answer Yes or No.'


def test_a_question_may_name_the_reference_too() -> None:
    """What it has a place for is required, and is not shown a second time."""
    made = judge(question="Does {reference} follow from {prompt}? Not {{prompt}}. Yes or No?", fields=("response",))
    assert sorted(made.required_fields) == ["prompt", "reference", "response"]
    with ChatServer(EVEN) as server:
        asking = judge(server.url, question=made.question)
        asking([Sample("2 + 2", "r", reference=4)])
        assert server.requests[0].text.endswith("Does 4 follow from 2 + 2? Not {prompt}. Yes or No?")
        with pytest.raises(InputError, match="reference") as caught:
            asking([Sample("2 + 2", "r", reference=4), Sample("2 + 2", "r")])
    assert (caught.value.field, caught.value.index) == ("reference", 1)


def test_a_fixed_question_needs_no_prompt() -> None:
    """All are asked the same."""
    with ChatServer(EVEN) as server:
        judge(server.url)([Sample(response="one"), Sample(response="two")])
        endings = {request.text.rpartition("\n\n")[2] for request in server.requests}
    assert endings == {"Is it good? Answer Yes or No."}


def test_a_question_of_a_sample() -> None:
    """Above the judge's, to the letter; where the judge has none, a sample without is an error."""
    own = 'Is "{prompt}" {0} kind? Yes or No.'
    asking = [Sample("q", "r", metadata={"own": own}), Sample("q", "r")]
    with ChatServer(EVEN) as server:
        judge(server.url, "Is {prompt} good?", question_key="own", max_concurrent=1)(asking)
        assert [request.text.rpartition("\n\n")[2] for request in server.requests] == [own, "Is q good?"]
        with pytest.raises(InputError, match="'own'") as caught:
            judge(server.url, None, question_key="own")(asking)
    assert (caught.value.field, caught.value.index) == ("metadata", 1)
    with pytest.raises(ConfigError, match="question"):
        judge(question=None)


def test_each_sample_gets_its_own() -> None:
    """In whatever order the answers come; neighbours that fail leave the others theirs."""
    shares = {"a": 0.9, "b": 0.1, "c": 0.4, "d": None}

    def answer(request: Request) -> Answer:
        name = request.text.split("answer:")[1][0]
        share = shares[name]
        listed = [("Hm", 1.0)] if share is None else [("Yes", share), ("No", 1 - share)]
        return replace(probable(*listed), after=0.03 if name == "a" else 0.0)

    with ChatServer(answer) as server:
        batch = MaskErrors(judge(server.url), 1.0)([Sample("q", f"answer:{name}") for name in shares])
    assert batch.rewards[:3].tolist() == pytest.approx([0.9, 0.1, 0.4])
    assert list(batch.errors) == [3]


def test_metadata_tell_what_it_took() -> None:
    """The reply, its tokens, its attempts; JSON can hold them."""
    answers = in_turn(first_token({"Hm": -0.1}, tokens=(90, 1)), first_token({"Yes": -0.1}, tokens=(91, 1)))
    with ChatServer(answers) as server:
        [row] = judge(server.url, retry_unreadable=1)([Sample("q", "r")])
    assert row.metadata["verdict"] == "Yes"
    assert row.metadata["tokens"] == {"prompt": 181, "completion": 2}
    assert row.metadata["attempts"] == 2
    assert row.metadata["latency"] > 0
    assert json.loads(json.dumps(row.metadata)) == row.metadata


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"positive": "yes", "negative": " YES"}, "positive and negative"),
        ({"positive": ""}, "positive"),
        ({"negative": None}, "negative"),
        ({"question": "  "}, "question"),
        ({"question": "Is it {promt}?"}, "{promt}.*{prompt}"),
        ({"question": "Is it {}?"}, "question"),
        ({"min_mass": 1.5}, "min_mass"),
        ({"fields": ("picture",)}, "picture"),
        ({"fields": "image"}, "fields"),
        ({"temperature": -1}, "temperature"),
    ],
)
def test_what_cannot_work_is_refused_at_once(options: Any, says: str) -> None:
    """When it is made, by name."""
    with pytest.raises(ConfigError, match=f"(?s){says}"):
        judge(**options)
