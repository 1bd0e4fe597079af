"""The HTTP side of OpenRLHF's rewards. Needs the extra ``server``, and is imported where a server is started."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import MissingDependencyError
from flux_rewards.server.reward_server import RewardServer

try:
    from fastapi import FastAPI, Request, Response
    from starlette.responses import JSONResponse

    from flux_rewards.server.problems import Problem, problem_of
except ImportError as problem:  # the message names the line that installs it
    raise MissingDependencyError(
        f'{problem.name} is not installed, which a server needs: pip install "flux_rewards[server]"'
    ) from problem

if TYPE_CHECKING:
    from flux_rewards.base import RewardFunction

__all__ = ["OpenRLHFServer", "app_of"]

_log = logging.getLogger(__name__)


def app_of(answer: Callable[[Any], Awaitable[dict[str, Any]]], path: str, max_body: int) -> FastAPI:
    """An application that answers ``POST path`` with what `answer` says of the JSON that came."""
    app = FastAPI(title="flux_rewards for OpenRLHF")

    async def get_reward(request: Request) -> Response:
        try:
            return JSONResponse(await answer(await _json(request, max_body)))
        except Exception as error:  # noqa: BLE001  # each has its answer
            problem = problem_of(error)
            if problem.status >= 500:
                _log.error("%s failed", path, exc_info=error)
            return _told(problem)

    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    app.add_api_route(path, get_reward, methods=["POST"], response_class=JSONResponse)
    app.add_api_route("/health", health, methods=["GET"], response_class=JSONResponse)
    return app


async def _json(request: Request, max_body: int) -> Any:
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # which a page in a browser cannot send to another address unasked
        raise Problem(415, "ContentType", f"expected application/json, found {kind!r}")
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > max_body:
            raise Problem(413, "TooLarge", f"the body is larger than {max_body} bytes; send fewer samples")
        pieces.append(piece)
    try:
        return json.loads(b"".join(pieces))
    except (ValueError, RecursionError) as error:
        raise Problem(400, "Malformed", f"not JSON: {type(error).__name__}") from None


def _told(problem: Problem) -> Response:
    return JSONResponse({"error": problem.told}, problem.status, headers=problem.headers)


class OpenRLHFServer(RewardServer):
    """Runs an application for OpenRLHF as `RewardServer` runs its own."""

    def __init__(
        self, reward: RewardFunction, app: FastAPI, *, host: str, port: int, require_token: bool = True
    ) -> None:
        super().__init__(reward, host=host, port=port, require_token=require_token)
        self._app = app

    @property
    def app(self) -> FastAPI:
        """The application."""
        return self._app

    def run(self) -> None:
        """Load, and serve until SIGTERM or Ctrl-C."""
        self.reward.load()
        super().run()
