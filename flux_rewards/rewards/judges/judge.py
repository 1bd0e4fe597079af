"""The base of judges: a chat model behind an OpenAI-compatible endpoint, as a reward."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.chat.client import NO_KEY, ChatClient, Endpoint, client_of
from flux_rewards.chat.content import plain
from flux_rewards.chat.template import filled, placeholders
from flux_rewards.errors import ConfigError, InputError, brief
from flux_rewards.media.frames import check_frames
from flux_rewards.parameters import LeftBehind
from flux_rewards.rewards.judges.exchange import Exchange, side_by_side
from flux_rewards.rewards.judges.material import Part, check_fields, has_media, material, text_of
from flux_rewards.streams import adopter
from flux_rewards.threads import RenewedLock
from flux_rewards.validation import checked_text, number, one_of, whole_number

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flux_rewards.data import Sample

__all__ = ["Judge", "JudgeOptions"]

T = TypeVar("T")

KEY_VARIABLE = "OPENAI_API_KEY"


class JudgeOptions(RewardOptions, total=False):
    """Keyword arguments that every judge takes beside its own; see `Judge`."""

    api_base_url: str
    api_key: str | LeftBehind | None
    max_concurrent: int
    requests_per_minute: int | None
    timeout: float
    deadline: float
    max_retries: int
    retry_unreadable: int
    temperature: float | None
    max_tokens: int | None
    extra_body: Mapping[str, Any] | None
    frames: str | int | Sequence[int]
    image_format: str


class Judge(RewardFunction, abstract=True):
    """A chat model as a reward, behind any OpenAI-compatible endpoint: vLLM, SGLang, llama.cpp, a hosted API.

    All samples of a call are asked about side by side, on an event loop of the library's own: a judge may be called
    from any thread, from within a running loop, and from forked or spawned processes. Judges that name the same
    endpoint, key and limits share one client, and its limits with it.

    A failure is an error, never a score: `RemoteError` where there was no answer (408, 409, 429, 5xx and what happens
    on the way are tried again, with growing, jittered pauses, no shorter than ``Retry-After`` asks for; other statuses
    are not), and `JudgeError`, with the reply, where it cannot be read. 401 ends the call: nothing more is asked; so do
    403 and 404 where the endpoint has never answered.

    Metadata of a sample: ``verdict`` (the reply, cut short), ``tokens`` (``prompt`` and ``completion``), ``latency``
    (seconds, of the last request) and ``attempts``; judges that read scores add ``scores``.

    Args:
        vlm_model: The model's name at the endpoint.
        fields: What the judge is shown, of ``prompt``, ``response``, ``reference``, ``image``, ``video`` and
            ``condition_images`` (the sources of an edited image), in this order. All of them are required.
        api_base_url: Where the API begins; most end in ``/v1``.
        api_key: The key; None for that of the environment variable ``OPENAI_API_KEY``, where there is one. It is not
            shown, logged or pickled: another process takes the environment's.
        max_concurrent: Requests in flight.
        requests_per_minute: Requests that begin in any 60 seconds; None for any number.
        timeout: Seconds for one request and all of its answer.
        deadline: Seconds for one call of the reward; what is not answered by then failed.
        max_retries: Further requests after a failure that may pass.
        retry_unreadable: Further requests after a reply that cannot be read; pays where the temperature is not 0.
        temperature: Of sampling; None leaves it to the endpoint, as some models want.
        max_tokens: Of a reply, sent as ``max_completion_tokens``; None leaves it to the endpoint. What is cut short is
            never scored.
        extra_body: More of the request's JSON, over what the judge puts there: ``top_p``, ``seed``, ``max_tokens`` for
            servers that know no ``max_completion_tokens``, ``chat_template_kwargs``, ...
        frames: Which frames of a video are shown: a number of frames, evenly spread, or as `VideoReward` takes them.
        image_format: ``"png"``, which loses nothing, or ``"jpeg"`` (quality 95), a tenth of the bytes.
        **options: Of every reward; see `RewardFunction`. `num_workers` are calls of the reward in flight, each with
            any number of requests.

    Raises:
        ConfigError: An argument is out of its range, or a field is unknown.
    """

    optional_fields: Sequence[str] | None = ()
    media_form = "given"
    num_workers = 64
    secret_parameters: ClassVar[Sequence[str]] = ("api_key",)
    neutral_parameters: ClassVar[Sequence[str]] = (
        *RewardFunction.neutral_parameters,
        "api_key",
        "max_concurrent",
        "requests_per_minute",
        "timeout",
        "deadline",
        "max_retries",
        "retry_unreadable",
    )
    example_config: ClassVar[Mapping[str, Any]] = {"vlm_model": "judge", "api_base_url": "http://localhost:8000/v1"}

    def __init__(
        self,
        vlm_model: str,
        *,
        fields: Sequence[str],
        api_base_url: str = "http://localhost:8000/v1",
        api_key: str | LeftBehind | None = None,
        max_concurrent: int = 64,
        requests_per_minute: int | None = None,
        timeout: float = 60.0,
        deadline: float = 600.0,
        max_retries: int = 3,
        retry_unreadable: int = 0,
        temperature: float | None = 0.0,
        max_tokens: int | None = 1024,
        extra_body: Mapping[str, Any] | None = None,
        frames: str | int | Sequence[int] = 8,
        image_format: str = "png",
        **options: Unpack[RewardOptions],
    ) -> None:
        super().__init__(**options)
        self.vlm_model = checked_text(vlm_model, "vlm_model", self.name)
        self.fields = check_fields(fields, self.name)
        self.required_fields = tuple(dict.fromkeys(self.fields))
        self.api_base_url = _checked_url(api_base_url, self.name)
        if api_key is not None and not isinstance(api_key, LeftBehind):
            _checked_key(api_key, "api_key", self.name)
        self.max_concurrent = whole_number(max_concurrent, "max_concurrent", self.name, low=1)
        if requests_per_minute is not None:
            whole_number(requests_per_minute, "requests_per_minute", self.name, low=1)
        self.requests_per_minute = requests_per_minute
        self.timeout = number(timeout, "timeout", self.name, above=0.0)
        self.deadline = number(deadline, "deadline", self.name, above=0.0)
        self.max_retries = whole_number(max_retries, "max_retries", self.name, low=0)
        self.retry_unreadable = whole_number(retry_unreadable, "retry_unreadable", self.name, low=0)
        self.temperature = None if temperature is None else number(temperature, "temperature", self.name, low=0.0)
        self.max_tokens = None if max_tokens is None else whole_number(max_tokens, "max_tokens", self.name, low=1)
        self.extra_body = _checked_extra(extra_body, self.name)
        check_frames(frames, self.name)
        self.frames = frames
        self.image_format = one_of(image_format, "image_format", self.name, ("png", "jpeg"))
        self._opening = RenewedLock()
        self._opened: tuple[int, ChatClient] | None = None

    @property
    def client(self) -> ChatClient:
        """The client of the endpoint in this process."""
        with self._opening:
            if self._opened is None or self._opened[0] != os.getpid():
                limits = self.max_concurrent, self.requests_per_minute
                self._opened = os.getpid(), client_of(Endpoint(self.api_base_url, self._key(), *limits))
            return self._opened[1]

    def load(self) -> None:
        """Make the client; nothing is asked."""
        _ = self.client

    def close(self) -> None:
        """Leave the client: its connections end once no other judge holds it. The next call opens it anew."""
        self._opened = None

    def ask_side_by_side(self, jobs: Sequence[Callable[[Exchange], Awaitable[T]]]) -> list[T | Exception | None]:
        """What each job returns or raises; see `side_by_side`."""
        client = self.client
        self._check_pace(len(jobs))
        start = functools.partial(
            self._exchange, client=client, adopt=adopter(), request={"model": self.vlm_model, **self.request()}
        )
        return side_by_side(jobs, start, self.deadline)

    def _check_pace(self, count: int) -> None:
        """Nothing is paid for that cannot be done in time."""
        if self.requests_per_minute is None:
            return
        needed = 60.0 * ((count - 1) // self.requests_per_minute)
        if needed > self.deadline:
            raise ConfigError(
                f"{count} requests at requests_per_minute={self.requests_per_minute} take {needed:.0f} s or more, and "
                f"deadline={self.deadline:g}; raise the deadline, or give a batch_size",
                reward=self.name,
            )

    def request(self) -> dict[str, Any]:
        """What is the same for all requests."""
        sampling = {"temperature": self.temperature, "max_completion_tokens": self.max_tokens}
        return {name: value for name, value in sampling.items() if value is not None}

    def shown(self, sample: Sample, name: str = "", fields: Sequence[str] | None = None) -> list[Part]:
        """The parts of a message that show a sample."""
        return material(
            sample, self.fields if fields is None else fields, name=name, frames=self.frames, form=self.image_format
        )

    def readable(
        self, samples: Sequence[Sample], names: Sequence[str], fields: Sequence[str]
    ) -> list[list[Part] | InputError]:
        """What is shown of each sample of a group, or why it cannot be."""
        found: list[list[Part] | InputError] = []
        for sample, name in zip(samples, names, strict=True):
            try:
                found.append(self.shown(sample, name, fields))
            except InputError as error:
                found.append(error)
        return found

    @property
    def shows_media(self) -> bool:
        """Whether there are images to encode."""
        return has_media(self.fields)

    def places_in(self, template: Any, parameter: str) -> list[str]:
        """The text fields for which a template has places; they are required too.

        Raises:
            ConfigError: It is no text, or has a place for something else.
        """
        found = placeholders(
            checked_text(template, parameter, self.name), ("prompt", "reference"), parameter, self.name
        )
        self.required_fields = tuple(dict.fromkeys([*self.required_fields, *found]))
        return found

    def filled_in(self, template: str, sample: Sample) -> str:
        """A template with a sample's texts in its places."""
        places = placeholders(template, ("prompt", "reference"), "the text", self.name)
        for field in places:
            if getattr(sample, field) is None:
                raise InputError("the judge's text has a place for it, and the sample has none", field=field)
        return filled(template, {field: text_of(sample, field) for field in places})

    def check_criteria(self, criteria: str | None, key: str | None, parameter: str = "criteria") -> None:
        """Check a template of a constructor, and the key under which samples may have their own in its place.

        Raises:
            ConfigError: There are neither, or the template cannot be used.
        """
        if criteria is None and key is None:
            raise ConfigError(f"{parameter} says what is judged; give it, or {parameter}_key", reward=self.name)
        if criteria is not None:
            self.places_in(criteria, parameter)
        if key is not None:
            checked_text(key, f"{parameter}_key", self.name)
            self.optional_fields = ("metadata",)

    def criteria_text(self, sample: Sample, criteria: str | None, key: str | None) -> str:
        """A sample's own criteria, as they are, where it has any at `key`; else those of the judge, filled in.

        Raises:
            InputError: There are neither.
        """
        own = None if key is None else sample.metadata.get(key)
        if own is None and criteria is not None:
            return self.filled_in(criteria, sample)
        if not isinstance(own, str) or not own.strip():
            message = f"expected a text to judge by at the key {key!r}, found {brief(own)}"
            raise InputError(f"{message}; the judge has none of its own", field="metadata")
        return plain(own)

    def _exchange(self, until: float, *, client: ChatClient, adopt: Any, request: Mapping[str, Any]) -> Exchange:
        return Exchange(
            client,
            request,
            self.extra_body or {},
            timeout=self.timeout,
            max_retries=self.max_retries,
            retry_unreadable=self.retry_unreadable,
            until=until,
            adopt=adopt,
        )

    def _key(self) -> str:
        given = self.all_parameters.get("api_key")
        if isinstance(given, str):
            return _checked_key(given, "api_key", self.name)
        key = os.environ.get(KEY_VARIABLE)
        if key is None and isinstance(given, LeftBehind):
            raise ConfigError(
                f"the api_key was left behind when the reward was pickled; set {KEY_VARIABLE} in the environment of "
                "this process",
                reward=self.name,
            )
        return _checked_key(key, KEY_VARIABLE, self.name) if key else NO_KEY


def _checked_key(key: Any, where: str, reward: str) -> str:
    """A key that can be sent; it is in no message."""
    stripped = key.strip() if isinstance(key, str) else ""  # a file ends in a line break
    if stripped.startswith("$"):
        raise ConfigError(f"{where} is the name of a variable; leave it out, {KEY_VARIABLE} is taken", reward=reward)
    if not stripped or not all("!" <= character <= "~" for character in stripped):
        raise ConfigError(f"{where} must be a text of visible ASCII characters, without spaces", reward=reward)
    return stripped


def _checked_extra(extra: Any, reward: str) -> Mapping[str, Any] | None:
    """More of a request, which must be JSON, and not the question itself."""
    if extra is None:
        return None
    if not isinstance(extra, Mapping):
        raise ConfigError(f"extra_body must be a mapping, found {brief(extra)}", reward=reward)
    for key in ("messages", "model", "stream", "n"):
        if key in extra:
            raise ConfigError(f"extra_body cannot set {key!r}, which the judge relies on", reward=reward)
    try:
        json.dumps(extra, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"extra_body must be JSON: {error}", reward=reward) from None
    return extra


def _checked_url(url: Any, reward: str) -> str:
    """A base URL; in no message where it may hold credentials."""
    url = url.strip() if isinstance(url, str) else url
    try:
        parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
        holds_more = bool(parts.username or parts.password or parts.query or "@" in str(url))
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a port or an address that is none
        holds_more, usable = "@" in str(url), False
    if holds_more:
        message = "api_base_url holds credentials or a query; give the key as api_key, or in the environment"
        raise ConfigError(message, reward=reward)
    if not usable:
        message = f"api_base_url must be like 'http://localhost:8000/v1', found {brief(url)}"
        raise ConfigError(message, reward=reward)
    base = str(url).rstrip("/")
    if base.endswith("/chat/completions"):
        shorter = base.removesuffix("/chat/completions")
        raise ConfigError(f"api_base_url is where the API begins: {shorter!r}, not {base!r}", reward=reward)
    return base
