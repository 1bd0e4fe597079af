"""`flux-rewards evaluate`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flux_rewards.cli.app import app
from flux_rewards.cli.evaluate import evaluate_file
from flux_rewards.training.evaluate import evaluate_preferences
from flux_rewards.training.sources import load_preferences

REWARDS = "rewards:\n  - {name: brief, reward_model: length, target: 4}\n"
PAIRS = [
    {"question": "q", "better": "one two three", "worse": "one", "subset": "easy"},
    {"question": "r", "better": "one", "worse": "one two", "subset": "hard"},
]
COLUMNS = ["--column", "prompt=question", "--column", "chosen=better", "--column", "rejected=worse"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["evaluate", *arguments])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration and a file of pairs, in the working folder."""
    monkeypatch.chdir(tmp_path)
    Path("rewards.yaml").write_text(REWARDS, encoding="utf-8")
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS), encoding="utf-8")
    return tmp_path


def test_a_file_is_evaluated(folder: Path) -> None:
    """The table is printed, and the report is written, as the function gives them."""
    done = run("rewards.yaml", "pairs.jsonl", *COLUMNS, "--by", "metadata.subset", "-o", "report.json")
    assert done.exit_code == 0, done.output
    from flux_rewards import LengthReward

    columns = {"prompt": "question", "chosen": "better", "rejected": "worse"}
    expected = evaluate_preferences(LengthReward(4), load_preferences("pairs.jsonl", columns=columns), by="subset")
    assert json.loads(Path("report.json").read_text()) == {**expected.to_dict(), "source": "pairs.jsonl"}
    assert str(expected) in done.stdout
    assert expected.accuracy.strict == 0.5


def test_several_rewards_are_their_sum(folder: Path) -> None:
    """Of a weighted sum the parts are shown too; the cache knows the scores the second time."""
    two = REWARDS + "  - {name: words, reward_model: regex, pattern: two, weight: 2.0}\n"
    Path("rewards.yaml").write_text(two, encoding="utf-8")
    outputs = {run("rewards.yaml", "pairs.jsonl", *COLUMNS, "--cache", "scores.db").stdout for _ in range(2)}
    (text,) = outputs
    assert "part brief" in text
    assert "part words" in text


def test_dialogues_that_are_one_text(folder: Path) -> None:
    """The prompt ends where the command line says; without, prompts are unknown, and not counted."""
    begin = [f"Q: {number}?\nA:" for number in (1, 1, 2)]
    rows = [{"chosen": f"{asked} a b c d", "rejected": f"{asked} {at}"} for at, asked in enumerate(begin)]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    whole = evaluate_file(folder / "rewards.yaml", folder / "pairs.jsonl")
    assert "3 of 3 pairs, prompts unknown" in str(whole)
    cut = evaluate_file(folder / "rewards.yaml", folder / "pairs.jsonl", prompt_ends_with=r"\nA:")
    assert "3 of 3 pairs, 2 prompts (" in str(cut)
    assert (whole.accuracy.strict, cut.accuracy.strict) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pairs.jsonl"], "pairs.jsonl, line 1: there is no column 'chosen'"),
        (["missing.jsonl", *COLUMNS], "missing.jsonl: there is no such file"),
        (["pairs.jsonl", "--column", "chosen"], "expected NAME=COLUMN"),
        (["pairs.jsonl", *COLUMNS, "--by", "level"], "pair 0 has no 'level'"),
        (["pairs.jsonl", *COLUMNS, "-o", "pairs.jsonl"], "is also an input"),
    ],
)
def test_errors_are_one_line(folder: Path, arguments: list[str], message: str) -> None:
    """What is wrong is told in a line with exit code 1, and nothing is written."""
    done = run("rewards.yaml", *arguments)
    assert (done.exit_code, done.stdout) == (1, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(path.name for path in folder.iterdir()) == ["pairs.jsonl", "rewards.yaml"]
