"""Judges at real servers: `transformers serve`, which ignores logprobs, and that of llama-cpp-python, which has them.

What is expected comes from the server itself: it is sent the judge's own requests by the plain client of openai.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import openai
import pytest
import serve
from chat_server import ChatServer, said

from flux_rewards import JudgeError, MaskErrors, RatingJudge, RemoteError, RewardFunction, Sample, YesNoJudge

pytestmark = pytest.mark.slow

RESPONSES = ("It is a cat.", "It is a dog.", "Who knows?", "Yes and no.", "7")
ANSWERS = ("Yes", " Yes", "yes", "No", " No", "no")


@pytest.fixture(scope="session")
def transformers_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that opens any checkpoint by its path."""
    missing = serve.why_not("fastapi", "uvicorn", install='"transformers[serving]"')
    if missing:
        pytest.skip(missing)
    with serve.transformers_serve(tmp_path_factory.mktemp("transformers")) as url:
        yield url


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Checkpoints by what they say; "" is the one that babbles."""
    folder = tmp_path_factory.mktemp("models")
    says = ["Yes", "Score: 7", "very old photo of a red cat."]
    return {"": str(serve.babbler(folder)), **{text: str(serve.speaker(folder, text)) for text in says}}


@pytest.fixture(scope="session")
def llama_cpp_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with one model, named "tiny"."""
    missing = serve.why_not("llama_cpp", "gguf", install='"llama-cpp-python[server]" gguf')
    if missing:
        pytest.skip(missing)
    words = [*ANSWERS, *map(str, range(10))]
    model = serve.gguf(tmp_path_factory.mktemp("llama_cpp") / "tiny.gguf", words)
    with serve.llama_cpp_serve(model) as url:
        yield url


def image(seed: int, height: int = 56, width: int = 56) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def rating(model: str, api_base_url: str, **options: Any) -> RatingJudge:
    """Of an image and its prompt, in a few tokens."""
    options = {"api_base_url": api_base_url, "fields": ("prompt", "image"), "max_tokens": 12, **options}
    return RatingJudge(model, "Does the image show what the prompt asks for?", **options)


def asked_directly(judge: YesNoJudge | RatingJudge, samples: Sequence[Sample]) -> list[Any]:
    """What the server answers to the requests that the judge makes for these samples, one after the other."""
    url = judge.api_base_url
    with ChatServer(said("nothing to read")) as recorder:
        there = {"api_base_url": recorder.url, "max_concurrent": 1}
        elsewhere = type(judge)(**{**judge.all_parameters, **there})
        MaskErrors(elsewhere, max_failure_rate=1.0)(samples)
    with openai.OpenAI(base_url=url, api_key="EMPTY", max_retries=0) as client:
        return [client.chat.completions.create(**request.body) for request in recorder.requests]


def failure_of(judge: RewardFunction, sample: Sample) -> str:
    with pytest.raises(JudgeError) as caught:
        judge([sample])
    return str(caught.value)


@pytest.mark.parametrize("kind", ["yes or no", "rating"])
def test_no_score_without_log_probabilities(transformers_url: str, models: dict[str, str], kind: str) -> None:
    """The server was asked for them and left them out: even if it says "Yes", this is an error that says so."""
    sample = Sample("a red cat", image=image(0))
    judge: YesNoJudge | RatingJudge = YesNoJudge(models["Yes"], api_base_url=transformers_url)
    if kind == "rating":
        judge = rating(models["Yes"], transformers_url, answer="logprobs", score_range=(1, 5), max_tokens=1)
    [completion] = asked_directly(judge, [sample])
    assert completion.choices[0].message.content == "Yes"
    assert completion.choices[0].logprobs is None
    failure = failure_of(judge, sample)
    assert "the endpoint sent no log-probabilities" in failure
    assert "the reply: 'Yes'" in failure
    masked = MaskErrors(judge, max_failure_rate=1.0)([sample])
    assert math.isnan(masked.rewards[0])


def test_a_score_is_read(transformers_url: str, models: dict[str, str]) -> None:
    """(7 - 1) / (10 - 1) where the model says "Score: 7"; text, tokens and attempts are in the metadata."""
    judge, sample = rating(models["Score: 7"], transformers_url), Sample("a red cat", image=image(0))
    [completion] = asked_directly(judge, [sample])
    [row] = judge([sample])
    assert row.reward == pytest.approx(6 / 9)
    assert row.metadata["verdict"] == completion.choices[0].message.content == "Score: 7"
    assert row.metadata["scores"] == {"score": 7.0}
    assert row.metadata["tokens"] == {
        "prompt": completion.usage.prompt_tokens,
        "completion": completion.usage.completion_tokens,
    }
    assert row.metadata["attempts"] == 1
    assert row.metadata["latency"] > 0


@pytest.mark.parametrize(("says", "options"), [("very old photo of a red cat.", {}), ("Score: 7", {"answer": "json"})])
def test_a_reply_without_a_verdict_is_quoted(
    transformers_url: str, models: dict[str, str], says: str, options: dict[str, Any]
) -> None:
    """It ended by itself and holds no verdict in the form that was asked for; the server ignores `response_format`."""
    judge, sample = rating(models[says], transformers_url, **options), Sample("a red cat", image=image(0))
    [completion] = asked_directly(judge, [sample])
    assert (completion.choices[0].message.content, completion.choices[0].finish_reason) == (says, "stop")
    assert f"the reply: {says!r}" in failure_of(judge, sample)


def test_many_samples_at_once(transformers_url: str, models: dict[str, str]) -> None:
    """Of 32 images each gets the answer that it gets alone: noise, cut short, and so quoted, not scored."""
    samples = [Sample("a red cat", image=image(seed, 112, 112)) for seed in range(32)]
    judge = rating(models[""], transformers_url, max_tokens=24)
    completions = asked_directly(judge, samples)
    replies = [completion.choices[0].message.content.strip() for completion in completions]
    assert {completion.choices[0].finish_reason for completion in completions} == {"length"}
    assert len(set(replies)) > 16  # it is the images' content that makes them differ
    batch = MaskErrors(judge, max_failure_rate=1.0)(samples)
    assert np.isnan(batch.rewards).all()
    for index, reply in enumerate(replies):
        assert "cut short" in batch.errors[index]
        assert f"the reply: {reply!r}" in batch.errors[index]


def test_images_arrive_in_their_size(transformers_url: str, models: dict[str, str]) -> None:
    """The model has a token for each 28 x 28 pixels, and so has the prompt, beside those of the text."""
    sizes = [(56, 56), (84, 112), (112, 56)]
    samples = [Sample("a red cat", image=image(0, *size)) for size in sizes]
    judge = rating(models["Score: 7"], transformers_url)
    tokens = [row.metadata["tokens"]["prompt"] for row in judge(samples)]
    assert [count - tokens[0] for count in tokens] == [0, 3 * 4 - 2 * 2, 4 * 2 - 2 * 2]
    [without] = rating(models["Score: 7"], transformers_url, fields=("prompt",))(samples[:1])
    assert without.metadata["tokens"]["prompt"] <= tokens[0] - 2 * 2


def test_a_model_that_the_server_lacks(transformers_url: str) -> None:
    """A `RemoteError` with what the server says of it, which here is little."""
    judge = rating("/no/such/model", transformers_url, max_retries=0)
    with pytest.raises(RemoteError, match=r"500.*Internal Server Error"):
        judge([Sample("a red cat", image=image(0))])


@pytest.mark.parametrize("merge", [True, False])
def test_yes_or_no_by_hand(llama_cpp_url: str, merge: bool) -> None:
    """P(Yes) / (P(Yes) + P(No)) of the first token's log-probabilities, as the server itself lists them."""
    samples = [Sample(response=text) for text in RESPONSES]
    judge = YesNoJudge(
        "tiny",
        "Is the response helpful? Answer Yes or No.",
        fields=("response",),
        merge_variants=merge,
        min_mass=0.0,
        api_base_url=llama_cpp_url,
        extra_body={"max_tokens": 1},  # it knows no max_completion_tokens
    )
    expected = []
    for completion in asked_directly(judge, samples):
        assert completion.usage.completion_tokens == 1
        listed = {top.token: math.exp(top.logprob) for top in completion.choices[0].logprobs.content[0].top_logprobs}
        assert len(listed) > 10
        forms = {"Yes": ["Yes", " Yes", "yes"], "No": ["No", " No", "no"]} if merge else {"Yes": ["Yes"], "No": ["No"]}
        yes, no = (sum(listed.get(form, 0.0) for form in forms[answer]) for answer in ("Yes", "No"))
        expected.append(yes / (yes + no))
    batch = judge(samples)
    np.testing.assert_allclose(batch.rewards, expected, rtol=1e-3)
    assert len(set(np.round(expected, 3))) == len(samples)


def test_the_expected_digit_by_hand(llama_cpp_url: str) -> None:
    """The sum of d * P(d) over that of P(d), moved from [0, 9] to [0, 1]."""
    samples = [Sample(response=text) for text in RESPONSES]
    judge = RatingJudge(
        "tiny",
        "Is it helpful?",
        fields=("response",),
        answer="logprobs",
        score_range=(0, 9),
        api_base_url=llama_cpp_url,
        extra_body={"max_tokens": 1},
    )
    expected = []
    for completion in asked_directly(judge, samples):
        listed = {top.token: math.exp(top.logprob) for top in completion.choices[0].logprobs.content[0].top_logprobs}
        weights = [listed.get(str(digit), 0.0) for digit in range(10)]
        expected.append(sum(digit * weight for digit, weight in enumerate(weights)) / sum(weights) / 9)
    batch = judge(samples)
    np.testing.assert_allclose(batch.rewards, expected, rtol=1e-3)
