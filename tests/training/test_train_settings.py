"""Settings of a training: what is refused, and that nothing is lost on the way through a file."""

from pathlib import Path
from typing import Any

import pytest

from flux_rewards.cli.train import settings_of
from flux_rewards.errors import ConfigError
from flux_rewards.models.text_format import TextFormat
from flux_rewards.training.settings import LoraSettings, TrainingSettings


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"learning_rate": 0}, "learning_rate must be"),
        ({"learning_rate": -1e-4}, "learning_rate must be"),
        ({"learning_rate": float("nan")}, "learning_rate must be"),
        ({"learning_rate": "1e-4"}, "learning_rate must be"),
        ({"epochs": 0}, "epochs must be"),
        ({"max_steps": 0}, "max_steps must be"),
        ({"batch_size": 2.5}, "batch_size must be"),
        ({"accumulation": 0}, "accumulation must be"),
        ({"warmup": 1.0}, "warmup is a share"),
        ({"warmup": -0.1}, "warmup must be"),
        ({"weight_decay": -0.1}, "weight_decay must be"),
        ({"max_grad_norm": 0}, "max_grad_norm must be"),
        ({"center_rewards": -0.01}, "center_rewards must be"),
        ({"max_length": 0}, "max_length must be"),
        ({"seed": -1}, "seed must be"),
        ({"seed": 2**32}, "seed must be"),
        ({"schedule": "cosin"}, r"did you mean 'cosine'\?"),
        ({"long_pairs": "drop"}, "long_pairs must be"),
        ({"precision": "fp8"}, "precision must be"),
        ({"use_margin": 1}, "use_margin must be True or False"),
        ({"gradient_checkpointing": "yes"}, "gradient_checkpointing must be True or False"),
        ({"format": "chat"}, "format must be a TextFormat"),
        ({"lora": {"rank": 8}}, "lora must be a LoraSettings"),
        ({"device": "cuda:1"}, "CUDA_VISIBLE_DEVICES"),
        ({"device": "tpu"}, "device must be"),
        ({"patience": 3}, "patience needs pairs to look at"),
        ({"keep_best": True}, "keep_best needs pairs to look at"),
        ({"evaluate_every": 10}, "evaluate_every needs pairs to look at"),
        ({"patience": 3, "validation": 0.1, "keep_best": False}, "leave keep_best on"),
        ({"save_every": 5, "validation": 0.1}, "set evaluate_every, not save_every"),
        ({"held_out": 0.5, "validation": 0.5}, "leave nothing to train on"),
        ({"schedule": "constant", "warmup": 0.2}, "constant_with_warmup"),
        ({"precision": "float16", "device": "cpu"}, "float16 is not trained on the CPU"),
        ({"quantization": "4bit"}, "set lora"),
        ({"quantization": "2bit"}, "quantization must be"),
        ({"quantization": "4bit", "lora": LoraSettings(merge=True)}, "not merged"),
        ({"quantization": "8bit", "lora": LoraSettings(), "device": "cpu"}, "needs a GPU"),
        ({"max_length": 64, "format": TextFormat("pair", 128)}, "give one of them"),
    ],
)
def test_bad_settings_are_refused(given: dict[str, Any], said: str) -> None:
    """Each value, and each pair of values that contradict one another, is refused when the settings are made."""
    with pytest.raises(ConfigError, match=said):
        TrainingSettings(**given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"targets": []}, "lora.targets must be"),
        ({"targets": "q_proj"}, "lora.targets must be"),
        ({"targets": [""]}, "lora.targets must be"),
        ({"rank": 0}, "lora.rank must be"),
        ({"alpha": 0}, "lora.alpha must be"),
        ({"dropout": 1.0}, "lora.dropout must be"),
        ({"merge": None}, "lora.merge must be"),
    ],
)
def test_bad_adapters_are_refused(given: dict[str, Any], said: str) -> None:
    """An adapter without targets, or with a rank of nothing, is refused when it is made."""
    with pytest.raises(ConfigError, match=said):
        LoraSettings(**given)


def test_a_file_of_settings(tmp_path: Path) -> None:
    """YAML, where 1e-4 is a text, and the command line over it."""
    file = tmp_path / "settings.yaml"
    file.write_text("learning_rate: 1e-4\nepochs: 2\nlora: {rank: 4, targets: [q_proj]}\n")
    found = settings_of(file, ["epochs=3", "lora.alpha=8", "weight_decay=1e-2"])
    assert found == TrainingSettings(
        learning_rate=1e-4, epochs=3, weight_decay=0.01, lora=LoraSettings(rank=4, alpha=8, targets=["q_proj"])
    )


@pytest.mark.parametrize(
    ("text", "given", "said"),
    [
        ("[1, 2]", [], "expected settings such as"),
        ("epoch: 2", [], "did you mean 'epochs'"),
        ("lora: {ranks: 2}", [], "did you mean 'rank'"),
        ("lora: 8", ["lora.rank=4"], "lora is 8"),
        ("epochs: 2", ["epochs"], "KEY=VALUE"),
        ("format: {template: no place}", [], "template must be"),
    ],
)
def test_bad_files_of_settings(tmp_path: Path, text: str, given: list[str], said: str) -> None:
    """What a file has that no setting is called is named."""
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        settings_of(file, given)
