"""What a reward is given behind a server is what it is given here, whatever form the caller has it in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_faces
import torch
from PIL import Image
from rewards_that_look import FLOATS, GRAY, LOOKING, PIXELS, Members
from same_batches import assert_same

from flux_rewards import (
    CompositeReward,
    LengthReward,
    RewardFunction,
    Sample,
    load_rewards,
)
from flux_rewards.remote.remote_reward import RemoteReward
from flux_rewards.testing import example_samples

_random = np.random.default_rng(5)
KEYED = Image.fromarray(PIXELS).quantize(4)
KEYED.info["transparency"] = 2


def _with_alpha() -> Image.Image:
    return Image.fromarray(_random.integers(0, 256, size=(6, 10, 4), dtype=np.uint8), "RGBA")


IMAGES: dict[str, Any] = {
    **{f"PIL {mode}": Image.fromarray(PIXELS).convert(mode) for mode in ("RGB", "L", "P", "1", "CMYK", "HSV", "YCbCr")},
    "PIL RGBA": _with_alpha(),
    "PIL LA": _with_alpha().convert("LA"),
    "PIL P with a colour for none": KEYED,
    "PIL LAB": Image.fromarray(PIXELS, "LAB"),
    "PIL I;16": Image.fromarray(GRAY),
    "PIL I": Image.fromarray(GRAY.astype(np.int32)),
    "PIL F": Image.fromarray(FLOATS[..., 0].astype(np.float32)),
    "uint8 HWC": PIXELS,
    "uint8 CHW": PIXELS.transpose(2, 0, 1),
    "uint8 HW": PIXELS[..., 0],
    "uint8 HW1": PIXELS[..., :1],
    "uint8 RGBA": _random.integers(0, 256, size=(6, 10, 4), dtype=np.uint8),
    "uint8 reversed": PIXELS[::-1, ::-2],
    "uint8 fortran": np.asfortranarray(PIXELS),
    **{f"{kind.__name__} HWC": FLOATS.astype(kind) for kind in (np.float16, np.float32, np.float64)},
    "float32 CHW": FLOATS.transpose(2, 0, 1).astype(np.float32),
    "float32 big-endian": FLOATS.astype(">f4"),
    "longdouble": FLOATS.astype(np.longdouble),
    "slightly over": FLOATS.astype(np.float32) * 1.0005,
    "3x3 HWC": FLOATS[:3, :3],
    "3x3 tensor": torch.from_numpy(FLOATS[:3, :3].copy()),
    "tensor uint8 CHW": torch.from_numpy(PIXELS).permute(2, 0, 1),
    "tensor uint8 HWC": torch.from_numpy(PIXELS),
    **{
        f"tensor {kind} CHW": torch.from_numpy(FLOATS).permute(2, 0, 1).to(kind)
        for kind in (torch.bfloat16, torch.float16, torch.float32, torch.float64)
    },
    "tensor with a gradient": torch.from_numpy(FLOATS).permute(2, 0, 1).float().requires_grad_(),
    "tensor parameter": torch.nn.Parameter(torch.from_numpy(FLOATS).permute(2, 0, 1).float()),
}


@pytest.mark.parametrize("form", LOOKING)
@pytest.mark.parametrize("kind", IMAGES)
def test_every_form_of_an_image(kind: str, form: str, servers: Callable[[RewardFunction], str]) -> None:
    """What the author's code sees is the same, pixel by pixel, wherever the image stands."""
    image = IMAGES[kind]
    samples = [
        Sample(image=image),
        Sample(condition_images=[image, PIXELS]),
        Sample(condition_images=(image,)),
        Sample(condition_images=image),
        Sample(video=[image, image]),
        Sample(condition_videos=[[image], [image, image]]),
    ]
    remote = RemoteReward(servers(LOOKING[form]))
    assert_same(LOOKING[form](samples), remote(samples))


@pytest.mark.parametrize("form", LOOKING)
@pytest.mark.parametrize("batch", ["array", "channels first", "floats", "tensor", "bfloat16"])
def test_videos_and_stacks(batch: str, form: str, servers: Callable[[RewardFunction], str]) -> None:
    """Videos as arrays and tensors (T, ...), condition media as (N, ...) and (N, T, ...)."""
    frames = _random.integers(0, 256, size=(4, 6, 10, 3), dtype=np.uint8)
    clip: Any = {
        "array": frames,
        "channels first": frames.transpose(0, 3, 1, 2),
        "floats": frames.astype(np.float32) / 255,
        "tensor": torch.from_numpy(frames).permute(0, 3, 1, 2),
        "bfloat16": (torch.from_numpy(frames).permute(0, 3, 1, 2) / 255).bfloat16(),
    }[batch]
    stacked = torch.stack([clip, clip]) if isinstance(clip, torch.Tensor) else np.stack([clip, clip])
    samples = [
        Sample(video=clip),
        Sample(condition_images=clip),
        Sample(condition_videos=stacked),
        Sample(condition_videos=clip),
        Sample(condition_videos=[clip, clip]),
    ]
    assert_same(LOOKING[form](samples), RemoteReward(servers(LOOKING[form]))(samples))


def _write_video(path: Path) -> Path:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(8))
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), 40 * number, dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Images and a video on the client's disk; the server is told no names."""
    folder = tmp_path_factory.mktemp("files")
    turned = Image.Exif()
    turned[0x0112] = 6  # a camera held upright
    Image.fromarray(PIXELS).save(folder / "turned.jpg", exif=turned)
    Image.fromarray(PIXELS).save(folder / "plain.png")
    _with_alpha().save(folder / "alpha.webp", lossless=True)
    Image.fromarray(GRAY).save(folder / "gray16.png")
    _write_video(folder / "clip.mp4")
    return {path.stem: path for path in folder.iterdir()}


@pytest.mark.parametrize("form", LOOKING)
@pytest.mark.parametrize("as_text", [False, True], ids=["path", "text"])
def test_files(form: str, as_text: bool, files: dict[str, Path], servers: Callable[[RewardFunction], str]) -> None:
    """They are read where they are: on the client's side."""
    names: dict[str, Any] = {stem: str(path) if as_text else path for stem, path in files.items()}
    clip = names.pop("clip")
    samples = [
        *(Sample(image=name) for name in names.values()),
        Sample(condition_images=list(names.values())),
        Sample(condition_images=names["plain"]),
        Sample(video=clip, condition_videos=[clip, clip]),
        Sample(condition_videos=clip),
        Sample(video=[names["plain"], names["plain"]]),
    ]
    assert_same(LOOKING[form](samples), RemoteReward(servers(LOOKING[form]))(samples))


def test_a_lazily_opened_image(files: dict[str, Path], servers: Callable[[RewardFunction], str]) -> None:
    """As trainers pass them: opened, and not yet read."""
    expected = LOOKING["pil"]([Sample(image=Image.open(files["plain"]))])
    assert_same(expected, RemoteReward(servers(LOOKING["pil"]))([Sample(image=Image.open(files["plain"]))]))


@pytest.mark.parametrize("kind", ["path", "text", "PIL", "RGBA", "array", "tensor", "list", "paths"])
def test_references_that_are_images(
    kind: str, files: dict[str, Path], servers: Callable[[RewardFunction], str], faces: RewardFunction
) -> None:
    """A reward whose references are media gets them, too, and reads no file of the server for them."""
    pixels = _random.integers(0, 256, size=(32, 32, 3), dtype=np.uint8)
    reference: Any = {
        "path": files["plain"],
        "text": str(files["plain"]),
        "PIL": Image.fromarray(pixels),
        "RGBA": _with_alpha(),
        "array": pixels,
        "tensor": torch.from_numpy(pixels).permute(2, 0, 1) / 255,
        "list": [pixels, Image.fromarray(pixels).convert("L")],
        "paths": [files["plain"], str(files["plain"])],
    }[kind]
    samples = [dataclasses.replace(sample, reference=reference) for sample in example_samples(2)]
    local = faces(samples)
    assert np.isfinite(local.rewards).all()
    assert_same(local, RemoteReward(servers(faces))(samples))


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> RewardFunction:
    given = {**tiny_faces.config(tmp_path_factory.mktemp("faces")), "against": "reference"}
    return load_rewards([{"reward_model": "face_similarity", **given}]).train.children[0]


MESSAGES: list[Mapping[str, Any]] = [
    {"role": "system", "content": "Paint."},
    {"role": "user", "content": [{"type": "text", "text": "A cat."}, {"type": "text", "text": " \u00e9\U0001f680"}]},
]
ODD_KEYS: Any = {1: "a", (1, "b"): "c", None: 2, b"k": 4, 0.5: 5, False: 6}
PLAIN: dict[str, Sample] = {
    "text": Sample("a \u0000 \u2028 \u00e9 \U0001f680 </script>", "", reference="3"),
    "half a character": Sample("a", "\ud800"),
    "messages": Sample(MESSAGES, [{"role": "assistant", "content": None, "tool_calls": [{"id": 1, "args": {}}]}]),
    "messages as a tuple": Sample(tuple(MESSAGES)),
    "numbers": Sample(reference=[1, -(2**80), 0.1, -0.0, 5e-324, float("nan"), float("inf"), True, None]),
    "tuples": Sample(reference=(1, (2, [3, ()]), {"a": (4,)})),
    "bytes": Sample(reference=b"\x00\xff", metadata={"raw": b""}),
    "arrays": Sample(reference=np.arange(6.0).reshape(2, 3), metadata={"a": np.array([1, 2], dtype=np.int16)}),
    "arrays of nothing": Sample(metadata={"a": np.zeros((0, 3)), "b": np.array(5.0), "c": np.array(["x", "yz"])}),
    "numpy numbers": Sample(reference=np.float32(0.1), metadata={"n": np.int64(3), "flag": np.bool_(True)}),
    "dates": Sample(metadata={"at": np.datetime64("2024-01-02T03:04:05")}),
    "tensors": Sample(reference=torch.arange(3), metadata={"half": torch.ones(2, dtype=torch.bfloat16)}),
    "tensor of one": Sample(reference=torch.tensor(0.5)),
    "complex numbers": Sample(metadata={"c": np.array([1 + 2j])}),
    "keys of any kind": Sample(metadata=ODD_KEYS),
    "keys like kinds": Sample(metadata={"tuple": [1], "dict": {"array": 1}, "buffer": "0", "bytes": "AA=="}),
    "deep": Sample(metadata={"a": [{"b": [{"c": ({"d": [[[[1]]]]},)}]}]}),
    "tokens": Sample(response="abcd", token_ids=[1, 2, 2**31], token_offsets=[(0, 1), (1, 2), (2, 4)]),
    "tokens as a tuple": Sample(response="ab", token_ids=(1, 2), token_offsets=((0, 1), (1, 2))),
    "tokens as an array": Sample(response="ab", token_ids=np.array([1, 2]), token_offsets=np.array([[0, 1], [1, 2]])),  # type: ignore[arg-type]
    "tokens as a tensor": Sample(response="ab", token_ids=torch.tensor([1, 2])),  # type: ignore[arg-type]
    "group of a number": Sample("a", group_id=7),
    "group of a tuple": Sample("a", group_id=("epoch", 3, ("b", None))),
    "group of a NumPy number": Sample("a", group_id=np.int64(7)),
    "nothing": Sample(),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_every_form_of_what_is_no_pixel(kind: str, servers: Callable[[RewardFunction], str]) -> None:
    """Types and all, as the author's code sees them."""
    assert_same(LOOKING["pil"]([PLAIN[kind]]), RemoteReward(servers(LOOKING["pil"]))([PLAIN[kind]]))


@pytest.mark.parametrize(
    "groups",
    [
        [1, 2, 1, 2, 1],
        ["a", "b", "a", "b", "c"],
        [("a", 1), ("a", 2), ("a", 1), ("b", 1), ("a", 2)],
        [1, 1.0, True, "1", 2],
        [None, None, "p", None, None],
        [np.int64(1), 1, torch.tensor(1), 2, np.int64(2)],
    ],
    ids=str,
)
def test_groups(groups: list[Any], servers: Callable[[RewardFunction], str]) -> None:
    """By whatever names they have: who is compared with whom does not change on the way."""
    samples = [Sample("p" if place % 2 else "q", f"r{place}", group_id=key) for place, key in enumerate(groups)]
    assert_same(MEMBERS(samples), RemoteReward(servers(MEMBERS))(samples))


MEMBERS = Members()


def test_several_rewards_that_compare_groups_within_a_tree(servers: Callable[[RewardFunction], str]) -> None:
    """Prompts and condition media make groups, too, where there is no id."""
    samples = [dataclasses.replace(sample, group_id=None) for sample in example_samples()]
    tree = CompositeReward([(RemoteReward(servers(MEMBERS)), 0.5), (LengthReward(target=40), 1.0)])
    local = CompositeReward([(MEMBERS, 0.5), (LengthReward(target=40), 1.0)])
    assert_same(local(samples), tree(samples))
