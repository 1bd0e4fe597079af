"""Published judges: their formulas by hand, and the phrases and the order that their models were trained on."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import numpy as np
import pytest
from chat_server import Answer, ChatServer, Request, first_token, in_turn, said
from impatient_judges import IMPATIENT
from PIL import Image

from flux_rewards import ConfigError, InputError, JudgeError, MaskErrors, Sample, load_rewards

RED, GREEN, BLUE = (Image.new("RGB", (4, 4), colour) for colour in ("red", (0, 255, 0), "blue"))


def judge(name: str, url: str, **options: Any) -> Any:
    """By the name that trainers' configurations use."""
    entry = {"reward_model": name, "vlm_model": "m", "api_base_url": url, **IMPATIENT, **options}
    [made] = load_rewards([entry]).train.children
    return made


def row(name: str, reply: Answer, /, **options: Any) -> Any:
    """What becomes of one reply."""
    sample = Sample("a cat", image=RED, condition_images=[GREEN])
    with ChatServer(reply) as server:
        return judge(name, server.url, **options)([sample])[0]


def colours(request: Request) -> list[str]:
    """Of the images, in their order."""
    names = {(255, 0, 0): "red", (0, 255, 0): "green", (0, 0, 255): "blue"}
    return [names[image.getpixel((0, 0))] for image in request.images]  # type: ignore[index]


def layout(message: Any) -> list[str]:
    """What the parts of a message are."""
    return [part["type"] for part in message["content"]]


@pytest.mark.parametrize(
    ("tokens", "options", "expected"),
    [
        ({"Yes": -0.2, "No": -1.8}, {}, 1 / (1 + math.exp(-1.6))),
        ({"Yes": -12.0, "No": -11.0}, {}, 1 / (1 + math.exp(1.0))),  # however unlikely both are
        ({"Yes": -1.0, "yes": -0.5, " Yes": -3.0, "No": -1.0}, {}, 0.5),  # these two tokens alone
        ({"yes": -0.1, "No": -3.0}, {}, 0.0),
        ({"Yes": -3.0, "no": -0.1}, {}, 1.0),
        (
            {"Yes": math.log(0.3), "yes": math.log(0.2), " Yes": math.log(0.1), "NO": math.log(0.2)},
            {"canonicalize": True},
            0.75,
        ),
    ],
)
def test_vllm_evaluate(tokens: dict[str, float], options: Any, expected: float) -> None:
    """sigmoid(logprob(Yes) - logprob(No)), a missing one being minus infinity."""
    assert row("vllm_evaluate", first_token(tokens), **options).reward == pytest.approx(expected)


def test_vllm_evaluate_with_neither() -> None:
    """An error; in the original it is 0."""
    with pytest.raises(JudgeError, match="yes"):
        row("vllm_evaluate", first_token({"yes": -0.1, "no": -3.0}))


def test_the_request_of_vllm_evaluate() -> None:
    """An image and a question about its quality; the judge does not know the prompt."""
    with ChatServer(first_token({"Yes": -0.1})) as server:
        judge("vllm_evaluate", server.url)([Sample("a zebra on the moon", image=BLUE), Sample(image=RED)])
        requests = sorted(server.requests, key=colours)
    [message] = requests[0].body["messages"]
    assert "zebra" not in requests[0].text
    assert requests[0].text == requests[1].text
    assert requests[0].text.endswith("Answer Yes or No.")
    for criterion in ("natural", "artifacts", "aesthetic", "detail", "coherent"):
        assert criterion in requests[0].text
    assert {name: value for name, value in requests[0].body.items() if name != "messages"} == {
        "model": "m",
        "temperature": 0.0,
        "max_completion_tokens": 1,
        "logprobs": True,
        "top_logprobs": 20,
    }
    assert layout(message) == ["image_url", "text"]


FAITHFUL, KEPT = "Text Faithfulness", "Image Faithfulness"
QUALITY, WRITING = "Physical and Visual Quality", "Text Rendering"
T2I, EDIT = (FAITHFUL, QUALITY, WRITING), (FAITHFUL, KEPT, QUALITY, WRITING)
NAMES = {"rational_rewards_t2i": T2I, "rational_rewards_edit": EDIT}
KEYS = dict(zip(EDIT, ["text_faithfulness", "image_faithfulness", "physical_quality", "text_rendering"], strict=True))


def judgement(headings: tuple[str, ...], scores: list[Any], score: str = "## Score: {}") -> Answer:
    """A reply as the models write them."""
    sections = [
        f"{number}. {heading}:\n## Justification: 4 things of 1. kind.\n{score.format(value)}"
        for number, (heading, value) in enumerate(zip(headings, scores, strict=True), 1)
    ]
    return said("\n".join(["# Detailed Judgement", *sections, "# Summary: Score: 4.", "# Refined Request: a cat"]))


@pytest.mark.parametrize(
    ("name", "scores", "counted"),
    [
        ("rational_rewards_t2i", [3.5, 2.5, 3], [3.5, 2.5, 3]),
        ("rational_rewards_t2i", [4, 4, 4.0], [4, 4, 4]),
        ("rational_rewards_t2i", [1, 1, 1], [1, 1, 1]),
        ("rational_rewards_t2i", [3.4, 2, "N/A"], [3.4, 2, None]),
        ("rational_rewards_t2i", [4.4, 0.6, 3], [4, 1, 3]),
        ("rational_rewards_edit", [3.5, 2.5, 3, 1], [3.5, 2.5, 3, 1]),
        ("rational_rewards_edit", [3.5, 1.5, 2.2, "N/A"], [3.5, 1.5, 2.2, None]),
        ("rational_rewards_edit", [4.25, 0.75, 2, 3], [4, 1, 2, 3]),
    ],
)
@pytest.mark.parametrize("form", ["## Score: {}", "**Score:** {}", "Score: [{}]"])
def test_rational_rewards(name: str, scores: list[Any], counted: list[Any], form: str) -> None:
    """(m - 1) / 3 of the mean over the aspects that apply, each cut to [1, 4]; and each is a part."""
    found = row(name, judgement(NAMES[name], scores, form))
    there = [score for score in counted if score is not None]
    assert found.reward == pytest.approx((sum(there) / len(there) - 1) / 3)
    expected = {KEYS[heading]: score for heading, score in zip(NAMES[name], counted, strict=True)}
    assert found.metadata["scores"] == expected
    assert found.parts == pytest.approx(
        {key: None if score is None else (score - 1) / 3 for key, score in expected.items()}
    )


@pytest.mark.parametrize("name", NAMES)
def test_rational_rewards_without_an_aspect(name: str) -> None:
    """No mean of the rest: nor of what a cut reply has, nor where another aspect is "N/A"."""
    headings = NAMES[name]
    whole = judgement(headings, [3] * len(headings))
    cut = [judgement(headings[:-1], [3] * (len(headings) - 1)), judgement(headings[1:], [3] * (len(headings) - 1))]
    not_applicable = judgement(headings, ["N/A", *[3] * (len(headings) - 1)])
    truncated = said("1. Text Faithfulness:\n## Score: 3", finish_reason="length")
    beyond = judgement(headings, [9, *[3] * (len(headings) - 1)])  # of another scale
    with ChatServer(in_turn(*cut, not_applicable, truncated, beyond, whole)) as server:
        asking = MaskErrors(judge(name, server.url, max_concurrent=1), 1.0)
        batch = asking([Sample("a cat", image=RED, condition_images=[GREEN])] * 6)
    np.testing.assert_allclose(batch.rewards, [np.nan] * 5 + [2 / 3])


def test_the_request_of_rational_rewards_t2i() -> None:
    """The instruction, the image, the headings; and the original's settings."""
    with ChatServer(judgement(T2I, [3, 3, 3])) as server:
        judge("rational_rewards_t2i", server.url)([Sample('a "cat" {x}', image=BLUE)])
        [request] = server.requests
    system, user = request.body.pop("messages")
    assert request.body == {"model": "m", "temperature": 0.1, "max_completion_tokens": 2048}
    assert (system["role"], user["role"]) == ("system", "user")
    assert "expert image generation evaluator" in system["content"]
    assert layout(user) == ["text", "image_url", "text"]
    before, _, after = user["content"]
    assert 'User Instruction: a "cat" {x}' in before["text"]
    assert before["text"].endswith("1. Generated Image")
    assert_headings(after["text"], T2I)
    assert KEPT not in after["text"]


def assert_headings(text: str, headings: tuple[str, ...]) -> None:
    """All that a reply must have, in order."""
    wanted = ["# Detailed Judgement"]
    for number, heading in enumerate(headings, 1):
        wanted += [f"{number}. {heading}:", "## Justification:", "## Score:"]
    wanted += ["# Summary:", "# Refined Request:"]
    pattern = ".*?".join(re.escape(line) for line in wanted)
    assert re.search(pattern, text, re.DOTALL)


def test_the_request_of_rational_rewards_edit() -> None:
    """The source, which is the first of the condition images, before the edited image; no other image."""
    with ChatServer(judgement(EDIT, [3, 3, 3, 3])) as server:
        samples = [Sample("make it red", image=RED, condition_images=[GREEN, BLUE])]
        judge("rational_rewards_edit", server.url)(samples)
        [request] = server.requests
    system, user = request.body["messages"]
    assert "expert image editing evaluator" in system["content"]
    assert layout(user) == ["text", "image_url", "text", "image_url", "text"]
    assert colours(request) == ["green", "red"]
    first, _, second, _, rubric = user["content"]
    assert "User Instruction: make it red" in first["text"]
    assert first["text"].endswith("1. Source Image")
    assert second["text"] == "2. Edited Image"
    assert_headings(rubric["text"], EDIT)


def test_an_edit_needs_its_source() -> None:
    """The field is named."""
    with ChatServer(judgement(EDIT, [3, 3, 3, 3])) as server, pytest.raises(InputError) as caught:
        judge("rational_rewards_edit", server.url)([Sample("a cat", image=RED)])
    assert caught.value.field == "condition_images"


def test_the_defaults_of_rational_rewards() -> None:
    """180 s, 8 at once, 5 further tries; each can be changed."""
    made = load_rewards([{"reward_model": "rational_rewards_t2i"}]).train.children[0]
    found = {name: getattr(made, name) for name in ("vlm_model", "timeout", "max_concurrent", "max_retries")}
    assert found == {"vlm_model": "RationalRewards-8B-T2I", "timeout": 180.0, "max_concurrent": 8, "max_retries": 5}
    edit: Any = load_rewards([{"reward_model": "rational_rewards_edit", "temperature": None, "max_tokens": 9}])
    assert edit.train.children[0].request() == {"max_completion_tokens": 9}


@pytest.mark.parametrize(
    ("reply", "expected"),
    [("Good. Final Score: 4.5", 0.9), ("**Final Score:** 1", 0.2), ("2 of 3 are there.\nFinal Score: 5/5", 1.0)],
)
def test_unified_reward(reply: str, expected: float) -> None:
    """The number over 5."""
    found = row("unified_reward", said(reply))
    assert found.reward == pytest.approx(expected)
    assert found.parts == {}


@pytest.mark.parametrize("reply", ["Good.", "Final Score: 6", "Final Score: 0", "Final Score: N/A", "Score: high"])
def test_unified_reward_without_a_score(reply: str) -> None:
    """An error; in the original it is 0."""
    with pytest.raises(JudgeError):
        row("unified_reward", said(reply))


THREE = said("Alignment Score (1-5): 4\nCoherence Score (1-5): 3.5\nStyle Score (1-5): 2")


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (None, (4 + 3.5 + 2) / 15),
        ({"alignment": 1.4, "style": 0.7}, (1.4 * 4 + 0.7 * 2) / 2.1 / 5),
        ({"coherence": 3}, 0.7),
    ],
)
def test_unified_reward_2(weights: Any, expected: float) -> None:
    """The weighted mean of three, each of 5; all are parts, those without weight too."""
    found = row("unified_reward", THREE, version="2.0", weights=weights)
    assert found.reward == pytest.approx(expected)
    assert found.parts == pytest.approx({"alignment": 0.8, "coherence": 0.7, "style": 0.4})
    assert found.metadata["scores"] == {"alignment": 4.0, "coherence": 3.5, "style": 2.0}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"version": "3"}, "version"),
        ({"weights": {"style": 1}}, "style"),  # which 1.5 has not
        ({"version": "2.0", "weights": {"beauty": 1}}, "beauty"),
        ({"version": "2.0", "weights": {"style": -1}}, "style"),
        ({"version": "2.0", "weights": {"style": 0}}, "weights"),
        ({"version": "2.0", "weights": {}}, "weights"),
    ],
)
def test_weights_that_cannot_be_used(options: Any, says: str) -> None:
    """Are refused when it is made."""
    with pytest.raises(ConfigError, match=says):
        judge("unified_reward", "http://127.0.0.1:9/v1", **options)


@pytest.mark.parametrize(
    ("version", "reply", "phrases"),
    [
        ("1.5", said("Final Score: 3"), ["'Final Score:'", "1 to 5"]),
        ("2.0", THREE, ["Alignment Score (1-5): X\n", "Coherence Score (1-5): Y\n", "Style Score (1-5): Z\n"]),
    ],
)
def test_the_request_of_unified_reward(version: str, reply: Answer, phrases: list[str]) -> None:
    """The image as it is, then the words, among them the caption."""
    with ChatServer(reply) as server:
        judge("unified_reward", server.url, version=version)([Sample("a cat [x] {y}", image=BLUE)])
        [request] = server.requests
    assert layout(request.body["messages"][0]) == ["image_url", "text"]
    assert request.images[0].size == (4, 4)
    assert "[a cat [x] {y}]" in request.text
    assert all(phrase in request.text for phrase in phrases)
    assert request.body["temperature"] == 0.0


def redder(request: Request) -> Answer:
    """Red before green before blue."""
    first, second = colours(request)
    better = 1 if first > second else 2
    return said(f"<think>Image {3 - better} is better? No.</think>\n<answer>Image {better} is better</answer>")


def test_unified_reward_pairwise() -> None:
    """Win rates within a group, both orders; red wins 2 of 2, green 1, blue none."""
    samples = [Sample("a cat", image=image) for image in (BLUE, RED, GREEN)]
    with ChatServer(redder) as server:
        batch = judge("unified_reward_pairwise", server.url)([*samples, Sample("a dog", image=RED)])
        requests = server.requests
    np.testing.assert_array_equal(batch.rewards, [0.0, 1.0, 0.5, np.nan])  # the dog has no other to be compared with
    pairs = [colours(request) for request in requests]
    assert sorted(pairs) == sorted(map(list, itertools.permutations(("red", "green", "blue"), 2)))
    [message] = requests[0].body["messages"]
    assert layout(message) == ["text", "image_url", "text", "image_url", "text"]
    assert [message["content"][at]["text"] for at in (0, 2)] == ["Image 1:", "Image 2:"]
    assert "[a cat]" in message["content"][4]["text"]
    assert "'Image 1 is better' or 'Image 2 is better'" in message["content"][4]["text"]
    assert requests[0].body["max_completion_tokens"] == 4096


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Image 1 is better", [0.5, 0.5]),
        ("Both images are equally good", [0.5, 0.5]),
        ("Image 1 is better. Image 2 is better.", None),
        ("The first is better.", None),
        ("<think>Image 1 is better", None),
    ],
)
def test_what_the_pairwise_model_may_say(reply: str, expected: list[float] | None) -> None:
    """A tie is said; what cannot be read is an error (in the original it is a tie)."""
    samples = [Sample("a cat", image=image) for image in (BLUE, RED)]
    with ChatServer(said(reply)) as server:
        batch = MaskErrors(judge("unified_reward_pairwise", server.url), 1.0)(samples)
    np.testing.assert_array_equal(batch.rewards, [np.nan, np.nan] if expected is None else expected)
