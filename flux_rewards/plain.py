"""Values as JSON, and back, exactly: what tells a tuple from a list, and keeps arrays to the last bit."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from flux_rewards.errors import brief

__all__ = ["NotPlain", "Reader", "Writer", "from_plain", "to_plain"]

_DTYPE = re.compile(r"[<>|=][?bBhHiIlLqQefdgFDGSUmMiufc]\d*(?:\[\d*[A-Za-z]+\])?")

Writer = Callable[[Any], "tuple[str, Any] | None"]
"""For values of its own kinds: the kind, and what it is made of; None for others."""
Reader = Callable[[Any], Any]
"""From what a kind is made of, the value."""


class NotPlain(ValueError):  # noqa: N818  # what it says of a value
    """A value that has no form here; or JSON that is none of these values."""


def to_plain(value: Any, writer: Writer | None = None) -> Any:
    """JSON's own types as they are; others as a mapping with one key, their kind.

    Text, numbers, None, lists, tuples, mappings, bytes and NumPy's arrays and numbers come back as they were.

    Args:
        value: The value. NaN and infinities pass, as Python's JSON writes them.
        writer: Asked first, for kinds of its own.

    Raises:
        NotPlain: A value of another type.

    Examples:
        >>> to_plain({"shape": (1, 2)})
        {'dict': [['shape', {'tuple': [1, 2]}]]}
        >>> from_plain(to_plain({"shape": (1, 2)}))
        {'shape': (1, 2)}
    """
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    written = None if writer is None else writer(value)
    if written is not None:
        return {written[0]: written[1]}
    if kind in (list, tuple):
        items = [to_plain(item, writer) for item in value]
        return items if kind is list else {"tuple": items}
    if isinstance(value, Mapping):
        return {"dict": [[to_plain(key, writer), to_plain(item, writer)] for key, item in value.items()]}
    if kind is bytes:
        return {"bytes": base64.b64encode(value).decode()}
    if (kind is np.ndarray or isinstance(value, np.generic)) and value.dtype.kind in "biufcSUmM":
        return {"array": [value.dtype.str, None if kind is not np.ndarray else value.shape, to_plain(value.tobytes())]}
    raise NotPlain(f"{brief(value)} is a {kind.__name__}")


def from_plain(value: Any, readers: Mapping[str, Reader] | None = None) -> Any:
    r"""The value that `to_plain` was given.

    Args:
        value: What JSON holds.
        readers: For kinds of a writer, by kind.

    Raises:
        NotPlain: It holds something that `to_plain` does not write.

    Examples:
        >>> from_plain({"bytes": "AAE="})
        b'\x00\x01'
    """
    if isinstance(value, list):
        return [from_plain(item, readers) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise NotPlain(f"a value of a kind is a mapping with one key, found {len(value)}")
    ((kind, content),) = value.items()
    read = {**_readers(readers), **(readers or {})}.get(kind)
    if read is None:
        raise NotPlain(f"there is no kind {brief(kind)}")
    try:
        return read(content)
    except NotPlain:
        raise
    except (TypeError, ValueError, LookupError, OverflowError) as error:
        raise NotPlain(f"a value of the kind {kind!r} cannot be read: {error}") from error


def _readers(others: Mapping[str, Reader] | None) -> Mapping[str, Reader]:
    return {
        "array": _array,
        "bytes": lambda content: base64.b64decode(content, validate=True),
        "dict": lambda pairs: {from_plain(key, others): from_plain(item, others) for key, item in pairs},
        "tuple": lambda items: tuple(from_plain(item, others) for item in items),
    }


def _array(content: Sequence[Any]) -> Any:
    name, shape, data = content
    if not isinstance(name, str) or not _DTYPE.fullmatch(name):
        raise NotPlain(f"{brief(name)} is no type of numbers")
    if shape is not None and not all(isinstance(size, int) and size >= 0 for size in shape):
        raise NotPlain(f"{brief(shape)} is no shape")
    dtype, raw = np.dtype(name), from_plain(data)
    if not dtype.itemsize:  # texts of no length
        if shape is not None and 0 not in shape:  # any number of them would fit into no bytes at all
            raise NotPlain("texts of no length")
        found = np.zeros(() if shape is None else shape, dtype)
    else:
        flat = np.frombuffer(raw, dtype=dtype)
        found = flat[:1].reshape(()).copy() if shape is None else flat.reshape(shape).copy()
    try:
        found.tolist()
    except (SystemError, ValueError) as error:
        raise NotPlain("a text of characters that there are not") from error
    return found[()] if shape is None else found
