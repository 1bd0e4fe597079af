"""What a cached score is known by: the reward that gave it, and the content that it read."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards.base import RewardFunction
from flux_rewards.data import FIELDS
from flux_rewards.errors import ConfigError, InputError, brief
from flux_rewards.fingerprint import Memo, fingerprint
from flux_rewards.meaning import Opaque, meaning_of
from flux_rewards.media import Place, read_media
from flux_rewards.views import Reading, any_media, view_of

if TYPE_CHECKING:
    from flux_rewards.chunks import Chunk

__all__ = ["deciding_fields", "deciding_parameters", "keys_of_units", "reward_digest", "settings_digest"]

KEY_VERSION = 1
"""Changes with what goes into a key, or with the form of a value."""


def reward_digest(reward: Any, within: tuple[int, ...] = ()) -> bytes:
    """Digest what decides the scores of a reward: class, code, parameters, and what it says itself.

    A class with a `RewardFunction.revision` goes by that, and not by its code. Parameters that decide no score are left
    out; see `RewardFunction.neutral_parameters`.

    Args:
        reward: The reward.
        within: Ids of the rewards whose digest it is part of.

    Raises:
        ConfigError: Something in it cannot be told from another in another process.

    Examples:
        >>> from flux_rewards import LengthReward
        >>> one, other = LengthReward(target=4), LengthReward(target=4, name="short", num_workers=8)
        >>> reward_digest(one) == reward_digest(other), reward_digest(one) == reward_digest(LengthReward(target=5))
        (True, False)
    """
    kind = type(reward)
    tell = functools.partial(_told, within=(*within, id(reward)))
    digest = hashlib.sha256(f"{KEY_VERSION} {kind.__module__}.{kind.__qualname__} {kind.revision}".encode())
    if not kind.revision:
        remedy = f"set {kind.__name__}.revision = '1', and change it whenever the code decides otherwise"
        digest.update(tell(kind, reward.name, "its code", remedy))
    parameters = deciding_parameters(reward)
    remedy = "give it plain values, objects of them, or a function with an attribute revision = '1'"
    for name in sorted(parameters):
        digest.update(tell([name, parameters[name]], reward.name, f"the parameter {name}", remedy))
    digest.update(tell(list(reward.decided_by), reward.name, "decided_by", remedy))
    return digest.digest()


def settings_digest(reward: Any, parameters: Mapping[str, Any]) -> bytes:
    """Digest what may change while a reward is in use: plain parameters, attributes of their names, `decided_by`.

    Examples:
        >>> from flux_rewards import LengthReward
        >>> reward = LengthReward(target=4)
        >>> parameters = deciding_parameters(reward)
        >>> before = settings_digest(reward, parameters)
        >>> reward.target = 5
        >>> settings_digest(reward, parameters) == before
        False
    """
    digest = hashlib.sha256()
    held = vars(reward)
    # What an instance sets over its class's word, or under a parameter's name.
    attributes = {name: held[name] for name in held if name in parameters or hasattr(type(reward), name)}
    for name, value in sorted({**parameters, **{f".{name}": value for name, value in attributes.items()}}.items()):
        if name.removeprefix(".") in reward.neutral_parameters:
            continue
        if isinstance(value, RewardFunction) and value is not reward:
            digest.update(settings_digest(value, deciding_parameters(value)))
            continue
        with contextlib.suppress(Opaque):
            digest.update(fingerprint([name, value], unknown=_not_plain))
    with contextlib.suppress(Opaque):
        digest.update(fingerprint(list(reward.decided_by), unknown=_not_plain))
    return digest.digest()


def _not_plain(value: Any) -> bytes:
    raise Opaque(type(value).__name__)


def deciding_parameters(reward: Any) -> dict[str, Any]:
    """The parameters of a reward that may decide its scores.

    Examples:
        >>> from flux_rewards import ExactMatch
        >>> "num_workers" in deciding_parameters(ExactMatch())
        False
    """
    return {
        name: value for name, value in sorted(reward.all_parameters.items()) if name not in reward.neutral_parameters
    }


def _told(value: Any, reward: str, what: str, remedy: str, *, within: tuple[int, ...]) -> bytes:
    try:
        return meaning_of(value, until=RewardFunction, known=functools.partial(_of_reward_or_torch, within=within))
    except Opaque as opaque:
        raise ConfigError(
            f"a cache cannot tell {opaque} from another one, and {what} depends on it; {remedy}", reward=reward
        ) from None


def _of_reward_or_torch(value: Any, within: tuple[int, ...]) -> bytes | None:
    if isinstance(value, RewardFunction):
        return b"itself" if id(value) in within else reward_digest(value, within)
    kind = type(value)
    if str(kind.__module__).partition(".")[0] == "torch" and kind.__name__ in ("dtype", "device", "layout"):
        return repr(value).encode()
    return None


def deciding_fields(reward: Any, fields: Sequence[str] | None) -> tuple[str, ...]:
    """The fields of a sample whose content decides the score.

    Examples:
        >>> from flux_rewards import LengthReward
        >>> deciding_fields(LengthReward(target=4), ["response"])
        ('response',)
    """
    if fields is None:
        if reward.optional_fields is None:
            return FIELDS
        fields = [*reward.required_fields, *reward.optional_fields]
    return tuple(field for field in FIELDS if field in fields)


def keys_of_units(
    reward_key: bytes, fields: Sequence[str], chunk: Chunk, units: Sequence[Sequence[int]]
) -> list[list[bytes] | None]:
    """For each unit of a chunk's rows, a key for each of its samples; None where a sample cannot be read.

    The key of a sample of a group holds the whole group: what it is compared with decides its score.

    Raises:
        InputError: A field holds something that cannot be told from others by its content.
    """
    reader = _Reader(reward_key, fields, chunk)
    keys: list[list[bytes] | None] = []
    for unit in units:
        try:
            digests = [reader.digest(row) for row in unit]
        except _Unreadable:
            keys.append(None)
            continue
        keys.append(digests if chunk.reward.scope != "group" else _within_group(digests))
    return keys


class _Unreadable(Exception):  # noqa: N818  # not an error: the reward itself will say so
    """A sample's media cannot be read."""


class _Reader:
    """Digests the samples of a chunk; media that several samples share are read once."""

    def __init__(self, reward_key: bytes, fields: Sequence[str], chunk: Chunk) -> None:
        self._key = reward_key
        self._fields = fields
        self._chunk = chunk
        self._memo: Memo = {}

    def digest(self, row: int) -> bytes:
        chunk, position = self._chunk, self._chunk.positions[row]
        sample, reward = chunk.samples[row], chunk.reward
        if any_media([sample]):  # as the reward sees them: pixels, not file names
            # A file's name does not tell what is in it.
            form = "pixels" if reward.reading_form == "given" else reward.reading_form
            sample = view_of(sample, Reading(form, reward.name, position))
        # Token rewards must fit the tokens, whether or not the reward reads those.
        length = None if sample.token_ids is None else len(sample.token_ids)
        digest = hashlib.sha256(self._key + str(length).encode())
        for field in self._fields:
            try:
                value = getattr(sample, field)
            except InputError as error:
                raise _Unreadable from error
            if field == "reference" and reward.reference_is_media and value is not None:
                value = self._pixels_of_reference(value, position)
            if value is not None and (field != "metadata" or value):
                unknown = functools.partial(_of_content, reward=reward.name, field=field, index=position)
                digest.update(field.encode())
                digest.update(fingerprint(value, self._memo, unknown))
        return digest.digest()

    def _pixels_of_reference(self, value: Any, position: int) -> Any:
        place = Place("reference", position, self._chunk.reward.name)
        try:
            return read_media("condition_images", value, "pixels", place)
        except InputError as error:
            raise _Unreadable from error


def _of_content(value: Any, reward: str, field: str, index: int) -> bytes:
    raise InputError(
        f"a cache cannot tell {brief(value)} from another {type(value).__name__}; use plain values, or name the fields "
        "that the reward reads with Cached(..., fields=[...])",
        reward=reward,
        field=field,
        index=index,
    )


def _within_group(digests: Sequence[bytes]) -> list[bytes]:
    """Equal samples of one group are told apart by their number: their scores may differ."""
    group = hashlib.sha256(b"".join(sorted(digests))).digest()
    seen: dict[bytes, int] = {}
    keys: list[bytes] = []
    for digest in digests:
        seen[digest] = seen.get(digest, 0) + 1
        keys.append(hashlib.sha256(group + digest + str(seen[digest]).encode()).digest())
    return keys
