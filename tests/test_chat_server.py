"""The scripted chat server, asked by the official client."""

from __future__ import annotations

import asyncio
import base64
import io
import math
import threading
import time
from typing import Any

import openai
import pytest
from chat_server import (
    Answer,
    ChatServer,
    Request,
    endless,
    first_token,
    in_turn,
    nobody_listens,
    raw,
    reset,
    said,
    slow,
    spoken,
    status,
)
from PIL import Image


def ask(url: str, content: Any = "Hello", timeout: float = 5.0, **options: Any) -> Any:
    """One request by a client of its own."""
    with openai.OpenAI(base_url=url, api_key="key", max_retries=0, timeout=timeout) as client:
        messages: Any = [{"role": "system", "content": "Judge."}, {"role": "user", "content": content}]
        return client.chat.completions.create(model="m", messages=messages, **options)


def test_it_is_asked_and_answers() -> None:
    """Text and pictures arrive as they were sent; the answer has what an answer has."""
    picture = Image.new("RGB", (3, 2), (10, 20, 30))
    file = io.BytesIO()
    picture.save(file, "png")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "How good?"}]
    with ChatServer(said("Score: 8", tokens=(7, 3))) as server:
        reply = ask(server.url, content, temperature=0.5)
    (request,) = server.requests
    assert (request.number, request.text, request.body["temperature"]) == (0, "Judge.\nHow good?", 0.5)
    assert request.headers["authorization"] == "Bearer key"
    assert [(image.size, image.getpixel((2, 1))) for image in request.images] == [((3, 2), (10, 20, 30))]
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("Score: 8", "stop")
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (7, 3)


def test_tokens_have_probabilities() -> None:
    """Of the first token, and of several; NaN passes."""
    with ChatServer(first_token({"Yes": -0.1, " no": -3.0, "Maybe": math.nan}, said="Yes")) as server:
        (step,) = ask(server.url).choices[0].logprobs.content
    assert (step.token, step.logprob) == ("Yes", -0.1)
    assert [each.token for each in step.top_logprobs] == ["Yes", " no", "Maybe"]
    assert math.isnan(step.top_logprobs[2].logprob)
    with ChatServer(spoken([{"Score: ": -0.01}, {"7": -1.5, "8": -0.5}])) as server:
        choice = ask(server.url).choices[0]
    assert choice.message.content == "Score: 8"
    assert [[each.logprob for each in step.top_logprobs] for step in choice.logprobs.content] == [[-0.01], [-1.5, -0.5]]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (status(429, headers={"Retry-After": "3"}), openai.RateLimitError),
        (status(503, "<html>busy</html>"), openai.InternalServerError),
        (reset(), openai.APIConnectionError),
        (reset(after_headers=True), openai.APIConnectionError),
        (slow(5.0, said("late")), openai.APITimeoutError),
        (raw('{"choices": [{"mess'), ValueError),
    ],
)
def test_faults_are_what_they_claim(answer: Answer, error: type[Exception]) -> None:
    """The client tells them apart, and a reset from an end."""
    with ChatServer(answer) as server, pytest.raises(error) as caught:
        ask(server.url, timeout=0.2)
    if answer.code == 429:
        assert caught.value.response.headers["retry-after"] == "3"  # type: ignore[attr-defined]
    cause = caught.value
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
    assert isinstance(cause, ConnectionResetError) is bool(answer.resets)


def test_nobody_listens_at_a_refused_address() -> None:
    """The system says so at once."""
    with nobody_listens() as url, pytest.raises(openai.APIConnectionError) as caught:
        ask(url)
    assert "refused" in repr(caught.value.__cause__).lower() or "connect" in repr(caught.value.__cause__).lower()


@pytest.mark.parametrize("fast", [False, True])
def test_an_endless_body_goes_on_until_the_client_leaves(fast: bool) -> None:
    """Blank by blank, or by the megabyte; then the server knows."""
    taken = 0
    with ChatServer(endless(fast)) as server:
        with openai.OpenAI(base_url=server.url, api_key="key") as client:
            create = client.chat.completions.with_streaming_response.create
            with create(model="m", messages=[]) as response:
                for piece in response.iter_bytes():
                    taken += len(piece)
                    if taken > (8 << 20 if fast else 5):
                        break
            assert taken < (9 << 20 if fast else 9)
        while server.in_flight:
            time.sleep(0.002)
        assert server.abandoned == 1


def test_hundreds_at_once() -> None:
    """512 requests wait side by side, each on a connection that serves a second one, too; all are counted."""
    count, all_there = 512, asyncio.Event()

    async def gate(request: Request) -> Answer:
        if server.at_once == count:
            all_there.set()
        await all_there.wait()
        return said(request.text)

    async def go() -> list[str]:
        async with openai.AsyncOpenAI(base_url=server.url, api_key="key", max_retries=0) as client:

            async def one(number: int) -> str:
                messages: Any = [{"role": "user", "content": str(number)}]
                reply = await client.chat.completions.create(model="m", messages=messages)
                return reply.choices[0].message.content or ""

            answers = await asyncio.gather(*map(one, range(count)))
            assert [await one(1), await one(2)] == ["1", "2"]
            return answers

    with ChatServer(gate) as server:
        assert asyncio.run(go()) == [str(number) for number in range(count)]
    assert (server.at_once, server.connections, len(server.requests)) == (count, count, count + 2)
    assert [request.number for request in server.requests] == list(range(count + 2))


def test_the_end_of_the_server_is_the_end_of_all() -> None:
    """Connections end, a request in flight too; no thread is left, and nobody listens any more."""
    before = set(threading.enumerate())
    failed: list[Exception] = []

    def wait() -> None:
        try:
            ask(server.url)
        except openai.APIConnectionError as error:
            failed.append(error)

    with ChatServer(in_turn(said("first"), slow(60.0, said("never")))) as server:
        assert ask(server.url).choices[0].message.content == "first"
        with openai.OpenAI(base_url=server.url, api_key="key") as client:
            assert [model.id for model in client.models.list()] == ["scripted"]
        waiting = threading.Thread(target=wait)
        waiting.start()
        server.wait_for(2)
    waiting.join(5.0)
    assert len(failed) == 1
    assert set(threading.enumerate()) <= before
    with pytest.raises(openai.APIConnectionError):
        ask(server.url)


def test_a_mistake_in_the_script_is_told() -> None:
    """It is no fault of the client."""

    def wrong(request: Request) -> Answer:
        return said(request.body["nothing"])

    told = pytest.raises(AssertionError, match="KeyError: 'nothing'")
    with told, ChatServer(wrong) as server, pytest.raises(openai.BadRequestError):
        ask(server.url)
