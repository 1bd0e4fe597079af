"""The HTTP side of a reward server. Needs the extra ``server``, and is imported where a server is started."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
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
from flux_rewards.wire.answers import ANSWER_TYPE, nulls, pack_answer, plain_answer, plain_errors
from flux_rewards.wire.fields import is_media
from flux_rewards.wire.json_samples import Images, samples_of_columns, samples_of_json
from flux_rewards.wire.samples import PATIENCE_HEADER, SAMPLES_TYPE, MalformedError, unpack_samples

if TYPE_CHECKING:
    from flux_rewards.data import Sample
    from flux_rewards.server.service import Service
    from flux_rewards.wire.allowance import Allowance

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
        told = {"status": service.status, **({"error": service.error} if service.error else {})}
        return JSONResponse(told, 200 if service.status == "ok" else 503)

    async def rewards(self, _: Request) -> Response:
        return JSONResponse(self._service.description())

    async def metrics(self, _: Request) -> Response:
        body, kind = self._service.metrics.text()
        return Response(body, headers={"Content-Type": kind})

    async def score(self, request: Request) -> Response:
        service = self._service
        kind, patience = _content_type(request, "application/json", SAMPLES_TYPE), _patience(request)
        async with _body(request, service) as body:
            if kind == SAMPLES_TYPE:
                samples = await asyncio.to_thread(_unpacked, body, service.allowance())
            else:
                samples = await asyncio.to_thread(_from_json, body, samples_of_json, service.allowance())
            samples = await asyncio.to_thread(_references, samples, service)
            del body
            answer = await service.score(samples, request.is_disconnected, patience)
        if ANSWER_TYPE in request.headers.get("Accept", ""):
            packed = await asyncio.to_thread(pack_answer, answer, hide)
            return Response(packed, headers={"Content-Type": ANSWER_TYPE})
        told = await asyncio.to_thread(plain_answer, answer, hide)
        return JSONResponse({"name": service.name, **told})

    async def compute(self, request: Request) -> Response:
        service = self._service
        _content_type(request, "application/json")
        patience = _patience(request)
        async with _body(request, service) as body:
            samples = await asyncio.to_thread(_from_json, body, samples_of_columns, service.allowance())
            answer = await service.score(samples, request.is_disconnected, patience)
        errors = plain_errors(answer, hide)
        if errors:
            text = f"{len(errors)} of {len(samples)} samples failed; {_in_words(errors[0])}"
            return JSONResponse({"error": text, "detail": text, "errors": errors}, 422)
        return JSONResponse({"rewards": nulls(answer.batch.rewards)})


def _check_token(request: Request, token: str | None) -> None:
    if token is None:
        return
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    # Compared in constant time: how long it takes must not tell how much of it is right.
    if not hmac.compare_digest(given.strip().encode(), token.encode()) or kind.lower() != "bearer":
        message = "expected the header 'Authorization: Bearer TOKEN' with the token of this server"
        raise Problem(401, "Unauthorized", message, headers={"WWW-Authenticate": "Bearer"})


def _content_type(request: Request, *expected: str) -> str:
    """The type of the body. A page in a browser cannot send one of these to another address unasked."""
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind not in expected:
        raise Problem(415, "ContentType", f"expected {' or '.join(expected)}, found {kind!r}")
    return kind


def _patience(request: Request) -> float:
    """Seconds that the client waits, where it says so."""
    try:
        asked = float(request.headers.get(PATIENCE_HEADER, "inf"))
    except ValueError:
        asked = math.nan
    if not asked > 0:
        raise Problem(400, "Malformed", f"{PATIENCE_HEADER} must be a number of seconds")
    return asked


@contextlib.asynccontextmanager
async def _body(request: Request, service: Service) -> AsyncIterator[bytes]:
    """The body of a request, as long as there is room for it."""
    limit = service.limits.max_body
    too_large = Problem(413, "TooLarge", f"the body is larger than {limit} bytes; send fewer samples")
    declared = request.headers.get("Content-Length", "0")
    if declared.isdigit() and int(declared) > limit:
        raise too_large
    pieces: list[bytes] = []
    size = 0

    async def read() -> None:
        nonlocal size
        refusal = service.refusal()
        async for piece in request.stream():
            size += len(piece)
            service.bytes_held += len(piece)
            if size > limit:
                raise too_large
            refusal = refusal or service.refusal()
            if refusal is None:
                pieces.append(piece)
            else:  # read to its end all the same: whoever still sends would not see the answer
                pieces.clear()
        if refusal is not None:
            raise refusal

    try:
        try:
            await asyncio.wait_for(read(), service.limits.body_timeout)
        except ClientDisconnect:
            raise Problem(499, "Gone", "the client went away") from None
        except asyncio.TimeoutError:
            raise Problem(408, "TooSlow", f"the body did not come within {service.limits.body_timeout:g} s") from None
        yield b"".join(pieces)
    finally:
        service.bytes_held -= size


def _unpacked(body: bytes, allowance: Allowance) -> list[Sample]:
    try:
        return unpack_samples(body, allowance)
    except MalformedError as error:
        raise Problem(400, "Malformed", str(error)) from None


def _references(samples: list[Sample], service: Service) -> list[Sample]:
    """References that are images to the reward: in base64, or pixels; never a file of this machine."""
    if not service.reference_is_media:
        return samples
    images = Images(service.allowance())
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


def _from_json(body: bytes, read: Callable[[Any, Images], list[Sample]], allowance: Allowance) -> list[Sample]:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Problem(400, "Malformed", f"not JSON: {type(error).__name__}") from None
    return read(told, Images(allowance))


def _told(error: BaseException, path: str) -> Response:
    problem = problem_of(error)
    if problem.status >= 500 and problem.status not in (503, 504):
        _log.error("%s failed", path, exc_info=error)
    body: dict[str, Any] = {"error": problem.told}
    if path == "/compute":  # whose clients read a text
        text = _in_words(problem.told)
        body = {"error": text, "detail": text}
    return JSONResponse(body, problem.status, problem.headers)


def _in_words(told: Mapping[str, Any]) -> str:
    """An error as a text, for clients that read no more."""
    where = [
        f"{word} {told[key]!r}" for word, key in (("sample", "index"), ("field", "field")) if told.get(key) is not None
    ]
    return f"{', '.join(where)}: {told['message']}" if where else str(told["message"])
