"""RatingJudge: a number from text, from JSON, or expected from log-probabilities; and what is asked for it."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from chat_server import Answer, ChatServer, Request, first_token, in_turn, said
from impatient_judges import IMPATIENT, rating

from flux_rewards import ConfigError, InputError, JudgeError, RatingJudge, Sample
from flux_rewards.config import load_rewards, to_config

NOWHERE = "http://127.0.0.1:9/v1"


def row(reply: Answer, /, **options: Any) -> Any:
    """What becomes of one reply."""
    with ChatServer(reply) as server:
        return rating(server.url, **options)([Sample("q", "r")])[0]


TEN = said("Score: 10")


def asked(sample: Sample, reply: Answer = TEN, /, **options: Any) -> Request:
    """What one sample is asked."""
    with ChatServer(reply) as server:
        rating(server.url, **options)([sample])
    return server.requests[0]


@pytest.mark.parametrize(
    ("reply", "options", "expected", "score"),
    [
        ("Score: 1", {}, 0.0, 1.0),
        ("Score: 10", {}, 1.0, 10.0),
        ("On a scale of 1 to 10 it has 2 flaws.\n**Score:** 7/10", {}, 6 / 9, 7.0),
        ("Score: 8.5", {"scaling": "raw"}, 8.5, 8.5),
        ("Score: 4", {"score_range": (1, 5), "scaling": "/high"}, 0.8, 4.0),
        ("Score: 0.25", {"score_range": (0, 1)}, 0.25, 0.25),
        ("Score: -5", {"score_range": (-10, 10)}, 0.25, -5.0),
        ("Score: 80%", {"score_range": (0, 100)}, 0.8, 80.0),
        ("Score: 9\nQuality: 3", {"label": "Quality", "score_range": (1, 5)}, 0.5, 3.0),
        ("Note : 12/20", {"label": "note", "score_range": (0, 20)}, 0.6, 12.0),
        ("理由はこうです。\n**評価\uff1a\uff18点**", {"label": "評価"}, 7 / 9, 8.0),
        ("Gesamtnote: 7,5", {"label": "Gesamtnote"}, 6.5 / 9, 7.5),
        ("<think>Score: 2</think>Score: 4", {}, 3 / 9, 4.0),
        ("Score: 4", {"scale": 2.0}, 2 * 3 / 9, 4.0),
    ],
)
def test_a_number_behind_its_label(reply: str, options: Any, expected: float, score: float) -> None:
    """(score - low) / (high - low), score / high, or the score itself; the metadata have it as given."""
    found = row(said(reply), **options)
    assert found.reward == pytest.approx(expected)
    assert found.metadata["scores"] == {"score": score}
    assert found.metadata["verdict"] == reply.strip()


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ('{"reasoning": "2 of 3", "score": 7}', 6 / 9),
        ('Here:\n```json\n{"score": "8/10", "reasoning": ""}\n```', 7 / 9),
        ('{"Score": 5.5}', 0.5),
    ],
)
def test_a_number_in_json(reply: str, expected: float) -> None:
    """With reasons beside it or not."""
    assert row(said(reply), answer="json").reward == pytest.approx(expected)


@pytest.mark.parametrize(
    ("tokens", "options", "expected", "mass"),
    [
        ({"4": 0.5, "5": 0.3, "3": 0.1, "Well": 0.1}, {}, (2.0 + 1.5 + 0.3) / 0.9, 0.9),
        ({"4": 0.25, " 4": 0.25, "2": 0.25, "\n2": 0.25}, {}, 3.0, 1.0),
        ({"5": 0.4, "9": 0.4, "1": 0.1}, {}, (2.0 + 0.1) / 0.5, 0.5),  # 9 is not on the scale
        ({"5": 0.4, "50": 0.2, "4.5": 0.2, "five": 0.1}, {"min_mass": 0.3}, 5.0, 0.4),
        ({"0": 0.5, "9": 0.5}, {"score_range": (0, 9)}, 4.5, 1.0),
        ({"0": 0.5, "1": 0.5}, {"score_range": (0, 1)}, 0.5, 1.0),
    ],
)
def test_the_expected_digit(tokens: dict[str, float], options: Any, expected: float, mass: float) -> None:
    """sum(d P(d)) / sum(P(d)) over the digits of the scale."""
    options = {"score_range": (1, 5), "answer": "logprobs", "scaling": "raw", **options}
    found = row(first_token({token: math.log(share) for token, share in tokens.items()}), **options)
    assert found.reward == pytest.approx(expected)
    assert found.metadata["mass"] == pytest.approx(mass)
    assert found.metadata["scores"]["score"] == pytest.approx(expected)


def test_the_expected_digit_on_its_scale() -> None:
    """As any other score: 1 to 5 becomes 0 to 1."""
    found = row(first_token({"4": math.log(0.5), "2": math.log(0.5)}), answer="logprobs", score_range=(1, 5))
    assert found.reward == pytest.approx(0.5)


def test_few_digits_are_no_score() -> None:
    """Below `min_mass` it would have said something else, and the error tells what."""
    answer = first_token({"The": math.log(0.9), "4": math.log(0.005)})
    with pytest.raises(JudgeError, match=r"'The' 0\.9"):
        row(answer, answer="logprobs", score_range=(1, 5))
    assert row(answer, answer="logprobs", score_range=(1, 5), min_mass=0.0).reward == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("answer", "reply"), [("text", "Score: N/A"), ("json", '{"score": null}'), ("json", '{"score": "n/a"}')]
)
def test_it_may_not_apply_where_that_is_allowed(answer: str, reply: str) -> None:
    """Then it is NaN, and no failure; where it is not allowed, it is one."""
    with ChatServer(said(reply)) as server:
        batch = rating(server.url, answer=answer, allow_na=True)([Sample("q", "r")])
    assert np.isnan(batch.rewards[0])
    assert (batch.errors, batch.not_applicable.tolist()) == ({}, [True])
    assert batch.metadata[0]["scores"] == {"score": None}
    assert "N/A" in server.requests[0].text or "null" in server.requests[0].text
    with pytest.raises(JudgeError):
        row(said(reply), answer=answer)
    plain = asked(Sample("q", "r"), said('Score: 3\n{"score": 3}'), answer="text")
    assert "N/A" not in plain.text


def test_the_request_for_text() -> None:
    """The criteria, what is judged, and the form of the answer; nothing else is asked of the server."""
    request = asked(
        Sample("What is 2 + 2?", "It is 4."), said("Note: 3"), criteria="Is it right?", score_range=(1, 5), label="Note"
    )
    [message] = request.body.pop("messages")
    assert request.body == {"model": "m", "temperature": 0.0, "max_completion_tokens": 1024}
    text = message["content"]
    assert isinstance(text, str)
    places = [text.index(part) for part in ("1 to 5", "Is it right?", "What is 2 + 2?", "It is 4.", "Note: <")]
    assert places == sorted(places)


def test_the_request_for_json() -> None:
    """The endpoint is held to the form; null is a number's place-holder only where it is allowed."""
    for allow_na, kind in ((False, "number"), (True, ["number", "null"])):
        request = asked(Sample("q", "r"), said('{"score": 3}'), answer="json", allow_na=allow_na)
        form = request.body["response_format"]
        assert (form["type"], form["json_schema"]["strict"]) == ("json_schema", True)
        schema = form["json_schema"]["schema"]
        assert schema["properties"]["score"] == {"type": kind}
        assert list(schema["properties"]) == schema["required"] == ["reasoning", "score"]  # thought before the number
        assert schema["additionalProperties"] is False


def test_the_request_for_log_probabilities() -> None:
    """One token and its 20 likeliest alternatives."""
    request = asked(Sample("q", "r"), first_token({"3": -0.1}), answer="logprobs", score_range=(1, 5))
    del request.body["messages"]
    expected = {"logprobs": True, "top_logprobs": 20, "temperature": 0.0, "max_completion_tokens": 1, "model": "m"}
    assert request.body == expected


def test_what_is_asked_of_the_endpoint_can_be_set() -> None:
    """extra_body stands above all; None leaves a thing to the endpoint."""
    body = asked(Sample("q", "r"), temperature=None, max_tokens=None).body
    assert set(body) == {"model", "messages"}
    extra = {"max_tokens": 9, "temperature": 0.3, "top_p": 0.9, "chat_template_kwargs": {"enable_thinking": False}}
    body = asked(Sample("q", "r"), extra_body=extra, max_tokens=None, temperature=0.7).body
    del body["messages"]
    assert body == {"model": "m", **extra}
    assert asked(Sample("q", "r"), temperature=0.7, max_tokens=5).body["max_completion_tokens"] == 5


def test_extra_body_stands_above_the_form_of_the_answer() -> None:
    """For servers that know another ``response_format``, or fewer ``top_logprobs``."""
    other = {"type": "json_object"}
    request = asked(Sample("q", "r"), said('{"score": 3}'), answer="json", extra_body={"response_format": other})
    assert request.body["response_format"] == other
    few = asked(
        Sample("q", "r"),
        first_token({"3": -0.1}),
        answer="logprobs",
        score_range=(1, 5),
        extra_body={"top_logprobs": 5},
    )
    assert few.body["top_logprobs"] == 5


def test_the_reference_in_the_criteria() -> None:
    """Filled in, as it is; not shown unless it is among the fields; needed."""
    criteria = 'Is it {reference}, as JSON {"a": 1} says? For {prompt}; {{reference}} is text.'
    request = asked(Sample("q{0}", "r", reference="x {prompt} y"), criteria=criteria)
    assert 'Is it x {prompt} y, as JSON {"a": 1} says? For q{0}; {reference} is text.' in request.text
    assert "<<<reference" not in request.text
    with pytest.raises(InputError, match="reference") as caught:
        asked(Sample("q", "r"), criteria=criteria)
    assert caught.value.field == "reference"


def test_criteria_of_a_sample() -> None:
    """Above those of the judge, to the letter: braces in them are text."""
    own = 'Is it "{prompt}" {0} {{x}} {reference}?'
    with ChatServer(said("Score: 10")) as server:
        judge = rating(server.url, "Is it kind?", criteria_key="own", max_concurrent=1)
        judge([Sample("q", "r", metadata={"own": own}), Sample("q", "r", metadata={"other": 1}), Sample("q", "r")])
        texts = [request.text for request in server.requests]
    assert [own in text for text in texts] == [True, False, False]
    assert ["Is it kind?" in text for text in texts] == [False, True, True]


@pytest.mark.parametrize("metadata", [{}, {"own": ""}, {"own": " \n"}, {"own": 3}, {"own": None}, {"own": ["a"]}])
def test_a_sample_without_criteria_is_an_error(metadata: Any) -> None:
    """Where the judge has none of its own; the sample and the key are named, and nothing is asked."""
    with ChatServer(said("Score: 10")) as server:
        judge = RatingJudge("m", criteria_key="own", api_base_url=server.url, max_concurrent=1, **IMPATIENT)
        with pytest.raises(InputError, match="'own'") as caught:
            judge([Sample("q", "r", metadata={"own": "Is it kind?"}), Sample("q", "r", metadata=metadata)])
    assert (caught.value.field, caught.value.index) == ("metadata", 1)
    assert len(server.requests) <= 1


def test_a_sample_without_criteria_fails_alone() -> None:
    """An empty text at the key is a mistake, too, where the judge has criteria."""
    with ChatServer(said("Score: 10")) as server, pytest.raises(InputError, match="'own'"):
        rating(server.url, criteria_key="own")([Sample("q", "r", metadata={"own": ""})])


def test_unreadable_replies_are_asked_for_again_where_wished() -> None:
    """With the same words; the attempts and the tokens of all are told."""
    answers = in_turn(
        said("Well.", tokens=(20, 7)), said("Score: 5", finish_reason="length", tokens=(20, 30)), said("Score: 10")
    )
    with ChatServer(answers) as server:
        [found] = rating(server.url, retry_unreadable=2, temperature=0.5)([Sample("q", "r")])
        assert len({json.dumps(request.body) for request in server.requests}) == 1
    assert (found.reward, found.metadata["attempts"]) == (1.0, 3)
    assert found.metadata["tokens"] == {"prompt": 50, "completion": 42}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"answer": "number"}, "answer"),
        ({"criteria": None}, "criteria"),
        ({"criteria": "Is it {response}?"}, "{response}"),
        ({"score_range": (5, 1)}, "score_range"),
        ({"score_range": (1, 1)}, "score_range"),
        ({"score_range": (0, math.inf)}, "score_range"),
        ({"scaling": "percent"}, "scaling"),
        ({"label": ""}, "label"),
        ({"answer": "logprobs"}, "score_range.*0 to 9"),  # of 1 to 10
        ({"answer": "logprobs", "score_range": (0, 0.5)}, "score_range"),
        ({"answer": "logprobs", "score_range": (1, 5), "allow_na": True}, "allow_na"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"extra_body": "top_p"}, "extra_body"),
        ({"image_format": "gif"}, "image_format"),
        ({"api_base_url": "localhost:8000"}, "api_base_url"),
    ],
)
def test_what_cannot_work_is_refused_at_once(options: Any, says: str) -> None:
    """When it is made, by name."""
    with pytest.raises(ConfigError, match=f"(?s){says}"):
        RatingJudge("m", **{"criteria": "Is it good?", "api_base_url": NOWHERE, **options})


def test_bounds_are_those_of_the_scale() -> None:
    """By the scaling."""
    ranges = {"unit": (0.0, 1.0), "/high": (0.2, 1.0), "raw": (1.0, 5.0)}
    for scaling, bounds in ranges.items():
        assert RatingJudge("m", "c", score_range=(1, 5), scaling=scaling).bounds == bounds


def test_a_judge_comes_back_from_its_configuration() -> None:
    """With all that it was given, and asks the same."""
    with ChatServer(said("Note: 4")) as server:
        options: Any = {"score_range": (1, 5), "label": "Note", "extra_body": {"top_p": 0.5}, "criteria_key": "own"}
        first = rating(server.url, **options)
        again = load_rewards(to_config(first)).train
        assert [judge([Sample("q", "r")]).rewards.tolist() for judge in (first, again)] == [[0.75]] * 2
    assert server.requests[0].body == server.requests[1].body
