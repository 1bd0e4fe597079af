from __future__ import annotations

import csv
import io
import json
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import torch

from flux_rewards.cli import rows as rows_module
from flux_rewards.cli.rows import plain, row_writer, rows_of, without_position
from flux_rewards.cli.samples import SampleBatch
from flux_rewards.data import RewardBatch, Sample

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

NAN = float("nan")


def scored() -> tuple[SampleBatch, RewardBatch]:
    """Three samples from the eleventh of a file on: a good one, one that a part doesn't apply to, a failed one."""
    samples = SampleBatch(10, [Sample(group_id=5), Sample(), Sample(group_id=6)])
    correct = RewardBatch(
        np.array([1.0, 0.0, NAN]),
        metadata=[{"answer": np.float32(0.5)}, {}, {}],
        errors={2: "ComputeError: reward 'judge', sample 2: no verdict"},
    )
    brief = RewardBatch(np.array([0.25, NAN, 0.5]))
    total = RewardBatch(
        np.array([1.25, 0.0, NAN]),
        [np.array([0.5, 1.0]), None, None],
        errors={2: "correct: ComputeError: reward 'judge', sample 2: no verdict"},
        parts={"correct": correct, "brief": brief},
    )
    return samples, total


EXPECTED: list[dict[str, Any]] = [
    {
        "index": 10,
        "group_id": 5,
        "reward": 1.25,
        "parts": {"correct": 1.0, "brief": 0.25},
        "errors": {},
        "token_rewards": [0.5, 1.0],
        "metadata": {"correct": {"answer": 0.5}},
    },
    {"index": 11, "group_id": None, "reward": 0.0, "parts": {"correct": 0.0, "brief": None}, "errors": {}},
    {
        "index": 12,
        "group_id": 6,
        "reward": None,
        "parts": {"correct": None, "brief": 0.5},
        "errors": {
            "reward": "correct: ComputeError: reward 'judge': no verdict",
            "correct": "ComputeError: reward 'judge': no verdict",
        },
    },
]


def written(suffix: str, rows: Any, *, whole_group_ids: bool = True, pieces: int = 1) -> bytes:
    file = io.BytesIO()
    with closing(row_writer(suffix, file, ["correct", "brief"], whole_group_ids=whole_group_ids)) as writer:
        for start in range(0, len(rows), max(1, len(rows) // pieces)):
            writer.write(rows[start : start + max(1, len(rows) // pieces)])
    return file.getvalue()


def test_a_row_holds_what_each_part_said() -> None:
    """A row has the total and the parts, null where there is no score, and the reasons of failures."""
    assert rows_of(*scored()) == EXPECTED


@pytest.mark.parametrize("pieces", [1, 3])
def test_json_lines_and_a_json_list_hold_the_rows(pieces: int) -> None:
    """What is written piece by piece is JSON that another reader reads back as it was."""
    assert [json.loads(line) for line in written(".jsonl", EXPECTED, pieces=pieces).splitlines()] == EXPECTED
    assert json.loads(written(".json", EXPECTED, pieces=pieces)) == EXPECTED
    assert json.loads(written(".json", [])) == []


def test_csv_has_a_column_for_each_part() -> None:
    """The csv module reads back flat columns, empty where there is no score."""
    found = list(csv.DictReader(io.StringIO(written(".csv", EXPECTED, pieces=3).decode(), newline="")))
    assert list(found[0]) == ["index", "group_id", "reward", "parts.correct", "parts.brief", "errors"]
    assert list(found[0].values()) == ["10", "5", "1.25", "1.0", "0.25", ""]
    assert list(found[1].values()) == ["11", "", "0.0", "0.0", "", ""]
    assert json.loads(found[2]["errors"]) == EXPECTED[2]["errors"]


@pytest.mark.parametrize(("whole", "ids"), [(True, [5, None, 6]), (False, ["5", None, "6"])])
def test_parquet_has_typed_columns_and_row_groups(monkeypatch: pytest.MonkeyPatch, whole: bool, ids: list[Any]) -> None:
    """Pyarrow reads back typed columns, written in row groups so that not all rows are held."""
    monkeypatch.setattr(rows_module, "ROWS_A_GROUP", 2)
    file = parquet.ParquetFile(io.BytesIO(written(".parquet", EXPECTED, whole_group_ids=whole)))
    assert file.num_row_groups == 2
    table = file.read()
    assert table.column("group_id").to_pylist() == ids
    assert table.column("reward").to_pylist() == [1.25, 0.0, None]
    assert table.column("parts.brief").to_pylist() == [0.25, None, 0.5]
    assert table.schema.field("parts.correct").type == pa.float64()
    assert [bool(text) for text in table.column("errors").to_pylist()] == [False, False, True]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_half_a_surrogate_pair_does_not_stop_a_file(suffix: str) -> None:
    """JSON input may hold text that UTF-8 cannot; it is written escaped."""
    row = {**EXPECTED[1], "group_id": "\ud83d"}
    assert b"ud83d" in written(suffix, [row], whole_group_ids=False)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.float64("nan"), None),
        (float("-inf"), "-inf"),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        (torch.tensor([0.5, NAN], requires_grad=True), [0.5, None]),
        ({1: (True, None), "a": {"b"}}, {"1": [True, None], "a": ["b"]}),
        (b"ab", "b'ab'"),
        (1j, "1j"),
    ],
)
def test_any_value_becomes_json(value: Any, expected: Any) -> None:
    """Whatever an author notes can be written down as strict JSON."""
    found = plain(value)
    assert found == expected
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("E: reward 'a', sample 3, field 'image': gone", "E: reward 'a', field 'image': gone"),
        ("E: reward 'a', sample 3: gone", "E: reward 'a': gone"),
        ("E: reward 'a', sample 33: gone", "E: reward 'a', sample 33: gone"),
        ("E: gone", "E: gone"),
    ],
)
def test_a_position_in_the_batch_is_left_out(reason: str, expected: Any) -> None:
    """The position in a batch would be taken for one in the file."""
    assert without_position(reason, 3) == expected
