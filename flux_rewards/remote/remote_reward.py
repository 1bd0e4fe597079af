"""A reward that a server computes."""

from __future__ import annotations

import base64
import io
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast
from urllib.parse import urlsplit

import numpy as np

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.contract import Scored
from flux_rewards.data import FIELDS, RewardBatch, Sample
from flux_rewards.errors import ConfigError, InputError, RemoteError, brief
from flux_rewards.media import Place
from flux_rewards.media.images import as_pil
from flux_rewards.media.sequences import images_to_pil, video_to_pil, videos_to_pil
from flux_rewards.remote.servers import Answered, Servers
from flux_rewards.threads import RenewedLock
from flux_rewards.validation import number, one_of, whole_number
from flux_rewards.wire.answers import ANSWER_TYPE, unpack_answer
from flux_rewards.wire.json_samples import COLUMNS
from flux_rewards.wire.samples import SAMPLES_TYPE, pack_readable

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flux_rewards.parameters import LeftBehind

__all__ = ["RemoteReward"]

TOKEN_VARIABLE = "FLUX_REWARDS_TOKEN"  # noqa: S105  # its name
_FIELDS_OF_FLOW_FACTORY = ("prompt",)
_FIELDS_OF_A_GROUP = ("prompt", "condition_images", "condition_videos")


class RemoteReward(RewardFunction):
    """A reward behind ``flux-rewards serve``, or behind a plain Flow-Factory reward server.

    It says what the server's reward says: values, parts, token rewards, metadata, errors of single samples. Name,
    scope and required fields are the server's own, and asked for when they are first needed; give a name where another
    reward is made around it, such as a composite, which would ask for it at once. Only the fields that the
    server's reward reads are sent; pixels go as they are, without base64, PNG or rounding.

    Args:
        server_url: Its address, such as ``http://127.0.0.1:8000``; or several that serve the same, which are asked in
            turn, and for each other.
        protocol: ``"flux"``, or ``"flow_factory"`` for servers that know only ``/health`` and ``/compute``: base64
            PNGs, scores without parts and metadata, and one failure for the whole request.
        required_fields: With ``"flow_factory"``, which cannot be asked: the fields that are sent; prompt by default.
        token: Of the server; None for that of the environment variable ``FLUX_REWARDS_TOKEN``, where there is one. It
            is not shown, logged or pickled: another process takes the environment's.
        timeout: Seconds for one request; the server is told, and gives up then, too. Where several urls are given,
            another server is asked next; the same one would begin anew beside what it still does.
        retry_attempts: Requests in all where one fails for a reason that may pass: 408, 425, 429, 5xx but 504, unless
            the server says that it will not pass, and what happens on the way.
        wait_for_server: Seconds to wait for a server that cannot be reached or still loads its weights.
        **options: Of every reward; see `RewardFunction`. `batch_size` are samples a request (64), `num_workers`
            requests in flight (4).

    Raises:
        ConfigError: An address is none, or an argument is out of its range.
        RemoteError: When it is first asked for something: there is no server.

    A score is the server's to the last bit; a server that answers with too few, or with something else than numbers, is
    an error. Paths are read here: a server takes no paths. Metadata that have no form in JSON are refused.

    Examples:
        >>> RemoteReward("http://127.0.0.1:8000", name="aesthetic", num_workers=8).num_workers
        8
    """

    media_form = "given"
    batch_size = 64
    num_workers = 4
    secret_parameters: ClassVar[Sequence[str]] = ("token",)
    neutral_parameters: ClassVar[Sequence[str]] = (
        *RewardFunction.neutral_parameters,
        "token",
        "timeout",
        "retry_attempts",
        "wait_for_server",
    )
    example_config: ClassVar[Mapping[str, Any]] = {"name": "remote", "server_url": "http://127.0.0.1:8000"}

    def __init__(
        self,
        server_url: str | Sequence[str],
        protocol: str = "flux",
        *,
        required_fields: Sequence[str] | None = None,
        token: str | LeftBehind | None = None,
        timeout: float = 60.0,
        retry_attempts: int = 3,
        wait_for_server: float = 60.0,
        **options: Unpack[RewardOptions],
    ) -> None:
        label = options.get("name") or "RemoteReward"
        self._info: Mapping[str, Any] | None = None
        self._lock = RenewedLock()
        self._ready = False
        super().__init__(**options)
        urls: Any = [server_url] if isinstance(server_url, str) else server_url
        if not isinstance(urls, (list, tuple)) or not urls:
            raise ConfigError(f"server_url must be an address or a list of them, found {brief(urls)}", reward=label)
        self._urls = [_checked_url(url, label) for url in urls]
        self.server_url = server_url
        self.protocol = one_of(protocol, "protocol", label, ("flux", "flow_factory"))
        self._fields = tuple(required_fields) if required_fields is not None else _FIELDS_OF_FLOW_FACTORY
        if protocol == "flux" and required_fields is not None:
            raise ConfigError("required_fields are learned from the server; leave them out", reward=label)
        if isinstance(required_fields, str):
            raise ConfigError(f"required_fields must be a list of fields, found {required_fields!r}", reward=label)
        for field in self._fields:
            one_of(field, "required_fields", label, COLUMNS)
        if isinstance(token, str) and not all("!" <= character <= "~" for character in token):
            raise ConfigError("token must be a text of visible ASCII characters, without spaces", reward=label)
        self.timeout = number(timeout, "timeout", label, above=0.0)
        self.retry_attempts = whole_number(retry_attempts, "retry_attempts", label, low=1)
        self.wait_for_server = number(wait_for_server, "wait_for_server", label, low=0.0)
        self._servers_made: Servers | None = None
        self._ready = True

    @property
    def name(self) -> str:  # the server's own where none was given
        """What it is called: as given, else as the server's reward."""
        given = vars(self).get("_name")
        if given is not None:
            return str(given)
        return "RemoteReward" if not vars(self).get("_ready") else str(self._learned["name"])

    @name.setter
    def name(self, value: str) -> None:
        self._name = value

    @property
    def required_fields(self) -> Sequence[str]:  # type: ignore[override]  # the server's own
        """Those of the server's reward."""
        return tuple(self._learned["required_fields"])

    @property
    def optional_fields(self) -> Sequence[str] | None:  # type: ignore[override]  # the server's own
        """Those of the server's reward."""
        told = self._learned["optional_fields"]
        return None if told is None else tuple(told)

    @property
    def scope(self) -> str:  # type: ignore[override]  # the server's own
        """That of the server's reward."""
        return str(self._learned["scope"])

    @property
    def bounds(self) -> tuple[float, float] | None:  # the server's own
        """Those of the server's reward, after this one's own scale and clip; None before it was asked (see `load`)."""
        own = vars(self).get("_bounds")
        told = (vars(self).get("_info") or {}).get("bounds")
        if own is not None or told is None:
            return cast("tuple[float, float] | None", own)
        scale = vars(self).get("_RewardFunction__scale", 1.0)
        low, high = sorted(float(bound) * scale for bound in told)
        return low, high

    @bounds.setter
    def bounds(self, value: tuple[float, float] | None) -> None:
        self._bounds = value

    @property
    def higher_is_better(self) -> bool:  # the server's own
        """That of the server's reward, turned where this one's scale is negative; as usual before it was asked."""
        known = bool((vars(self).get("_info") or {}).get("higher_is_better", True))
        return known is not vars(self).get("_turned", False)

    @higher_is_better.setter
    def higher_is_better(self, value: bool) -> None:
        self._turned = not value

    @property
    def decided_by(self) -> Sequence[Any]:  # type: ignore[override]  # the server's own
        """What the server's reward is known by, so that a cache does not give the scores of another one.

        Raises:
            ConfigError: The server cannot tell its reward from another.
        """
        digest = self._learned.get("digest", "")
        if digest is None:
            raise ConfigError(
                "the server cannot tell its reward from another, so a cache cannot either", reward=self.name
            )
        return (digest,)

    @property
    def reference_is_media(self) -> bool:  # type: ignore[override]  # the server's own
        """That of the server's reward."""
        return bool(self._learned.get("reference_is_media"))

    def load(self) -> None:
        """Wait for the server and its weights, and learn what it serves."""
        self._servers.request("GET", "/health", lambda response: response.content)
        _ = self._learned

    def close(self) -> None:
        """End the connections; what was learned is learned anew."""
        self._servers_made, self._info = None, None

    @property
    def _servers(self) -> Servers:
        with self._lock:
            if self._servers_made is None:
                self._servers_made = Servers(
                    self._urls,
                    token=self._token(),
                    timeout=self.timeout,
                    attempts=self.retry_attempts,
                    patience=self.wait_for_server,
                )
            return self._servers_made

    def _token(self) -> str | None:
        given = self.all_parameters.get("token")
        if isinstance(given, str):
            return given
        token = os.environ.get(TOKEN_VARIABLE, "").strip() or None
        if token is None and given is not None:
            raise ConfigError(
                f"the token was left behind when the reward was pickled; set {TOKEN_VARIABLE} in the environment of "
                "the process that computes it",
                reward=str(vars(self).get("_name") or "RemoteReward"),
            )
        return token

    @property
    def _learned(self) -> Mapping[str, Any]:
        found = self._info
        if found is None:
            found = self._info = self._learn()
        return found

    def _learn(self) -> Mapping[str, Any]:
        if self.protocol == "flow_factory":
            return {
                "name": "RemoteReward",
                "scope": "sample",
                "required_fields": self._fields,
                "optional_fields": (),
            }
        told = self._servers.get("/v1/rewards")
        if not _describes_a_reward(told):
            raise RemoteError(f"{self._urls[0]} does not say what it serves: {brief(told)}", reward="RemoteReward")
        found: Mapping[str, Any] = told
        return found

    def compute_rewards(self, samples: Sequence[Sample]) -> Any:
        """One request."""
        if self.protocol == "flow_factory":
            return self._compute(samples)
        optional = self.optional_fields
        fields = FIELDS if optional is None else [*self.required_fields, *optional]
        sent = list(dict.fromkeys([*fields, "group_id", *(("token_ids",) if optional is not None else ())]))
        if self.scope == "group" and any(sample.group_id is None for sample in samples):
            sent += [field for field in _FIELDS_OF_A_GROUP if field not in sent]
        body, unread = pack_readable(samples, sent, reference_is_media=bool(self._learned.get("reference_is_media")))
        count = len(samples) - len(unread)

        def read(answered: Answered) -> Scored:
            answer = unpack_answer(answered.content)
            if len(answer.batch) != count:
                raise ValueError(f"{len(answer.batch)} scores for {count} samples")
            return Scored(answer.batch, answer.causes)

        def ask() -> Scored:
            headers = {"Content-Type": SAMPLES_TYPE, "Accept": ANSWER_TYPE}
            scored: Scored = self._servers.request("POST", "/v1/score", read, body, headers)
            return scored

        return self._with_unread(len(samples), ask, unread)

    def _compute(self, samples: Sequence[Sample]) -> Scored:
        rows: list[dict[str, Any]] = []
        unread: dict[int, InputError] = {}
        for row, sample in enumerate(samples):
            try:
                rows.append({field: _in_base64(field, sample) for field in self._fields})
            except InputError as error:
                unread[row] = error
        columns = {field: [row[field] for row in rows] for field in self._fields}
        body = {**dict.fromkeys(COLUMNS), "prompt": [""] * len(rows), **columns}

        def read(answer: Answered) -> Scored:
            told = answer.json()
            if not isinstance(told, dict) or told.get("error"):
                raise RemoteError(f"{self._urls[0]}/compute answered with an error: {brief(told)}")
            return Scored(RewardBatch(np.array(_numbers(told.get("rewards"), len(rows)), dtype=np.float64)), {})

        def ask() -> Scored:
            headers = {"Content-Type": "application/json"}
            scored: Scored = self._servers.request("POST", "/compute", read, json.dumps(body).encode(), headers)
            return scored

        return self._with_unread(len(samples), ask, unread)

    def _with_unread(self, count: int, ask: Callable[[], Scored], unread: Mapping[int, InputError]) -> Scored:
        """The scores of those that could be sent, and why the others could not."""
        rows = [row for row in range(count) if row not in unread]
        pieces: list[tuple[Sequence[int], Scored]] = [(rows, ask())] if rows else []
        pieces += [([row], Scored.failure(error, reward=self.name, indices=[row])) for row, error in unread.items()]
        scored = Scored.scatter(count, pieces) if unread else pieces[0][1]
        for cause in scored.causes.values():
            cause.index = None  # a place in the request
        return scored


def _describes_a_reward(told: Any) -> bool:
    """Whether an answer of ``/v1/rewards`` holds all that a client goes by."""
    if not isinstance(told, dict) or not isinstance(told.get("name"), str):
        return False
    required, optional, bounds = told.get("required_fields"), told.get("optional_fields", 0), told.get("bounds")
    for fields in [required, *([] if optional is None else [optional])]:
        if not isinstance(fields, list) or not all(field in FIELDS for field in fields):
            return False
    has_bounds = isinstance(bounds, list) and len(bounds) == 2 and all(map(_is_number, bounds))
    return told.get("scope") in ("sample", "group") and (bounds is None or has_bounds)


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


def _numbers(values: Any, count: int) -> list[float]:
    if not isinstance(values, list) or len(values) != count:
        raise ValueError(f"expected {count} rewards, found {brief(values)}")
    for value in values:
        if value is not None and not _is_number(value):
            raise ValueError(f"a reward is a finite number or null, found {brief(value)}")
    return [math.nan if value is None else float(value) for value in values]


def _in_base64(field: str, sample: Sample) -> Any:
    value = getattr(sample, field)
    if field == "prompt":
        return sample.prompt_text
    if field == "image":
        return _png(as_pil(value, Place(field)))
    if field == "video":
        return [_png(frame) for frame in video_to_pil(value, field=field)]
    if field == "condition_images":
        return [_png(image) for image in images_to_pil(value, field=field)]
    return [[_png(frame) for frame in video] for video in videos_to_pil(value, field=field)]


def _png(image: Any) -> str:
    encoded = io.BytesIO()
    image.save(encoded, "PNG", compress_level=1)
    return base64.b64encode(encoded.getvalue()).decode("ascii")


def _checked_url(url: Any, reward: str) -> str:
    parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
    if parts.username or parts.password or parts.query:
        raise ConfigError("server_url holds credentials or a query; give the token as token", reward=reward)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"server_url must be like 'http://127.0.0.1:8000', found {brief(url)}", reward=reward)
    return str(url).rstrip("/")
