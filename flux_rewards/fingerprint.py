"""Whether two values hold the same content: prompts, pixels, tokens, parameters."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from typing import Any

__all__ = ["fingerprint", "same"]


def fingerprint(value: Any, memo: dict[int, bytes] | None = None) -> bytes:  # noqa: C901  # one line a kind
    """Digest the content of a value, 32 bytes.

    Text, numbers, bytes, paths, mappings, sequences, NumPy arrays, torch tensors and PIL images are told
    apart by type and content. Anything else is told apart by identity.

    Args:
        value: What to digest.
        memo: Digests by ``id`` of media already seen in this call, so that an image shared by a whole
            group is read once. The caller keeps those objects alive meanwhile.

    Examples:
        >>> fingerprint([1, "a"]) == fingerprint([1, "a"]), fingerprint("1") == fingerprint(1)
        (True, False)
    """
    memo = {} if memo is None else memo
    if (known := memo.get(id(value))) is not None:
        return known
    digest = hashlib.sha256(type(value).__name__.encode())
    if isinstance(value, str):
        digest.update(value.encode("utf-8", "surrogatepass"))
    elif isinstance(value, (bytes, bytearray)):
        digest.update(value)
    elif value is None or isinstance(value, (bool, int, float, complex)):
        digest.update(repr(value).encode())
    elif isinstance(value, Mapping):
        # Sorted by the key's digest: two dicts are the same whatever their order.
        items = sorted((fingerprint(key), fingerprint(item, memo)) for key, item in value.items())
        for pair in items:
            digest.update(b"".join(pair))
    elif isinstance(value, (list, tuple)):
        for item in value:
            digest.update(fingerprint(item, memo))
    elif isinstance(value, os.PathLike):
        digest.update(os.fspath(value).encode() if isinstance(os.fspath(value), str) else os.fspath(value))
    elif (pixels := _buffer(value)) is not None:
        for part in pixels:
            digest.update(part)
        memo[id(value)] = digest.digest()
    else:
        digest.update(str(id(value)).encode())
    return digest.digest()


def _buffer(value: Any) -> tuple[bytes, bytes] | None:
    """The header and the raw content of an array, a tensor or an image; None for anything else."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1)
        header = f"{value.dtype}{tuple(value.shape)}"
        return header.encode(), flat.view(torch.uint8).numpy().tobytes()  # a byte view: numpy has no bfloat16
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray) and not value.dtype.hasobject:
        return f"{value.dtype.str}{value.shape}".encode(), value.tobytes()
    pil = sys.modules.get("PIL.Image")
    if pil is not None and isinstance(value, pil.Image):
        if value.mode in ("P", "PA"):  # the palette is part of the content
            value = value.convert("RGBA")
        return f"{value.mode}{value.size}".encode(), value.tobytes()
    return None


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
    if _buffer(left) is not None or _buffer(right) is not None:
        return fingerprint(left) == fingerprint(right)
    return bool(left == right)
