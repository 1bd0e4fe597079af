"""What each field of a sample may hold when it comes over the wire: no path and no address among it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from flux_rewards.errors import InputError, brief

__all__ = ["check_field", "is_media"]


def check_field(field: str, value: Any, index: int) -> None:
    """Raise an `InputError` unless the value is of the kind that the field holds.

    Examples:
        >>> check_field("prompt", "a cat", 0)
    """
    expected = _EXPECTED.get(field)
    if expected is not None and value is not None and not expected[1](value):
        raise InputError(f"expected {expected[0]}, found {brief(value)}", field=field, index=index)


def is_media(value: Any, depth: int) -> bool:
    """Whether a value is pixels, or lists of them, so many deep at most.

    Examples:
        >>> is_media([np.zeros((2, 2))], depth=1), is_media("/tmp/cat.png", depth=1)
        (True, False)
    """
    if isinstance(value, np.ndarray) or hasattr(value, "detach") or (hasattr(value, "mode") and hasattr(value, "size")):
        return True
    return depth > 0 and isinstance(value, (list, tuple)) and all(is_media(entry, depth - 1) for entry in value)


def _is_count(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _is_text_or_messages(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, (list, tuple)) and all(isinstance(entry, Mapping) for entry in value)
    )


def _are_counts(value: Any) -> bool:
    if isinstance(value, np.ndarray) or hasattr(value, "detach"):
        kind = str(value.dtype).removeprefix("torch.")
        return bool(value.ndim == 1 and kind.startswith(("int", "uint")))
    return isinstance(value, (list, tuple)) and all(map(_is_count, value))


def _are_pairs(value: Any) -> bool:
    return (isinstance(value, np.ndarray) and value.ndim == 2 and value.shape[1] == 2) or (
        isinstance(value, (list, tuple))
        and all(isinstance(pair, Sequence) and len(pair) == 2 and all(map(_is_count, pair)) for pair in value)
    )


def _is_group(value: Any) -> bool:
    """Tuples too, of such values."""
    if isinstance(value, tuple):
        return all(map(_is_group, value))
    plain = isinstance(value, (str, bytes, int, float, np.generic)) or getattr(value, "ndim", 1) == 0
    return value is None or (plain and bool(value == value))  # noqa: PLR0124  # not NaN


_EXPECTED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "prompt": ("text, or a list of messages", _is_text_or_messages),
    "response": ("text, or a list of messages", _is_text_or_messages),
    "image": ("pixels", lambda value: is_media(value, 0)),
    "video": ("pixels of frames", lambda value: is_media(value, 1)),
    "condition_images": ("pixels of images", lambda value: is_media(value, 1)),
    "condition_videos": ("pixels of videos", lambda value: is_media(value, 2)),
    "token_ids": ("a list of whole numbers", _are_counts),
    "token_offsets": ("a list of pairs of whole numbers", _are_pairs),
    "group_id": ("text or a number", _is_group),
    "metadata": ("an object", lambda value: isinstance(value, Mapping)),
}
