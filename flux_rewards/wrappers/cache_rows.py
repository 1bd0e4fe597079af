"""Rows of a result as bytes, and back, exactly; for a cache."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flux_rewards.data import RewardBatch
from flux_rewards.errors import ContractError
from flux_rewards.plain import NotPlain, from_plain, to_plain

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
        except NotPlain as error:
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


def _has_error(batch: RewardBatch, row: int) -> bool:
    return row in batch.errors or any(_has_error(part, row) for part in batch.parts.values())


def _plain_row(batch: RewardBatch, row: int) -> dict[str, Any]:
    plain: dict[str, Any] = {"r": float(batch.rewards[row])}
    tokens = None if batch.token_rewards is None else batch.token_rewards[row]
    if tokens is not None:
        plain["t"] = to_plain(tokens)
    if batch.metadata[row]:
        plain["m"] = to_plain(dict(batch.metadata[row]))
    if batch.parts:
        plain["p"] = [[name, _plain_row(part, row)] for name, part in batch.parts.items()]
    return plain


def _row_of(value: bytes) -> dict[str, Any]:
    row: dict[str, Any] = {"r": _NUMBER.unpack(value)[1]} if value[:1] == b"f" else json.loads(value[1:])
    return row


def _batch_of(rows: Sequence[Mapping[str, Any]]) -> RewardBatch:
    tokens = [from_plain(row["t"]) if "t" in row else None for row in rows]
    names = list(dict.fromkeys(name for row in rows for name, _ in row.get("p", ())))
    blank = {"r": float("nan")}
    return RewardBatch(
        np.array([row["r"] for row in rows], dtype=np.float64),
        tokens if any(entry is not None for entry in tokens) else None,
        [from_plain(row["m"]) if "m" in row else {} for row in rows],
        parts={name: _batch_of([dict(row.get("p", ())).get(name, blank) for row in rows]) for name in names},
    )
