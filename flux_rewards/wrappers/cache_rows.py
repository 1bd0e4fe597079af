"""Rows of a result as bytes, and back, exactly; for a cache."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from flux_rewards.data import RewardBatch
from flux_rewards.errors import ContractError, brief

__all__ = ["packed_rows", "unpacked_rows"]

_NUMBER = struct.Struct("<cd")


def packed_rows(batch: RewardBatch, reward: str, indices: Sequence[int]) -> list[bytes | None]:
    """A value for each row; None for a row that failed, or has a part that did.

    Raises:
        ContractError: The metadata hold something that would not come back as it was.

    Examples:
        >>> unpacked_rows(packed_rows(RewardBatch([0.5, float("nan")]), "x", [0, 1])).rewards
        array([0.5, nan])
    """
    if batch.token_rewards is None and not batch.parts and not any(batch.metadata):
        return [
            None if row in batch.errors else _NUMBER.pack(b"f", value)
            for row, value in enumerate(batch.rewards.tolist())
        ]
    packed: list[bytes | None] = []
    for row in range(len(batch)):
        try:
            plain = None if _has_error(batch, row) else _plain_row(batch, row)
        except _NotPlain as error:
            raise ContractError(
                f"a cache cannot keep the metadata: {error}; return text, numbers, lists, mappings and arrays",
                reward=reward,
                index=indices[row],
            ) from None
        packed.append(None if plain is None else b"j" + json.dumps(plain, ensure_ascii=True).encode())
    return packed


def unpacked_rows(values: Sequence[bytes]) -> RewardBatch:
    """The batch of some rows.

    Examples:
        >>> batch = RewardBatch([0.5], metadata=[{"raw": (1, 2)}])
        >>> unpacked_rows(packed_rows(batch, "x", [0])).metadata
        [{'raw': (1, 2)}]
    """
    if all(value[:1] == b"f" for value in values):
        return RewardBatch(np.frombuffer(b"".join(value[1:] for value in values), dtype="<f8").astype(np.float64))
    return _batch_of([_row_of(value) for value in values])


class _NotPlain(Exception):  # noqa: N818  # never leaves this file
    """A value that has no form here."""


def _has_error(batch: RewardBatch, row: int) -> bool:
    return row in batch.errors or any(_has_error(part, row) for part in batch.parts.values())


def _plain_row(batch: RewardBatch, row: int) -> dict[str, Any]:
    plain: dict[str, Any] = {"r": float(batch.rewards[row])}
    tokens = None if batch.token_rewards is None else batch.token_rewards[row]
    if tokens is not None:
        plain["t"] = _to_plain(tokens)
    if batch.metadata[row]:
        plain["m"] = _to_plain(dict(batch.metadata[row]))
    if batch.parts:
        plain["p"] = [[name, _plain_row(part, row)] for name, part in batch.parts.items()]
    return plain


def _row_of(value: bytes) -> dict[str, Any]:
    row: dict[str, Any] = {"r": _NUMBER.unpack(value)[1]} if value[:1] == b"f" else json.loads(value[1:])
    return row


def _batch_of(rows: Sequence[Mapping[str, Any]]) -> RewardBatch:
    tokens = [_from_plain(row["t"]) if "t" in row else None for row in rows]
    names = list(dict.fromkeys(name for row in rows for name, _ in row.get("p", ())))
    blank = {"r": float("nan")}
    return RewardBatch(
        np.array([row["r"] for row in rows], dtype=np.float64),
        tokens if any(entry is not None for entry in tokens) else None,
        [_from_plain(row["m"]) if "m" in row else {} for row in rows],
        parts={name: _batch_of([dict(row.get("p", ())).get(name, blank) for row in rows]) for name in names},
    )


def _to_plain(value: Any) -> Any:
    """JSON's own types as they are; others as a mapping with one key, their kind."""
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind in (list, tuple):
        items = [_to_plain(item) for item in value]
        return items if kind is list else {"tuple": items}
    if isinstance(value, Mapping):
        return {"dict": [[_to_plain(key), _to_plain(item)] for key, item in value.items()]}
    if kind is bytes:
        return {"bytes": base64.b64encode(value).decode()}
    if (kind is np.ndarray or isinstance(value, np.generic)) and not value.dtype.hasobject:
        return {"array": [value.dtype.str, None if kind is not np.ndarray else value.shape, _to_plain(value.tobytes())]}
    raise _NotPlain(f"{brief(value)} is a {kind.__name__}")


def _from_plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    return _READERS[kind](content)


def _array(content: Sequence[Any]) -> Any:
    dtype, shape, data = content
    flat = np.frombuffer(_from_plain(data), dtype=dtype)
    return flat[0] if shape is None else flat.reshape(shape).copy()


_READERS: dict[str, Callable[[Any], Any]] = {
    "array": _array,
    "bytes": base64.b64decode,
    "dict": lambda pairs: {_from_plain(key): _from_plain(item) for key, item in pairs},
    "tuple": lambda items: tuple(_from_plain(item) for item in items),
}
