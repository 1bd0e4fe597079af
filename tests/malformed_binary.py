"""Bodies in the binary form that are none, written by hand: their headers say anything."""

from __future__ import annotations

import gzip
import json
import pickle
import struct
from collections.abc import Mapping
from typing import Any

from malformed_bodies import PNG, nested


def packed(samples: Any, tensors: Mapping[str, Any] | None = None, data: bytes = b"", **metadata: Any) -> bytes:
    """A body in the binary form, written by hand: its header may say anything."""
    told = samples if isinstance(samples, str) else json.dumps({"version": 1, "samples": samples})
    header = json.dumps({"__metadata__": {"flux_rewards": told, **metadata}, **(tensors or {})}).encode()
    return struct.pack("<Q", len(header)) + header + data


def tensor(shape: Any, offsets: Any, dtype: Any = "U8") -> dict[str, Any]:
    return {"0": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


FOUR: dict[str, Any] = {"tensors": tensor([2, 2], [0, 4]), "data": b"abcd"}
A_PROMPT = [{"prompt": "a"}]
ONE_BUFFER = [{"prompt": "a", "image": {"buffer": "0"}}]


def nested_plain(kind: str, depth: int) -> str:
    """A value within a value within a value, as JSON: too deep for Python's own writer."""
    opening, closing = {
        "tuple": ('{"tuple":[', "]}"),
        "list": ("[", "]"),
        "dict": ('{"dict":[["a",', "]]}"),
    }[kind]
    return f'{{"version": 1, "samples": [{{"reference": {opening * depth}1{closing * depth}}}]}}'


NO_BINARY: dict[str, bytes] = {
    "nothing": b"",
    "three bytes": b"abc",
    "a size alone": struct.pack("<Q", 0),
    "a size of 2 to the 64": b"\xff" * 8 + b"{}",
    "a header of 1 TB": struct.pack("<Q", 2**40) + b"{}",
    "a header longer than the body": struct.pack("<Q", 500) + packed(A_PROMPT)[8:],
    "a header shorter than it is": struct.pack("<Q", 20) + packed(A_PROMPT)[8:],
    "a header that is no JSON": struct.pack("<Q", 4) + b"abcd",
    "a header that is a list": struct.pack("<Q", 2) + b"[]",
    "no samples in the header": struct.pack("<Q", 2) + b"{}",
    "a header nested 100000 deep": struct.pack("<Q", 200_001) + nested(100_000).encode(),
    "metadata that are text": struct.pack("<Q", 20) + b'{"__metadata__":"a"}',
    "samples that are no JSON": packed("{"),
    "samples that are a list": packed("[]"),
    "samples that are null": packed("null"),
    "another version": packed('{"version": 2, "samples": []}'),
    "no version": packed('{"samples": []}'),
    "samples that are an object": packed('{"version": 1, "samples": {}}'),
    "a sample that is text": packed(["a"]),
    "a sample that is null": packed([None]),
    "a field that there is not": packed([{"promt": "a"}]),
    "half a character as a field": packed([{"\ud800": "a"}]),
    "JSON": b'{"samples": [{"prompt": "a"}]}',
    "pickle": pickle.dumps([{"prompt": "a"}]),
    "gzip": gzip.compress(packed(A_PROMPT)),
    "PNG": PNG,
    "bytes after the end": packed(A_PROMPT, data=b"abcd"),
    "bytes that are missing": packed(ONE_BUFFER, tensor([2, 2], [0, 4]), b"ab"),
    "a hole": packed(A_PROMPT, tensor([2, 2], [4, 8]), b"abcdefgh"),
    "offsets that end before they begin": packed(A_PROMPT, tensor([2, 2], [4, 0]), b"abcd"),
    "offsets beyond the end": packed(A_PROMPT, tensor([2, 2], [100, 104]), b"abcd"),
    "negative offsets": packed(A_PROMPT, tensor([2, 2], [-4, 0]), b"abcd"),
    "one offset": packed(A_PROMPT, tensor([2, 2], [0]), b"abcd"),
    "buffers that overlap": packed(
        A_PROMPT,
        {
            "0": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
            "1": {"dtype": "U8", "shape": [3], "data_offsets": [1, 4]},
        },
        b"abcd",
    ),
    "a shape larger than the buffer": packed(A_PROMPT, tensor([200, 200], [0, 4]), b"abcd"),
    "a shape of 2 to the 64 and more": packed(A_PROMPT, tensor([2**33, 2**33], [0, 4]), b"abcd"),
    "a negative shape": packed(A_PROMPT, tensor([-2, -2], [0, 4]), b"abcd"),
    "a shape of text": packed(A_PROMPT, tensor("22", [0, 4]), b"abcd"),
    "a shape of halves": packed(A_PROMPT, tensor([1.5, 2], [0, 3]), b"abc"),
    "a dtype of objects": packed(A_PROMPT, tensor([1], [0, 4], "O"), b"abcd"),
    "a dtype that there is not": packed(A_PROMPT, tensor([1], [0, 4], "V4"), b"abcd"),
    "a dtype that NumPy has not": packed(A_PROMPT, tensor([2], [0, 4], "BF16"), b"abcd"),
    "a dtype that is a number": packed(A_PROMPT, tensor([1], [0, 4], 7), b"abcd"),
    "a tensor without a shape": packed(A_PROMPT, {"0": {"dtype": "U8", "data_offsets": [0, 4]}}, b"abcd"),
    "a buffer that there is not": packed([{"image": {"buffer": "7"}}]),
    "a buffer that is a number": packed([{"image": {"buffer": 0}}], **FOUR),
    "a buffer that is a list": packed([{"image": {"buffer": ["0"]}}], **FOUR),
    "a buffer that is NaN": packed('{"version": 1, "samples": [{"image": {"buffer": NaN}}]}', **FOUR),
    "a tensor without a type": packed([{"image": {"tensor": ["0"]}}], **FOUR),
    "a tensor of a type that there is not": packed([{"image": {"tensor": ["0", "float7"]}}], **FOUR),
    "a tensor of a type that is a function": packed([{"image": {"tensor": ["0", "load"]}}], **FOUR),
    "a tensor of a type that is a module": packed([{"image": {"tensor": ["0", "os"]}}], **FOUR),
    "a tensor of a quantized type": packed([{"image": {"tensor": ["0", "quint8"]}}], **FOUR),
    "a tensor of bits": packed([{"image": {"tensor": ["0", "bits8"]}}], **FOUR),
    "a tensor of a type that is a number": packed([{"image": {"tensor": ["0", 5]}}], **FOUR),
    "a tensor that is larger than its buffer": packed([{"image": {"tensor": ["0", "complex128"]}}], **FOUR),
    "a tensor that is null": packed([{"image": {"tensor": None}}], **FOUR),
    "a kind that there is not": packed([{"reference": {"object": "os.system"}}]),
    "a kind of Python": packed([{"reference": {"__reduce__": ["os.system", "ls"]}}]),
    "two kinds": packed([{"reference": {"tuple": [], "dict": []}}]),
    "no kind": packed([{"reference": {}}]),
    "a tuple of a number": packed([{"reference": {"tuple": 5}}]),
    "a dict of a number": packed([{"reference": {"dict": 5}}]),
    "a dict of triples": packed([{"reference": {"dict": [[1, 2, 3]]}}]),
    "a dict with a list as key": packed([{"reference": {"dict": [[[1], 2]]}}]),
    "bytes that are no base64": packed([{"reference": {"bytes": "***"}}]),
    "bytes that are a number": packed([{"reference": {"bytes": 5}}]),
    "bytes that are not ascii": packed([{"reference": {"bytes": "éé"}}]),
    "an array of objects": packed([{"reference": {"array": ["|O", [1], {"bytes": "AAAAAAAAAAA="}]}}]),
    "an array of records with objects": packed(
        [{"reference": {"array": ["i4,O", [1], {"bytes": "AAAAAAAAAAAAAAAA"}]}}]
    ),
    "an array of half a type": packed([{"reference": {"array": ["(2,i4", [1], {"bytes": "AAAA"}]}}]),
    "an array of a type that there is not": packed([{"reference": {"array": ["zzz", [1], {"bytes": "AAAA"}]}}]),
    "an array of an empty type": packed([{"reference": {"array": ["V0", [1], {"bytes": "AAAA"}]}}]),
    "an array of a type that is a list": packed([{"reference": {"array": [[["a", "O"]], [1], {"bytes": "AAAA"}]}}]),
    "an array with a negative shape": packed([{"reference": {"array": ["|u1", [-1, 2], {"bytes": "AAECAw=="}]}}]),
    "an array larger than its bytes": packed([{"reference": {"array": ["|u1", [10**9], {"bytes": "AAEC"}]}}]),
    "an array of 10 to the 30": packed([{"reference": {"array": ["|u1", [10**30], {"bytes": "AAEC"}]}}]),
    "an array with text as shape": packed([{"reference": {"array": ["|u1", "3", {"bytes": "AAEC"}]}}]),
    "an array of text": packed([{"reference": {"array": ["|u1", [3], "AAEC"]}}]),
    "text of characters that there are not": packed([{"reference": {"array": ["<U1", None, {"bytes": "////fw=="}]}}]),
    "an array of two": packed([{"reference": {"array": ["|u1", [3]]}}]),
    "lists nested 5000 deep": packed(nested_plain("list", 5000)),
    "tuples nested 5000 deep": packed(nested_plain("tuple", 5000)),
}
