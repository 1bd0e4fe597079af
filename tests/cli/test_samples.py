from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_rewards.cli.samples import SampleFile
from flux_rewards.errors import InputError


def checked(path: Path, **options: Any) -> SampleFile:
    file = SampleFile(path, **options)
    file.check()
    return file


def write(path: Path, groups: Any) -> Path:
    path.write_text("".join(json.dumps({"group_id": group}) + "\n" for group in groups), encoding="utf-8")
    return path


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(1, 8))
def test_no_group_is_split_and_the_order_is_kept(groups: Any, size: int) -> None:
    """However groups are interleaved, each is in one batch, all samples are there once, and in order."""
    with tempfile.TemporaryDirectory() as folder:
        file = checked(write(Path(folder) / "a.jsonl", groups))
        batches = list(file.batches(size))
    assert [sample.group_id for batch in batches for sample in batch.samples] == groups
    assert [batch.start for batch in batches] == [sum(map(len, batches[:k])) for k in range(len(batches))]
    seen = [{sample.group_id for sample in batch.samples} for batch in batches]
    assert sum(map(len, seen)) == len(set(groups))
    assert all(len(batch) >= size for batch in batches[:-1])
    # None of them could have ended sooner.
    for batch in batches:
        for end in range(size, len(batch)):
            assert set(batch.groups[:end]) & set(batch.groups[end:])


@pytest.mark.parametrize(
    ("groups", "size", "expected"),
    [
        ("aabbcc", 2, [2, 2, 2]),
        ("aabbcc", 3, [4, 2]),
        ("aaaa", 1, [4]),
        ("abcabc", 1, [6]),
        ("abacd", 2, [3, 2]),
        ("abacd", 1, [3, 1, 1]),
    ],
)
def test_a_batch_ends_where_no_group_is_open(tmp_path: Path, groups: Any, size: int, expected: Any) -> None:
    """A batch ends at the first sample from the size on after which no group has samples to come."""
    assert [len(batch) for batch in checked(write(tmp_path / "a.jsonl", groups)).batches(size)] == expected


def test_without_a_group_id_the_prompt_and_the_condition_media_make_the_group(jsonl: Callable[..., Path]) -> None:
    """Samples with the same prompt and the same condition media are a group, whether or not the media exist."""
    rows = [
        {"prompt": "x", "condition_images": ["a.png"]},
        {"prompt": "x", "condition_images": ["b.png"]},
        {"prompt": [{"role": "user", "content": "x"}]},
        {"prompt": "x", "condition_images": ["a.png"]},
        {"prompt": [{"role": "user", "content": "x"}]},
    ]
    file = checked(jsonl(rows))
    assert file.has_groups
    (batch,) = file.batches(1)
    assert [batch.groups.index(key) for key in batch.groups] == [0, 1, 2, 0, 2]


@pytest.mark.parametrize(
    ("ids", "whole"),
    [([1, 2, None], True), ([1, "a"], False), ([1.5], False), ([2**63], False), ([None], True)],
)
def test_whether_all_group_ids_are_whole_numbers(jsonl: Callable[..., Path], ids: list[Any], whole: bool) -> None:
    """A typed column can hold the ids as numbers only if all of them are."""
    assert checked(jsonl([{"prompt": str(one), "group_id": one} for one in ids])).whole_group_ids is whole


def test_a_bad_line_is_found_before_the_first_batch(jsonl: Callable[..., Path]) -> None:
    """The check reads to the end, and names the file and the line."""
    path = jsonl([{"prompt": "a"}, {"prompt": "b"}, {"prompt": "c", "token_ids": "1 2"}])
    with pytest.raises(InputError, match=r"samples\.jsonl, line 3: 'token_ids' must be a list of whole numbers"):
        checked(path)


def test_a_misspelt_column_is_told_once(jsonl: Callable[..., Path]) -> None:
    """A misspelt field warns once for the whole file, not once a line."""
    warnings: list[str] = []
    file = checked(jsonl([{"prompt": "a", "respones": "b"}] * 3), warn=warnings.append)
    list(file.batches(1))
    (text,) = warnings
    assert "'respones' is not a field of a sample (did you mean 'response'?); it goes into the metadata" in text


@pytest.mark.parametrize("content", ["", "\n\n", "[]"])
def test_a_file_without_samples_is_an_error(tmp_path: Path, content: str) -> None:
    """Nothing to score is a mistake, not an empty result."""
    path = tmp_path / ("a.json" if content == "[]" else "a.jsonl")
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="holds no samples"):
        checked(path)


@pytest.mark.parametrize(("make", "message"), [(None, "no such file"), (Path.mkdir, "from a plain file")])
def test_what_is_no_file_is_an_error(tmp_path: Path, make: Callable[[Path], None] | None, message: str) -> None:
    """A missing file and a folder are told apart."""
    path = tmp_path / "a.jsonl"
    if make:
        make(path)
    with pytest.raises(InputError, match=message):
        SampleFile(path)


def longer(path: Path) -> None:
    write(path, "abcd")


def another_group(path: Path) -> None:
    status = path.stat()
    write(path, "abb")  # of the same size, and with the time put back
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def broken(path: Path) -> None:
    path.write_text("{", encoding="utf-8")


@pytest.mark.parametrize("change", [longer, another_group, broken, Path.unlink])
def test_a_file_that_changes_between_the_passes_is_an_error(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """Groups are counted in the first pass; a file that is another one in the second would be scored wrongly."""
    path = write(tmp_path / "a.jsonl", "abc")
    file = checked(path)
    change(path)
    with pytest.raises(InputError, match="has changed while it was read"):
        list(file.batches(2))
