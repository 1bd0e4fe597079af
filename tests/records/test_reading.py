from __future__ import annotations

import builtins
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flux_rewards.errors import InputError, MissingDependencyError
from flux_rewards.records.reading import read_records

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

ROWS: list[dict[str, Any]] = [
    {"prompt": "2 + 2?", "response": "vier, \u2028 \U0001f600\n4", "token_ids": [1, 2]},
    {"prompt": "3 + 3?", "response": None, "token_ids": None},
]


def write_jsonl(path: Path) -> None:
    path.write_text("\n" + "\n \n".join(json.dumps(row, ensure_ascii=False) for row in ROWS), encoding="utf-8")


def write_json(path: Path) -> None:
    path.write_text(json.dumps(ROWS, indent=2, ensure_ascii=False), encoding="utf-8")


def write_csv(path: Path) -> None:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(ROWS[0])
        writer.writerow(["2 + 2?", ROWS[0]["response"], "[1, 2]"])
        file.write("\r\n")
        writer.writerow(["3 + 3?", "", ""])


def write_parquet(path: Path) -> None:
    parquet.write_table(pa.Table.from_pylist(ROWS), path)


@pytest.mark.parametrize(
    ("write", "name", "places"),
    [
        (write_jsonl, "a.jsonl", ["line 2", "line 4"]),
        (write_json, "a.JSON", ["line 2", "line 10"]),
        (write_csv, "a.csv", ["line 3", "line 5"]),
        (write_parquet, "a.parquet", ["index 0", "index 1"]),
    ],
)
def test_all_formats_hold_the_same(tmp_path: Path, write: Callable[[Path], None], name: str, places: list[str]) -> None:
    """The same rows come out of every format, each with its place in the file."""
    path = tmp_path / name
    write(path)
    records = list(read_records(path))
    assert [record.values for record in records] == ROWS
    assert [record.where for record in records] == places


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n\n{"a": 1,}\n', r"a\.jsonl, line 3: invalid JSON"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', r"line 2: expected an object \(column to value\), found \[1\]"),
        ("a.jsonl", b'{"a": NaN}\n', "line 1: invalid JSON: NaN is not JSON; write null"),
        ("a.jsonl", b'{"a": "x"}\n{"a": "\xff"}\n', "line 2: is not UTF-8"),
        ("a.jsonl", b"[" * 200_000, "line 1: invalid JSON"),
        ("a.jsonl", b'{"a": 1, "b": {"c": 1, "c": 2}}\n', "line 1: invalid JSON: the key 'c' is there more than once"),
        ("a.json", b'{"a": 1}', "line 1: expected a list of objects; one object a line is a .jsonl file"),
        ("a.json", b'[\n{"a": 1},\n{"a": }\n]', "line 3: invalid JSON: Expecting value"),
        ("a.json", b'[{"a": 1},\n\n 3]', "line 3: expected an object"),
        ("a.json", b'[{"a": 1}\n{"a": 2}]', "line 2: invalid JSON: expected ',' or ']'"),
        ("a.json", b'[{"a": 1},\n]', "line 2: invalid JSON"),
        ("a.json", b'[{"a": 1}]\n\n[]', "line 3: invalid JSON: more text"),
        ("a.json", b'[{"a": 1}', "line 1: invalid JSON"),
        ("a.json", b'[{"a": -Infinity}]', "line 1: invalid JSON: -Infinity"),
        ("a.csv", b"a,b\n1,2\n1\n", "line 3: found 1 cells where the header has 2 columns"),
        ("a.csv", b"a,b,a\n1,2,3\n", "line 1: the header has the column 'a' more than once"),
        ("a.csv", b'a,b\n1,"2\n', "invalid CSV"),
        ("a.csv", b"a,token_ids\n1,\n2,[1\n", r"line 3: the column 'token_ids' holds JSON, and '\[1' is none"),
        ("a.parquet", b"PAR1 or not", "cannot be read as Parquet"),
        ("a.txt", b"", r"the format '\.txt'; the known ones are \.jsonl, \.json, \.csv, \.parquet"),
        ("a.jsnol", b"", r"did you mean '\.json"),
    ],
)
def test_what_cannot_be_read_is_named_by_its_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """A bad line is an error that names the file, the line and what is wrong."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(read_records(path))


@pytest.mark.parametrize("content", [b"", b" \n\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_an_empty_file_holds_no_records(tmp_path: Path, name: str, content: bytes) -> None:
    """A file of nothing, or of blanks, has no records; that this is a mistake is for others to say."""
    path = tmp_path / name
    path.write_bytes(content if name != "a.csv" else content.replace(b" ", b""))
    assert list(read_records(path)) == []


def test_a_long_cell_is_read_and_the_limit_of_the_csv_module_restored(tmp_path: Path) -> None:
    """A response longer than the csv module's own limit is read, and the limit is as before."""
    path, limit = tmp_path / "a.csv", csv.field_size_limit()
    path.write_text("response\n" + "x" * (limit + 1) + "\n", encoding="utf-8")
    (record,) = read_records(path)
    assert len(record.values["response"]) == limit + 1
    assert csv.field_size_limit() == limit


def test_a_reader_that_nobody_finishes_leaves_the_limit_as_it_was(tmp_path: Path) -> None:
    """The limit of the csv module is that of the whole process: between rows, too, it is as before."""
    path, limit = tmp_path / "a.csv", csv.field_size_limit()
    path.write_text("response\nx\ny\n", encoding="utf-8")
    records = read_records(path)
    next(records)
    assert csv.field_size_limit() == limit


def test_chat_messages_in_a_csv_cell_stay_text(tmp_path: Path) -> None:
    """A prompt in a CSV file is text, whatever it looks like."""
    path = tmp_path / "a.csv"
    path.write_text('prompt\n"[{""role"": ""user""}]"\n', encoding="utf-8")
    (record,) = read_records(path)
    assert record.values == {"prompt": '[{"role": "user"}]'}


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pyarrow is missing the message has the line that installs it."""
    real = builtins.__import__

    def no_pyarrow(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_pyarrow)
    (tmp_path / "a.parquet").write_bytes(b"")
    with pytest.raises(MissingDependencyError, match=r"pip install 'flux_rewards\[parquet\]'"):
        list(read_records(tmp_path / "a.parquet"))
