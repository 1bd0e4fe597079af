"""Rows of a file or table under the names that the library uses, each with its place."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flux_rewards.errors import ConfigError, InputError, brief, close_match
from flux_rewards.records.reading import DECODER, JSON_COLUMNS, Record, read_records

__all__ = ["Rows", "Source", "read_rows"]

Source = str | os.PathLike[str] | Iterable[Mapping[str, Any]]
"""A file, a list of mappings, or one split of a `datasets.Dataset`."""


def read_rows(
    source: Source,
    what: str,
    columns: Mapping[str, str | None] | None,
    json_columns: Collection[str] | None,
    *,
    names: Collection[str],
    required: Collection[str],
) -> Rows:
    """Open a source whose columns may have any names.

    Args:
        source: As for `load_preferences`.
        what: What the rows are, for messages.
        columns: Name to column, where they differ; None where there is none.
        json_columns: Columns of text that hold JSON; None for those that a file of samples has.
        names: The names that `columns` may have.
        required: Those that every row must have.

    Raises:
        ConfigError: `columns` has another name, or one column twice.
        InputError: The source cannot be read.

    Examples:
        >>> rows = read_rows([{"x": 1}], "things", {"a": "x"}, None, names=["a"], required=["a"])
        >>> list(rows)
        [('index 0', {'a': 1})]
    """
    given = dict(columns or {})
    for name, column in given.items():
        if name not in names:
            known = ", ".join(names)
            raise ConfigError(f"columns has {name!r}{close_match(str(name), names)}; it may have {known}")
        if column is None and name in required:
            raise ConfigError(f"columns says that there is no {name!r}, which every row needs")
        if column is not None and list(given.values()).count(column) > 1:
            raise ConfigError(f"columns uses the column {column!r} for more than one thing")
    held = _Columns({name: given.get(name, name) for name in names}, tuple(required), given)
    return _opened(source, what, held, json_columns)


class Rows:
    """Iterates over (where, name to value); all columns that have no name of ours keep their own.

    Attributes:
        label: What the source is called in messages.
        folder: What relative paths of media are relative to; None for a table in memory.
    """

    def __init__(
        self, label: str, folder: Path | None, records: Iterable[Record], columns: _Columns, *, guard_text: bool
    ) -> None:
        self.label, self.folder = label, folder
        self._records, self._columns, self._guard_text = records, columns, guard_text

    def __iter__(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        seen: set[str] = set()
        for where, values in self._records:
            with self.naming(where):
                if values.keys() != seen:
                    self._columns.check(values)
                    seen = set(values)
                yield where, self._columns.renamed(values, guard_text=self._guard_text)

    @contextlib.contextmanager
    def naming(self, where: str) -> Iterator[None]:
        """Errors in the block are led by the source, the row and the column."""
        place = f"{self.label}, {where}"
        try:
            yield
        except (ValueError, TypeError) as error:
            message = str(error.args[0]) if error.args else str(error)
            if message.startswith(self.label):
                raise  # has its place
            name = getattr(error, "field", None)
            column = "" if name is None else f", column {self._columns.called(name)!r}"
            raise InputError(f"{place}{column}: {message}") from error


@dataclass(frozen=True)
class _Columns:
    """Which column holds what.

    Attributes:
        by_name: Our name to the source's; None where there is none.
        required: The names that every row must have.
        given: What the caller said.
    """

    by_name: Mapping[str, str | None]
    required: tuple[str, ...]
    given: Mapping[str, str | None]

    def called(self, name: str) -> str:
        return self.by_name.get(name) or name

    def check(self, values: Mapping[str, Any]) -> None:
        """Refuse a row that lacks a column, or has one that looks like a misspelt one."""
        for key in values:
            if not isinstance(key, str):
                raise InputError(f"columns have names that are text, found {brief(key)}")
        for name, column in self.by_name.items():
            if column is None or column in values:
                continue
            hint = close_match(column, [key for key in values if key not in self.by_name.values()])
            if name in self.required or name in self.given:
                there = ", ".join(map(repr, values)) or "none"
                say = "" if name in self.given else f"; if it is called otherwise, say columns={{{name!r}: ...}}"
                raise InputError(f"there is no column {column!r}{hint}; the columns are {there}{say}")
            if hint:  # a misspelt prompt would silently be no prompt
                raise InputError(
                    f"there is no column {column!r}{hint}; say columns={{{name!r}: ...}}, or "
                    f"columns={{{name!r}: None}} where there is none"
                )

    def renamed(self, values: Mapping[str, Any], *, guard_text: bool) -> dict[str, Any]:
        ours = {column: name for name, column in self.by_name.items() if column is not None and column in values}
        row = {ours.get(key, key): value for key, value in values.items()}
        for key in values:
            if key not in ours and key in self.by_name:
                raise InputError(f"the column {key!r} is there beside {self.called(key)!r}; rename or remove it")
        for name in self.required:
            if row.get(name) is None:
                raise InputError("is missing", field=name)
        for name in ours.values() if guard_text else ():
            if _looks_like_messages(row[name]):
                raise InputError(
                    f"looks like chat messages written as text, {brief(row[name])}; say "
                    f"json_columns=[{self.called(name)!r}, ...], or json_columns=() if it is text",
                    field=name,
                )
        return row


def _looks_like_messages(value: Any) -> bool:
    return isinstance(value, str) and value.lstrip().startswith("[{") and "role" in value[:200]


def _opened(source: Source, what: str, columns: _Columns, json_columns: Collection[str] | None) -> Rows:
    guard = json_columns is None
    decoded = JSON_COLUMNS if json_columns is None else tuple(json_columns)
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if not path.exists():
            raise InputError(f"{path}: there is no such file of {what}")
        if not path.is_file():
            raise InputError(f"{path}: is a folder; name a file of {what} in it")
        records = read_records(path, what, json_columns=decoded)
        if path.suffix.lower() == ".csv":
            records = _with_numbers(records, columns.by_name.get("margin"), str(path))
        elif not guard:
            records = _decoded(records, decoded, str(path))
        return Rows(str(path), path.parent, records, columns, guard_text=guard)
    label = f"the {what}"
    if isinstance(source, Mapping):
        raise InputError(
            f"expected a list of rows, found a mapping with {', '.join(map(repr, source)) or 'nothing'}; "
            "of a set with several splits pass one, such as dataset['train']"
        )
    given: Any = source
    if hasattr(given, "itertuples"):  # iterating would give the names of its columns
        raise InputError("found a table of pandas; pass table.to_dict('records')")
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise InputError(f"expected a file, a list of mappings or a dataset, found {brief(source)}")
    records = _in_memory(source, label)
    return Rows(label, None, records if guard else _decoded(records, decoded, label), columns, guard_text=guard)


def _in_memory(source: Iterable[Any], label: str) -> Iterator[Record]:
    for index, values in enumerate(source):
        if not isinstance(values, Mapping):
            raise InputError(f"{label}, index {index}: expected a mapping (column to value), found {brief(values)}")
        yield Record(f"index {index}", values)


def _decoded(records: Iterable[Record], columns: Collection[str], label: str) -> Iterator[Record]:
    for where, values in records:
        row = dict(values)
        for name in columns:
            if not isinstance(row.get(name), str):
                continue
            try:
                row[name] = DECODER.decode(row[name].strip())
            except (ValueError, RecursionError) as error:
                raise InputError(
                    f"{label}, {where}, column {name!r}: holds JSON, and {brief(row[name])} is none: {error}"
                ) from error
        yield Record(where, row)


def _with_numbers(records: Iterable[Record], column: str | None, label: str) -> Iterator[Record]:
    """A CSV file has text only: its margins are read as numbers."""
    for where, values in records:
        if column is None or not isinstance(values.get(column), str):
            yield Record(where, values)
            continue
        try:
            yield Record(where, {**values, column: float(values[column])})
        except ValueError:
            found = brief(values[column])
            raise InputError(f"{label}, {where}, column {column!r}: expected a number, found {found}") from None
