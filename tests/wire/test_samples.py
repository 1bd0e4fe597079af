"""Samples as bytes and back."""

from __future__ import annotations

import copy
import json
import pickle
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from PIL import Image
from safetensors.numpy import save

from flux_rewards import InputError, Sample
from flux_rewards.data import FIELDS
from flux_rewards.testing import example_samples
from flux_rewards.wire.samples import MalformedError, pack_samples, unpack_samples


def exactly(value: Any) -> Any:
    """A value and the kinds of all that it holds."""
    if isinstance(value, dict):
        return "dict", [(exactly(key), exactly(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [exactly(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return type(value).__name__, value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, torch.Tensor):
        flat = value.detach().contiguous().reshape(-1).view(torch.uint8)
        return "Tensor", value.dtype, tuple(value.shape), flat.tolist()
    return type(value).__name__, repr(value)


def fields(sample: Sample) -> Any:
    """All that a sample holds."""
    return [(name, exactly(getattr(sample, name))) for name in FIELDS]


def there_and_back(*samples: Sample) -> list[Sample]:
    return unpack_samples(pack_samples(samples))


_floats = [np.float16, np.float32, np.float64]


@st.composite
def images(draw: st.DrawFn) -> Any:
    """Pixels as arrays and tensors, of every dtype and order of axes."""
    sides, channels = draw(st.tuples(st.integers(1, 4), st.integers(1, 4))), draw(st.sampled_from([1, 3, 4]))
    shape = draw(st.sampled_from([(*sides, channels), (channels, *sides), sides]))
    if draw(st.booleans()):
        array = draw(st_numpy.arrays(np.uint8, shape))
    else:
        kind = draw(st.sampled_from(_floats))
        array = draw(st_numpy.arrays(kind, shape, elements=st.floats(0, 1, width=16)))
    form = draw(st.sampled_from(["array", "fortran", "reversed", "tensor", "bfloat16", "turned"]))
    if form == "fortran":
        return np.asfortranarray(array)
    if form == "reversed":
        return array[::-1]
    if form == "tensor":
        return torch.from_numpy(array)
    if form == "turned":
        return torch.from_numpy(array).transpose(0, 1)
    if form == "bfloat16" and array.dtype != np.uint8:
        return torch.from_numpy(array).bfloat16()
    return array


_text = st.text(max_size=8)
_messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.one_of(st.none(), _text)}),
    min_size=1,
    max_size=2,
)
_keys = st.one_of(_text, st.integers(), st.tuples(st.integers(), _text), st.none())
_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), _text, st.binary(max_size=4), images()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(_keys, inner, max_size=3),
    ),
    max_leaves=6,
)
SAMPLES = st.builds(
    Sample,
    prompt=st.one_of(st.none(), _text, _messages, _messages.map(tuple)),
    response=st.one_of(st.none(), _text, _messages),
    image=st.one_of(st.none(), images()),
    video=st.one_of(st.none(), st.lists(images(), min_size=1, max_size=2)),
    condition_images=st.one_of(st.none(), st.lists(images(), max_size=2)),
    condition_videos=st.one_of(st.none(), st.lists(st.lists(images(), max_size=2), max_size=2)),
    reference=_values,
    token_ids=st.one_of(st.none(), st.lists(st.integers(), max_size=3), st.lists(st.integers(), max_size=3).map(tuple)),
    token_offsets=st.one_of(st.none(), st.lists(st.tuples(st.integers(), st.integers()), max_size=3)),
    group_id=st.one_of(st.none(), _text, st.integers(), st.tuples(_text, st.integers())),
    metadata=st.dictionaries(_text, _values, max_size=2),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(SAMPLES, max_size=3))
def test_what_comes_back_is_what_went(samples: list[Sample]) -> None:
    """Every field to the last bit, with its types."""
    assert list(map(fields, there_and_back(*samples))) == list(map(fields, samples))


@settings(max_examples=50, deadline=None)
@given(SAMPLES)
def test_inputs_are_untouched(sample: Sample) -> None:
    """What is packed is only read, and what comes back shares nothing with it."""
    before = copy.deepcopy(fields(sample))
    (back,) = there_and_back(sample)
    for name in ("image", "reference"):
        value = getattr(back, name)
        if isinstance(value, np.ndarray) and value.size:
            value[...] = 0
    assert fields(sample) == before


@pytest.mark.parametrize("dtype", "?bBhHiIlLqQefdgFD")
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (1, 1, 1, 1, 1)], ids=str)
def test_arrays_of_any_number(dtype: str, shape: tuple[int, ...]) -> None:
    """Single ones and empty ones, too."""
    array = np.ones(shape, dtype=dtype)
    (back,) = there_and_back(Sample(reference=array, metadata={"b": array.astype(array.dtype.newbyteorder())}))
    assert exactly(back.reference) == exactly(array)
    assert back.metadata["b"].dtype == array.dtype.newbyteorder()
    assert back.metadata["b"].shape == shape


TENSORS = [
    *(getattr(torch, name) for name in ("bool", "uint8", "int8", "int16", "int32", "int64")),
    *(getattr(torch, name) for name in ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")),
    *(getattr(torch, name) for name in ("uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2")),
]


@pytest.mark.parametrize("dtype", TENSORS, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)], ids=str)
def test_tensors_of_any_number(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """They come back as tensors of the same kind; or they are refused by the field, and no other error comes."""
    tensor = torch.zeros(shape).to(dtype)
    try:
        (back,) = there_and_back(Sample(metadata={"tensor": tensor}))
    except InputError as error:
        assert error.field == "metadata"  # noqa: PT017
        assert dtype.is_complex or "float8" in str(dtype)
        return
    found = back.metadata["tensor"]
    assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
    assert bool((found == tensor).all())


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(2, 2).to_sparse(),
        torch.zeros(2, device="meta"),
    ],
    ids=["sparse", "meta"],
)
def test_tensors_that_have_no_form(tensor: torch.Tensor) -> None:
    """By the field and the index."""
    with pytest.raises(InputError) as caught:
        pack_samples([Sample("a"), Sample("b", metadata={"tensor": tensor})])
    assert (caught.value.field, caught.value.index) == ("metadata", 1)


@pytest.mark.parametrize("count", [2, 16])
def test_what_a_group_shares_is_sent_once(count: int) -> None:
    """An array, a tensor, an image of PIL and frames of a video; and it is one object again."""
    pixels = np.random.default_rng(0).integers(0, 256, size=(64, 64, 3), dtype=np.uint8)
    shared: dict[str, Any] = {
        "array": pixels,
        "tensor": torch.from_numpy(pixels),
        "PIL": Image.fromarray(pixels),
    }
    for kind, image in shared.items():
        one = len(pack_samples([Sample(condition_images=[image])]))
        many = pack_samples([Sample(condition_images=[image], video=[image] * 3)] * count)
        assert len(many) < one + 400 * count, kind
        back = unpack_samples(many)
        assert back[0].condition_images[0] is back[-1].video[2], kind


def test_a_file_that_a_group_shares_is_read_and_sent_once(tmp_path: Path) -> None:
    """By its name."""
    pixels = np.random.default_rng(0).integers(0, 256, size=(64, 64, 3), dtype=np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    body = pack_samples([Sample(condition_images=[str(path)])] * 8)
    assert len(body) < 1.5 * pixels.nbytes
    assert path.name.encode() not in body


def test_pixels_are_sent_as_they_are() -> None:
    """Neither base64 nor a codec: as many bytes as there are."""
    samples = [Sample(image=np.full((128, 128, 3), number, dtype=np.uint8)) for number in range(8)]
    body = pack_samples(samples)
    assert 0 <= len(body) - 8 * 128 * 128 * 3 < 4000
    assert np.full((128, 128, 3), 7, dtype=np.uint8).tobytes() in body


def test_only_some_fields() -> None:
    """The others stay."""
    (back,) = unpack_samples(pack_samples([Sample("a", "b", metadata={"c": 1}, group_id=3)], ["response", "group_id"]))
    assert back == Sample(response="b", group_id=3)


# Bytes that are no samples


def _body(rows: Any, arrays: Any = None, *, version: Any = 1, key: str = "flux_rewards") -> bytes:
    header = json.dumps({"version": version, "samples": rows})
    return save({"0": np.zeros((2, 2, 3), dtype=np.uint8)} if arrays is None else arrays, metadata={key: header})


ROWS: dict[str, Any] = {
    "rows that are no list": {"a": 1},
    "a row that is a list": [[1]],
    "a row that is text": ["image"],
    "a field that there is not": [{"picture": {"buffer": "0"}}],
    "an attribute for a field": [{"__class__": "x"}],
    "a kind that there is not": [{"prompt": {"pickle": "gASVAAAA"}}],
    "two kinds": [{"reference": {"tuple": [], "bytes": ""}}],
    "no kind": [{"reference": {}}],
    "a buffer that there is not": [{"image": {"buffer": "1"}}],
    "a buffer by number": [{"image": {"buffer": 0}}],
    "a buffer by list": [{"image": {"buffer": ["0"]}}],
    "a buffer by kind": [{"image": {"buffer": {"tuple": []}}}],
    "a tensor without a dtype": [{"image": {"tensor": ["0"]}}],
    "a tensor of text": [{"image": {"tensor": "0f"}}],
    "a tensor of no dtype": [{"image": {"tensor": ["0", "save"]}}],
    "a tensor of an odd dtype": [{"image": {"tensor": ["0", "quint8"]}}],
    "a tensor of a larger dtype": [{"image": {"tensor": ["0", "complex128"]}}],
    "a tensor of a list": [{"image": {"tensor": ["0", ["float32"]]}}],
    "a path for an image": [{"image": "/etc/hostname"}],
    "a path for a video": [{"video": "clip.mp4"}],
    "paths for frames": [{"video": ["a.png"]}],
    "a path for condition images": [{"condition_images": "a.png"}],
    "paths for condition images": [{"condition_images": [{"buffer": "0"}, "a.png"]}],
    "paths for condition videos": [{"condition_videos": [["a.png"]]}],
    "a path in bytes": [{"image": {"bytes": "L2V0Yy9ob3N0bmFtZQ=="}}],
    "a path in a tuple": [{"video": {"tuple": ["a.png"]}}],
    "a path in a NumPy text": [{"image": {"array": ["<U5", None, {"bytes": "YQAAAC4AAABwAAAAbgAAAGcAAAA="}]}}],
    "an address": [{"image": "https://example.org/a.png"}],
    "a number for an image": [{"image": 5}],
    "a mapping for an image": [{"image": {"dict": []}}],
    "a number for a prompt": [{"prompt": 5}],
    "a list of text for a prompt": [{"prompt": ["a"]}],
    "text for token ids": [{"token_ids": "12"}],
    "text in token ids": [{"token_ids": ["1"]}],
    "single token offsets": [{"token_offsets": [1, 2]}],
    "a list for a group": [{"group_id": [1]}],
    "an array for a group": [{"group_id": {"array": ["<f8", [1], {"bytes": "AAAAAAAAAAA="}]}}],
    "text for metadata": [{"metadata": "x"}],
    "a list for metadata": [{"metadata": [1]}],
    "an array of objects": [{"reference": {"array": ["|O", [1], {"bytes": "AAAAAAAAAAA="}]}}],
}


@pytest.mark.parametrize("kind", ROWS)
def test_rows_that_are_refused(kind: str) -> None:
    """None of them may make a sample."""
    with pytest.raises(MalformedError):
        unpack_samples(_body(ROWS[kind]))


def _header(text: bytes, body: bytes = b"") -> bytes:
    return len(text).to_bytes(8, "little") + text + body


RIGHT = _body([{"image": {"buffer": "0"}, "prompt": "a", "metadata": {"dict": [["a", {"tuple": [1]}]]}}])
BODIES: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "seven bytes": lambda: b"\0" * 7,
    "a header of no size": lambda: b"\0" * 8,
    "a header larger than the body": lambda: (10**6).to_bytes(8, "little") + b"{}",
    "a header larger than anything": lambda: b"\xff" * 8 + RIGHT[8:],
    "a negative header": lambda: (2**63).to_bytes(8, "little") + RIGHT[8:],
    "no JSON": lambda: _header(b"{nothing}"),
    "a list": lambda: _header(b"[]"),
    "null": lambda: _header(b"null"),
    "no metadata": lambda: _header(b"{}"),
    "metadata of another": lambda: _body([], key="format"),
    "metadata that are no JSON": lambda: save({}, metadata={"flux_rewards": "{"}),
    "metadata that are a list": lambda: save({}, metadata={"flux_rewards": "[]"}),
    "metadata that are null": lambda: save({}, metadata={"flux_rewards": "null"}),
    "another version": lambda: _body([], version=2),
    "a version of text": lambda: _body([], version="1"),
    "JSON": lambda: b'{"samples": []}',
    "a pickle": lambda: pickle.dumps([Sample("a")]),
    "a file": lambda: b"\x89PNG\r\n\x1a\n" + b"\0" * 64,
    "no UTF-8": lambda: _header(b'{"__metadata__": {"flux_rewards": "\xff\xfe"}}'),
    "deep JSON": lambda: _header(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "deep metadata": lambda: save({}, metadata={"flux_rewards": "[" * 50_000}),
    "more than it says": lambda: RIGHT + b"more",
    "less than it says": lambda: RIGHT[:-1],
    "offsets beyond the end": lambda: RIGHT.replace(b"[0,12]", b"[0,99]"),
    "offsets from before": lambda: RIGHT.replace(b"[0,12]", b"[-1,9]"),
    "offsets turned round": lambda: RIGHT.replace(b"[0,12]", b"[12,0]"),
    "a shape of another size": lambda: RIGHT.replace(b"[2,2,3]", b"[2,2,4]"),
    "a negative shape": lambda: RIGHT.replace(b"[2,2,3]", b"[-2,-6]"),
    "a huge shape": lambda: RIGHT.replace(b"[2,2,3]", b"[9999999999999999999]"),
    "another dtype": lambda: RIGHT.replace(b'"U8"', b'"F8_E5M2"'),
    "no dtype": lambda: RIGHT.replace(b'"U8"', b'"X8"'),
}


@pytest.mark.parametrize("kind", BODIES)
def test_bodies_that_are_refused(kind: str) -> None:
    """With one kind of error."""
    body = BODIES[kind]()
    assert body != RIGHT
    with pytest.raises(MalformedError):
        unpack_samples(body)


def _readable(body: bytes) -> list[Sample]:
    """What was read; anything but a `MalformedError` is a fault."""
    try:
        return unpack_samples(body)
    except MalformedError:
        return []


def _is_pixels(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_pixels, value))
    return value is None or isinstance(value, (np.ndarray, torch.Tensor))


EXAMPLES = pack_samples([*example_samples(2), Sample(image=torch.zeros(3, 2, 2).bfloat16(), reference=(b"a", 1.5))])
HEAD = 8 + int.from_bytes(EXAMPLES[:8], "little")


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(st.integers(0, HEAD + 8), st.integers(0, 255)), min_size=1, max_size=4))
def test_bytes_that_were_changed(changes: list[tuple[int, int]]) -> None:
    """They are read or refused; media are pixels or nothing."""
    body = bytearray(EXAMPLES)
    for place, byte in changes:
        body[place] = byte
    for sample in _readable(bytes(body)):
        assert all(_is_pixels(getattr(sample, name)) for name in ("image", "video", "condition_images"))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(EXAMPLES) - 1), st.integers(0, len(EXAMPLES) - 1), st.binary(max_size=12))
def test_bytes_that_were_cut_or_put_in(begin: int, end: int, between: bytes) -> None:
    """At no place is half a body one."""
    body = EXAMPLES[: min(begin, end)] + between + EXAMPLES[max(begin, end) :]
    assert body == EXAMPLES or not _readable(body) or len(body) == len(EXAMPLES)


_kinds = st.sampled_from(["buffer", "tensor", "array", "bytes", "dict", "tuple", "set"])
_told = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**65), 2**65),
        st.floats(),
        st.text(string.printable, max_size=5),
        st.sampled_from(
            ["0", "float32", "uint8", "complex64", "<f8", "|O", "/etc/hostname", "bits8", "(2,i4", "Tensor"]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.builds(lambda kind, content: {kind: content}, _kinds, inner),
        st.builds(lambda name, dtype: {"tensor": [name, dtype]}, st.just("0"), inner),
        st.builds(lambda name, shape, data: {"array": [name, shape, {"bytes": data}]}, inner, inner, inner),
    ),
    max_leaves=8,
)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(FIELDS), _told)
def test_any_value_in_any_field(field: str, told: Any) -> None:
    """It is read or refused; media are pixels or nothing, and a group's id is an id."""
    for sample in _readable(_body([{field: told}])):
        assert all(_is_pixels(getattr(sample, name)) for name in ("image", "video", "condition_images"))
        hash(sample.group_id)
        assert hasattr(sample.metadata, "keys")
