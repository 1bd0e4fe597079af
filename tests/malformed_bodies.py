"""Bodies that are no samples, of every kind, and how they are to be refused."""

from __future__ import annotations

import base64
import gzip
import io
import json
import pickle
import struct
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from PIL import Image

if TYPE_CHECKING:
    from reward_servers import ServerThread

JSON = "application/json"
BINARY = "application/vnd.flux-rewards.samples+safetensors"
MAX_BODY, MAX_PIXELS, MAX_SAMPLES = 2**20, 10_000, 32


def post(server: ServerThread, path: str, body: Any, kind: str | None = JSON, **headers: str) -> requests.Response:
    data = body if isinstance(body, (bytes, str)) or hasattr(body, "__next__") else json.dumps(body)
    given = {**({} if kind is None else {"Content-Type": kind}), **headers}
    return requests.post(server.url + path, data=data, headers=given, timeout=30)


def check_refusal(server: ServerThread, path: str, response: requests.Response) -> dict[str, Any]:
    """It is a 4xx in the promised form that tells nothing about the machine, and the server still scores."""
    assert 400 <= response.status_code < 500, response.text[:500]
    assert response.headers["Content-Type"] == "application/json"
    for secret in ("Traceback", 'File "', sys.prefix, str(Path(__file__).parents[1]), "site-packages"):
        assert secret not in response.text
    assert len(response.content) < 2000, "an answer that repeats the request"
    told: dict[str, Any] = response.json()
    if path == "/compute":
        assert isinstance(told["error"], str)
        assert told["error"]
    else:
        error = told["error"]
        assert {"type", "message", "field", "index"} <= error.keys()
        assert isinstance(error["type"], str)
        assert isinstance(error["message"], str)
        assert error["message"]
        assert error["field"] is None or isinstance(error["field"], str)
        assert error["index"] is None or isinstance(error["index"], int)
    assert post(server, "/v1/score", {"samples": [{"prompt": "still there"}]}).json()["rewards"] == [1.0]
    return told


# What an image may not be


def encoded(form: str, size: tuple[int, int] = (2, 2), **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (1, 2, 3)).save(buffer, form, **options)
    return buffer.getvalue()


def base(data: bytes) -> str:
    return base64.b64encode(data).decode()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    """A PNG that says that it has this size, and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


PNG = encoded("PNG")
NO_IMAGES: dict[str, Any] = {
    "a number": 5,
    "true": True,
    "an object": {"data": base(PNG)},
    "a list": [base(PNG)],
    "no text": "",
    "words": "a cat",
    "a path": "/etc/passwd",
    "a relative path": "../../etc/passwd",
    "a file url": "file:///etc/passwd",
    "an http url": "http://127.0.0.1:1/cat.png",
    "an https url": "https://example.org/cat.png",
    "a data url of html": "data:text/html;base64," + base(b"<html></html>"),
    "a data url of a gif": "data:image/gif;base64," + base(encoded("GIF")),
    "base64 with a star": base(PNG)[:-4] + "*" + base(PNG)[-3:],
    "base64 that ends early": base(PNG)[:-3],
    "base64 with spaces": " ".join(base(PNG)),
    "base64 of urls": base(b"\xfb\xff\xfe" * 20).replace("/", "_").replace("+", "-"),
    "half a character": "\ud800",
    "not ascii": "ééé=",
    "a gif": base(encoded("GIF")),
    "a bmp": base(encoded("BMP")),
    "a tiff": base(encoded("TIFF")),
    "an svg": base(b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'),
    "an eps": base(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n"),
    "text": base(b"hello " * 100),
    "pickle": base(pickle.dumps({"image": [1, 2]})),
    "a gzip": base(gzip.compress(PNG)),
    "a bomb of 60000 squared": base(png_header(60_000, 60_000)),
    "a bomb of 12000 squared": base(png_header(12_000, 12_000)),
    "a bomb of 101 squared": base(png_header(101, 101)),
    "no width": base(png_header(0, 5)),
    "two thousand million wide": base(png_header(2**31 - 1, 1)),
    "a png without pixels": base(png_header(20, 20)),
    "a png of which half is there": base(PNG[: len(PNG) // 2]),
    "a png's signature": base(PNG[:8]),
    "a png with a broken sum": base(PNG.replace(b"IDAT", b"IDAU")),
    "half a jpeg": base(encoded("JPEG", (64, 64))[:-200]),
    "a jpeg's first bytes": base(encoded("JPEG")[:4]),
    "half a webp": base(encoded("WEBP", (64, 64))[:30]),
    "a text chunk that unpacks to 100 MB": base(
        PNG[:33] + chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(100 * 2**20), 9)) + PNG[33:]
    ),
}


# What JSON may not be


def nested(depth: int, of: str = "[]") -> str:
    opening, closing = of[0], of[-1]
    middle = '"a":' if of == "{}" else ""
    return (opening + middle) * depth + "1" + closing * depth


NO_JSON: dict[str, bytes | str] = {
    "nothing": b"",
    "a space": b" ",
    "cut": b'{"samples": [{"prompt": "a"',
    "cut within text": b'{"samples": [{"prompt": "a',
    "single quotes": b"{'samples': []}",
    "a comma too many": b'{"samples": [],}',
    "two values": b'{"samples": []}{"samples": []}',
    "not UTF-8": b'{"samples": [{"prompt": "\xff\xfe\xfa"}]}',
    "a byte of zero": b'{"samples": [{"prompt": "\0"}]}',
    "a whole number of 5000 digits": b'{"samples": ' + b"9" * 5000 + b"}",
    "nested 100000 deep": nested(100_000),
    "objects nested 100000 deep": nested(100_000, "{}"),
    "lists without end": b"[" * 100_000,
    "a form": b"samples=1&prompt=2",
    "xml": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
    "pickle": pickle.dumps({"samples": [{"prompt": "a"}]}),
    "gzip": gzip.compress(b'{"samples": [{"prompt": "a"}]}'),
    "safetensors": struct.pack("<Q", 2) + b"{}",
}


NO_SAMPLES: dict[str, Any] = {
    "null": None,
    "a number": 5,
    "NaN": "NaN",
    "text": '"samples"',
    "a list": [{"prompt": "a"}],
    "nothing in it": {},
    "another key": {"sample": [{"prompt": "a"}]},
    "samples are null": {"samples": None},
    "samples are an object": {"samples": {"prompt": "a"}},
    "samples are text": {"samples": "a"},
    "samples are a number": '{"samples": 1e999}',
    "samples are NaN": '{"samples": NaN}',
    "nested 900 deep": nested(900),
    "objects nested 500 deep": nested(500, "{}"),
    "objects nested 900 deep": nested(900, "{}"),
    "samples nested 900 deep": f'{{"samples": {nested(900, "{}")}}}',
    "a sample nested 900 deep": f'{{"samples": [{nested(900, "{}")}]}}',
}


BAD_VALUES: list[tuple[str, str]] = [
    ("prompt", "5"),
    ("prompt", "true"),
    ("prompt", '{"role": "user"}'),
    ("prompt", '["user"]'),
    ("prompt", "[[]]"),
    ("prompt", "NaN"),
    ("prompt", nested(900, "{}")),
    ("response", "5.5"),
    ("response", "-Infinity"),
    ("response", '[{"role": "user"}, 5]'),
    ("response", '["\\ud800"]'),
    ("token_ids", "5"),
    ("token_ids", '"abc"'),
    ("token_ids", "[1, 2.5]"),
    ("token_ids", "[1, null]"),
    ("token_ids", "[true]"),
    ("token_ids", "[NaN]"),
    ("token_ids", "[1e999]"),
    ("token_ids", "[[1]]"),
    ("token_ids", '{"0": 1}'),
    ("token_offsets", "[[0, 1], [2]]"),
    ("token_offsets", "[[0, 1, 2]]"),
    ("token_offsets", '["01"]'),
    ("token_offsets", "[5]"),
    ("token_offsets", "[[0.5, 1]]"),
    ("token_offsets", '{"0": [0, 1]}'),
    ("group_id", "NaN"),
    ("group_id", "[1]"),
    ("group_id", '{"id": 1}'),
    ("metadata", "5"),
    ("metadata", "[]"),
    ("metadata", '"a"'),
    ("metadata", "NaN"),
    ("promt", '"a"'),
    ("reward", "1.0"),
    ("__class__", '"a"'),
    ("__dict__", "{}"),
    ("", "1"),
    ("index", "0"),
    ("\\ud800", "1"),
    ("x" * 100_000, "1"),
]


BAD_COLUMNS: dict[str, Any] = {
    "null": None,
    "a number": 5,
    "text": '"prompt"',
    "a list": ["a"],
    "NaN": "NaN",
    "nothing in it": {},
    "no prompt": {"image": [base(PNG)]},
    "the prompt is null": {"prompt": None},
    "the prompt is text": {"prompt": "a cat"},
    "the prompt is an object": {"prompt": {"0": "a"}},
    "a prompt is null": {"prompt": ["a", None]},
    "a prompt is a number": {"prompt": ["a", 5]},
    "a prompt is a list": {"prompt": [["a"]]},
    "prompts are nested 900 deep": f'{{"prompt": {nested(900, "{}")}}}',
    "a prompt is nested 900 deep": f'{{"prompt": [{nested(900, "{}")}]}}',
    "a prompt with half a character in a list": '{"prompt": [["\\ud800"]]}',
    "one image for two prompts": {"prompt": ["a", "b"], "image": [base(PNG)]},
    "two images for one prompt": {"prompt": ["a"], "image": [base(PNG)] * 2},
    "no image for one prompt": {"prompt": ["a"], "image": []},
    "images are text": {"prompt": ["a"], "image": base(PNG)},
    "images are an object": {"prompt": ["a"], "image": {"0": base(PNG)}},
    "images are zero": {"prompt": ["a"], "image": 0},
    "images are false": {"prompt": ["a"], "image": False},
    "a video for no prompt": {"prompt": [], "video": [[base(PNG)]]},
    "condition images of another length": {"prompt": ["a"], "condition_images": [[base(PNG)]] * 2},
    "condition videos of another length": {"prompt": ["a"], "condition_videos": [[[base(PNG)]]] * 2},
}
