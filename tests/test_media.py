"""Pixels: every form that is read, and every form that is refused."""

import struct
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


def test_lab_is_converted_by_its_profile() -> None:
    """L* = 100 is white and L* = 0 black; PIL's `convert` knows no LAB."""
    assert to_pil(filled("LAB", (255, 128, 128))).getpixel((0, 0)) == pytest.approx((255, 255, 255), abs=2)
    assert to_pil(filled("LAB", (0, 128, 128))).getpixel((0, 0)) == pytest.approx((0, 0, 0), abs=2)


def test_an_rgb_image_is_not_copied() -> None:
    """Nothing is done to what is right already."""
    image = filled("RGB", RED)
    assert to_pil(image) is image


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
    assert tensor.dtype == torch.float32
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
    tensor.sum().backward()  # type: ignore[no-untyped-call]
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


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(5, 9), st.just(3))))
@settings(max_examples=40, deadline=None)
def test_round_trips_are_exact(pixels: Any) -> None:
    """uint8 through PIL, tensors and back."""
    np.testing.assert_array_equal(np.asarray(to_pil(to_tensor(to_pil(pixels)))), pixels)
    np.testing.assert_array_equal((to_tensor(pixels) * 255).round().byte().permute(1, 2, 0).numpy(), pixels)


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
        ("missing.jpg", None, "missing.jpg"),
        ("truncated.jpg", PHOTO.read_bytes()[:4000], "truncated"),
        ("header.jpg", PHOTO.read_bytes()[:20], "header.jpg"),
        ("empty.png", b"", "UnidentifiedImageError"),
        ("text.png", b"not an image", "UnidentifiedImageError"),
        ("bomb.png", png_header(40000, 40000), "pixels|DecompressionBomb"),
        ("large.png", png_header(10000, 10000), "pixels|DecompressionBomb"),
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


def test_a_directory_is_no_image(tmp_path: Path) -> None:
    """Nor is what cannot be fetched."""
    with pytest.raises(InputError, match="cannot read"):
        to_pil(tmp_path)
    for address in ("https://example.com/a.png", "data:image/png;base64,AAAA"):
        with pytest.raises(InputError, match="not fetched"):
            to_pil(address)


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
        (np.full((2, 2, 3), 1e6), "rescale"),
        (np.full((2, 2, 3), np.nan), "NaN"),
        (torch.full((3, 2, 2), torch.inf), "infinite"),
        (np.zeros((2, 2, 3), dtype=np.int64), "int64"),
        (torch.zeros(3, 2, 2, dtype=torch.bool), "bool"),
        (np.zeros((2, 2, 3), dtype=np.uint16), "uint16"),
        (np.zeros((2, 2, 2)), "1, 3 or 4 channels"),
        (np.zeros((5, 6, 7)), "1, 3 or 4 channels"),
        (np.zeros(4), "1, 3 or 4 channels"),
        (np.zeros((1, 2, 2, 3)), "1, 3 or 4 channels"),
        (np.zeros((0, 2, 3)), "no pixels"),
        (torch.zeros(3, 0, 4), "no pixels"),
        (Image.new("RGB", (0, 5)), "no pixels"),
        (filled("I", 70000), "16-bit gray"),
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
        ([], "no frames"),
        (np.zeros((0, 3, 2, 2)), "no frames"),
        ([HWC, HWC[:1]], "frame 1: has the size"),
        ([HWC, HWC * 1.0], "frame 1: .*divide by 255"),
        ("clip.mp4", "pass its frames"),
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
        (images_to_pil, [], "at least one image"),
        (images_to_tensors, [HWC, HWC * 2.5], "image 1: "),
        (images_to_pil, 3, "list of images"),
        (videos_to_pil, [], "at least one video"),
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
    """One lazily opened file, and one array."""
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda image: fingerprint(to_tensor(image)), [PHOTO] * 16 + [HWC] * 16))
    assert len(set(found)) == 2
