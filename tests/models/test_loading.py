from __future__ import annotations

import json
import logging
import random
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_clip
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, CLIPModel, LlamaConfig, LlamaModel

from flux_rewards.errors import WeightsError
from flux_rewards.models.checkpoint import Checkpoint
from flux_rewards.models.loading import load_transformers
from flux_rewards.models.weights import blank

CPU = torch.device("cpu")
KEY = "vision_model.encoder.layers.1.mlp.fc1.weight"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP, as transformers saves it."""
    return tiny_clip.transformers_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(saved, tmp_path / "clip"))


def load(folder: Path, kind: Any = AutoModel, dtype: torch.dtype = torch.float32) -> Any:
    return load_transformers(kind, Checkpoint(str(folder)), CPU, dtype)


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_model_is_loaded_frozen(saved: Path, dtype: torch.dtype) -> None:
    """With the tensors of the file, in the precision; but for the logit scale, a lone number."""
    model = load(saved, dtype=dtype)
    assert isinstance(model, CLIPModel)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    expected = load_file(saved / "model.safetensors")
    state = model.state_dict()
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor.to(torch.float32 if name == "logit_scale" else dtype))


def states() -> tuple[Any, ...]:
    log = logging.getLogger("transformers.modeling_utils")
    return (
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),  # type: ignore[index]  # noqa: NPY002
        random.getstate(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        (log.level, list(log.filters), list(log.handlers), log.disabled, log.propagate),
        logging.root.level,
        torch.nn.init.normal_,
        torch.linspace,
    )


@pytest.mark.parametrize("change", [None, "drop", "cut"])
def test_global_state_is_left_as_it_was(folder: Path, change: str | None) -> None:
    """Where a model loads, where its file is broken, and where a tensor is missing, which transformers would draw."""
    if change == "drop":
        rewrite(folder, lambda tensors: tensors.pop(KEY))
    if change == "cut":
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-10])
    before = states()
    if change is None:
        load(folder, dtype=torch.bfloat16)
    else:
        with pytest.raises(WeightsError):
            load(folder, dtype=torch.bfloat16)
    assert states() == before


def rename(tensors: dict[str, torch.Tensor]) -> None:
    tensors["vision_model.other.weight"] = tensors.pop(KEY)


def misshape(tensors: dict[str, torch.Tensor]) -> None:
    tensors[KEY] = tensors[KEY][:, :5].clone()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda tensors: tensors.pop(KEY), rf"missing {KEY}$"),
        (rename, rf"missing {KEY}; unexpected vision_model\.other\.weight$"),
        (misshape, rf"misshaped {KEY} \(64, 5\) for \(64, 32\)$"),
        (lambda tensors: tensors.pop("logit_scale"), "missing logit_scale$"),
        (lambda tensors: tensors.clear() or tensors.update(other=torch.ones(1)), r"missing .* and \d+ more; unexp"),
    ],
)
def test_what_does_not_fit_is_named(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any], told: str) -> None:
    """With the checkpoint and the architecture."""
    rewrite(folder, change)
    with pytest.raises(WeightsError, match=rf"^{folder} does not fit CLIPModel: {told}"):
        load(folder)


def without(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).unlink()


def cut(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])


def config(**changes: Any) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        held = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**held, **changes}))

    return change


class Exploit:
    """What a pickle from strangers may hold."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("executed",)


def exploit(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"logit_scale": Exploit()}, folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    "change",
    [
        cut,
        exploit,
        without("model.safetensors"),
        without("config.json"),
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: (folder / "model.safetensors").write_bytes(b""),
        config(model_type="of tomorrow"),
        config(model_type="of tomorrow", auto_map={"AutoModel": "code.Model", "AutoConfig": "code.Config"}),
    ],
)
def test_what_cannot_be_read_is_an_error(
    folder: Path, change: Callable[[Path], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Of ours, in a line; no code that comes with a checkpoint runs, and nobody is asked on the terminal."""
    (folder / "code.py").write_text("print('executed')")
    change(folder)
    with pytest.raises(WeightsError, match=rf"^{folder} cannot be loaded \(\w+: .+\)$") as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert "executed" not in capsys.readouterr().out


def test_a_model_does_not_change_with_its_file(folder: Path) -> None:
    """A trainer may write its next checkpoint over it."""
    expected = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    model = load(folder)
    path = folder / "model.safetensors"
    with path.open("r+b") as file:  # in place: the file stays the same one
        file.write(bytes(path.stat().st_size))
    state = model.state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_positions_are_computed_in_full_precision(tmp_path: Path) -> None:
    """In bfloat16, rotary frequencies are off by 1/256: a whole turn at position 1600."""
    sizes: Any = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    with blank():
        made = LlamaModel(LlamaConfig(vocab_size=32, **sizes))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.fill_(0.01)
    made.save_pretrained(tmp_path)
    model = load(tmp_path, dtype=torch.bfloat16)
    expected = 10000 ** -(torch.arange(0, 16, 2) / 16)  # the definition; 16 is the width of a head
    assert model.rotary_emb.inv_freq.dtype == torch.float32
    assert torch.allclose(model.rotary_emb.inv_freq, expected, rtol=1e-6)
    assert model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16


def test_threads_load_at_once(saved: Path) -> None:
    """In several precisions, beside a thread that builds modules and one that computes: all get what they asked for."""
    expected = load_file(saved / "model.safetensors")
    precisions = [torch.bfloat16, torch.float32, torch.float16] * 2
    stop = False
    wrong: list[torch.dtype] = []

    def compute() -> None:
        while not stop:
            wrong.extend({torch.zeros(1).dtype, torch.tensor(0.5).dtype} - {torch.float32})

    def build() -> None:
        while not stop:
            with blank():
                made = torch.nn.Linear(4, 4)
            wrong.extend({made.weight.dtype} - {torch.float32})

    with ThreadPoolExecutor(8) as pool:
        beside = [pool.submit(compute), pool.submit(build)]
        try:
            models = list(pool.map(lambda dtype: load(saved, dtype=dtype), precisions))
        finally:
            stop = True
        for one in beside:
            one.result(60)
    assert not wrong
    for model, dtype in zip(models, precisions, strict=True):
        state = model.state_dict()
        several = [name for name in expected if name != "logit_scale"]  # a lone number keeps its precision
        assert all(torch.equal(state[name], expected[name].to(dtype)) for name in several)
