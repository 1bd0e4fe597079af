"""RankingJudge: each response gets the score of its own id, in whatever order ids and samples come."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from chat_server import Answer, ChatServer, Request, said
from impatient_judges import IMPATIENT
from PIL import Image

from flux_rewards import ConfigError, InputError, JudgeError, MaskErrors, RankingJudge, Sample
from flux_rewards.config import load_rewards, to_config

STRENGTH = {"a": 9, "b": 2, "c": 5, "d": 7}


def judge(url: str, **options: Any) -> RankingJudge:
    """Asks once."""
    return RankingJudge("m", "Which are clear?", api_base_url=url, **{**IMPATIENT, **options})


def group(*names: str, **fields: Any) -> list[Sample]:
    """A response each."""
    return [Sample(response=f"text {name}.", **{"prompt": "q", **fields}) for name in names]


def shown(request: Request) -> dict[str, str]:
    """By id the name of the response that stands in its fence, in the order in which they are shown."""
    return {
        found[1]: found[2] for found in re.finditer(r"<<<response (R\d+) \S+\ntext (\w+)\.\nresponse \1 ", request.text)
    }


Entries = list[dict[str, Any]]


def scoring(change: Callable[[Entries], Any] = lambda entries: entries) -> Callable[[Request], Answer]:
    """Each by its strength; `change` makes of the entries what is answered."""

    def answer(request: Request) -> Answer:
        entries = [{"id": name, "score": STRENGTH[of]} for name, of in shown(request).items()]
        return said(json.dumps({"reasoning": "so", "scores": change(entries)}))

    return answer


ORDERS: dict[str, Callable[[Entries], Any]] = {
    "as shown": lambda entries: entries,
    "backwards": lambda entries: entries[::-1],
    "by score": lambda entries: sorted(entries, key=lambda entry: -entry["score"]),
    "as a mapping": lambda entries: {entry["id"]: entry["score"] for entry in reversed(entries)},
    "twice": lambda entries: entries + entries[::-1],
    "in small letters": lambda entries: [{"ID": entry["id"].lower(), "Score": entry["score"]} for entry in entries],
    "with reasons": lambda entries: [{"why": "R1 is best: 9", **entry} for entry in entries[2:] + entries[:2]],
    "as texts": lambda entries: [{**entry, "score": f"{entry['score']}/10"} for entry in entries],
}


@pytest.mark.parametrize("order", ORDERS)
def test_scores_go_by_id(order: str) -> None:
    """In whatever order they come back: never by position."""
    with ChatServer(scoring(ORDERS[order])) as server:
        batch = judge(server.url)(group(*STRENGTH))
        assert len(server.requests) == 1
        ids = {name: own for own, name in shown(server.requests[0]).items()}
    assert batch.rewards.tolist() == pytest.approx([0.9, 0.2, 0.5, 0.7])
    assert [row["id"] for row in batch.metadata] == [ids[name] for name in STRENGTH]
    assert [row["scores"] for row in batch.metadata] == [{"score": float(score)} for score in STRENGTH.values()]
    assert batch.metadata[0]["attempts"] == 1


FAULTS: dict[str, tuple[Callable[[Entries], Any], str]] = {
    "missing": (lambda entries: entries[1:], "missing"),
    "without a score": (lambda entries: [{"id": entries[0]["id"]}, *entries[1:]], "missing"),
    "two scores": (lambda entries: [*entries, {**entries[0], "score": 1.5}], "ambiguous"),
    "beyond the scale": (lambda entries: [{**entries[0], "score": 11}, *entries[1:]], "out_of_range"),
    "no number": (lambda entries: [{**entries[0], "score": "good"}, *entries[1:]], "unreadable"),
    "null": (lambda entries: [{**entries[0], "score": None}, *entries[1:]], "unreadable"),
    "true": (lambda entries: [{**entries[0], "score": True}, *entries[1:]], "unreadable"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_id_without_a_score_fails_alone(fault: str) -> None:
    """The others have theirs; the error has the id and the reply."""
    change, problem = FAULTS[fault]
    with ChatServer(scoring(change)) as server:
        batch = MaskErrors(judge(server.url), 1.0)(group(*STRENGTH))
        first = list(STRENGTH).index(shown(server.requests[0])["R1"])
        with pytest.raises(JudgeError) as caught:
            judge(server.url)(group(*STRENGTH))
    expected = np.array([0.9, 0.2, 0.5, 0.7])
    expected[first] = np.nan
    np.testing.assert_allclose(batch.rewards, expected)
    assert list(batch.errors) == [first]
    assert (caught.value.problem, caught.value.index) == (problem, first)
    assert "R1" in str(caught.value)
    assert "scores" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda entries: [*entries, {"id": "R9", "score": 3}], "unknown_id"),
        (lambda entries: [{"id": "a", "score": 3}, *entries[1:]], "unknown_id"),
        (lambda entries: {**{entry["id"]: entry["score"] for entry in entries}, "R0": 4}, "unknown_id"),
        (lambda entries: [entry["score"] for entry in entries], "unreadable"),
        (lambda entries: [{"score": entry["score"]} for entry in entries], "unreadable"),
    ],
)
def test_a_reply_that_mixes_up_the_ids_is_useless(change: Callable[[Entries], Any], problem: str) -> None:
    """Whose scores these are is anybody's guess, even where all known ids are there."""
    with ChatServer(scoring(change)) as server:
        batch = MaskErrors(judge(server.url), 1.0)(group(*STRENGTH))
        with pytest.raises(JudgeError) as caught:
            judge(server.url)(group(*STRENGTH))
    assert caught.value.problem == problem
    assert np.isnan(batch.rewards).all()
    assert list(batch.errors) == [0, 1, 2, 3]


def test_the_order_of_the_batch_makes_no_difference() -> None:
    """The same is asked, to the letter, and each gets its own."""
    with ChatServer(scoring()) as server:
        for order in itertools.permutations(STRENGTH):
            batch = judge(server.url)(group(*order))
            assert batch.rewards.tolist() == pytest.approx([STRENGTH[name] / 10 for name in order])
        assert len({json.dumps(request.body) for request in server.requests}) == 1


def test_the_seed_decides_the_order_in_which_they_are_shown() -> None:
    """So no response stands first because it came first."""
    with ChatServer(scoring()) as server:
        for seed in range(12):
            judge(server.url, seed=seed)(group(*STRENGTH))
        orders = {tuple(shown(request).values()) for request in server.requests}
    assert len(orders) > 6
    assert {order[0] for order in orders} == set(STRENGTH)


def test_equal_responses_are_both_shown() -> None:
    """Under an id each."""
    with ChatServer(scoring()) as server:
        assert judge(server.url)(group("a", "b", "a")).rewards.tolist() == pytest.approx([0.9, 0.2, 0.9])


def test_one_request_a_group() -> None:
    """A group of one is a group."""
    samples = [*group("a", "b"), *group("c", prompt="other"), *group("d", prompt="q")]
    with ChatServer(scoring()) as server:
        batch = judge(server.url)(samples)
        assert sorted(sorted(shown(request).values()) for request in server.requests) == [["a", "b", "d"], ["c"]]
    assert batch.rewards.tolist() == pytest.approx([0.9, 0.2, 0.5, 0.7])


def test_a_group_that_is_too_large_is_refused() -> None:
    """Rather than judged worse; the limit is named."""
    names = [f"n{number}" for number in range(5)]
    with ChatServer(scoring()) as server:
        with pytest.raises(ConfigError, match=r"5.*max_group=4"):
            judge(server.url, max_group=4)(group(*names))
        assert server.requests == []
        assert len(judge(server.url, max_group=4)(group(*STRENGTH))) == 4


def test_groups_that_differ_in_what_is_shown_once() -> None:
    """A prompt or a reference of one would be held against all."""
    with ChatServer(scoring()) as server:
        one, other = group("a", group_id=1), group("b", prompt="other", group_id=1)
        with pytest.raises(InputError, match="prompt"):
            judge(server.url)(one + other)
        one, other = group("a", reference="4"), group("b", reference="5")
        with pytest.raises(InputError, match="reference"):
            judge(server.url, fields=("prompt", "response", "reference"))(one + other)
        assert server.requests == []


def brightness(request: Request) -> Answer:
    """The score of each image is its red, by hundreds."""
    ids = re.findall(r"^Image (R\d+):$", request.text, re.MULTILINE)
    scores = [image.getpixel((0, 0))[0] / 100 for image in request.images]  # type: ignore[index]
    return said(json.dumps(dict(zip(ids, scores, strict=True))))


def picture(red: int) -> Image.Image:
    return Image.new("RGB", (3, 2), (red, 0, 0))


def test_images_stand_behind_their_ids() -> None:
    """Text, image, text, image; in one message."""
    samples = [Sample("q", image=picture(red)) for red in (100, 200, 50)]
    with ChatServer(brightness) as server:
        batch = judge(server.url, fields=("prompt", "image"))(samples)
        [message] = server.requests[0].body["messages"]
    assert [part["type"] for part in message["content"]] == [*["text", "image_url"] * 3, "text"]
    assert batch.rewards.tolist() == pytest.approx([0.1, 0.2, 0.05])


def test_an_image_that_cannot_be_read_fails_alone() -> None:
    """The others are scored without it."""
    samples = [Sample("q", image=image) for image in (picture(100), "/nowhere/image.png", picture(50))]
    with ChatServer(brightness) as server:
        batch = MaskErrors(judge(server.url, fields=("prompt", "image")), 1.0)(samples)
        assert len(server.requests[0].images) == 2
    np.testing.assert_allclose(batch.rewards, [0.1, np.nan, 0.05])
    assert "/nowhere/image.png" in batch.errors[1]
    with ChatServer(brightness) as server:
        none = MaskErrors(judge(server.url, fields=("image",)), 1.0)(samples[1:2])
        assert server.requests == []
    assert list(none.errors) == [0]


def test_a_response_that_is_no_text_fails_alone() -> None:
    """As one without an assistant's message."""
    samples = [*group("a"), Sample("q", [{"role": "user", "content": "hm"}]), *group("b")]
    with ChatServer(scoring()) as server:
        batch = MaskErrors(judge(server.url), 1.0)(samples)
    np.testing.assert_allclose(batch.rewards, [0.9, np.nan, 0.2])
    assert "response" in batch.errors[1]


def test_the_request() -> None:
    """All ids, in the form of the answer too; the prompt once; room for all scores."""
    with ChatServer(scoring()) as server:
        judge(server.url, score_range=(1, 9))(group(*STRENGTH, prompt="What is it?"))
        [request] = server.requests
    assert request.text.count("What is it?") == 1
    assert "1 to 9" in request.text
    assert list(shown(request)) == ["R1", "R2", "R3", "R4"]
    assert request.body["max_completion_tokens"] == 4096
    form = request.body["response_format"]["json_schema"]
    entry = form["schema"]["properties"]["scores"]["items"]
    assert entry["properties"] == {"id": {"type": "string", "enum": list(shown(request))}, "score": {"type": "number"}}
    assert (form["strict"], entry["additionalProperties"]) == (True, False)


@pytest.mark.parametrize(("scaling", "expected"), [("unit", [1.0, 0.0]), ("/high", [1.0, -0.5]), ("raw", [10.0, -5.0])])
def test_the_scaling(scaling: str, expected: Sequence[float]) -> None:
    """On a scale of -5 to 10."""

    def answer(request: Request) -> Answer:
        return said(json.dumps({own: 10 if name == "a" else -5 for own, name in shown(request).items()}))

    with ChatServer(answer) as server:
        made = judge(server.url, score_range=(-5, 10), scaling=scaling)
        assert made(group("a", "b")).rewards.tolist() == expected
    assert made.bounds == (expected[1], expected[0])


def test_a_judge_comes_back_from_its_configuration() -> None:
    """And asks the same."""
    with ChatServer(scoring()) as server:
        first = judge(server.url, seed=5, scaling="raw")
        again = load_rewards(to_config(first)).train
        assert [each(group(*STRENGTH)).rewards.tolist() for each in (first, again)] == [[9.0, 2.0, 5.0, 7.0]] * 2
        assert server.requests[0].body == server.requests[1].body
