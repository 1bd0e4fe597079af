"""Reading a file of records, whatever its format: one after the other, and where each stands."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from flux_rewards.errors import InputError, MissingDependencyError, brief, close_match

__all__ = ["DECODER", "JSON_COLUMNS", "Record", "check_suffix", "read_records"]

JSON_COLUMNS = ("token_ids", "token_offsets", "condition_images", "condition_videos", "video", "metadata")
"""Columns of a CSV file whose cells are JSON, since their values are lists or objects."""

_LONGEST_CELL = 2**31 - 1  # what a C long holds everywhere; the csv module's own limit is 131,072 characters


class Record(NamedTuple):
    """What one line holds, before anybody asked whether it makes a sample or a pair.

    Attributes:
        where: ``"line 3"``, counted from 1; or ``"index 2"``, counted from 0, where the file has no lines.
        values: Column or key to value.
    """

    where: str
    values: Mapping[str, Any]


def check_suffix(path: Path, known: Collection[str], what: str) -> str:
    """The suffix of `path` in lower case, if it is one of `known`.

    Raises:
        InputError: It is not; the message lists those that are.

    Examples:
        >>> check_suffix(Path("a.JSONL"), [".jsonl"], "samples")
        '.jsonl'
    """
    suffix = path.suffix.lower()
    if suffix not in known:
        raise InputError(
            f"{path}: {what} cannot be of the format {path.suffix!r}{close_match(suffix, known)}; "
            f"the known ones are {', '.join(known)}"
        )
    return suffix


def read_records(
    path: Path, what: str = "samples", *, json_columns: Collection[str] = JSON_COLUMNS
) -> Iterator[Record]:
    """Read ``.jsonl``, ``.json`` (a list of objects), ``.csv`` or ``.parquet``; blank lines are skipped.

    Of a ``.json`` file the text is in memory at once; of the others, a small part.

    Args:
        path: The file; its suffix says what it is.
        what: What the records are, for messages.
        json_columns: Columns of a CSV file whose cells are JSON; all other cells are text.

    Raises:
        InputError: An unknown suffix, a key or column that is there twice, or something that cannot be read, with its
            line.
        MissingDependencyError: A ``.parquet`` file without pyarrow.
        OSError: The file cannot be opened.
    """
    suffix = check_suffix(path, (".jsonl", ".json", ".csv", ".parquet"), what)
    if suffix == ".csv":
        return _read_csv(path, frozenset(json_columns))
    return {".jsonl": _read_jsonl, ".json": _read_json, ".parquet": _read_parquet}[suffix](path)


def _bad(path: Path, where: str, problem: str) -> NoReturn:
    raise InputError(f"{path}, {where}: {problem}")


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON; write null")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys differ: of two equal ones the module keeps the last, and says nothing."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} is there more than once in an object")
    return found


DECODER = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_once)
"""Reads JSON, and nothing else: no NaN, and no key twice in an object."""


def _as_object(value: Any, path: Path, where: str) -> Record:
    if not isinstance(value, dict):
        _bad(path, where, f"expected an object (column to value), found {brief(value)}")
    return Record(where, value)


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:  # bytes: text mode would not know the line of an undecodable byte
        for number, line in enumerate(file, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                _bad(path, f"line {number}", f"is not UTF-8: {error.reason} at byte {error.start + 1}")


def _read_jsonl(path: Path) -> Iterator[Record]:
    for number, line in enumerate(_lines(path), start=1):
        if not (text := line.strip()):
            continue
        where = f"line {number}"
        try:
            value = DECODER.decode(text)
        except json.JSONDecodeError as error:
            _bad(path, where, f"invalid JSON: {error.msg} (column {error.colno})")
        except (ValueError, RecursionError) as error:
            _bad(path, where, f"invalid JSON: {error}")
        yield _as_object(value, path, where)


def _read_json(path: Path) -> Iterator[Record]:
    """One element at a time, so that each is known by its line and only one is in memory."""
    text = _ListText(path, "".join(_lines(path)))
    if text.ended():
        return
    text.expect("[", "expected a list of objects; one object a line is a .jsonl file")
    more = not text.took("]")
    while more:
        where = text.where()
        yield _as_object(text.value(), path, where)
        more = not text.took("]")
        if more:
            text.expect(",", "invalid JSON: expected ',' or ']' after an element of the list")
    if not text.ended():
        _bad(path, text.where(), "invalid JSON: more text after the end of the list")


class _ListText:
    """The text of a JSON file, and how far it has been read."""

    def __init__(self, path: Path, text: str) -> None:
        self._path, self._text = path, text
        self._position = 0
        self._line, self._counted = 1, 0  # the line at the position up to which line ends were counted
        self._skip_blanks()

    def ended(self) -> bool:
        return self._position == len(self._text)

    def where(self) -> str:
        self._line += self._text.count("\n", self._counted, self._position)
        self._counted = self._position
        return f"line {self._line}"

    def took(self, mark: str) -> bool:
        if not self._text.startswith(mark, self._position):
            return False
        self._position += len(mark)
        self._skip_blanks()
        return True

    def expect(self, mark: str, problem: str) -> None:
        if not self.took(mark):
            _bad(self._path, self.where(), problem)

    def value(self) -> Any:
        try:
            value, self._position = DECODER.raw_decode(self._text, self._position)
        except json.JSONDecodeError as error:
            _bad(self._path, f"line {error.lineno}", f"invalid JSON: {error.msg} (column {error.colno})")
        except (ValueError, RecursionError) as error:
            _bad(self._path, self.where(), f"invalid JSON: {error}")
        self._skip_blanks()
        return value

    def _skip_blanks(self) -> None:
        while self._position < len(self._text) and self._text[self._position] in " \t\r\n":
            self._position += 1


def _read_csv(path: Path, json_columns: Collection[str]) -> Iterator[Record]:
    rows = csv.reader(_lines(path), strict=True)
    header: list[str] | None = None
    while True:
        # For each row anew: a reader that nobody finishes must not leave the limit of the whole process raised.
        limit = csv.field_size_limit(_LONGEST_CELL)
        try:
            cells = next(rows, None)
        except csv.Error as error:
            _bad(path, f"line {rows.line_num}", f"invalid CSV: {error}")
        finally:
            csv.field_size_limit(limit)
        if cells is None:
            return
        if not cells:
            continue
        where = f"line {rows.line_num}"
        if header is None:
            header = cells
            if twice := sorted({name for name in header if header.count(name) > 1}):
                _bad(path, where, f"the header has the column {twice[0]!r} more than once")
            continue
        if len(cells) != len(header):
            _bad(path, where, f"found {len(cells)} cells where the header has {len(header)} columns")
        yield Record(
            where,
            {
                name: (_json_cell(text, name, path, where) if name in json_columns else text) if text else None
                for name, text in zip(header, cells, strict=True)
            },
        )


def _json_cell(text: str, column: str, path: Path, where: str) -> Any:
    try:
        return DECODER.decode(text.strip())
    except (ValueError, RecursionError) as error:
        _bad(path, where, f"the column {column!r} holds JSON, and {brief(text)} is none: {error}")


def _read_parquet(path: Path) -> Iterator[Record]:
    try:
        import pyarrow as pa  # noqa: PLC0415  # optional
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise MissingDependencyError(
            f"{path}: reading .parquet needs pyarrow: pip install 'flux_rewards[parquet]'"
        ) from error
    index = 0
    with path.open("rb") as file:
        try:
            table = parquet.ParquetFile(file)
            names = table.schema_arrow.names
            if twice := sorted({name for name in names if names.count(name) > 1}):
                _bad(path, "the schema", f"has the column {twice[0]!r} more than once")
            for batch in table.iter_batches(batch_size=256):
                for values in batch.to_pylist():
                    yield Record(f"index {index}", values)
                    index += 1
        except pa.ArrowException as error:
            _bad(path, f"index {index}", f"cannot be read as Parquet: {error}")
