"""Whether two values hold the same content: prompts, pixels, tokens, parameters."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import hashlib
import os
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = ["Memo", "fingerprint", "is_buffer", "same"]


Memo = dict[int, tuple[Any, bytes]]
"""By ``id``, an object and its digest: held, so that no other object has its id meanwhile."""


def fingerprint(
    value: Any,
    memo: Memo | None = None,
    unknown: Callable[[Any], bytes] | None = None,
) -> bytes:
    """Digest the content of a value, 32 bytes.

    Text, numbers, bytes, paths, dates, enumerations, mappings, sequences, sets, dataclasses, NumPy arrays, torch
    tensors and PIL images are told apart by type and content. Anything else is told apart by identity.

    Args:
        value: What to digest.
        memo: Arrays, tensors and images already seen in this call, so that one shared by a whole group is read once.
        unknown: Digests what is told apart by identity otherwise.

    Examples:
        >>> fingerprint([1, "a"]) == fingerprint([1, "a"]), fingerprint("1") == fingerprint(1)
        (True, False)
    """
    memo = {} if memo is None else memo
    if (known := memo.get(id(value))) is not None:
        return known[1]
    plain = _plain(value)
    pixels = _buffer(value) if plain is None else None
    # Media of one content are one, whatever class a decoder has for them.
    digest = hashlib.sha256(type(value).__name__.encode() if pixels is None else b"")
    if plain is not None:
        digest.update(plain)
    elif (items := _items(value)) is not None:
        digests = [fingerprint(item, memo, unknown) for item in items]
        if isinstance(value, (Mapping, set, frozenset)):
            digests.sort()  # these have no order
        for item_digest in digests:
            digest.update(item_digest)
    elif pixels is not None:
        for part in pixels:
            digest.update(part)
        memo[id(value)] = (value, digest.digest())
    elif unknown is not None:
        digest.update(unknown(value))
    else:
        digest.update(str(id(value)).encode())
    return digest.digest()


def _items(value: Any) -> Iterable[Any] | None:
    """What a value is made of, or None where it is of one piece."""
    if isinstance(value, Mapping):
        return value.items()
    if isinstance(value, (list, tuple, set, frozenset)):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    return None


# Their repr is their content.
_PRINTED = (
    bool,
    int,
    float,
    complex,
    range,
    dt.date,
    dt.time,
    dt.timedelta,
    decimal.Decimal,
    fractions.Fraction,
    uuid.UUID,
)


def _plain(value: Any) -> bytes | None:
    """The content of a value of one piece, or None."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, enum.Enum):
        return f"{type(value).__qualname__}.{value.name} {value.value!r}".encode()  # combined flags have no name
    if value is None or isinstance(value, _PRINTED):
        return repr(value).encode()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, os.PathLike):
        path = os.fspath(value)
        return path.encode("utf-8", "surrogateescape") if isinstance(path, str) else path
    return None


def _buffer(value: Any) -> tuple[bytes, bytes] | None:
    """The header and the raw content of an array, a tensor or an image; None for anything else."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1)
        header = f"{value.dtype}{tuple(value.shape)}"
        return header.encode(), flat.view(torch.uint8).numpy().tobytes()  # a byte view: numpy has no bfloat16
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)) and not value.dtype.hasobject:
        kind = value.dtype.str if value.dtype.names is None else value.dtype.descr
        return f"{kind}{value.shape}".encode(), value.tobytes()
    pil = sys.modules.get("PIL.Image")
    if pil is not None and isinstance(value, pil.Image):
        if value.mode in ("P", "PA"):  # the palette is part of the content
            value = value.convert("RGBA")
        return f"{value.mode}{value.size}".encode(), value.tobytes()
    return None


def is_buffer(value: Any) -> bool:
    """Whether it is an array, a tensor or an image.

    Examples:
        >>> import numpy as np
        >>> is_buffer(np.zeros(2)), is_buffer([0.0, 0.0])
        (True, False)
    """
    numpy, torch, pil = (sys.modules.get(name) for name in ("numpy", "torch", "PIL.Image"))
    return bool(
        (numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)) and not value.dtype.hasobject)
        or (torch is not None and isinstance(value, torch.Tensor))
        or (pil is not None and isinstance(value, pil.Image))
    )


def same(left: Any, right: Any) -> bool:
    """Whether two values are equal, arrays, tensors and images by content, and never an array of answers.

    Examples:
        >>> import numpy as np
        >>> same({"a": np.zeros(2)}, {"a": np.zeros(2)}), same([1, 2], (1, 2))
        (True, False)
    """
    if left is right:
        return True
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)) and type(left) is type(right):
        return len(left) == len(right) and all(map(same, left, right))
    if is_buffer(left) or is_buffer(right):
        return fingerprint(left) == fingerprint(right)
    return bool(left == right)
