"""`examples/reward_server/`: what the template answers, and what it refuses."""

import ast
import base64
import io
import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from PIL import Image
from reward_server_copies import (
    FOLDER,
    OBEDIENT,
    PATIENCE,
    Server,
    brightness,
    encoded,
    file_of,
    noise,
    refused,
    serving,
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """As it stands in the repository."""
    with serving(tmp_path_factory.mktemp("template")) as server:
        yield server


@pytest.fixture(scope="module")
def shared_obedient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With the score of `OBEDIENT`, and low limits."""
    with serving(tmp_path_factory.mktemp("obedient"), OBEDIENT) as server:
        yield server


@pytest.fixture
def obedient(shared_obedient: Server) -> Server:
    """The same, without the traces of the test before."""
    for name in ("scored", "started", "go", "sizes"):
        (shared_obedient.folder / name).unlink(missing_ok=True)
    return shared_obedient


# The file


def test_it_needs_nothing_but_fastapi_uvicorn_and_pillow() -> None:
    """Its imports: theirs, what FastAPI itself stands on, and the standard library."""
    tree = ast.parse((FOLDER / "server.py").read_text())
    named = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    named |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    foreign = {name.partition(".")[0] for name in named} - set(sys.stdlib_module_names)
    assert foreign == {"fastapi", "uvicorn", "PIL", "pydantic", "starlette"}


# What it says


def test_scores_are_exact(template: Server) -> None:
    """Mean brightness of each image, in order, to the last bits of a float."""
    images = [noise(seed) for seed in range(5)] + [Image.new("RGB", (3, 2), shade) for shade in ("black", "white")]
    answer = template.post({"prompt": ["any"] * 7, "image": [encoded(image) for image in images]})
    assert answer.status_code == 200
    assert list(answer.json()) == ["rewards"]
    assert answer.json()["rewards"] == pytest.approx([brightness(image) for image in images], rel=1e-14)
    assert answer.json()["rewards"][5:] == [0.0, 1.0]


def test_videos_and_what_does_not_apply(template: Server) -> None:
    """The mean over frames; a video without frames has no brightness: null, not 0."""
    clips = [[noise(1), noise(2), noise(3)], [], [noise(4)]]
    sent = {"prompt": ["a", "b", "c"], "image": None, "video": [[encoded(frame) for frame in clip] for clip in clips]}
    first, second, third = template.post(sent).json()["rewards"]
    assert first == pytest.approx(sum(map(brightness, clips[0])) / 3, rel=1e-14)
    assert second is None
    assert third == pytest.approx(brightness(clips[2][0]), rel=1e-14)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (encoded(noise(1), "WEBP", lossless=True), noise(1)),
        (encoded(noise(1), "JPEG"), Image.open(io.BytesIO(file_of(noise(1), "JPEG")))),
        (encoded(noise(1).convert("L")), noise(1).convert("L")),
        (encoded(noise(1).convert("1")), noise(1).convert("1")),
        (encoded(noise(1).quantize(16)), noise(1).quantize(16)),
        (encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 0))), Image.new("RGB", (4, 4), "white")),
        (encoded(Image.new("LA", (4, 4), (0, 0))), Image.new("RGB", (4, 4), "white")),
        (encoded(Image.new("P", (4, 4), 0), transparency=0), Image.new("RGB", (4, 4), "white")),
        (encoded(Image.new("RGBA", (4, 4), (200, 0, 0, 255))), Image.new("RGB", (4, 4), (200, 0, 0))),
    ],
    ids=["webp", "jpeg", "gray", "bilevel", "palette", "clear", "clear gray", "clear palette", "opaque"],
)
def test_formats_and_modes(template: Server, text: str, shown: Image.Image) -> None:
    """All that have 8 bits; what is transparent is white."""
    assert template.post({"prompt": ["a"], "image": [text]}).json() == {"rewards": pytest.approx([brightness(shown)])}


def test_each_field_arrives_with_its_nesting(obedient: Server) -> None:
    """One image, a list, and a list of lists a sample; those that are not sent are None."""

    def image(width: int) -> str:
        return encoded(Image.new("RGB", (width, 1)))

    body = {
        "prompt": ["sizes", "b"],
        "image": [image(1), image(2)],
        "video": [[image(3), image(4)], [image(5)]],
        "condition_images": [[], [image(6)]],
        "condition_videos": [[[image(7)], [image(8), image(9)]], []],
    }
    assert obedient.post(body).json() == {"rewards": [0.0, 1.0]}
    sizes = [
        [[1, 1], [2, 1]],
        [[[3, 1], [4, 1]], [[5, 1]]],
        [[], [[6, 1]]],
        [[[[7, 1]], [[8, 1], [9, 1]]], []],
    ]
    assert json.loads((obedient.folder / "sizes").read_text()) == sizes
    obedient.post({"prompt": ["sizes"], "video": None, "audio": None})
    assert json.loads((obedient.folder / "sizes").read_text()) == [None] * 4


def test_a_client_of_flow_factory(template: Server) -> None:
    """It asks /health when it is made, and sends plain base64 PNGs from a session, with null for what it has not."""
    session = requests.Session()
    assert session.get(f"{template.url}/health", timeout=5).ok
    images = [noise(7), noise(8)]
    payload = {
        "prompt": ["a cat", "a dog"],
        "image": [encoded(image) for image in images],
        "video": None,
        "condition_images": None,
        "condition_videos": None,
    }
    for _ in range(3):
        answer = session.post(f"{template.url}/compute", json=payload, timeout=60)
        answer.raise_for_status()
        assert answer.json()["rewards"] == pytest.approx([brightness(image) for image in images], rel=1e-14)


@pytest.mark.slow
def test_the_trainers_side(template: Server) -> None:
    """`trainer.py`, as a user runs it: what the server says, in a composite."""

    def run(url: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "error", str(FOLDER / "trainer.py"), "--url", url]
        environment = {name: value for name, value in os.environ.items() if name != "REWARD_TOKEN"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    done = run(template.url)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.rpartition("  total ")[2].split() for line in done.stdout.splitlines()]
    shown = [0.0, 128 / 255, 1.0]
    assert [row[2] for row in rows] == [f"{value:.4f}" for value in shown]
    for row, value in zip(rows, shown, strict=True):
        assert float(row[0]) == pytest.approx(value + 0.1 * float(row[4]), abs=2e-4)
    failed = run(f"{template.url}/elsewhere")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "404" in failed.stderr
    assert "Traceback" not in failed.stderr


# What it refuses


def png_of(width: int, height: int) -> bytes:
    """A header without the pixels that it speaks of."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg_of(width: int, height: int) -> bytes:
    """A small one whose frame header says so."""
    data = file_of(noise(1), "JPEG")
    frame = data.index(b"\xff\xc0")
    return data[: frame + 5] + struct.pack(">HH", height, width) + data[frame + 9 :]


def webp_of(width: int, height: int) -> bytes:
    """A small lossless one whose header says so."""
    data = file_of(noise(1), "WEBP", lossless=True)
    start = data.index(b"VP8L") + 9
    bits = int.from_bytes(data[start : start + 4], "little") >> 28 << 28 | height - 1 << 14 | width - 1
    return data[:start] + bits.to_bytes(4, "little") + data[start + 4 :]


def plain(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


ANIMATION: dict[str, Any] = {"save_all": True, "append_images": [noise(2)]}


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        (plain(png_of(60000, 60000)), 413, "pixels"),
        (plain(jpeg_of(60000, 60000)), 413, "pixels"),
        (plain(webp_of(16383, 16383)), 413, "pixels"),
        (plain(png_of(513, 512)), 413, "pixels"),  # MAX_PIXELS is 512 * 512
        (plain(png_of(60000, 0)), 422, "whole PNG"),
        (encoded(noise(1), "GIF"), 422, "PNG, JPEG or WebP"),
        (encoded(noise(1), "BMP"), 422, "PNG, JPEG or WebP"),
        (encoded(noise(1), "TIFF"), 422, "PNG, JPEG or WebP"),
        (plain(b"just text"), 422, "PNG, JPEG or WebP"),
        (plain(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), 422, "PNG, JPEG or WebP"),
        (plain(file_of(noise(1), "PNG")[:-200]), 422, "whole PNG"),
        (plain(png_of(8, 8)), 422, "whole PNG"),
        ("", 422, "plain base64"),
        (encoded(noise(1))[:-1], 422, "plain base64"),
        (encoded(noise(1))[:40] + "\n" + encoded(noise(1))[40:], 422, "plain base64"),
        ("*" + encoded(noise(1)), 422, "plain base64"),
        ("data:image/png;base64," + encoded(noise(1)), 422, "plain base64"),
        ("/etc/passwd", 422, "plain base64"),
        ("file:///etc/passwd", 422, "plain base64"),
        ("http://127.0.0.1:9/a.png", 422, "plain base64"),
        ("ümlaut", 422, "plain base64"),
        (encoded(noise(1), **ANIMATION), 422, "animated"),
        (encoded(noise(1), "WEBP", **ANIMATION), 422, "animated"),
        (encoded(Image.new("I;16", (4, 4))), 422, "8-bit"),
        (encoded(noise(1).convert("CMYK"), "JPEG"), 422, "8-bit"),
    ],
)
def test_images_that_are_none(obedient: Server, text: str, status: int, message: str) -> None:
    """By field and index, before anything is scored."""
    told = refused(obedient.post({"prompt": ["a", "b"], "image": [encoded(noise(1)), text]}), status)
    assert told.startswith("image[1]")
    assert message in told
    nested = {"prompt": ["a"], "condition_videos": [[[encoded(noise(1))], [text]]]}
    assert refused(obedient.post(nested), status).startswith("condition_videos[0][1][0]")
    assert not (obedient.folder / "scored").exists()


def test_pixels_count_together(obedient: Server) -> None:
    """Two of half the limit fit, a third does not; and an image of one pixel counts as 64 by 64."""
    half = encoded(Image.new("RGB", (512, 256)))
    assert obedient.post({"prompt": ["a", "b"], "image": [half, half]}).status_code == 200
    clip = {"prompt": ["a"], "video": [[half, half, half]]}
    assert refused(obedient.post(clip), 413).startswith("video[0][2]: the images have more than 262144 pixels")
    dot = encoded(Image.new("RGB", (1, 1)))
    assert obedient.post({"prompt": ["a"], "video": [[dot] * 64]}).status_code == 200
    assert "pixels" in refused(obedient.post({"prompt": ["a"], "video": [[dot] * 65]}), 413)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "Invalid JSON"),
        (b"{", "Invalid JSON"),
        (b"\xff\xfe{}", "Invalid JSON"),
        (b"[" * 100_000, "Invalid JSON"),
        (b"[]", "the body: Input should be an object"),
        (b"null", "the body: Input should be an object"),
        (b"{}", "prompt: Field required"),
        (b'{"prompt": null}', "prompt"),
        (b'{"prompt": []}', "prompt"),
        (b'{"prompt": "a cat"}', "prompt"),
        (b'{"prompt": [1]}', "prompt.0"),
        (b'{"prompt": ["\\ud800"]}', "the body: Invalid JSON"),
        (b'{"prompt": [null]}', "prompt.0"),
        (b'{"prompt": ["a"], "image": "iVBO"}', "image"),
        (b'{"prompt": ["a"], "image": [null]}', "image.0"),
        (b'{"prompt": ["a"], "image": [["iVBO"]]}', "image.0"),
        (b'{"prompt": ["a"], "video": ["iVBO"]}', "video.0"),
        (b'{"prompt": ["a"], "video": [[1]]}', "video.0.0"),
        (b'{"prompt": ["a"], "condition_videos": [["iVBO"]]}', "condition_videos.0.0"),
        (b'{"prompt": ["a"], "condition_images": {"0": []}}', "condition_images"),
        (b'{"prompt": ["a", "b"], "image": ["iVBO"]}', "image has 1 entries for 2 prompts"),
        (b'{"prompt": ["a"], "video": []}', "video has 0 entries for 1 prompts"),
        (b'{"prompt": ["a"], "condition_images": [[], []]}', "condition_images has 2 entries for 1 prompts"),
        (b'{"prompt": ["a"], "images": ["iVBO"]}', "images is none of prompt, image, video"),
        (b'{"prompt": ["a"], "image": [' + b"1," * 400_000 + b"1]}", "image.0"),
    ],
)
def test_bodies_that_are_none(obedient: Server, body: bytes, message: str) -> None:
    """With the place of the fault, before anything is scored."""
    answer = obedient.post(body)
    told = answer.json()["error"].partition(" at line ")[0]
    assert answer.status_code == 400
    assert message in told
    assert len(answer.content) < 300
    assert not (obedient.folder / "scored").exists()


def test_limits_of_a_request(obedient: Server, template: Server) -> None:
    """Samples, bytes (the answer comes although they were not read), the type, and how the length is told."""
    assert obedient.post({"prompt": ["a"] * 8}).status_code == 200
    assert "9 samples are more than 8" in refused(obedient.post({"prompt": ["a"] * 9}), 413)
    assert "1048576 bytes" in refused(obedient.post({"prompt": ["a" * 2**24]}), 413)
    head = "POST /compute HTTP/1.1\nHost: a\nContent-Type: application/json\n"
    with template.raw(f"{head}Content-Length: {2**28 + 1}") as connection:
        assert connection.recv(12) == b"HTTP/1.1 413"
    for kind in ("text/plain", "multipart/form-data; boundary=a", "application/x-www-form-urlencoded", ""):
        assert "application/json" in refused(obedient.post({"prompt": ["a"]}, Content_Type=kind), 415)
    assert obedient.post({"prompt": ["a"]}, Content_Type="Application/JSON; charset=utf-8").status_code == 200
    for length in ("", "Content-Length: 2\n"):
        with obedient.raw(f"{head}{length}Transfer-Encoding: chunked", b"2\r\n{}\r\n0\r\n\r\n") as connection:
            assert connection.recv(12) == b"HTTP/1.1 411"


def test_a_body_that_does_not_come(obedient: Server) -> None:
    """The rest of it is waited for within limits."""
    head = "POST /compute HTTP/1.1\nHost: a\nContent-Type: application/json\nContent-Length: 100"
    with obedient.raw(head, b'{"prompt"') as connection:
        assert connection.recv(12) == b"HTTP/1.1 408"


def test_pages_that_are_none(template: Server) -> None:
    """In the same form as other errors; there is no page that describes the server."""
    for path in ("/", "/docs", "/openapi.json", "/compute/1"):
        assert refused(requests.get(template.url + path, timeout=PATIENCE), 404)
    assert refused(requests.get(f"{template.url}/compute", timeout=PATIENCE), 405)


@pytest.mark.parametrize(
    ("word", "status", "message"),
    [
        ("nan", 500, "score() returned nan for sample 1"),
        ("inf", 500, "score() returned -inf for sample 1"),
        ("text", 500, "score() returned '0.5' for sample 1"),
        ("list", 500, "score() returned [1.0] for sample 1"),
        ("count", 500, "score() returned 4 scores for 3 samples"),
        ("one number", 500, "the server failed; its log has more"),
        ("raise", 500, "score() failed with RuntimeError; the server's log has more"),
        ("refuse", 422, "the prompt is too short"),
    ],
)
def test_a_failure_is_no_number(obedient: Server, word: str, status: int, message: str) -> None:
    """In plain words; its details are for the log. The server goes on."""
    assert message in refused(obedient.post({"prompt": [word, "b", "c"]}), status)
    if word == "raise":
        assert "/secret/weights.bin" in (obedient.folder / "log").read_text()
    assert obedient.post({"prompt": ["a", "b"]}).json() == {"rewards": [0.0, 1.0]}
