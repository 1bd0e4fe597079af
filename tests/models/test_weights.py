from __future__ import annotations

import os
import random
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_clip
import torch
from safetensors.torch import save_file

from flux_rewards.errors import WeightsError
from flux_rewards.models.weights import blank, check_keys, load_exactly, read_tensors

STATE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor([1.0, -1.0])}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pth", "w.bin", "pytorch_model"])
def test_named_tensors_are_read(tmp_path: Path, name: str) -> None:
    """Of either format, as they were saved."""
    path = tmp_path / name
    save_file(STATE, path) if path.suffix == ".safetensors" else torch.save(OrderedDict(STATE), path)
    assert same(read_tensors(path), STATE)


def test_an_entry_of_a_pickle_is_read(tmp_path: Path) -> None:
    """Training scripts save more than weights beside them; numbers and texts are no code."""
    path = tmp_path / "w.pt"
    torch.save({"epoch": 3, "state_dict": STATE, "args": {"name": "ViT"}}, path)
    assert same(read_tensors(path, under="state_dict"), STATE)
    with pytest.raises(WeightsError, match=r"w\.pt has no entry 'model'; it holds epoch, state_dict, args"):
        read_tensors(path, under="model")
    with pytest.raises(WeightsError, match=r"something else than tensors by name: epoch, state_dict, args"):
        read_tensors(path)


@pytest.mark.parametrize("held", [[torch.ones(1)], torch.ones(1), {1: torch.ones(1)}, {"a": {"b": torch.ones(1)}}, 3])
def test_what_is_no_mapping_of_names_to_tensors_is_an_error(tmp_path: Path, held: Any) -> None:
    """It names the file."""
    torch.save(held, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"w\.pt holds something else than tensors by name"):
        read_tensors(tmp_path / "w.pt")


class Exploit:
    """What a pickle from strangers may hold."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_pickle_is_refused(tmp_path: Path, legacy: bool) -> None:
    """It does not run, in today's format and in the older one; the message says what it is, and what to do."""
    path = tmp_path / "w.bin"
    held = {"weight": torch.ones(1), "more": Exploit(tmp_path / "executed")}
    torch.save(held, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match=r"w\.bin holds more than tensors \(posix\.mkdir\).*safetensors"):
        read_tensors(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("kept", [0, 5, 60, 0.5, 0.99])
def test_a_file_that_was_cut_short_is_an_error(tmp_path: Path, name: str, kept: float) -> None:
    """However much is left of it; the message says to fetch it again."""
    path = tmp_path / name
    state = {"weight": torch.zeros(100, 10)}
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept if kept > 1 else kept * len(whole))])
    with pytest.raises(WeightsError, match=rf"{name} cannot be read as .*fetch it again"):
        read_tensors(path)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_a_file_that_is_not_there_is_an_error(tmp_path: Path, name: str) -> None:
    """Of ours."""
    with pytest.raises(WeightsError, match=rf"{name} cannot be read"):
        read_tensors(tmp_path / name)


def test_a_web_page_in_place_of_weights_is_an_error(tmp_path: Path) -> None:
    """As a proxy sends it."""
    for name in ("w.safetensors", "w.pt"):
        (tmp_path / name).write_text("<html>please log in</html>" * 100)
        with pytest.raises(WeightsError, match="cannot be read"):
            read_tensors(tmp_path / name)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_weights_do_not_change_with_their_file(tmp_path: Path, name: str) -> None:
    """A trainer may write its next checkpoint over it."""
    path = tmp_path / name
    state = {"weight": torch.ones(100_000)}
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    read = read_tensors(path)
    with path.open("r+b") as file:  # in place: the file stays the same one
        file.write(bytes(path.stat().st_size))
    assert same(read, state)


def module() -> torch.nn.Module:
    """A parameter, a buffer that is saved, one that is not, and a parameter under two names."""
    held = torch.nn.Module()
    held.layer = torch.nn.Linear(3, 2)
    held.tied = held.layer
    held.register_buffer("count", torch.tensor(3))
    held.register_buffer("mask", torch.ones(2), persistent=False)
    return held


FITTING = {
    **{f"{layer}.{name}": tensor for layer in ("layer", "tied") for name, tensor in STATE.items()},
    "count": torch.tensor(7),
}


def test_tensors_are_put_into_a_module() -> None:
    """All that it saves, into buffers too, whatever their floating-point type is."""
    held = module()
    load_exactly(held, {**FITTING, "layer.bias": STATE["bias"].half(), "tied.bias": STATE["bias"].half()}, "w.pt")
    assert same(held.state_dict(), FITTING | {name: STATE["bias"].half() for name in ("layer.bias", "tied.bias")})
    assert torch.equal(held.get_buffer("mask"), torch.ones(2))
    on_meta = torch.nn.Linear(3, 2, device="meta")
    load_exactly(on_meta, STATE, "w.pt")
    assert torch.equal(on_meta(torch.ones(1, 3)), torch.tensor([[4.0, 11.0]]))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"count": None}, "missing count"),
        ({"layer.bias": None, "tied.bias": None}, "missing layer.bias, tied.bias"),
        ({"extra": torch.ones(1)}, "unexpected extra"),
        ({"mask": torch.ones(2)}, "unexpected mask"),
        ({"layer.weight": torch.ones(3, 2)}, r"misshaped layer.weight \(3, 2\) for \(2, 3\)"),
        ({"layer.bias": torch.ones(())}, r"misshaped layer.bias \(\) for \(2,\)"),
        ({"layer.bias": torch.ones(2, dtype=torch.int8)}, r"misshaped layer.bias int8 \(2,\) for \(2,\)"),
        ({"count": torch.tensor(1.0)}, r"misshaped count \(\) for int64 \(\)"),
        ({"count": None, "extra": torch.ones(1), "layer.bias": torch.ones(3)}, "missing count; unexpected .*; missh"),
        ({f"extra{index}": torch.ones(1) for index in range(9)}, "unexpected extra0, .*extra4 and 4 more"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], told: str) -> None:
    """By its kind, before anything is put in."""
    held = module()
    before = {name: tensor.clone() for name, tensor in held.state_dict().items()}
    tensors = {name: tensor for name, tensor in {**FITTING, **change}.items() if tensor is not None}
    with pytest.raises(WeightsError, match=rf"^w\.pt does not fit Module: {told}"):
        load_exactly(held, tensors, "w.pt")
    assert same(held.state_dict(), before)


def test_names_may_be_ignored() -> None:
    """Where they are left over, or are buffers that have a value; a parameter is never left without one."""
    held = module()
    tensors = {name: tensor for name, tensor in FITTING.items() if name != "count"}
    load_exactly(held, {**tensors, "extra": torch.ones(1)}, "w.pt", ignore=("count", "extra"))
    assert int(held.get_buffer("count")) == 3
    del tensors["layer.bias"]
    with pytest.raises(WeightsError, match=r"missing layer\.bias$"):
        load_exactly(held, tensors, "w.pt", ignore=("count", "layer.bias"))
    with pytest.raises(WeightsError, match="missing count"):
        load_exactly(module().to("meta"), dict(list(FITTING.items())[:4]), "w.pt", ignore=("count",))


def test_nothing_amiss_is_no_error() -> None:
    """And lists are told in full where they are short."""
    check_keys("w.pt", "Model")
    with pytest.raises(WeightsError, match=r"^w\.pt does not fit Model: missing a, b, c, d, e$"):
        check_keys("w.pt", "Model", missing=list("abcde"))


def states() -> tuple[Any, ...]:
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]  # noqa: NPY002


def test_building_in_blank_draws_nothing() -> None:
    """Nor does it move a generator: all layers of torch, and every way to fill a tensor by chance."""
    generator = torch.Generator().manual_seed(1)
    before = states(), generator.get_state().tolist()
    with blank():
        layers = [
            torch.nn.Linear(3, 2),
            torch.nn.Conv2d(3, 2, 1),
            torch.nn.Embedding(4, 2, padding_idx=0),
            torch.nn.MultiheadAttention(4, 2, add_bias_kv=True),
            torch.nn.TransformerEncoderLayer(4, 2),
            torch.nn.LSTM(3, 2),
            torch.nn.BatchNorm2d(3),
            torch.nn.Bilinear(2, 2, 2),
            torch.nn.PReLU(),
        ]
        filled = torch.empty(3, 3)
        for name in ("uniform_", "normal_", "trunc_normal_", "xavier_uniform_", "xavier_normal_", "orthogonal_"):
            assert getattr(torch.nn.init, name)(filled) is filled
        for name in ("kaiming_uniform_", "kaiming_normal_"):
            assert getattr(torch.nn.init, name)(tensor=filled) is filled
        torch.nn.init.sparse_(filled, 0.5)
        assert filled.normal_() is filled
        assert filled.uniform_(generator=generator) is filled
        assert sorted(torch.randperm(5).tolist()) == [0, 1, 2, 3, 4]
        drawn = [
            torch.randn_like(filled)[:2],
            torch.randn(2, 3),
            torch.rand(2, 3, generator=generator),
            torch.randn((2, 3), dtype=torch.float64),
        ]
    assert [tuple(tensor.shape) for tensor in drawn] == [(2, 3)] * 4
    assert drawn[-1].dtype == torch.float64
    assert (states(), generator.get_state().tolist()) == before
    assert all(parameter.requires_grad for layer in layers for parameter in layer.parameters())


def test_what_is_not_drawn_is_made_as_ever() -> None:
    """Constants, masks, positions, and the values that buffers begin with."""
    with blank():
        norm = torch.nn.BatchNorm1d(3)
        tensors = [
            torch.nn.init.constant_(torch.empty(2), 5.0),
            torch.nn.init.eye_(torch.empty(2, 2)),
            torch.nn.init.zeros_(torch.empty(2)),
            torch.nn.init.dirac_(torch.empty(1, 1, 3)),
            torch.full((2, 2), -torch.inf).triu_(1),
            torch.arange(3) * 2,
        ]
    expected = [[5, 5], [[1, 0], [0, 1]], [0, 0], [[[0, 1, 0]]], [[0, -torch.inf], [0, 0]], [0, 2, 4]]
    assert [tensor.tolist() for tensor in tensors] == expected
    assert [buffer.tolist() for buffer in norm.buffers()] == [[0, 0, 0], [1, 1, 1], 0]
    assert norm.weight.tolist() == [1, 1, 1]


@pytest.mark.slow
def test_a_blank_open_clip_model_has_its_mask() -> None:
    """Loaded with the same tensors it is the model that was saved, buffers among them."""
    from open_clip.model import CLIP

    state = tiny_clip.open_clip_state()
    usual = CLIP(**tiny_clip.open_clip_architecture())
    before = torch.get_rng_state()
    with blank():
        built = CLIP(**tiny_clip.open_clip_architecture())
    assert torch.equal(torch.get_rng_state(), before)
    load_exactly(built, state, "w.pt")
    mask = torch.tensor([[0.0 if column <= row else -torch.inf for column in range(77)] for row in range(77)])
    assert torch.equal(built.attn_mask, mask)
    usual.load_state_dict(state)
    assert same(dict(built.named_buffers()), dict(usual.named_buffers()))
    tokens = torch.randint(1, 400, (2, 77), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(built.eval().encode_text(tokens), usual.eval().encode_text(tokens))


def test_other_threads_draw_while_one_builds() -> None:
    """A trainer beside it must not get memory for noise."""
    building, drawn = threading.Event(), threading.Event()
    found: list[torch.Tensor] = []

    def draw() -> None:
        assert building.wait(60)
        found.extend([torch.randn(1000), torch.nn.Linear(10, 10).weight.detach()])
        drawn.set()

    thread = threading.Thread(target=draw)
    with torch.random.fork_rng(devices=[]):
        thread.start()
        with blank():
            building.set()
            assert drawn.wait(60)
        thread.join()
    assert abs(float(found[0].std()) - 1) < 0.2
    assert 0 < float(found[1].abs().max()) <= 10**-0.5 + 1e-6  # the bound of torch's initialisation


def test_one_thread_builds_at_a_time() -> None:
    """And may build within what it builds; after a failure, others go on."""
    inside, worst = 0, 0
    lock = threading.Lock()

    def build(index: int) -> None:
        nonlocal inside, worst
        try:
            with blank(), blank():
                with lock:
                    inside += 1
                    worst = max(worst, inside)
                torch.nn.Linear(50, 50)
                with lock:
                    inside -= 1
                [][index]
        except IndexError:
            pass

    threads = [threading.Thread(target=build, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert worst == 1
