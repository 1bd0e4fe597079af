"""Preference pairs from files and tables."""

from __future__ import annotations

import csv
import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flux_rewards import InputError, Sample
from flux_rewards.errors import ConfigError
from flux_rewards.training.preferences import PreferencePair
from flux_rewards.training.sources import load_preferences

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

ROW = {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}
USER = {"role": "user", "content": "2 + 2?"}
GOOD = {"role": "assistant", "content": "4"}
BAD = {"role": "assistant", "content": "5"}


def lines(*rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    parquet.write_table(pa.Table.from_pylist(rows), path)


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], Any]] = {
    ".jsonl": lambda path, rows: path.write_bytes(lines(*rows)),
    ".json": lambda path, rows: path.write_text(json.dumps(rows, indent=1)),
    ".csv": write_csv,
    ".parquet": write_parquet,
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_all_formats_hold_the_same(tmp_path: Path, suffix: str) -> None:
    """Any column names, margins and other columns, in each format."""
    rows: list[dict[str, Any]] = [
        {"question": "2 + 2?", "better": "4", "worse": "5", "gap": 1.5, "subset": "sums"},
        {"question": 'Wörter,\n"so"', "better": "ja", "worse": "nein", "gap": 0.0, "subset": "words"},
    ]
    path = tmp_path / f"pairs{suffix}"
    WRITERS[suffix](path, rows)
    columns = {"prompt": "question", "chosen": "better", "rejected": "worse", "margin": "gap"}
    data = load_preferences(path, columns=columns)
    assert list(data) == [
        PreferencePair(row["question"], row["better"], row["worse"], row["gap"], {"subset": row["subset"]})
        for row in rows
    ]
    assert list(load_preferences(rows, columns=columns)) == list(data)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize("prompt", [{}, {"prompt": "2 + 2?"}, {"prompt": [USER]}])
def test_whole_conversations_share_their_prompt(tmp_path: Path, suffix: str, prompt: dict[str, Any]) -> None:
    """The implicit prompt, and the prompt that is there beside it, are one."""
    path = tmp_path / f"pairs{suffix}"
    WRITERS[suffix](path, [{**prompt, "chosen": [USER, GOOD], "rejected": [USER, BAD]}])
    assert load_preferences(path)[0] == PreferencePair([USER], [GOOD], [BAD])


def test_answers_alone_keep_the_prompt_as_it_is() -> None:
    """Messages that begin with the assistant are answers; the prompt may be text."""
    (pair,) = load_preferences([{"prompt": "2 + 2?", "chosen": [GOOD], "rejected": [BAD]}])
    assert pair == PreferencePair("2 + 2?", [GOOD], [BAD])


def test_messages_in_a_csv_file(tmp_path: Path) -> None:
    """Named columns are read as JSON; `json_columns=()` says that they are text."""
    path = tmp_path / "pairs.csv"
    write_csv(path, [{"chosen": json.dumps([USER, GOOD]), "rejected": json.dumps([USER, BAD])}])
    assert load_preferences(path, json_columns=["chosen", "rejected"])[0] == PreferencePair([USER], [GOOD], [BAD])
    assert isinstance(load_preferences(path, json_columns=())[0].chosen, str)
    with pytest.raises(InputError, match=r"line 2, column 'chosen': looks like chat messages written as text"):
        load_preferences(path)


def test_texts_that_begin_with_their_prompt() -> None:
    """A dialogue is cut at the last mark within what both texts have in common."""
    begun = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: 2 + 2?\n\nAssistant:"
    rows = [{"chosen": f"{begun} 4\n\nHuman: no\n\nAssistant: yes", "rejected": f"{begun} 5"}]
    (pair,) = load_preferences(rows, prompt_ends_with="\n\nAssistant:")
    assert (pair.prompt, pair.rejected) == (begun, " 5")
    assert load_preferences(rows)[0].prompt is None
    with pytest.raises(InputError, match="index 0, column 'chosen': 'Bot:' is not in what both texts begin with"):
        load_preferences(rows, prompt_ends_with="Bot:")


def test_media_are_samples(tmp_path: Path) -> None:
    """Objects are the fields of a sample; paths are relative to the file, in shared fields too."""
    path = tmp_path / "pairs.jsonl"
    row = {
        "prompt": "a cat",
        "chosen": {"image": "a.png"},
        "rejected": {"image": "b.png"},
        "condition_images": ["c.png"],
    }
    path.write_bytes(lines(row))
    assert load_preferences(path)[0] == PreferencePair(
        "a cat",
        Sample(image=str(tmp_path / "a.png")),
        Sample(image=str(tmp_path / "b.png")),
        shared={"condition_images": [str(tmp_path / "c.png")]},
    )


@pytest.mark.slow
def test_a_dataset_with_images() -> None:
    """A split of `datasets.Dataset` is a table; its images are PIL images, and samples of ours."""
    datasets = pytest.importorskip("datasets")
    image = pytest.importorskip("PIL.Image")
    pictures = [image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    table = {"prompt": ["red"], "chosen": pictures[:1], "rejected": pictures[1:], "reference": ["red"]}
    features = {
        name: datasets.Image() if name in ("chosen", "rejected") else datasets.Value("string") for name in table
    }
    dataset = datasets.Dataset.from_dict(table, features=datasets.Features(features))
    (pair,) = load_preferences(dataset)
    assert pair.chosen_sample.image.getpixel((0, 0)) == (255, 0, 0)
    assert pair.rejected_sample.reference == "red"
    with pytest.raises(InputError, match=r"a mapping with 'train'; .* dataset\['train'\]"):
        load_preferences(datasets.DatasetDict({"train": dataset}))


def cut_short(folder: Path) -> bytes:
    write_parquet(folder / "whole.parquet", [ROW] * 100)
    return (folder / "whole.parquet").read_bytes()[:-20]


def twice_in_parquet(folder: Path) -> bytes:
    column = pa.array(["a"])
    names = ["chosen", "chosen", "rejected"]
    parquet.write_table(pa.Table.from_arrays([column] * 3, names=names), folder / "whole.parquet")
    return (folder / "whole.parquet").read_bytes()


BAD_FILES: list[tuple[str, str, bytes | Callable[[Path], bytes], str]] = [
    ("nothing in it", "a.jsonl", b"", r"a\.jsonl: holds no preference pairs"),
    ("an empty list", "a.json", b"[]", r"a\.json: holds no preference pairs"),
    ("a header alone", "a.csv", b"chosen,rejected\n", r"a\.csv: holds no preference pairs"),
    ("another format", "a.txt", b"x", r"a\.txt: preference pairs cannot be of the format '\.txt'"),
    ("no JSON", "a.jsonl", lines(ROW) + b"{'chosen': 1}\n", r"line 2: invalid JSON"),
    ("a line cut short", "a.jsonl", lines(ROW) + lines(ROW)[:-9], r"line 2: invalid JSON"),
    ("a list of lists", "a.jsonl", b'["4", "5"]\n', r"line 1: expected an object"),
    ("an object, not a list", "a.json", json.dumps(ROW).encode(), r"line 1: expected a list of objects"),
    ("a split below", "a.json", json.dumps({"train": [ROW]}).encode(), r"line 1: expected a list of objects"),
    ("bad encoding", "a.jsonl", lines(ROW) + b'{"chosen": "\xe4"}\n', r"line 2: is not UTF-8"),
    ("bad encoding of a table", "a.csv", b"chosen,rejected\n\xff,5\n", r"line 2: is not UTF-8"),
    (
        "a key twice",
        "a.jsonl",
        b'{"chosen": "4", "chosen": "5", "rejected": "6"}\n',
        r"line 1: .*'chosen' is there more",
    ),
    ("a column twice", "a.csv", b"chosen,chosen,rejected\n4,4,5\n", r"line 1: the header has the column 'chosen' more"),
    ("a column of parquet twice", "a.parquet", twice_in_parquet, r"has the column 'chosen' more than once"),
    ("too few cells", "a.csv", b"chosen,rejected\n4\n", r"line 2: found 1 cells"),
    ("an open quote", "a.csv", b'chosen,rejected\n4,"5\n', r"line \d: invalid CSV"),
    ("truncated parquet", "a.parquet", cut_short, r"cannot be read as Parquet"),
    ("text called parquet", "a.parquet", b"chosen,rejected\n", r"cannot be read as Parquet"),
    (
        "no such column",
        "a.jsonl",
        lines({"prompt": "q", "good": "4", "bad": "5"}),
        r"line 1: there is no column 'chosen'",
    ),
    ("a misspelt column", "a.jsonl", lines({"chosn": "4", "rejected": "5"}), r"did you mean 'chosn'"),
    ("a misspelt prompt", "a.jsonl", lines({"promt": "q", "chosen": "4", "rejected": "5"}), r"'prompt' .*'promt'"),
    ("a column that later rows lack", "a.jsonl", lines(ROW, {"chosen": "4"}), r"line 2: there is no column 'rejected'"),
    ("null", "a.jsonl", lines(ROW, {**ROW, "rejected": None}), r"line 2, column 'rejected': is missing"),
    ("an empty cell", "a.csv", b"chosen,rejected\n4,\n", r"line 2, column 'rejected': is missing"),
    ("empty text", "a.jsonl", lines({**ROW, "chosen": " \n"}), r"line 1, column 'chosen': is empty"),
    ("an empty prompt", "a.jsonl", lines({**ROW, "prompt": ""}), r"line 1, column 'prompt': is empty"),
    ("a number for a text", "a.jsonl", lines({**ROW, "chosen": 4}), r"column 'chosen': expected text or chat messages"),
    ("text against messages", "a.jsonl", lines({**ROW, "chosen": [GOOD]}), r"chosen is messages and rejected is text"),
    (
        "rows of two kinds",
        "a.jsonl",
        lines(ROW, {"chosen": [USER, GOOD], "rejected": [USER, BAD]}),
        r"line 2: .*of line 1",
    ),
    ("no messages", "a.jsonl", lines({**ROW, "chosen": [], "rejected": []}), r"column 'chosen': is an empty list"),
    ("a message without role", "a.jsonl", lines({"chosen": [{"content": "4"}], "rejected": [BAD]}), r"no 'role'"),
    (
        "roles of another format",
        "a.jsonl",
        lines({"chosen": [{"from": "gpt", "value": "4"}], "rejected": [BAD]}),
        r"column 'chosen': message 0 has no 'role'; .* rename 'from'",
    ),
    (
        "an unknown role",
        "a.jsonl",
        lines({"chosen": [{"role": "gpt", "content": "4"}], "rejected": [BAD]}),
        r"role 'gpt'",
    ),
    (
        "an empty message",
        "a.jsonl",
        lines({"chosen": [USER, {"role": "assistant", "content": ""}], "rejected": [USER, BAD]}),
        r"message 1 \(assistant\) is empty",
    ),
    (
        "nested lists of messages",
        "a.jsonl",
        lines({"chosen": [[USER, GOOD]], "rejected": [[USER, BAD]]}),
        r"message 0 must be a mapping",
    ),
    (
        "conversations of two prompts",
        "a.jsonl",
        lines({"chosen": [USER, GOOD], "rejected": [{**USER, "content": "?"}, BAD]}),
        r"column 'rejected': the conversations part at message 0",
    ),
    (
        "a prompt of another question",
        "a.jsonl",
        lines({"prompt": "3 + 3?", "chosen": [USER, GOOD], "rejected": [USER, BAD]}),
        r"column 'prompt': the prompt is '3 \+ 3\?'",
    ),
    (
        "one answer with its prompt",
        "a.jsonl",
        lines({"chosen": [USER, GOOD], "rejected": [BAD]}),
        r"begins with the prompt and the other does not",
    ),
    (
        "messages as text",
        "a.jsonl",
        lines({**ROW, "chosen": json.dumps([GOOD])}),
        r"looks like chat messages written as text",
    ),
    (
        "a margin in words",
        "a.jsonl",
        lines({**ROW, "margin": "big"}),
        r"column 'margin': expected a number, found 'big'",
    ),
    (
        "a margin in words in a table",
        "a.csv",
        b"chosen,rejected,margin\n4,5,big\n",
        r"column 'margin': expected a number",
    ),
    (
        "a margin that is no number",
        "a.csv",
        b"chosen,rejected,margin\n4,5,nan\n",
        r"column 'margin': expected a finite",
    ),
    ("NaN in JSON", "a.jsonl", b'{"chosen": "4", "rejected": "5", "margin": NaN}\n', r"line 1: invalid JSON: NaN"),
    ("a negative margin", "a.jsonl", lines({**ROW, "margin": -1}), r"column 'margin': is -1: a negative margin"),
    (
        "margins here and there",
        "a.jsonl",
        lines({**ROW, "margin": 1}, ROW),
        r"line 2: the row has no margin, and line 1",
    ),
    (
        "metadata that is no object",
        "a.jsonl",
        lines({**ROW, "metadata": "x"}),
        r"column 'metadata': expected an object",
    ),
    (
        "an image that is no path",
        "a.jsonl",
        lines({**ROW, "chosen": {"image": 3}, "rejected": {"image": "b"}}),
        r"'image' must be a path",
    ),
    (
        "a sample of nothing",
        "a.jsonl",
        lines({**ROW, "chosen": {"imag": "a"}, "rejected": {"image": "b"}}),
        r"column 'chosen': the sample has no response",
    ),
    (
        "columns of several names at once",
        "a.jsonl",
        lines({**ROW, "better": "4"}),
        r"the column 'chosen' is there beside 'better'",
    ),
]


@pytest.mark.parametrize(
    ("name", "content", "message"), [bad[1:] for bad in BAD_FILES], ids=[bad[0] for bad in BAD_FILES]
)
def test_bad_files(tmp_path: Path, name: str, content: Any, message: str) -> None:
    """Each is an error that names the file, the row where there is one, and what is wrong."""
    path = tmp_path / name
    path.write_bytes(content(tmp_path) if callable(content) else content)
    columns: dict[str, str | None] | None = {"chosen": "better"} if "better" in message else None
    with pytest.raises(InputError, match=message) as caught:
        load_preferences(path, columns=columns)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.jsonl", "there is no such file of preference pairs"),
        (types.SimpleNamespace(itertuples=list), r"pass table\.to_dict\('records'\)"),
        (".", "is a folder"),
        (3, "expected a file, a list of mappings or a dataset, found 3"),
        ({"train": []}, r"a mapping with 'train'; .* dataset\['train'\]"),
        (["x"], "index 0: expected a mapping"),
        ([ROW, 3], "index 1: expected a mapping"),
        ([{**ROW, "margin": "1"}], "index 0, column 'margin': expected a number"),
        ([{3: "x"}], "index 0: columns have names that are text, found 3"),
        ([{**ROW, "chosen": {"imag": 1}}], "index 0, column 'chosen': 'imag' is no field of a sample"),
    ],
)
def test_bad_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Any, message: str) -> None:
    """What is no table, or has a bad row, is an error that says so."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        load_preferences(source)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"chosn": "x"}, "columns has 'chosn' .*did you mean 'chosen'"),
        ({"chosen": "x", "rejected": "x"}, "the column 'x' for more than one thing"),
        ({"chosen": None}, "there is no 'chosen', which every row needs"),
    ],
)
def test_bad_columns(columns: Any, message: str) -> None:
    """A wrong mapping of columns is refused before anything is read."""
    with pytest.raises(ConfigError, match=message):
        load_preferences([ROW], columns=columns)


def test_a_column_that_only_resembles_a_prompt() -> None:
    """None says that there is no such column; what resembles it is metadata."""
    rows = [{"prompt_id": 7, "chosen": "4", "rejected": "5"}]
    with pytest.raises(InputError, match=r"columns=\{'prompt': None\} where there is none"):
        load_preferences(rows)
    (pair,) = load_preferences(rows, columns={"prompt": None})
    assert (pair.prompt, pair.metadata) == (None, {"prompt_id": 7})
