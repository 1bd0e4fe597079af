"""Samples in binary form: pixels as they are, in the safetensors format, and all else as JSON in its header."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flux_rewards.data import FIELDS, MEDIA_FIELDS, Sample
from flux_rewards.errors import InputError, brief
from flux_rewards.media import Place
from flux_rewards.media.reading import read_array
from flux_rewards.media.sequences import read_media
from flux_rewards.plain import NotPlain, from_plain, to_plain
from flux_rewards.wire.allowance import Allowance, pixels_of
from flux_rewards.wire.fields import check_field

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PATIENCE_HEADER", "SAMPLES_TYPE", "MalformedError", "pack_readable", "pack_samples", "unpack_samples"]

SAMPLES_TYPE = "application/vnd.flux-rewards.samples+safetensors"
PATIENCE_HEADER = "Flux-Rewards-Patience"
"""In how many seconds the client gives up: beyond that nothing more is done for it."""
_KEY = "flux_rewards"
_VERSION = 1
_KINDS = frozenset("?bBhHiIlLqQefd")  # what safetensors and NumPy both have


class MalformedError(ValueError):
    """Bytes that are no samples, or no answer."""


def pack_samples(samples: Sequence[Sample], fields: Sequence[str] = FIELDS) -> bytes:
    """Samples as bytes.

    Images are sent as they are read: uint8 where they have 8 bits, floats else; nothing is rounded. Tensors come back
    as tensors, on the CPU; enumerations as their text or number. Files are read here, and their names stay here.

    Args:
        samples: The samples.
        fields: Those that are sent.

    Raises:
        InputError: A field cannot be read, or holds something that has no form here; by the sample's index.

    Examples:
        >>> image = np.zeros((2, 2, 3), dtype=np.uint8)
        >>> (back,) = unpack_samples(pack_samples([Sample("a cat", image=image, metadata={"size": (2, 2)})]))
        >>> back.prompt, back.image.shape, back.metadata
        ('a cat', (2, 2, 3), {'size': (2, 2)})
    """
    body, unread = pack_readable(samples, fields)
    for index, error in unread.items():
        error.index = index
        raise error
    return body


def pack_readable(
    samples: Sequence[Sample], fields: Sequence[str] = FIELDS, *, reference_is_media: bool = False
) -> tuple[bytes, dict[int, InputError]]:
    """The samples that can be sent, and by position why the others cannot.

    Args:
        samples: The samples.
        fields: Those that are sent.
        reference_is_media: Whether references are images, which are read here.
    """
    from safetensors.numpy import save  # noqa: PLC0415  # for those who send

    packer = _Packer(reference_is_media=reference_is_media)
    rows: list[dict[str, Any]] = []
    unread: dict[int, InputError] = {}
    for index, sample in enumerate(samples):
        try:
            rows.append(packer.row(sample, fields))
        except InputError as error:
            unread[index] = error
    header = json.dumps({"version": _VERSION, "samples": rows})
    return save(packer.arrays, metadata={_KEY: header}), unread


class _Packer:
    """Collects the arrays of samples; one that a whole group shares is sent once."""

    def __init__(self, *, reference_is_media: bool) -> None:
        self._media = (*MEDIA_FIELDS, *(("reference",) if reference_is_media else ()))
        self.arrays: dict[str, NDArray[Any]] = {}
        self._memo: dict[int, tuple[Any, str]] = {}
        self._read: dict[Any, tuple[Any, Any]] = {}

    def row(self, sample: Sample, fields: Sequence[str]) -> dict[str, Any]:
        """A sample's fields as JSON."""
        row: dict[str, Any] = {}
        for field in fields:
            value = getattr(sample, field)
            if value is None or (field == "metadata" and not value):
                continue
            if field in self._media:
                value = self._decoded(field, value)
            try:
                row[field] = to_plain(value, self._write)
            except NotPlain as error:
                message = f"cannot be sent: {error}; send text, numbers, lists, mappings, arrays, tensors and images"
                raise InputError(message, field=field) from None
        return row

    def _decoded(self, field: str, value: Any) -> Any:
        """Media as arrays and tensors: what is in a file is read here, once."""
        if isinstance(value, np.ndarray) or hasattr(value, "detach"):
            return value
        if isinstance(value, (list, tuple)):
            return [self._decoded("video" if field == "condition_videos" else "image", entry) for entry in value]
        key = (field, os.fspath(value)) if isinstance(value, (str, os.PathLike)) else (field, id(value))
        if key not in self._read:
            one = field in ("image", "reference")
            found = read_array(value, Place(field)) if one else read_media(field, value, "pixels", Place(field))
            self._read[key] = value, found
        return self._read[key][1]

    def _write(self, value: Any) -> tuple[str, Any] | None:
        if type(value) is np.ndarray and value.dtype.char in _KINDS and value.dtype.isnative:
            return "buffer", self._kept(value, value)
        if type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "detach"):
            return "tensor", [self._kept(value, _of_tensor(value)), str(value.dtype).removeprefix("torch.")]
        if hasattr(value, "mode") and hasattr(value, "getpixel"):
            return "buffer", self._kept(value, read_array(value, Place("metadata")))
        if isinstance(value, str):
            return "base", str.__str__(value)  # what an enumeration says of itself is its own
        if isinstance(value, int):
            return "base", int(value)
        return None

    def _kept(self, value: Any, array: NDArray[Any]) -> str:
        if id(value) not in self._memo:
            name = str(len(self.arrays))
            self.arrays[name] = np.require(array, requirements="C")
            self._memo[id(value)] = value, name
        return self._memo[id(value)][1]


def _of_tensor(tensor: Any) -> NDArray[Any]:
    try:
        tensor = tensor.detach().cpu()
        if str(tensor.dtype) == "torch.bfloat16":
            tensor = tensor.float()  # exactly; NumPy has no such type
        found: NDArray[Any] = tensor.numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:  # sparse, or on no device
        raise NotPlain(f"{brief(tensor)} is no plain tensor") from error
    if found.dtype.char not in _KINDS:
        raise NotPlain(f"{brief(found)} has a type that is not sent")
    return found


def unpack_samples(body: bytes, allowance: Allowance | None = None) -> list[Sample]:
    """The samples of `pack_samples`. Nothing in the bytes can act; arrays are copies.

    Args:
        body: The bytes.
        allowance: How much they may hold; None for any number of samples and pixels.

    Raises:
        MalformedError: The bytes are something else.
        TooManyError: There are more samples than are allowed.
        InputError: There are more pixels than are allowed.
    """
    from safetensors import SafetensorError, deserialize  # noqa: PLC0415  # for those who receive

    try:
        size = int.from_bytes(body[:8], "little")
        header = json.loads(body[8 : 8 + size])
        told = json.loads(header["__metadata__"][_KEY])
        buffers = {name: _array(entry) for name, entry in deserialize(body)}  # type: ignore[no-untyped-call]
    except (SafetensorError, ValueError, TypeError, LookupError, RecursionError, AttributeError) as error:
        raise MalformedError(f"not samples in the safetensors format: {type(error).__name__}: {error}") from None
    if not isinstance(told, dict) or told.get("version") != _VERSION or not isinstance(told.get("samples"), list):
        raise MalformedError(f"samples of another version, or none: {brief(told)}")
    if allowance is not None:
        allowance.take_samples(len(told["samples"]))
    tensors: dict[tuple[str, str], Any] = {}  # however often it is named, it is one

    def tensor(content: Any) -> Any:
        name, dtype = content
        if (name, dtype) not in tensors:
            tensors[name, dtype] = _tensor(buffers[name], dtype)
        return tensors[name, dtype]

    readers: dict[str, Any] = {"buffer": lambda name: buffers[name], "tensor": tensor, "base": _base}
    return [_sample(row, index, readers, allowance) for index, row in enumerate(told["samples"])]


def _sample(row: Any, index: int, readers: Mapping[str, Any], allowance: Allowance | None) -> Sample:
    if not isinstance(row, dict) or not row.keys() <= set(FIELDS):
        raise MalformedError(f"sample {index} has fields that there are not: {brief(row)}")
    try:
        values = {field: from_plain(value, readers) for field, value in row.items()}
        for field, value in values.items():
            check_field(field, value, index)
    except (NotPlain, RecursionError, InputError) as error:
        raise MalformedError(f"sample {index}: {error}") from None
    if allowance is not None:
        for field in MEDIA_FIELDS:
            allowance.take_pixels(pixels_of(values.get(field)), field, index)
    return Sample(**values)


def _base(value: Any) -> Any:
    """What an enumeration, or a text of another class, stands for."""
    if not isinstance(value, (str, int)):
        raise NotPlain(f"expected text or a whole number, found {brief(value)}")
    return value


_DTYPES = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "U16": "u2",
    "I16": "i2",
    "U32": "u4",
    "I32": "i4",
    "U64": "u8",
    "I64": "i8",
    "F16": "f2",
    "F32": "f4",
    "F64": "f8",
}


def _array(entry: dict[str, Any]) -> NDArray[Any]:
    return np.frombuffer(entry["data"], dtype=_DTYPES[entry["dtype"]]).reshape(entry["shape"]).copy()


def _tensor(array: NDArray[Any], dtype: Any) -> Any:
    import torch  # noqa: PLC0415  # only where a tensor was sent

    found = torch.from_numpy(array)
    if dtype == "bfloat16" and found.dtype == torch.float32:
        return found.bfloat16()
    if f"torch.{dtype}" != str(found.dtype):
        raise NotPlain(f"{found.dtype} is no {brief(dtype)}")
    return found
