"""From a record of a file to a `Sample`: the fields by name, everything else into the metadata."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flux_rewards.data import FIELDS, Sample
from flux_rewards.errors import brief, close_match

__all__ = ["near_misses", "sample_of"]

_SCHEMES = ("http", "https", "data", "file", "s3")


def sample_of(values: Mapping[str, Any], folder: Path) -> Sample:
    """Build the sample of a record.

    A list of pairs in ``token_offsets`` becomes a list of tuples. Keys that are no field join what ``metadata`` holds.

    Args:
        values: Key to value, as JSON has them.
        folder: What relative paths of media are relative to; absolute paths are kept.

    Raises:
        ValueError: A field holds a value of the wrong type, or a key is there twice.

    Examples:
        >>> sample_of({"response": "4", "image": "4.png", "source": "gsm8k"}, Path("data"))
        Sample(response='4', image='data/4.png', metadata={'source': 'gsm8k'})
    """
    fields: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for name, value in values.items():
        if name not in FIELDS:
            others[name] = value
        elif value is not None:
            fields[name] = _FIELD_READERS[name](value, name, folder)
    metadata = dict(fields.get("metadata", {}))
    for name in others.keys() & metadata.keys():
        raise ValueError(f"{name!r} is there twice: beside the fields, and in 'metadata'; keep one")
    fields["metadata"] = {**metadata, **others}
    return Sample(**fields)


def near_misses(names: Mapping[str, Any]) -> dict[str, str]:
    """The names that look like a misspelt field, each with a hint.

    A name that only goes on after a field that is there too, as ``prompt_id`` beside ``prompt``, is meant as it is.

    Examples:
        >>> near_misses({"prompt": "2 + 2", "prompt_id": 7, "respones": "4"})
        {'respones': " (did you mean 'response'?)"}
    """
    given = tuple(name for name in names if name in FIELDS)
    hints = {name: close_match(name, FIELDS) for name in names if name not in FIELDS and not name.startswith(given)}
    return {name: hint for name, hint in hints.items() if hint}


def _wrong(name: str, wanted: str, value: Any) -> ValueError:
    return ValueError(f"{name!r} must be {wanted}, found {brief(value)}")


def _conversation(value: Any, name: str, _folder: Path) -> Any:
    messages = isinstance(value, list) and all(isinstance(item, dict) and "role" in item for item in value)
    if isinstance(value, str) or messages:
        return value
    raise _wrong(name, "text or a list of chat messages, each with a 'role'", value)


def _media_path(value: Any, name: str, folder: Path) -> str:
    if isinstance(value, str) and value and value.partition(":")[0] not in _SCHEMES:
        return str(folder / value)
    raise _wrong(name, "a path (media are not fetched)", value)


def _media_list(value: Any, name: str, folder: Path) -> list[str]:
    if not isinstance(value, list):
        raise _wrong(name, "a list of paths", value)
    return [_media_path(item, f"{name}[{index}]", folder) for index, item in enumerate(value)]


def _video(value: Any, name: str, folder: Path) -> str | list[str]:
    if isinstance(value, str):
        return _media_path(value, name, folder)
    if isinstance(value, list):
        return _media_list(value, name, folder)
    raise _wrong(name, "the path of a video, or a list of paths of frames", value)


def _videos(value: Any, name: str, folder: Path) -> list[str | list[str]]:
    if not isinstance(value, list):
        raise _wrong(name, "a list of videos, each a path or a list of paths of frames", value)
    return [_video(item, f"{name}[{index}]", folder) for index, item in enumerate(value)]


def _anything(value: Any, _name: str, _folder: Path) -> Any:
    return value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _token_ids(value: Any, name: str, _folder: Path) -> list[int]:
    if isinstance(value, list) and all(map(_is_whole, value)):
        return value
    raise _wrong(name, "a list of whole numbers", value)


def _token_offsets(value: Any, name: str, _folder: Path) -> list[tuple[int, int]]:
    pairs = isinstance(value, list) and all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 and all(map(_is_whole, pair)) for pair in value
    )
    if not pairs:
        raise _wrong(name, "a list of pairs [start, end] of whole numbers", value)
    return [(start, end) for start, end in value]


def _group_id(value: Any, name: str, _folder: Path) -> str | int | float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)
    if isinstance(value, str) or number:
        return value  # type: ignore[no-any-return]
    raise _wrong(name, "text or a number", value)


def _metadata(value: Any, name: str, _folder: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(name, "an object", value)
    return value


_FIELD_READERS: dict[str, Callable[[Any, str, Path], Any]] = {
    "prompt": _conversation,
    "response": _conversation,
    "image": _media_path,
    "video": _video,
    "condition_images": _media_list,
    "condition_videos": _videos,
    "reference": _anything,
    "token_ids": _token_ids,
    "token_offsets": _token_offsets,
    "group_id": _group_id,
    "metadata": _metadata,
}
