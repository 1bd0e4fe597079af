"""From a scored batch to rows of plain data, and rows into a file of any format, one piece after the other."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import IO, TYPE_CHECKING, Any, Protocol

from flux_rewards.errors import MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from flux_rewards.cli.samples import SampleBatch
    from flux_rewards.data import RewardBatch

__all__ = ["ROW_FORMATS", "RowWriter", "plain", "row_writer", "rows_of", "without_position"]

ROW_FORMATS = (".jsonl", ".json", ".csv", ".parquet")

ROWS_A_GROUP = 16_384
"""Rows that are held until a row group of a Parquet file is full."""


def rows_of(samples: SampleBatch, batch: RewardBatch) -> list[dict[str, Any]]:
    """One row a sample, as JSON has it: what does not apply, or failed, is None.

    Keys: ``index`` (in the file, from 0), ``group_id`` (None where the file gives none), ``reward``, ``parts`` (name
    to score, before its weight), ``errors`` (``"reward"`` or a part's name to a reason), and where there are any
    ``token_rewards`` and ``metadata`` (a part's name to what it noted).
    """
    rows = []
    for position, sample in enumerate(samples.samples):
        errors = {name: part.errors[position] for name, part in batch.parts.items() if position in part.errors}
        if position in batch.errors:
            errors = {"reward": batch.errors[position], **errors}
        row: dict[str, Any] = {
            "index": samples.start + position,
            "group_id": sample.group_id,
            "reward": _number(batch.rewards[position]),
            "parts": {name: _number(part.rewards[position]) for name, part in batch.parts.items()},
            "errors": {name: without_position(reason, position) for name, reason in errors.items()},
        }
        tokens = None if batch.token_rewards is None else batch.token_rewards[position]
        if tokens is not None:
            row["token_rewards"] = plain(tokens)
        metadata = {name: part.metadata[position] for name, part in batch.parts.items() if part.metadata[position]}
        if metadata:
            row["metadata"] = plain(metadata)
        rows.append(row)
    return rows


def without_position(reason: str, position: int) -> str:
    """A reason without the sample's position in its batch, which says nothing about the file.

    Examples:
        >>> without_position("InputError: reward 'clip', sample 7, field 'image': no such file", 7)
        "InputError: reward 'clip', field 'image': no such file"
    """
    return reason.replace(f", sample {position}, ", ", ").replace(f", sample {position}: ", ": ")


def plain(value: Any) -> Any:
    """A value as JSON can hold it: arrays as lists, NaN as None, infinity and what JSON does not know as text.

    Examples:
        >>> import numpy as np
        >>> plain({"logits": np.array([0.5, np.nan]), 3: (1, float("inf"), 1j)})
        {'logits': [0.5, None], '3': [1, 'inf', '1j']}
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None if math.isnan(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (Sequence, AbstractSet)) and not isinstance(value, (bytes, bytearray)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist") and hasattr(value, "shape"):  # numpy scalars, arrays and tensors
        return plain(value.tolist())
    return str(value)


def _number(score: Any) -> float | None:
    return None if math.isnan(score) else float(score)


class RowWriter(Protocol):
    """Writes rows to an open file."""

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows."""

    def close(self) -> None:
        """Write what stands at the end; leave the file itself open."""


def row_writer(suffix: str, file: IO[bytes], parts: Sequence[str], *, whole_group_ids: bool) -> RowWriter:
    """The writer of a format.

    Args:
        suffix: One of `ROW_FORMATS`.
        file: Where to, open for bytes.
        parts: Names of the parts: columns of the flat formats.
        whole_group_ids: Every group_id is a whole number or None; otherwise a typed column of them is text.

    Raises:
        MissingDependencyError: Parquet without pyarrow.
    """
    if suffix == ".parquet":
        return _ParquetRows(file, parts, whole_group_ids=whole_group_ids)
    if suffix == ".csv":
        return _CsvRows(file, parts)
    return _JsonlRows(file) if suffix == ".jsonl" else _JsonRows(file)


def _json(value: Any) -> bytes:
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half a surrogate pair; JSON can escape it, UTF-8 cannot hold it
        return json.dumps(value, allow_nan=False).encode()


class _JsonlRows:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._file.writelines(_json(row) + b"\n" for row in rows)

    def close(self) -> None:
        pass


class _JsonRows:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._before = b"[\n"

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            self._file.write(self._before + _json(row))
            self._before = b",\n"

    def close(self) -> None:
        self._file.write(b"[]\n" if self._before == b"[\n" else b"\n]\n")


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    parts = {f"parts.{name}": score for name, score in row["parts"].items()}
    errors = _json(row["errors"]).decode() if row["errors"] else None
    return {
        "index": row["index"],
        "group_id": row["group_id"],
        "reward": row["reward"],
        **parts,
        "errors": errors,
    }


def _columns(parts: Sequence[str]) -> list[str]:
    return ["index", "group_id", "reward", *(f"parts.{name}" for name in parts), "errors"]


class _CsvRows:
    def __init__(self, file: IO[bytes], parts: Sequence[str]) -> None:
        self._file = file
        self._text = io.StringIO(newline="")
        self._writer = csv.DictWriter(self._text, _columns(parts), lineterminator="\n")
        self._writer.writeheader()

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._writer.writerows(_flat(row) for row in rows)
        self._file.write(self._text.getvalue().encode(errors="backslashreplace"))
        self._text.seek(0)
        self._text.truncate()

    def close(self) -> None:
        self.write([])


class _ParquetRows:
    def __init__(self, file: IO[bytes], parts: Sequence[str], *, whole_group_ids: bool) -> None:
        try:
            import pyarrow as pa  # noqa: PLC0415  # optional
            from pyarrow import parquet  # noqa: PLC0415
        except ImportError as error:
            raise MissingDependencyError(
                "writing .parquet needs pyarrow: pip install 'flux_rewards[parquet]'"
            ) from error
        types = dict.fromkeys(_columns(parts), pa.float64())
        types |= {"index": pa.int64(), "group_id": pa.string(), "errors": pa.string()}
        self._group_id: Callable[[Any], Any] = _text_id
        if whole_group_ids:
            types["group_id"], self._group_id = pa.int64(), _same_id
        self._schema = pa.schema(list(types.items()))
        self._table = pa.Table
        self._writer = parquet.ParquetWriter(file, self._schema)
        self._held: list[dict[str, Any]] = []

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            self._held.append({**_flat(row), "group_id": self._group_id(row["group_id"])})
            if len(self._held) == ROWS_A_GROUP:
                self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._held:
            self._writer.write_table(self._table.from_pylist(self._held, schema=self._schema))
            self._held.clear()


def _text_id(group_id: Any) -> str | None:
    return None if group_id is None else str(group_id).encode(errors="backslashreplace").decode()


def _same_id(group_id: Any) -> Any:
    return group_id
