"""A reward server in one file, for an environment where flux_rewards cannot be installed.

    pip install fastapi uvicorn pillow
    python server.py --port 8000

Copy it, and write `load` and `score`; the rest can stay. Python >= 3.10. It answers what Flow-Factory's clients and
flux_rewards' ``RemoteReward(url, protocol="flow_factory")`` ask:

- ``GET /health``: 200 once `load` has returned, 503 until then, or for good where it failed.
- ``POST /compute`` with the fields of `Samples`, images as base64 of PNG, JPEG or WebP: ``{"rewards": [float or null,
  ...]}``, one a sample. What went wrong is ``{"error": "..."}`` with a status of 400 and above, never a number.

It opens no file or address that a request names, and answers /health while it scores.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hmac
import io
import logging
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import fmean
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from PIL import Image, ImageStat
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException as AnyHTTPException  # the router's, too
from starlette.requests import ClientDisconnect

MAX_BODY = 256 * 2**20  # bytes of a request
MAX_SAMPLES = 1024  # of a request
MAX_PIXELS = 2**28  # of all images of a request: 1 GiB decoded
MAX_WAITING = 16  # requests in the server, each with its body in memory; more are asked to come back
BODY_SECONDS = 60  # for a body to arrive
GRACE_SECONDS = 300  # for the requests at hand, after SIGTERM
LOOPBACK = ("127.0.0.1", "::1", "localhost")

log = logging.getLogger("uvicorn.error")  # the one that uvicorn prints


def load() -> Any:
    """Read the weights, once: what it returns is the `model` of `score`, which runs on the same thread."""
    return None


def score(  # noqa: PLR0917
    model: Any,
    prompts: list[str],
    images: list[Image.Image] | None,
    videos: list[list[Image.Image]] | None,
    condition_images: list[list[Image.Image]] | None,
    condition_videos: list[list[list[Image.Image]]] | None,
) -> list[float | None]:
    """Score the samples of one request: here by mean brightness, from 0 for black to 1 for white.

    Args:
        model: What `load` returned.
        prompts: One a sample.
        images: One a sample, as RGB; None where the request has no such field, like those below.
        videos: The frames of each sample's video.
        condition_images: The images that each sample was made from.
        condition_videos: The videos that each sample was made from, as frames.

    Returns:
        One number a sample, in order; None where the reward does not apply. Where scoring fails, raise: a made-up
        number would be learned from. ``HTTPException(422, "...")`` tells the trainer why; the message of any other
        exception goes to the log only.
    """
    del model, prompts, condition_images, condition_videos  # brightness takes no notice of them
    clips = videos if images is None else [[image] for image in images]
    if clips is None:
        raise HTTPException(422, "this reward needs image or video")
    return [
        fmean(ImageStat.Stat(frame.convert("L")).mean[0] / 255 for frame in clip) if clip else None for clip in clips
    ]


Strings = Annotated[list[str], Field(fail_fast=True)]  # else a million faults make a million messages
Lists = Annotated[list[Strings], Field(fail_fast=True)]


class Samples(BaseModel):
    """The body of a request: each field is null or has one entry a sample; images are base64 without a prefix."""

    model_config = ConfigDict(extra="allow")  # decode refuses them, in one message

    prompt: Strings = Field(min_length=1)
    image: Strings | None = None
    video: Lists | None = None
    condition_images: Lists | None = None
    condition_videos: Annotated[list[Lists], Field(fail_fast=True)] | None = None


def logged(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call what you wrote; what it raises goes to the log, and only its kind to the trainer."""
    try:
        return function(*arguments)
    except HTTPException:
        raise
    except Exception as error:
        log.exception("%s() failed", function.__name__)
        reason = f"{function.__name__}() failed with {type(error).__name__}; the server's log has more"
        raise HTTPException(500, reason) from None


def rewards_of(model: Any, body: bytes) -> list[float | None]:
    """Decode a request, score it, and check the scores."""
    prompts, *media = decode(body)
    scores = list(logged(score, model, prompts, *media))
    if len(scores) != len(prompts):
        raise HTTPException(500, f"score() returned {len(scores)} scores for {len(prompts)} samples")
    for index, value in enumerate(scores):
        if value is not None and not (hasattr(value, "__float__") and math.isfinite(value)):
            raise HTTPException(500, f"score() returned {value!r:.40} for sample {index}, neither a number nor None")
    return [None if value is None else float(value) for value in scores]


def decode(body: bytes) -> list[Any]:
    """The fields of `Samples`, in order, with images for base64."""
    try:
        samples = Samples.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])[:100] or "the body"
        raise HTTPException(400, f"{place}: {first['msg']}") from None
    count, left = len(samples.prompt), MAX_PIXELS
    if count > MAX_SAMPLES:
        raise HTTPException(413, f"{count} samples are more than {MAX_SAMPLES}; send fewer at once")
    fields = {field: getattr(samples, field) for field in Samples.model_fields}
    if unknown := [field for field, value in samples if field not in fields and value is not None]:
        raise HTTPException(
            400, f"{unknown[0]:.40} is none of {', '.join(fields)}"
        )  # unread, it would change the scores
    for field, value in fields.items():
        if value is not None and len(value) != count:
            raise HTTPException(400, f"{field} has {len(value)} entries for {count} prompts; send one for each")

    def read(value: Any, place: str) -> Any:
        nonlocal left
        if isinstance(value, list):
            return [read(entry, f"{place}[{index}]") for index, entry in enumerate(value)]
        image = read_image(value, place, left)
        left -= max(image.width * image.height, 64 * 64)  # many tiny ones cost as well
        return image

    return [value if field == "prompt" or value is None else read(value, field) for field, value in fields.items()]


def read_image(text: str, place: str, left: int) -> Image.Image:
    """An image as RGB; its header is looked at before its pixels are decoded. What is transparent becomes white."""
    unreadable = HTTPException(422, f"{place} is not the plain base64 of a whole PNG, JPEG or WebP image")
    try:
        image = Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=("PNG", "JPEG", "WEBP"))
    except Exception:  # noqa: BLE001  # nearly anything, on a broken file
        raise unreadable from None
    if image.width * image.height > left:
        raise HTTPException(413, f"{place}: the images have more than {MAX_PIXELS} pixels; send fewer at once")
    if getattr(image, "is_animated", False) or image.mode not in {"1", "L", "LA", "P", "RGB", "RGBA"}:
        raise HTTPException(422, f"{place} is animated or has no 8-bit channels; send an RGB image")
    try:
        if not image.has_transparency_data:
            return image.convert("RGB")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    except Exception:  # noqa: BLE001  # as above
        raise unreadable from None


def check(request: Request, token: str | None) -> None:
    """Refuse what need not be read."""
    given = request.headers
    if token and not hmac.compare_digest(given.get("authorization", "").encode("latin-1"), f"Bearer {token}".encode()):
        raise HTTPException(401, "send the server's token as 'Authorization: Bearer TOKEN'")
    if given.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "send Content-Type: application/json")  # which no web page can, unasked
    if "content-length" not in given or "transfer-encoding" in given:
        raise HTTPException(411, "send the body in one piece, with its Content-Length")
    if int(given["content-length"]) > MAX_BODY:
        raise HTTPException(413, f"the body has more than {MAX_BODY} bytes; send fewer samples at once")


def create_app(token: str | None) -> FastAPI:
    """The two endpoints; with a token, /compute asks for ``Authorization: Bearer TOKEN``."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    worker, places, turn = ThreadPoolExecutor(1), asyncio.Semaphore(MAX_WAITING), asyncio.Lock()
    loading = worker.submit(logged, load)

    @app.get("/health")
    async def health() -> JSONResponse:
        status = "loading" if not loading.done() else "failed" if loading.exception() else "ok"
        return JSONResponse({"status": status}, 200 if status == "ok" else 503)

    @app.post("/compute")
    async def compute(request: Request) -> JSONResponse:
        check(request, token)
        if not loading.done():
            raise HTTPException(503, "NotReady: the weights are loading", {"Retry-After": "1"})
        model = loading.result()
        if places.locked():
            raise HTTPException(503, f"{MAX_WAITING} requests are waiting; come back later", {"Retry-After": "1"})
        async with places:
            try:
                body = await asyncio.wait_for(request.body(), BODY_SECONDS)
            except asyncio.TimeoutError:
                raise HTTPException(408, f"the body did not arrive within {BODY_SECONDS} s") from None
            async with turn:
                if await request.is_disconnected():
                    raise ClientDisconnect
                job = asyncio.get_running_loop().run_in_executor(worker, rewards_of, model, body)
                return JSONResponse({"rewards": await job})

    @app.exception_handler(ClientDisconnect)  # while it sent or waited; nobody reads the answer
    @app.exception_handler(AnyHTTPException)
    @app.exception_handler(Exception)
    async def failed(_: Request, error: Any) -> JSONResponse:
        detail = getattr(error, "detail", "the server failed; its log has more")
        return JSONResponse({"error": detail}, getattr(error, "status_code", 500), getattr(error, "headers", None))

    return app


def main() -> None:
    """Read the command line and serve until SIGTERM or Ctrl-C; the requests at hand are still answered."""
    parser = argparse.ArgumentParser(description="A reward server.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port (default: %(default)s)")
    parser.add_argument("--no-token", action="store_true", help="answer anyone, whatever the host")
    options = parser.parse_args()
    token = None if options.no_token else os.environ.get("REWARD_TOKEN") or None
    if token is None and not options.no_token and options.host not in LOOPBACK:
        parser.error(f"others can reach {options.host}: set REWARD_TOKEN in the environment, or add --no-token")
    Image.MAX_IMAGE_PIXELS = None  # read_image looks at the size of all together
    uvicorn.run(create_app(token), host=options.host, port=options.port, timeout_graceful_shutdown=GRACE_SECONDS)


if __name__ == "__main__":
    main()
