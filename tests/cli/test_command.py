from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flux_rewards.cli.app import app

Command = Callable[..., subprocess.CompletedProcess[str]]

REWARDS = """
rewards:
  - {name: correct, reward_model: numeric_answer}
  - {name: brief, reward_model: length, weight: 0.2, target: 40}
"""

SAMPLES = [
    {"prompt": "9 * 2?", "response": "A: 18", "reference": "18", "group_id": 1},
    {"prompt": "9 * 2?", "response": "A: 17", "reference": "18", "group_id": 1},
    {"prompt": "1 + 1?", "response": "A: 2", "reference": "2", "group_id": 2},
    {"prompt": "1 + 1?", "response": "#### 2", "reference": "2", "group_id": 2},
]


@pytest.fixture
def files(tmp_path: Path, jsonl: Callable[..., Path]) -> Path:
    """A configuration and a file of samples in the test's folder."""
    (tmp_path / "rewards.yaml").write_text(REWARDS, encoding="utf-8")
    jsonl(SAMPLES)
    return tmp_path


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "__pycache__")


def test_a_file_is_scored(files: Path, flux_rewards_command: Command) -> None:
    """The rows are in the file, the statistics on stdout, and nothing is on stderr, no progress bar either."""
    done = flux_rewards_command("score", "rewards.yaml", "samples.jsonl", "-o", "rows.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [json.loads(line) for line in (files / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["parts"]["correct"] for row in rows] == [1.0, 0.0, 1.0, 1.0]
    assert [row["group_id"] for row in rows] == [1, 1, 2, 2]
    cells = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.strip()}
    assert cells["correct"] == ["1", "0.75", "0.433", "0", "1", "0.0%", "0.0%", "50.0%"]
    assert cells["brief"] == ["0.2", "0.05", "0", "0.05", "0.05", "0.0%", "0.0%", "100.0%"]
    assert cells["total"][0] == "0.76"
    assert done.stdout.splitlines()[-1] == "4 rows written to rows.jsonl"


def test_without_groups_there_is_no_column_of_them(
    files: Path, jsonl: Callable[..., Path], flux_rewards_command: Command
) -> None:
    """Where every group has one sample, flat groups are not spoken of."""
    jsonl([SAMPLES[0], SAMPLES[2]])
    done = flux_rewards_command("score", "rewards.yaml", "samples.jsonl", "-o", "rows.csv")
    assert done.returncode == 0
    assert "mean" in done.stdout
    assert "flat groups" not in done.stdout


def test_a_bad_line_is_told_in_one_line(files: Path, flux_rewards_command: Command) -> None:
    """A bad line ends in exit code 1 and one line with the file and the line, and no output."""
    with (files / "samples.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"prompt": \n')
    done = flux_rewards_command("score", "rewards.yaml", "samples.jsonl", "-o", "rows.jsonl")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: samples.jsonl, line 5: invalid JSON")
    assert done.stderr.count("\n") == 1
    assert names_in(files) == ["rewards.yaml", "samples.jsonl"]


def test_a_misspelt_column_warns_on_stderr(
    files: Path, jsonl: Callable[..., Path], flux_rewards_command: Command
) -> None:
    """A warning goes to stderr, once, and the rows are written all the same."""
    jsonl([{**sample, "metdata": 1} for sample in SAMPLES])
    done = flux_rewards_command("score", "rewards.yaml", "samples.jsonl", "-o", "rows.jsonl")
    assert done.returncode == 0
    assert done.stderr == (
        "warning: samples.jsonl: 'metdata' is not a field of a sample (did you mean 'metadata'?); "
        "it goes into the metadata\n"
    )


SLOW = """
import pathlib
import time

def slow(sample):
    pathlib.Path("begun").touch()
    if sample.prompt == "1 + 1?":
        time.sleep(300)
    return 1.0
"""


# A process that was started in the background ignores Ctrl-C, and so do its children unless they say otherwise.
LISTENING = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from flux_rewards.cli import main; main()"
)


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_leaves_nothing_behind(
    files: Path, environment: dict[str, str], workers: int, sent: signal.Signals, code: int
) -> None:
    """Ctrl-C ends it quietly, without waiting for calls in flight; no file is left half-written."""
    (files / "slow_of_this_test.py").write_text(SLOW, encoding="utf-8")
    entry = {"reward_model": "function", "function": "slow_of_this_test.slow", "num_workers": workers}
    (files / "rewards.yaml").write_text(json.dumps({"rewards": [entry]}), encoding="utf-8")
    (files / "rows.jsonl").write_text("old", encoding="utf-8")
    arguments = ["score", "rewards.yaml", "samples.jsonl", "-o", "rows.jsonl", "--batch-size", "1"]
    with subprocess.Popen(
        [sys.executable, "-c", LISTENING, *arguments],
        cwd=files,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            for _ in range(1200):
                if (files / "begun").exists():
                    break
                time.sleep(0.05)
            process.send_signal(sent)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, out, err.strip()) == (code, "", "")
    (files / "begun").unlink()
    assert names_in(files) == ["rewards.yaml", "rows.jsonl", "samples.jsonl", "slow_of_this_test.py"]
    assert (files / "rows.jsonl").read_text(encoding="utf-8") == "old"


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals")
def test_a_terminal_sees_the_progress(files: Path, environment: dict[str, str]) -> None:
    """Where stderr is a terminal a bar is shown there."""
    ours, theirs = os.openpty()
    arguments = ["score", "rewards.yaml", "samples.jsonl", "-o", "rows.jsonl"]
    done = subprocess.run(
        [sys.executable, "-m", "flux_rewards", *arguments],
        cwd=files,
        env={**environment, "TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=theirs,
        timeout=120,
        check=True,
    )
    os.close(theirs)
    shown = os.read(ours, 100_000)
    os.close(ours)
    assert b"scoring" in shown
    assert b"4/4" in shown
    assert b"scoring" not in done.stdout


def test_a_reader_that_goes_away_is_no_error(files: Path, environment: dict[str, str]) -> None:
    """A closed pipe, as behind ``head``, ends it quietly."""
    process = subprocess.Popen(  # the test's own arguments
        [sys.executable, "-m", "flux_rewards", "list"],
        cwd=files,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=120)
    assert err == b""


def test_help_loads_nothing_heavy(environment: dict[str, str], tmp_path: Path) -> None:
    """The help is there without the libraries that models need."""
    program = (
        "import sys; from flux_rewards.cli import main; sys.argv = ['flux-rewards', 'score', '--help']\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print(sorted({'torch', 'transformers', 'numpy', 'PIL', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "SAMPLES" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ["score"],
        ["score", "a.yaml", "b.jsonl"],
        ["score", "a.yaml", "b.jsonl", "-o", "c.jsonl", "--batch-size", "0"],
        ["score", "a.yaml", "b.jsonl", "-o", "c.jsonl", "--max-failure-rate", "1.5"],
        ["info"],
        ["socre"],
    ],
)
def test_a_wrong_usage_has_exit_code_2(arguments: list[str]) -> None:
    """Missing arguments and impossible values are errors of usage."""
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert "Usage" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "rewards.yaml", "no.jsonl", "-o", "rows.jsonl"], "error: no.jsonl: there is no such file"),
        (["score", "no.yaml", "samples.jsonl", "-o", "rows.jsonl"], "error: no.yaml"),
        (["score", "rewards.yaml", "samples.jsonl", "-o", "samples.jsonl"], "error: samples.jsonl: is also an input"),
        (["score", "rewards.yaml", "samples.jsonl", "-o", "no/rows.jsonl"], "error: no/rows.jsonl: the folder no"),
        (["score", "rewards.yaml", "samples.jsonl", "-o", "rows.xls"], "error: rows.xls: rows cannot be of"),
        (["info", "lenght"], "did you mean 'length'"),
    ],
)
def test_what_goes_wrong_is_told_in_a_line(
    files: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    """Errors that the message explains have exit code 1, one line, and no traceback."""
    monkeypatch.chdir(files)
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, done.stdout) == (1, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback(files: Path, flux_rewards_command: Command) -> None:
    """With --debug the traceback is there."""
    done = flux_rewards_command("score", "rewards.yaml", "no.jsonl", "-o", "rows.jsonl", "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "InputError" in done.stderr


def test_an_error_of_the_system_names_the_file(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An OSError is told like any other error."""
    monkeypatch.chdir(files)
    done = CliRunner().invoke(app, ["score", "rewards.yaml", "samples.jsonl", "-o", f"{'x' * 300}.jsonl"])
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: ")
    assert done.stderr.endswith(".jsonl: File name too long\n") or ".tmp: File name too long" in done.stderr


def test_a_reward_in_the_working_folder_is_found(files: Path, environment: dict[str, str]) -> None:
    """By the installed command too, whose own folder is elsewhere."""
    (files / "my_rewards.py").write_text(
        "from flux_rewards import RewardFunction\n"
        "class Shouts(RewardFunction):\n"
        "    def compute_reward(self, sample):\n"
        "        return float(sample.response_text.isupper())\n"
    )
    (files / "mine.yaml").write_text("rewards: {reward_model: my_rewards.Shouts}\n")
    library = environment["PYTHONPATH"].split(os.pathsep)[0]
    arguments = ["score", "mine.yaml", "samples.jsonl", "-o", "rows.jsonl"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", "from flux_rewards.cli import main; main()", *arguments]
        if sys.version_info >= (3, 11)
        else [sys.executable, "-c", "from flux_rewards.cli import main; main()", *arguments],
        cwd=files,
        env={**environment, "PYTHONPATH": library},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Shouts" in done.stdout
