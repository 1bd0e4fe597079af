from __future__ import annotations

from pathlib import Path

import pytest

from flux_rewards.cli.output import check_output, complete_or_absent
from flux_rewards.errors import InputError


def test_the_file_appears_whole_and_readable_like_any_other(tmp_path: Path) -> None:
    """The old file stands until the new one is complete, and the new one has ordinary permissions."""
    path, other = tmp_path / "rows.jsonl", tmp_path / "other"
    path.write_bytes(b"old")
    other.write_bytes(b"")
    with complete_or_absent(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode == other.stat().st_mode
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["other", "rows.jsonl"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_nothing_behind(tmp_path: Path, error: type[BaseException]) -> None:
    """Whatever ends the writing early, the old file stands and no other one stays."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"old")
    with pytest.raises(error), complete_or_absent(path) as file:  # noqa: PT012
        file.write(b"half")
        raise error
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    """The file that a link points to is replaced, not the link."""
    (tmp_path / "elsewhere").mkdir()
    link, target = tmp_path / "rows.jsonl", tmp_path / "elsewhere" / "rows.jsonl"
    link.symlink_to(target)
    with complete_or_absent(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("missing/rows.jsonl", "the folder .*missing does not exist"),
        ("folder.jsonl", "is a folder"),
        ("samples.jsonl", "is also an input"),
        ("folder.jsonl/../samples.jsonl", "is also an input"),
        ("link.jsonl", "is also an input"),
        ("hard.jsonl", "is also an input"),
        ("r.json", "is also an input"),
    ],
)
def test_a_path_that_cannot_be_written_is_refused_early(tmp_path: Path, out: str, message: str) -> None:
    """A missing folder, a folder, and an input by any name are refused before anything is done."""
    inputs = [tmp_path / "samples.jsonl", tmp_path / "r.json"]
    for path in inputs:
        path.touch()
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "link.jsonl").symlink_to(inputs[0])
    (tmp_path / "hard.jsonl").hardlink_to(inputs[0])
    with pytest.raises(InputError, match=message):
        check_output(tmp_path / out, inputs)


@pytest.mark.parametrize("out", ["rows.jsonl", "old.jsonl"])
def test_a_path_of_its_own_is_fine(tmp_path: Path, out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new name, or that of an earlier result, is fine, also one without a folder."""
    (tmp_path / "old.jsonl").touch()
    monkeypatch.chdir(tmp_path)
    check_output(Path(out), [Path("samples.jsonl")])
