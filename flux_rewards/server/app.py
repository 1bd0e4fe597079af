"""The HTTP side of a reward server. Needs the extra ``server``, and is imported where a server is started."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse as StarletteJSONResponse
from starlette.responses import PlainTextResponse

from flux_rewards.errors import InputError
from flux_rewards.server.problems import Problem, hide, problem_of
from flux_rewards.server.schema import COMPUTE, OPENAPI, SCORE
from flux_rewards.wire.answers import ANSWER_TYPE, pack_answer, plain_answer
from flux_rewards.wire.fields import is_media
from flux_rewards.wire.json_samples import Images, samples_of_columns, samples_of_json
from flux_rewards.wire.samples import SAMPLES_TYPE, MalformedError, unpack_samples

if TYPE_CHECKING:
    from flux_rewards.data import Sample
    from flux_rewards.server.service import Service

__all__ = ["make_app"]

_log = logging.getLogger(__name__)


class JSONResponse(StarletteJSONResponse):
    """JSON in ASCII: what clients sent may hold half a character, which UTF-8 cannot."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode()


Page = Callable[[Request], Awaitable[Response]]


def make_app(service: Service, token: str | None) -> FastAPI:
    """The application of a service.

    Args:
        service: What is served.
        token: What clients must send as ``Authorization: Bearer``, but to ``/health``; None for nothing.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await asyncio.to_thread(service.stop)

    app = FastAPI(title="flux_rewards", lifespan=lifespan, **OPENAPI)

    @app.exception_handler(HTTPException)
    async def elsewhere(request: Request, error: HTTPException) -> Response:
        return _told(Problem(error.status_code, "NoSuchPage", str(error.detail)), request.url.path)

    pages = _Pages(service)
    for method, path, page, summary, extra in (
        ("GET", "/health", pages.health, "Whether weights are loaded", None),
        ("GET", "/v1/rewards", pages.rewards, "What is served", None),
        ("GET", "/metrics", pages.metrics, "Numbers for Prometheus", None),
        ("POST", "/v1/score", pages.score, "Score samples", SCORE),
        ("POST", "/compute", pages.compute, "Score columns, as Flow-Factory's clients ask", COMPUTE),
    ):
        needed = None if path == "/health" else token
        endpoint = _answered(service, path, page, needed)
        kind = PlainTextResponse if path == "/metrics" else JSONResponse
        app.add_api_route(path, endpoint, methods=[method], summary=summary, openapi_extra=extra, response_class=kind)
    return app


def _answered(service: Service, path: str, page: Page, token: str | None) -> Page:
    """A page for which every failure is an answer, and which is counted."""

    async def endpoint(request: Request) -> Response:
        started = time.perf_counter()
        service.under_way += path in ("/v1/score", "/compute")
        try:
            _check_token(request, token)
            response = await page(request)
        except Exception as error:  # noqa: BLE001  # each has its answer
            response = _told(error, path)
        finally:
            service.under_way -= path in ("/v1/score", "/compute")
        service.metrics.requests.labels(path, str(response.status_code)).inc()
        service.metrics.seconds.labels(path).observe(time.perf_counter() - started)
        return response

    return endpoint


class _Pages:
    """What each path answers."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def health(self, _: Request) -> Response:
        service = self._service
        told = {"status": service.state, **({"error": service.error} if service.error else {})}
        return JSONResponse(told, 200 if service.state == "ok" else 503)

    async def rewards(self, _: Request) -> Response:
        return JSONResponse(self._service.description())

    async def metrics(self, _: Request) -> Response:
        body, kind = self._service.metrics.text()
        return Response(body, headers={"Content-Type": kind})

    async def score(self, request: Request) -> Response:
        service = self._service
        body = await _body(request, service)
        kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind == SAMPLES_TYPE:
            samples = await asyncio.to_thread(_unpacked, body)
        elif kind == "application/json":
            samples = await asyncio.to_thread(_from_json, body, samples_of_json, service.limits.max_pixels)
        else:
            raise Problem(415, "ContentType", f"expected application/json or {SAMPLES_TYPE}, found {kind!r}")
        samples = await asyncio.to_thread(_references, samples, service)
        answer = await service.score(samples, request.is_disconnected)
        if ANSWER_TYPE in request.headers.get("Accept", ""):
            packed = await asyncio.to_thread(pack_answer, answer, hide)
            return Response(packed, headers={"Content-Type": ANSWER_TYPE})
        told = await asyncio.to_thread(plain_answer, answer, hide)
        return JSONResponse({"name": service.name, **told})

    async def compute(self, request: Request) -> Response:
        service = self._service
        body = await _body(request, service)
        samples = await asyncio.to_thread(_from_json, body, samples_of_columns, service.limits.max_pixels)
        answer = await service.score(samples, request.is_disconnected)
        told = plain_answer(answer, hide)
        if told["errors"]:
            first = told["errors"][0]
            text = (
                f"{len(told['errors'])} of {len(samples)} samples failed; sample {first['index']}: {first['message']}"
            )
            return JSONResponse({"error": text, "detail": text, "errors": told["errors"]}, 422)
        return JSONResponse({"rewards": told["rewards"]})


def _check_token(request: Request, token: str | None) -> None:
    if token is None:
        return
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    # Compared in constant time: how long it takes must not tell how much of it is right.
    if not hmac.compare_digest(given.strip().encode(), token.encode()) or kind.lower() != "bearer":
        message = "expected the header 'Authorization: Bearer TOKEN' with the token of this server"
        raise Problem(401, "Unauthorized", message, headers={"WWW-Authenticate": "Bearer"})


async def _body(request: Request, service: Service) -> bytes:
    limit = service.limits.max_body
    too_large = Problem(413, "TooLarge", f"the body is larger than {limit} bytes; send fewer samples")
    declared = request.headers.get("Content-Length", "0")
    if declared.isdigit() and int(declared) > limit:
        raise too_large
    pieces: list[bytes] = []

    async def read() -> None:
        size = 0
        async for piece in request.stream():
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise too_large

    try:
        await asyncio.wait_for(read(), service.limits.body_timeout)
    except ClientDisconnect:
        raise Problem(499, "Gone", "the client went away") from None
    except asyncio.TimeoutError:
        raise Problem(408, "TooSlow", f"the body did not come within {service.limits.body_timeout:g} s") from None
    return b"".join(pieces)


def _unpacked(body: bytes) -> list[Sample]:
    try:
        return unpack_samples(body)
    except MalformedError as error:
        raise Problem(400, "Malformed", str(error)) from None


def _references(samples: list[Sample], service: Service) -> list[Sample]:
    """References that are images to the reward: in base64, or pixels; never a file of this machine."""
    if not service.reference_is_media:
        return samples
    images = Images(service.limits.max_pixels)
    read: list[Sample] = []
    for index, sample in enumerate(samples):
        reference = sample.reference
        if isinstance(reference, str):
            reference = images.image(reference, "reference", index)
        elif isinstance(reference, list) and all(isinstance(entry, str) for entry in reference):
            reference = [images.image(entry, "reference", index) for entry in reference]
        if reference is not None and not is_media(reference, 1):
            raise InputError("expected an image in base64, or pixels", field="reference", index=index)
        read.append(replace(sample, reference=reference))
    return read


def _from_json(body: bytes, read: Callable[[Any, Images], list[Sample]], max_pixels: int) -> list[Sample]:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Problem(400, "Malformed", f"not JSON: {type(error).__name__}") from None
    return read(told, Images(max_pixels))


def _told(error: BaseException, path: str) -> Response:
    problem = problem_of(error)
    if problem.status >= 500 and problem.status not in (503, 504):
        _log.error("%s failed", path, exc_info=error)
    body: dict[str, Any] = {"error": problem.told}
    if path == "/compute":  # whose clients read a text
        body = {"error": problem.told["message"], "detail": problem.told["message"]}
    return JSONResponse(body, problem.status, problem.headers)
