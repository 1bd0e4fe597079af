"""The example from rated answers to a composite, and the command line, as a user runs them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_training as tiny
from hub import Hub
from typer.testing import CliRunner

from flux_rewards.cli.app import app
from flux_rewards.training.preferences_data import PreferenceData

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_reward_model.py"


@pytest.mark.slow
def test_from_rated_answers_to_a_composite(tmp_path: Path) -> None:
    """Real pairs, a model from scratch, and the same scores in a fresh process; in a small version, warnings errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLE), str(tmp_path / "out"), "--epochs", "0.25"],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = re.search(r"accuracy (\S+) \[(\S+), (\S+)\] on (\d+) held-out pairs of 40 prompts", done.stdout)
    assert said is not None, done.stdout
    accuracy, low, high = map(float, said.groups()[:3])
    assert 0.0 <= low <= accuracy <= high <= 1.0
    apart = re.search(r"differ by (\S+) at most", done.stdout)
    assert apart is not None
    assert float(apart[1]) <= 1e-6
    assert "calibrated: " in done.stdout
    assert re.search(r"composite \[.+\]\nlearned   \[.+\]\ncorrect   \[.+\]", done.stdout)
    assert (tmp_path / "out" / "model" / "reward_model.json").is_file()


@pytest.mark.slow
def test_the_command_line(tmp_path: Path) -> None:
    """A language model on disk, a file of pairs with columns of other names, and settings from both places."""
    import torch
    import transformers

    torch.manual_seed(0)
    base, file, settings = tmp_path / "base", tmp_path / "pairs.jsonl", tmp_path / "settings.yaml"
    transformers.LlamaForCausalLM(tiny.config()).save_pretrained(base)
    tiny.tokenizer().save_pretrained(base)
    tiny.pairs(120).save(file)
    file.write_text(file.read_text().replace('"chosen"', '"better"'))
    settings.write_text("learning_rate: 5e-3\nbatch_size: 16\ndevice: cpu\n")
    arguments = ["train", str(base), str(file), "--out", str(tmp_path / "out"), "--column", "chosen=better"]
    arguments += ["--settings", str(settings), "--set", "epochs=3", "--set", "held_out=0.25"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "on 30 held-out pairs of 30 prompts" in done.stdout
    assert "longer answer" in done.stdout
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 1
    assert "holds a trained model" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "learning_rate=0"], "learning_rate must be"),
        (["--set", "lora.rnk=8"], "did you mean 'rank'"),
        (["--settings", "no.yaml"], "no.yaml"),
        (["--column", "chosen=nothing"], "nothing"),
        (["--aspect", "metadata.aspect"], "has no 'metadata.aspect'"),
    ],
)
def test_wrong_commands(tmp_path: Path, arguments: list[str], said: str) -> None:
    """One line, exit code 1, and nothing is written."""
    file = tmp_path / "pairs.jsonl"
    PreferenceData(tiny.pairs(4)).save(file)
    done = CliRunner().invoke(app, ["train", "no/model", str(file), "--out", str(tmp_path / "out"), *arguments])
    assert done.exit_code == 1, done.output
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("row", "arguments", "said"),
    [
        ({"question": "2?"}, [], "--column prompt=question"),
        ({"question": "2?"}, ["--column", "prompt=questions"], "did you mean 'question'"),
        ({}, ["--prompt-ends-with", r"\nA:"], "is not in what both texts begin with"),
        ({"question": "2?"}, ["--column", "prompt=question"], "neither a path that exists"),
        ({"prompt": '[{"role": "user", "content": "2?"}]'}, [], "json_columns=['prompt', ...]"),
        ({"prompt": '["2?"]'}, ["--json-column", "prompt"], "message 0 must be a mapping"),
        ({"question": "2?"}, ["--column", "prompt="], "neither a path that exists"),
        ({"chosen": "Q: 2?\nA: 2", "rejected": "Q: 2?\nA: 3"}, ["--prompt-ends-with", r"\nA:"], "neither a path"),
    ],
)
def test_prompts_must_be_found(tmp_path: Path, row: dict[str, str], arguments: list[str], said: str) -> None:
    """Without them the command ends with what to do; with them, or told that there are none, it looks for the model."""
    rows = [{"chosen": "good w1", "rejected": "w2", **row} for _ in range(4)]
    texts = [
        json.dumps(one).replace("2?", f"{number}?").replace("w1", f"w1{number}") for number, one in enumerate(rows)
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(texts))
    options = ["--out", str(tmp_path / "out"), "--set", "device=cpu", *arguments]
    done = CliRunner().invoke(app, ["train", "neither path nor id", str(file), *options])
    assert done.exit_code == 1, done.output
    assert said in done.stderr
    assert not (tmp_path / "out").exists()


_SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[1])
import tiny_training as tiny
from flux_rewards.training.settings import LoraSettings, TrainingSettings
from flux_rewards.training.train import train_reward_model

settings = TrainingSettings(learning_rate=5e-3, batch_size=8, max_steps=3, device="cpu", lora=LoraSettings(rank=2))
found = train_reward_model("org/model", tiny.pairs(60), None, sys.argv[2], settings, revision="main")
if found.run.main:
    config = json.loads((found.path / "adapter_config.json").read_text())
    print(config["base_model_name_or_path"], config["revision"], found.facts["base_model"])
print("main" if found.run.main else "other", found.held_out is not None, flush=True)
"""


@pytest.mark.slow
def test_two_processes_with_a_model_of_the_hub(tmp_path: Path) -> None:
    """Started by torch's launcher, as `accelerate launch` does: both train, one measures and writes.

    The adapter names its base by hub id and revision, not by a directory of this machine; and is scored so.
    """
    import transformers

    base, script = tmp_path / "base", tmp_path / "script.py"
    transformers.LlamaForCausalLM(tiny.config()).save_pretrained(base)
    tiny.tokenizer().save_pretrained(base)
    script.write_text(_SCRIPT)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    with Hub() as hub:
        hub.add("org/model", {path.name: path.read_bytes() for path in base.iterdir()})
        done = subprocess.run(
            [*launcher, str(script), str(Path(tiny.__file__).parent), str(tmp_path / "model")],
            capture_output=True,
            text=True,
            timeout=170,
            check=False,
            env={**hub.environment(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
        )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["main True", "org/model main org/model@main", "other False"]
    assert (tmp_path / "model" / "README.md").is_file()
