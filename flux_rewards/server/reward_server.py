"""A reward server, ready to run."""

from __future__ import annotations

import contextlib
import inspect
import ipaddress
import logging
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards.base import RewardFunction
from flux_rewards.errors import ConfigError, ContractError, MissingDependencyError
from flux_rewards.server.settings import Limits
from flux_rewards.validation import whole_number
from flux_rewards.wire.json_samples import COLUMNS

if TYPE_CHECKING:
    from fastapi import FastAPI

    from flux_rewards.data import Sample

__all__ = ["RewardServer"]


class RewardServer:
    """Serves a reward over HTTP: give it one, or derive from it and write ``compute_reward``.

    Requests that come at the same time are scored together; groups stay whole; a sample that fails fails alone. The
    server listens on loopback unless told otherwise, and any other host needs a token. Endpoints: ``/v1/score``,
    ``/compute`` (as Flow-Factory's clients ask), ``/v1/rewards``, ``/health``, ``/metrics``, ``/docs``.

    Args:
        reward: What is served; None for a class with a ``compute_reward`` of its own.
        host: Where it listens.
        port: Where; 0 for a free one.
        token: What clients must send as ``Authorization: Bearer``.
        require_token: False to serve another host than loopback without a token.
        limits: What is allowed; see `Limits`.
        name: What the reward is called to clients; its own name by default.

    Raises:
        ConfigError: Another host than loopback, and no token.
        ContractError: Neither a reward nor a ``compute_reward``, or both.
        MissingDependencyError: The extra ``server`` is not installed.

    ``compute_reward(self, prompt, image=None, video=None, condition_images=None, condition_videos=None)`` gets lists
    with one entry a sample (images as PIL) and returns one number a sample, or None where it does not apply. An
    argument without a default is a field that every sample must have; what is no argument is not sent.

    Examples:
        >>> class Brightness(RewardServer):
        ...     def compute_reward(self, prompt, image=None, video=None, condition_images=None, condition_videos=None):
        ...         return [sum(one.convert("L").resize((1, 1)).getpixel((0, 0)) for _ in [0]) / 255 for one in image]
        >>> server = Brightness(port=0)
        >>> server.reward.name
        'Brightness'
    """

    def __init__(
        self,
        reward: RewardFunction | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        token: str | None = None,
        require_token: bool = True,
        limits: Limits | None = None,
        name: str | None = None,
    ) -> None:
        own = type(self).compute_reward is not RewardServer.compute_reward
        if (reward is None) == (not own):
            raise ContractError(
                f"{type(self).__name__} needs a reward, or a compute_reward of its own, and not both: "
                "RewardServer(reward), or a class derived from RewardServer that overrides compute_reward"
            )
        if token is not None and not (token and all("!" <= character <= "~" for character in token)):
            raise ConfigError("token must be a text of visible ASCII characters, without spaces")
        if token is None and require_token and not _is_loopback(host):
            raise ConfigError(
                f"{host} can be reached from other machines: give a token, or say that none is wanted "
                "(require_token=False; --no-token)"
            )
        self.reward = reward if reward is not None else _Served(self)
        if whole_number(port, "port", "", low=0) > 65535:
            raise ConfigError(f"port must be at most 65535, found {port}")
        self.host, self.port, self.token = host, port, token
        self.limits = limits or Limits()
        self.name = name or self.reward.name

    def compute_reward(
        self,
        prompt: list[str],
        image: list[Any] | None = None,
        video: list[Any] | None = None,
        condition_images: list[Any] | None = None,
        condition_videos: list[Any] | None = None,
    ) -> Sequence[float | None]:
        """Score lists with one entry a sample; for a class of your own to override."""
        raise NotImplementedError

    def load(self) -> None:
        """Read weights, before the first request; for a class of your own to override."""

    @property
    def app(self) -> FastAPI:
        """The application, for a server of your own, such as ``uvicorn.run(server.app)``."""
        try:
            from flux_rewards.server.app import make_app  # noqa: PLC0415  # needs the extra
            from flux_rewards.server.service import Service  # noqa: PLC0415  # needs the extra

            return make_app(Service(self.reward, self.limits, self.name), self.token)
        except ImportError as error:
            raise _missing(error) from error

    def _listening(self) -> socket.socket:
        """A socket of which asyncio knows that it is TCP: else each answer would wait for the client's delayed ACK."""
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except OSError as error:
            raise ConfigError(
                f"host must be an address of this machine, found {self.host!r}: {error.strerror}"
            ) from None
        family, kind, _, _, address = found[0]
        listening = socket.socket(family, kind, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(address)
        except OSError as error:
            listening.close()
            raise ConfigError(
                f"{self.host}:{self.port} cannot be served: {error.strerror}; choose another port"
            ) from None
        return listening

    def run(self) -> None:
        """Serve until SIGTERM or Ctrl-C; what is under way is finished, for `Limits.drain` seconds at most."""
        try:
            import uvicorn  # noqa: PLC0415  # part of the extra
        except ImportError as error:
            raise _missing(error) from error
        config = uvicorn.Config(
            self.app,
            host=self.host,
            port=self.port,
            log_level="warning",
            timeout_graceful_shutdown=int(self.limits.drain) or 1,
            server_header=False,
        )
        listening = self._listening()
        host, port = listening.getsockname()[:2]
        host = f"[{host}]" if ":" in host else host
        print(f"serving {self.name} at http://{host}:{port} (see /docs)", flush=True)  # noqa: T201  # for people
        log, handler = logging.getLogger("flux_rewards"), logging.StreamHandler()
        log.addHandler(handler)  # what fails is told to clients in a line, and to whoever runs the server whole
        try:
            server = uvicorn.Server(config)
            with _ended_by_sigterm(server):
                server.run(sockets=[listening])
        finally:
            log.removeHandler(handler)
            listening.close()


@contextlib.contextmanager
def _ended_by_sigterm(server: Any) -> Iterator[None]:
    """Uvicorn drains and then raises the signal once more; a drained server has ended well."""

    def end(*_: object) -> None:
        server.should_exit = True  # it may also come before uvicorn listens to signals

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _missing(error: ImportError) -> MissingDependencyError:
    package = (error.name or "fastapi").partition(".")[0]
    return MissingDependencyError(
        f'{package} is not installed, which a server needs: pip install "flux_rewards[server]"'
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Served(RewardFunction):
    """The ``compute_reward`` of a server as a reward."""

    def __init__(self, server: RewardServer) -> None:
        super().__init__(name=type(server).__name__)
        self.server = server
        accepted = inspect.signature(server.compute_reward).parameters
        variadic = any(entry.kind is entry.VAR_KEYWORD for entry in accepted.values())
        self._columns = [name for name in COLUMNS if variadic or name in accepted]
        needed = [name for name, entry in accepted.items() if entry.default is entry.empty and name in self._columns]
        self.required_fields = needed
        self.optional_fields = [name for name in self._columns if name not in needed]

    def load(self) -> None:
        self.server.load()

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        columns = {name: [getattr(sample, name) for sample in samples] for name in self._columns}
        given = {
            name: column
            for name, column in columns.items()
            if name in self.required_fields or any(value is not None for value in column)
        }
        return self.server.compute_reward(**given)
