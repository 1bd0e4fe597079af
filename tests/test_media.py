"""Pixels: every form that is read, and every form that is refused."""

import contextlib
import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from flux_rewards import InputError
from flux_rewards.fingerprint import fingerprint
from flux_rewards.media import (
    images_to_pil,
    images_to_tensors,
    to_pil,
    to_tensor,
    video_to_pil,
    video_to_tensor,
    videos_to_pil,
    videos_to_tensors,
)

PHOTO = Path(__file__).parent / "data" / "images" / "ocean_1.jpg"
RED = (255, 0, 0)


def filled(mode: str, colour: Any, size: tuple[int, int] = (3, 2)) -> Image.Image:
    """A small image of one colour."""
    return Image.new(mode, size, colour)


def palette(transparent: bool) -> Image.Image:
    """A palette image of red, with or without a transparent entry."""
    image = filled("RGB", RED).convert("P", palette=Image.Palette.ADAPTIVE, colors=2)
    if transparent:
        image.info["transparency"] = image.getpixel((0, 0))
    return image


def with_alpha(image: Image.Image) -> Image.Image:
    """An image whose every pixel is half transparent."""
    image.putalpha(128)
    return image


def with_info(image: Image.Image, **info: Any) -> Image.Image:
    """An image as a file with a transparent colour gives it."""
    image.info.update(info)
    return image


# Half-transparent red over white: 255 stays, and 0 becomes 255 - 128 = 127.
MODES: list[tuple[str, Image.Image, tuple[int, int, int]]] = [
    ("1", filled("1", 1), (255, 255, 255)),
    ("L", filled("L", 77), (77, 77, 77)),
    ("LA", filled("LA", (0, 128)), (127, 127, 127)),
    ("La", filled("LA", (0, 128)).convert("La"), (127, 127, 127)),
    ("P", palette(transparent=False), RED),
    ("P with transparency", palette(transparent=True), (255, 255, 255)),
    ("PA", with_alpha(palette(transparent=False)), (255, 127, 127)),
    ("RGB", filled("RGB", RED), RED),
    ("RGB with transparency", with_info(filled("RGB", RED), transparency=RED), (255, 255, 255)),
    ("L with transparency", with_info(filled("L", 9), transparency=9), (255, 255, 255)),
    ("RGBA", filled("RGBA", (255, 0, 0, 128)), (255, 127, 127)),
    ("RGBA opaque", filled("RGBA", (1, 2, 3, 255)), (1, 2, 3)),
    ("RGBA clear", filled("RGBA", (1, 2, 3, 0)), (255, 255, 255)),
    ("RGBa", filled("RGBA", (255, 0, 0, 128)).convert("RGBa"), (255, 127, 127)),
    ("CMYK", filled("CMYK", (0, 255, 255, 0)), RED),
    ("YCbCr", filled("YCbCr", (77, 128, 128)), (77, 77, 77)),
    ("HSV", filled("HSV", (0, 255, 255)), RED),
    # 32896 = 128 * 257: PIL's own conversion would clip it to 255.
    ("I;16", Image.fromarray(np.full((2, 3), 32896, dtype=np.uint16)), (128, 128, 128)),
    ("I", filled("I", 32896), (128, 128, 128)),
    ("I;16B", filled("I;16B", 32896), (128, 128, 128)),
    ("I;16L", filled("I;16L", 32896), (128, 128, 128)),
    ("I;16N", filled("I;16N", 32896), (128, 128, 128)),
    ("I;16 with transparency", with_info(filled("I;16", 1000), transparency=1000), (255, 255, 255)),
    ("1 with transparency", with_info(filled("1", 0), transparency=0), (255, 255, 255)),
    # An RGBA image that was quantized has its alpha in the palette, and nothing in `info`.
    ("P with alpha in its palette", filled("RGBA", (255, 0, 0, 128)).quantize(), (255, 127, 127)),
    ("CMYK with a left-over key", with_info(filled("CMYK", (0, 255, 255, 0)), transparency=0), RED),
    ("F", filled("F", 0.2), (51, 51, 51)),
]


@pytest.mark.parametrize(("image", "expected"), [case[1:] for case in MODES], ids=[case[0] for case in MODES])
def test_every_mode_of_pil(image: Image.Image, expected: tuple[int, int, int]) -> None:
    """Converted to RGB, alpha on white, 16 bits scaled."""
    before = fingerprint(image)
    found = to_pil(image)
    assert (found.mode, found.size) == ("RGB", image.size)
    assert found.getpixel((1, 1)) == expected
    np.testing.assert_allclose(to_tensor(image)[:, 1, 1] * 255, expected, atol=1e-4)
    assert fingerprint(image) == before


# CIE L*a*b* (D50) of the sRGB primaries, as tables give them; the tolerance is what 8 bits an axis cost at the
# edge of the gamut.
LAB = [
    ((100, 0, 0), (255, 255, 255), 2),
    ((0, 0, 0), (0, 0, 0), 2),
    ((54.29, 80.81, 69.89), RED, 8),
    ((87.82, -79.27, 80.99), (0, 255, 0), 16),
    ((29.57, 68.29, -112.03), (0, 0, 255), 24),
]


@pytest.mark.parametrize(("lab", "rgb", "tolerance"), LAB)
def test_lab_is_converted_by_its_profile(
    lab: tuple[float, float, float], rgb: tuple[int, int, int], tolerance: int
) -> None:
    """PIL's `convert` knows no LAB."""
    image = filled("LAB", (round(lab[0] * 2.55), round(lab[1]) + 128, round(lab[2]) + 128))
    assert to_pil(image).getpixel((0, 0)) == pytest.approx(rgb, abs=tolerance)
    np.testing.assert_allclose(to_tensor(image)[:, 0, 0] * 255, rgb, atol=tolerance)


def test_tensors_keep_what_pil_cannot_hold() -> None:
    """16-bit gray, float gray and composited alpha do not pass through 8 bits on their way to a tensor."""
    levels = np.array([[0, 1, 1000, 32896, 65535]], dtype=np.uint16)
    np.testing.assert_allclose(to_tensor(Image.fromarray(levels))[0].numpy(), levels / 65535, rtol=1e-6)
    floats = np.array([[0.0, 0.1234, 1.0]], dtype=np.float32)
    np.testing.assert_array_equal(to_tensor(Image.fromarray(floats))[2].numpy(), floats)
    half_red = filled("RGBA", (10, 0, 0, 100))  # 10 * 100 / 255 + 155 = 158.92
    np.testing.assert_allclose(to_tensor(half_red)[:, 0, 0] * 255, [1000 / 255 + 155, 155, 155], rtol=1e-6)


def test_alpha_is_rounded_to_the_nearest_level() -> None:
    """For every colour and every alpha, whoever holds the pixels."""
    alpha, colour = np.mgrid[:256, :256]
    pixels = np.stack([colour, colour, colour, alpha], axis=-1).astype(np.uint8)
    expected = (colour * alpha + 255 * (255 - alpha) + 127) // 255  # 255 is odd: there are no ties
    for image in (pixels, torch.from_numpy(pixels), Image.fromarray(pixels), pixels / 255):
        np.testing.assert_array_equal(np.asarray(to_pil(image))[:, :, 1], expected)
        np.testing.assert_array_equal((to_tensor(image)[1] * 255).round().numpy(), expected)


def test_an_rgb_image_is_not_copied() -> None:
    """Nothing is done to what is right already."""
    image = filled("RGB", RED)
    assert to_pil(image) is image


def read_only(array: Any) -> Any:
    """An array as `np.load(mmap_mode="r")` or JAX gives it; torch warns where its memory is shared."""
    array = array.copy()
    array.setflags(write=False)
    return array


HWC = (np.arange(2 * 5 * 3) * 8).reshape(2, 5, 3).astype(np.uint8)
CHW = np.ascontiguousarray(HWC.transpose(2, 0, 1))
RGBA = np.dstack([HWC, np.full((2, 5), 255, np.uint8)])

ARRAYS: list[tuple[str, Any]] = [
    ("HWC uint8", HWC),
    ("CHW uint8", CHW),
    ("HWC float64", HWC / 255),
    ("CHW float32", (CHW / 255).astype(np.float32)),
    ("RGBA opaque", RGBA),
    ("RGBA CHW float", RGBA.transpose(2, 0, 1) / 255),
    ("read-only", read_only(HWC)),
    ("read-only float32", read_only((HWC / 255).astype(np.float32))),
    ("big-endian", (HWC / 255).astype(">f4")),
    ("float128", (HWC / 255).astype(np.longdouble)),
    ("not contiguous", np.repeat(HWC, 2, axis=1)[:, ::2]),
    ("negative strides", np.ascontiguousarray(HWC[:, ::-1])[:, ::-1]),
    ("torch HWC", torch.from_numpy(HWC)),
    ("torch CHW", torch.from_numpy(CHW)),
    ("torch CHW float64", torch.from_numpy(CHW / 255)),
    ("torch with gradient", torch.from_numpy((CHW / 255).astype(np.float32)).requires_grad_()),
    ("torch not contiguous", torch.from_numpy(HWC).permute(2, 0, 1)),
    ("PIL", Image.fromarray(HWC)),
]


@pytest.mark.parametrize("image", [case[1] for case in ARRAYS], ids=[case[0] for case in ARRAYS])
def test_every_layout_and_dtype(image: Any) -> None:
    """All hold the same pixels."""
    before = fingerprint(image)
    np.testing.assert_array_equal(np.asarray(to_pil(image)), HWC)
    tensor = to_tensor(image)
    assert (tensor.dtype, tensor.is_contiguous()) == (torch.float32, True)
    np.testing.assert_allclose(tensor.detach().numpy(), CHW / 255, rtol=1e-6)
    assert fingerprint(image) == before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_its_values(dtype: torch.dtype) -> None:
    """In float32."""
    image = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    torch.testing.assert_close(to_tensor(image), image.float(), rtol=0, atol=0)
    assert to_pil(image).size == (4, 4)


def test_gray_arrays_become_rgb() -> None:
    """(H, W), (H, W, 1) and (1, H, W)."""
    gray = np.array([[0, 100, 200, 0, 0]] * 5, dtype=np.uint8)
    for image in (gray, gray[:, :, None], gray[None], torch.from_numpy(gray), gray / 255):
        assert [to_pil(image).getpixel((x, 0)) for x in range(3)] == [(0, 0, 0), (100, 100, 100), (200, 200, 200)]
        assert tuple(to_tensor(image).shape) == (3, 5, 5)
        assert to_tensor(image).is_contiguous()  # not one plane seen three times


def test_alpha_of_arrays_is_composited_on_white() -> None:
    """Exactly, for floats: 0.25 * 0.5 + 0.75."""
    pixels = np.zeros((1, 1, 4), dtype=np.float32)
    pixels[...] = (0.5, 0.0, 1.0, 0.25)
    torch.testing.assert_close(to_tensor(pixels).flatten(), torch.tensor([0.875, 0.75, 1.0]))
    assert to_pil(np.array([[[255, 0, 0, 128]]], dtype=np.uint8)).getpixel((0, 0)) == (255, 127, 127)


def test_a_shape_that_reads_both_ways_follows_its_library() -> None:
    """(3, 4, 3) is HWC for an array and CHW for a tensor."""
    pixels = np.zeros((3, 4, 3), dtype=np.uint8)
    assert to_pil(pixels).size == (4, 3)
    assert to_pil(torch.from_numpy(pixels)).size == (3, 4)
    assert tuple(to_tensor(pixels).shape) == (3, 3, 4)
    assert tuple(to_tensor(torch.from_numpy(pixels)).shape) == (3, 4, 3)


def test_a_float_tensor_is_not_changed() -> None:
    """No step between a user's pixels and a model loses anything, the gradient included."""
    image = torch.rand(3, 8, 8, requires_grad=True)
    tensor = to_tensor(image)
    torch.testing.assert_close(tensor, image, rtol=0, atol=0)
    tensor.sum().backward()
    torch.testing.assert_close(image.grad, torch.ones(3, 8, 8))


def test_uint8_is_divided_by_255() -> None:
    """In float32, and nothing else."""
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16)
    torch.testing.assert_close(to_tensor(levels)[0].flatten(), torch.arange(256) / 255, rtol=0, atol=0)


def test_a_little_overshoot_is_clamped() -> None:
    """As decoders and resizers leave it."""
    image = torch.tensor([-5e-4, 0.5, 1 + 5e-4, 0.0, 0.0]).reshape(1, 1, 5)
    assert to_tensor(image)[0, 0].tolist() == [0.0, 0.5, 1.0, 0.0, 0.0]
    assert to_pil(image.numpy()).getpixel((2, 0)) == (255, 255, 255)


IMAGES = hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(5, 9), st.just(3)))  # 5 wide: no CHW


@given(IMAGES)
@settings(max_examples=40, deadline=None)
def test_round_trips_are_exact(pixels: Any) -> None:
    """uint8 in any container, through any other, comes back; and what was passed stays as it was."""
    before = pixels.copy()
    planes = torch.from_numpy(pixels).permute(2, 0, 1)
    for image in (pixels, planes, Image.fromarray(pixels)):
        np.testing.assert_array_equal(np.asarray(to_pil(image)), pixels)
        np.testing.assert_array_equal(np.asarray(to_pil(to_tensor(to_pil(image)))), pixels)
        np.testing.assert_array_equal((to_tensor(image) * 255).round().byte().permute(1, 2, 0).numpy(), pixels)
        np.testing.assert_array_equal(to_tensor(image).numpy(), pixels.transpose(2, 0, 1) / np.float32(255))
    np.testing.assert_array_equal(pixels, before)


@given(hnp.arrays(np.float32, (3, 5, 6), elements=st.floats(0, 1, width=32)))
@settings(max_examples=40, deadline=None)
def test_floats_keep_their_values(pixels: Any) -> None:
    """As a tensor exactly, and as PIL to half a level."""
    for image in (pixels, torch.from_numpy(pixels)):
        np.testing.assert_array_equal(to_tensor(image).numpy(), pixels)
        levels = np.asarray(to_pil(image)).transpose(2, 0, 1)
        assert np.abs(levels - pixels.astype(np.float64) * 255).max() <= 0.5


def test_paths_are_opened_upright(tmp_path: Path) -> None:
    """A file's orientation is applied, its first frame taken, and the file closed."""
    assert to_pil(PHOTO).size == (512, 512)
    assert to_pil(str(PHOTO)).mode == "RGB"
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    turned = tmp_path / "turned.png"
    filled("RGB", RED, (4, 2)).save(turned, exif=exif)
    assert to_pil(turned).size == (2, 4)
    moving = tmp_path / "moving.gif"
    filled("RGB", RED).save(moving, save_all=True, append_images=[filled("RGB", (0, 0, 255))])
    assert to_pil(moving).getpixel((0, 0)) == RED
    moving.unlink()  # fails where a handle is left open, and a warning would be an error


class BytesPath:
    """A path of bytes, as `os.scandir(b".")` gives it."""

    def __fspath__(self) -> bytes:
        return b"nowhere.png"


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0" * 99)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.jpg", None, "missing.jpg.*FileNotFoundError"),
        ("truncated.jpg", PHOTO.read_bytes()[:4000], "truncated.jpg.*truncated"),
        ("half.jpg", PHOTO.read_bytes()[: PHOTO.stat().st_size // 2], "half.jpg.*truncated"),
        ("header.jpg", PHOTO.read_bytes()[:20], "header.jpg"),
        ("empty.png", b"", "UnidentifiedImageError"),
        ("text.png", b"not an image", "UnidentifiedImageError"),
        ("bomb.png", png_header(40000, 40000), "bomb.png.*DecompressionBomb"),
        ("large.png", png_header(10000, 10000), "large.png.*DecompressionBomb"),
        ("short.png", png_header(100, 100), "short.png"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    """With the path and the reason; none is a crash, a blank image or a full memory."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        to_pil(path, field="image", index=3, reward="r")
    assert (caught.value.field, caught.value.index, caught.value.reward) == ("image", 3, "r")
    assert str(caught.value).startswith("reward 'r', sample 3, field 'image': ")
    assert isinstance(caught.value.__cause__, Exception)


def test_a_decompression_bomb_is_measured_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where PIL would only warn, and where the caller opened the file."""
    with Image.open(PHOTO) as lazy:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 512 * 512 - 1)
        with pytest.raises(InputError, match=r"512x512 pixels.*MAX_IMAGE_PIXELS = 262143"):
            to_pil(lazy)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with pytest.raises(InputError, match=r"ocean_1.jpg.*512x512 pixels.*MAX_IMAGE_PIXELS = 262143"):
                to_tensor(PHOTO)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
        assert to_pil(lazy).size == to_pil(PHOTO).size == (512, 512)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF", "WEBP", "AVIF"])
def test_a_damaged_file_is_an_error_or_an_image(tmp_path: Path, kind: str) -> None:
    """Whatever its plugin raises: some of PIL's raise RuntimeError, and some warn."""
    path = tmp_path / "damaged"
    with Image.open(PHOTO) as photo:
        small = photo.resize((32, 32))
    try:
        small.save(path, kind)
    except (KeyError, OSError):
        pytest.skip(f"this PIL writes no {kind}")
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[rng.integers(0, len(damaged), 5)] = rng.integers(0, 256, 5)
        path.write_bytes(damaged[: rng.integers(1, len(damaged) + 1)].tobytes())
        with contextlib.suppress(InputError):
            assert to_pil(path).mode == "RGB"


def test_a_directory_is_no_image(tmp_path: Path) -> None:
    """Nor is what cannot be fetched."""
    with pytest.raises(InputError, match="cannot read"):
        to_pil(tmp_path)
    for address in (
        "https://me:secret@example.com/a.png",
        "data:image/png;base64,secret",
        "HTTP://secret",
        "gs://secret",
    ):
        with pytest.raises(InputError, match="not fetched") as caught:
            to_pil(address)
        assert "secret" not in str(caught.value)
    with pytest.raises(InputError, match="a text of 9000 characters") as caught:
        to_pil("/9j/4AAQ" + "A" * 8992)  # base64
    assert len(str(caught.value)) < 200
    with pytest.raises(InputError, match=r"'nowhere\.png'"):
        to_pil(BytesPath())


def test_a_lazily_opened_file_fails_with_its_sample(tmp_path: Path) -> None:
    """PIL reads the pixels late; the error must still know where it was."""
    path = tmp_path / "truncated.jpg"
    path.write_bytes(PHOTO.read_bytes()[:4000])
    with Image.open(path) as image, pytest.raises(InputError, match="truncated") as caught:
        to_pil(image, index=2)
    assert caught.value.index == 2


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((2, 2, 3), 200.0), "divide by 255"),
        (np.full((2, 2, 3), -0.5), r"use \(x \+ 1\) / 2"),
        (torch.full((3, 2, 2), -0.5), r"use \(x \+ 1\) / 2"),
        (np.full((2, 2, 3), 255.0), r"ndarray float64 \(2, 2, 3\) in \[255, 255\]; divide by 255"),
        (np.array([[-5e-4, 255.0]]), "divide by 255"),
        (np.array([[-1.0, 1.0]]), r"\[-1, 1\]; use \(x \+ 1\) / 2"),
        (np.array([[0.0, 1.01]]), "divide by 255"),
        (np.array([[-0.5, 7.0]]), "rescale"),
        (np.full((2, 2, 3), 1e6), "rescale"),
        (np.full((2, 2, 3), np.nan), "NaN"),
        (torch.full((3, 2, 2), torch.inf), "infinite"),
        (np.zeros((2, 2, 3), dtype=np.int64), "int64"),
        (torch.zeros(3, 2, 2, dtype=torch.bool), "bool"),
        (np.full((2, 2, 3), 7, dtype=np.int64), r"ndarray int64 \(2, 2, 3\) in \[7, 7\]"),
        (torch.full((3, 2, 2), 9), r"Tensor int64 \(3, 2, 2\) in \[9, 9\]"),
        (np.zeros((2, 2, 3), dtype=np.uint16), "uint16"),
        (torch.zeros(3, 2, 2, dtype=torch.uint16), "uint16"),
        (np.zeros((2, 2, 3), dtype=np.complex64), "complex64"),
        (np.zeros((2, 2, 3), dtype=object), "object"),
        (torch.zeros(3, 2, 2).to(torch.float8_e4m3fn), "float8_e4m3fn"),
        (torch.zeros(3, 2, 2, device="meta"), "dense tensor"),
        (torch.zeros(3, 2, 2).to_sparse(), "dense tensor"),
        (np.ma.masked_less(np.zeros((2, 2, 3)), 1), "expected an image"),
        (np.zeros(()), "1, 3 or 4 channels"),
        (None, "expected an image"),
        (np.zeros((2, 2, 2)), "1, 3 or 4 channels"),
        (np.zeros((5, 6, 7)), "1, 3 or 4 channels"),
        (np.zeros(4), "1, 3 or 4 channels"),
        (np.zeros((1, 2, 2, 3)), "1, 3 or 4 channels"),
        (np.zeros((0, 2, 3)), "no pixels"),
        (torch.zeros(3, 0, 4), "no pixels"),
        (Image.new("RGB", (0, 5)), "no pixels"),
        (filled("I", 70000), "16-bit gray.*70000"),
        (filled("I", -1), "16-bit gray"),
        (filled("F", float("nan")), "NaN"),
        (filled("F", 7.0), "divide by 255"),
        (b"bytes", "expected an image"),
        (3, "expected an image"),
        ([HWC], "expected an image"),
    ],
)
def test_other_pixels_are_refused(image: Any, message: str) -> None:
    """With what was found and what to do, by both readers."""
    for read in (to_pil, to_tensor):
        with pytest.raises(InputError, match=message) as caught:
            read(image, index=1, reward="r")
        assert (caught.value.field, caught.value.index, caught.value.reward) == ("image", 1, "r")


VIDEOS: list[Any] = [
    [HWC, HWC],
    (Image.fromarray(HWC), CHW / 255),
    np.stack([HWC, HWC]),
    np.stack([CHW, CHW]),
    torch.from_numpy(np.stack([CHW, CHW])),
    torch.from_numpy(np.stack([CHW, CHW])).float() / 255,
]


@pytest.mark.parametrize("video", VIDEOS, ids=range(len(VIDEOS)))
def test_videos_of_every_form(video: Any) -> None:
    """Frames as PIL, or one tensor (T, C, H, W)."""
    frames = video_to_pil(video)
    assert [np.asarray(frame).tolist() for frame in frames] == [HWC.tolist()] * 2
    tensor = video_to_tensor(video)
    assert tuple(tensor.shape) == (2, 3, 2, 5)
    np.testing.assert_allclose(tensor[1].numpy(), CHW / 255, rtol=1e-6)


def test_frames_may_be_files() -> None:
    """As datasets of frames are stored."""
    assert len(video_to_pil([PHOTO, str(PHOTO)])) == 2


@pytest.mark.parametrize(
    ("video", "message"),
    [
        ([], "expected frames, found none"),
        (np.zeros((0, 3, 2, 2)), "expected frames, found none"),
        ([HWC, HWC[:1]], "frame 1: is 5x1.*the first frame 5x2"),
        (np.zeros((3, 16, 8, 8), np.uint8), "frame 0: expected .*1, 3 or 4 channels"),
        ([HWC, None], "frame 1: expected an image"),
        ("https://example.com/a.mp4", "not fetched"),
        ([HWC, HWC * 1.0], "frame 1: .*divide by 255"),
        ("clip.mp4", "cannot read the video file 'clip.mp4'"),
        (Path("clip.mp4"), "cannot read the video file"),
        (HWC, "expected a list of frames"),
        (3, "expected a list of frames"),
    ],
)
def test_other_videos_are_refused(video: Any, message: str) -> None:
    """With the number of the frame."""
    for read in (video_to_pil, video_to_tensor):
        with pytest.raises(InputError, match=message) as caught:
            read(video, index=4)
        assert (caught.value.field, caught.value.index) == ("video", 4)


@pytest.mark.parametrize(
    ("images", "count"),
    [
        ([HWC, Image.fromarray(HWC)], 2),
        (HWC, 1),
        (PHOTO, 1),
        (Image.fromarray(HWC), 1),
        (np.stack([HWC, HWC, HWC]), 3),
        (torch.from_numpy(np.stack([CHW, CHW])), 2),
        ([torch.from_numpy(CHW), torch.zeros(3, 9, 9)], 2),
    ],
)
def test_condition_images_of_every_form(images: Any, count: int) -> None:
    """A list, a tensor (N, C, H, W), or one image; sizes may differ."""
    assert [image.mode for image in images_to_pil(images)] == ["RGB"] * count
    assert [tensor.shape[0] for tensor in images_to_tensors(images)] == [3] * count


@pytest.mark.parametrize(
    ("videos", "lengths"),
    [
        ([[HWC, HWC], [HWC]], [2, 1]),
        ([np.stack([HWC, HWC])], [2]),
        (torch.from_numpy(np.stack([CHW, CHW])), [2]),
        (np.zeros((3, 2, 3, 4, 5), np.uint8), [2, 2, 2]),
    ],
)
def test_condition_videos_of_every_form(videos: Any, lengths: list[int]) -> None:
    """A list of videos, a tensor (N, T, C, H, W), or one video."""
    assert [len(video) for video in videos_to_pil(videos)] == lengths
    assert [len(tensor) for tensor in videos_to_tensors(videos)] == lengths


@pytest.mark.parametrize(
    ("read", "value", "message"),
    [
        (images_to_pil, [], "expected images, found none"),
        (images_to_pil, torch.zeros(0, 3, 2, 2), "expected images, found none"),
        (images_to_tensors, [HWC, HWC * 2.5], "image 1: "),
        (images_to_pil, 3, "list of images"),
        (videos_to_pil, [], "expected videos, found none"),
        (videos_to_pil, "clip.mp4", "cannot read the video file"),
        (videos_to_tensors, [[HWC], "clip.mp4"], "video 1: cannot read the video file"),
        (videos_to_pil, [[HWC], []], "video 1: expected frames, found none"),
        (videos_to_pil, [Image.fromarray(HWC)], "video 0: expected a list of frames"),
        (videos_to_tensors, [[HWC], [HWC, HWC * 2.5]], "video 1: frame 1: "),
        (videos_to_pil, HWC, "list of videos"),
    ],
)
def test_other_condition_media_are_refused(read: Any, value: Any, message: str) -> None:
    """With the number of the image, the video and the frame."""
    with pytest.raises(InputError, match=message) as caught:
        read(value, index=0)
    assert str(caught.value.field).startswith("condition_")


def test_many_threads_may_read_one_image() -> None:
    """Paths, arrays, and one lazily opened file, which PIL by itself reads from one position for all threads."""
    together = threading.Barrier(8)

    def read(image: Any) -> bytes:
        together.wait(timeout=60)
        return fingerprint(to_tensor(image))

    expected = fingerprint(to_tensor(PHOTO))
    with ThreadPoolExecutor(8) as pool:
        for _ in range(12):
            with Image.open(PHOTO) as lazy:
                assert set(pool.map(read, [lazy] * 7 + [PHOTO])) == {expected}
        assert len(set(pool.map(read, [HWC] * 8))) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_can_read_images() -> None:
    """Though another thread was reading one when the process was forked, as data loaders do."""
    code = (
        "import os, signal, sys, threading, warnings\n"
        "from PIL import Image\n"
        "from flux_rewards import media\n"
        "warnings.simplefilter('ignore', DeprecationWarning)  # of forking with threads, which is the point\n"
        "media.to_pil(sys.argv[1])  # loads the plugin: a fork in the midst of an import hangs by itself\n"
        "def read():\n"
        "    while not done:\n"
        "        media.to_pil(Image.open(sys.argv[1]))\n"
        "done = []\n"
        "reader = threading.Thread(target=read, daemon=True)\n"
        "reader.start()\n"
        "for _ in range(10):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        signal.alarm(10)\n"
        "        os._exit(0 if media.to_pil(Image.open(sys.argv[1])).mode == 'RGB' else 1)\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
        "done.append(1)\n"
        "reader.join()\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(PHOTO)], check=True, timeout=60)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_pixels() -> None:
    """To the bit, and a tensor stays where it is."""
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16)
    found = to_tensor(levels.cuda())
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), to_tensor(levels), rtol=0, atol=0)
    assert to_pil(levels.cuda()).tobytes() == to_pil(levels).tobytes()
    with pytest.raises(InputError, match="frame 1: is 16x16 on cpu, the first frame 16x16 on cuda:0"):
        video_to_tensor([levels.cuda(), levels])
