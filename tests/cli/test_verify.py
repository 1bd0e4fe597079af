"""The command `verify`, with tiny weights in the real formats."""

from pathlib import Path
from typing import Any

import pytest
import tiny_clip
import torch
from tiny_rewards import CONFIGS
from typer.testing import CliRunner

from flux_rewards.cli.app import app
from flux_rewards.errors import ConfigError
from flux_rewards.verification import VERIFIABLE, Comparison, verify


def params(config: dict[str, Any]) -> list[str]:
    return [word for key, value in config.items() for word in ("--param", f"{key}={value}")]


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["verify", *words])
    return done.exit_code, done.output


@pytest.mark.parametrize("name", ["PickScore", "CLIP", "HPSv2", "aesthetic_score", "vqa_score"])
def test_ours_agree_with_the_original_computation(name: str, tmp_path: Path) -> None:
    """On the images that ship with the package, with weights that nobody trained."""
    config = CONFIGS[name](tmp_path)
    config = {**config, "device": "cpu", "dtype": "float32"}
    comparisons = verify(name, **config)
    assert [comparison.agrees for comparison in comparisons if not comparison.reason] == [True]
    assert len(set(comparisons[0].ours)) == 4


def test_the_command_prints_ours_theirs_and_the_difference(tmp_path: Path) -> None:
    """And ends with 0 where they agree."""
    path = tiny_clip.transformers_clip(tmp_path, size=224, patch_size=32)
    code, output = run("pickscore", *params({"model_name_or_path": path, "processor_name_or_path": path}))
    assert code == 0, output
    assert "agrees" in output
    assert output.count("+0.0") + output.count("-0.0") >= 4


def test_weights_that_are_not_the_published_ones_differ(tmp_path: Path) -> None:
    """From the README's scores: exit code 1; the package that is not installed is named."""
    code, output = run("ImageReward", *params(CONFIGS["ImageReward"](tmp_path)))
    assert code == 1, output
    assert "DIFFERS" in output
    assert "0.58" in output
    assert "image-reward is not installed" in output


def test_an_original_that_fails_is_told_and_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not ours may fail in any way; with nothing to compare, the exit code is 2."""
    from flux_rewards.verification import originals

    def broken(*_: object, **__: object) -> Any:
        raise torch.cuda.OutOfMemoryError("no room")

    monkeypatch.setattr(originals, "_clip", broken)
    path = tiny_clip.transformers_clip(tmp_path)
    code, output = run("CLIP", *params({"model_name_or_path": path}))
    assert code == 2, output
    assert "not compared: OutOfMemoryError: 'no room'" in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["length"], "no published scores"),
        (["PickScor"], "did you mean 'PickScore'"),
        (["PickScore", "--param", "device"], "expected KEY=VALUE"),
        (["PickScore", "--param", "scaling=/26"], "leave out scaling"),
        (["CLIP", "--param", "modl=3"], "has no parameter 'modl'"),
        (["PickScore", "--param", "model_name_or_path=/nowhere/at/all"], "neither a path that exists"),
    ],
)
def test_what_cannot_be_verified_says_why(words: list[str], message: str) -> None:
    """In one line."""
    code, output = run(*words)
    assert code == 1
    assert message in output
    assert "Traceback" not in output


def test_a_comparison_knows_what_it_knows() -> None:
    """Nothing is neither agreement nor disagreement."""
    assert Comparison("x", [1.0, 2.0], [1.0, 2.2], tolerance=0.1).agrees is False
    assert Comparison("x", [1.0], [], tolerance=0.1).agrees is None
    assert Comparison("x", [1.0, 1.0], [1.0, float("nan")], tolerance=0.1).agrees is False
    assert Comparison("x", [1.0, 2.0], [1.0, 2.2], tolerance=0.1).differences == pytest.approx([0.0, -0.2])


def test_any_name_of_a_reward_will_do() -> None:
    """Aliases are the same reward."""
    assert "CLIP" in VERIFIABLE
    with pytest.raises(ConfigError, match="neither a path"):
        verify("clip_score", model_name_or_path="/nowhere")
