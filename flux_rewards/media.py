"""The only place where pixels change type or range.

An image is a PIL image in any mode, a path, or an array or tensor: uint8, or float in [0, 1]; (H, W, C), (C, H, W)
or gray (H, W); 1, 3 or 4 channels. Where a shape can be read both ways, an array is (H, W, C) and a tensor (C, H, W).
Alpha is composited on white, 16-bit gray is scaled, and floats up to 1e-3 out of range are clamped. A file gives its
first frame, upright. Anything else is an `InputError` that names the field and the sample.

Nothing is fetched, resized or decoded from a video file; no colour profile is applied, and no EXIF orientation to an
image in memory. Inputs are not changed, but for a PIL image that was opened and not yet read: that is read.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from PIL import Image, ImageCms, ImageFile, ImageOps

from flux_rewards.errors import InputError, brief

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

__all__ = [
    "images_to_pil",
    "images_to_tensors",
    "to_pil",
    "to_tensor",
    "video_to_pil",
    "video_to_tensor",
    "videos_to_pil",
    "videos_to_tensors",
]

_CHANNELS = (1, 3, 4)
_FLOATS = ("float16", "bfloat16", "float32", "float64", "float128")  # not float8, which nothing can compare
_TOLERANCE = 1e-3  # what a resize or a half-precision decoder may overshoot by; clamped
_ADDRESS = re.compile(r"data:|[a-z][a-z0-9+.-]+://", re.IGNORECASE)

# Two threads that read one lazily opened image tear it: PIL decodes it in place, from one file position.
_LOADING = threading.Lock()
if hasattr(os, "register_at_fork"):  # a forked child must inherit neither a held lock nor half an image
    os.register_at_fork(before=_LOADING.acquire, after_in_parent=_LOADING.release, after_in_child=_LOADING.release)


class _Place(NamedTuple):
    """Where in a batch a value stands, for messages."""

    field: str
    sample: int | None
    reward: str | None
    within: str = ""  # such as "frame 3: "

    def error(self, message: str) -> InputError:
        return InputError(f"{self.within}{message}", field=self.field, index=self.sample, reward=self.reward)

    def at(self, what: str, position: int) -> _Place:
        return self._replace(within=f"{self.within}{what} {position}: ")


def to_pil(image: Any, *, field: str = "image", index: int | None = None, reward: str | None = None) -> Image.Image:
    """An image as PIL, mode RGB. Floats and 16 bits are rounded to the nearest of the 256 levels that PIL holds.

    Args:
        image: See the module. An RGB image is returned as it is.
        field: Where it came from, for messages.
        index: Its sample, for messages.
        reward: Who reads it, for messages.

    Raises:
        InputError: It is no such image.

    Examples:
        >>> to_pil(np.full((2, 3), 0.5)).getpixel((0, 0))
        (128, 128, 128)
    """
    return _pil(image, _Place(field, index, reward))


def to_tensor(image: Any, *, field: str = "image", index: int | None = None, reward: str | None = None) -> torch.Tensor:
    """An image as a contiguous float32 tensor (3, H, W) in [0, 1], on the device of a given tensor, else on the CPU.

    uint8 is divided by 255, 16-bit gray by 65535; a float32 RGB tensor keeps its values, and its gradient.
    Takes and refuses what `to_pil` does.

    Examples:
        >>> to_tensor(np.full((2, 3, 3), 51, dtype=np.uint8))[:, 0, 0]
        tensor([0.2000, 0.2000, 0.2000])
    """
    return _tensor(image, _Place(field, index, reward))


def video_to_pil(
    video: Any, *, field: str = "video", index: int | None = None, reward: str | None = None
) -> list[Image.Image]:
    """A video as frames: from a list of images, or an array or tensor (T, C, H, W) or (T, H, W, C).

    Examples:
        >>> len(video_to_pil(np.zeros((4, 2, 3, 3), dtype=np.uint8)))
        4
    """
    return _frames(video, _Place(field, index, reward), _pil)


def video_to_tensor(
    video: Any, *, field: str = "video", index: int | None = None, reward: str | None = None
) -> torch.Tensor:
    """A video as a float32 tensor (T, 3, H, W) in [0, 1].

    Examples:
        >>> tuple(video_to_tensor(np.zeros((4, 2, 5, 3), dtype=np.uint8)).shape)
        (4, 3, 2, 5)
    """
    return _stacked(video, _Place(field, index, reward))


def images_to_pil(
    images: Any, *, field: str = "condition_images", index: int | None = None, reward: str | None = None
) -> list[Image.Image]:
    """The images of one sample: from a list, an array or tensor (N, C, H, W) or (N, H, W, C), or one image.

    Examples:
        >>> len(images_to_pil([np.zeros((2, 3)), np.zeros((4, 4))]))
        2
    """
    place = _Place(field, index, reward)
    return [_pil(image, place.at("image", number)) for number, image in enumerate(_images(images, place))]


def images_to_tensors(
    images: Any, *, field: str = "condition_images", index: int | None = None, reward: str | None = None
) -> list[torch.Tensor]:
    """The images of one sample as float32 tensors (3, H, W) in [0, 1]; sizes may differ.

    Examples:
        >>> [tuple(image.shape) for image in images_to_tensors([np.zeros((2, 3)), np.zeros((4, 4))])]
        [(3, 2, 3), (3, 4, 4)]
    """
    place = _Place(field, index, reward)
    return [_tensor(image, place.at("image", number)) for number, image in enumerate(_images(images, place))]


def videos_to_pil(
    videos: Any, *, field: str = "condition_videos", index: int | None = None, reward: str | None = None
) -> list[list[Image.Image]]:
    """The videos of one sample: from a list of videos, an array or tensor (N, T, C, H, W), or one (T, C, H, W).

    Examples:
        >>> [len(video) for video in videos_to_pil(np.zeros((2, 4, 2, 3, 3), dtype=np.uint8))]
        [4, 4]
    """
    place = _Place(field, index, reward)
    return [_frames(video, place.at("video", number), _pil) for number, video in enumerate(_videos(videos, place))]


def videos_to_tensors(
    videos: Any, *, field: str = "condition_videos", index: int | None = None, reward: str | None = None
) -> list[torch.Tensor]:
    """The videos of one sample as float32 tensors (T, 3, H, W) in [0, 1]; lengths and sizes may differ.

    Examples:
        >>> [tuple(video.shape) for video in videos_to_tensors([[np.zeros((2, 3))]])]
        [(1, 3, 2, 3)]
    """
    place = _Place(field, index, reward)
    return [_stacked(video, place.at("video", number)) for number, video in enumerate(_videos(videos, place))]


def _pil(image: Any, place: _Place) -> Image.Image:
    image = _loaded(image, place)
    if isinstance(image, Image.Image) and image.mode == "RGB" and "transparency" not in image.info:
        return image
    pixels = _read(image, place)
    if pixels.dtype == np.uint8 and pixels.shape[2] == 4:
        white = Image.new("RGBA", pixels.shape[1::-1], (255, 255, 255, 255))
        return Image.alpha_composite(white, Image.fromarray(pixels)).convert("RGB")
    if pixels.shape[2] == 4:
        pixels = pixels.astype(np.float64)
        pixels = pixels[:, :, :3] * pixels[:, :, 3:] + (1 - pixels[:, :, 3:])
    if pixels.dtype != np.uint8:
        pixels = np.floor(pixels.astype(np.float64) * 255 + 0.5).astype(np.uint8)  # to the nearest level
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3))))


def _tensor(image: Any, place: _Place) -> torch.Tensor:
    import torch  # noqa: PLC0415  # only those who ask for tensors pay for it

    if isinstance(image, torch.Tensor):
        _check(image, place)
        pixels = image.unsqueeze(0) if image.ndim == 2 else image
        if _channels_last(pixels.shape, prefer_last=False):
            pixels = pixels.permute(2, 0, 1)
        in_levels, pixels = image.dtype == torch.uint8, pixels.float()
    else:
        found = _read(image, place)
        in_levels = found.dtype == np.uint8  # below, a copy: never the caller's own memory
        pixels = torch.from_numpy(found.transpose(2, 0, 1).astype(np.float32, order="C"))
    if in_levels:  # divided by a tensor: CUDA multiplies by the reciprocal of a number, which is not the same
        pixels = pixels / torch.full((), 255.0, dtype=torch.float32, device=pixels.device)
    else:
        pixels = pixels.clamp(0, 1)
    if pixels.shape[0] == 4:
        pixels = pixels[:3] * pixels[3:] + (1 - pixels[3:])
    return pixels.expand(3, -1, -1).contiguous()


def _read(image: Any, place: _Place) -> NDArray[Any]:
    """Any image as an array (H, W, C), uint8 or float in [0, 1], alpha not yet composited."""
    image = _loaded(image, place)
    if isinstance(image, Image.Image):
        with _decoding(brief(image), place):
            return _from_pil(image, place)
    if not _is_array(image):
        raise place.error(f"expected an image (PIL, path, array or tensor), found {brief(image)}")
    _check(image, place)
    if prefer_last := isinstance(image, np.ndarray):
        pixels = np.asarray(image)
    else:
        image = image.detach().cpu()
        pixels = (image.float() if image.is_floating_point() and image.itemsize < 4 else image).numpy()
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if not _channels_last(pixels.shape, prefer_last=prefer_last):
        pixels = pixels.transpose(1, 2, 0)
    return pixels if pixels.dtype == np.uint8 else np.clip(pixels, 0, 1)


def _is_array(value: Any) -> bool:
    """Whether it is an array or a tensor; torch is not imported, and may be half imported by another thread."""
    if isinstance(value, np.ndarray):
        return not isinstance(value, np.ma.MaskedArray)  # what is masked out has no colour
    return isinstance(value, getattr(sys.modules.get("torch"), "Tensor", ()))


def _channels_last(shape: tuple[int, ...], *, prefer_last: bool) -> bool:
    first, last = shape[0] in _CHANNELS, shape[2] in _CHANNELS
    return prefer_last if first and last else last


def _check(image: Any, place: _Place) -> None:
    """Whether an array or tensor holds the pixels of one image."""
    shape, dtype = tuple(image.shape), getattr(image.dtype, "name", str(image.dtype).removeprefix("torch."))
    found = f"found {type(image).__name__} {dtype} {shape}"
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] not in _CHANNELS and shape[2] not in _CHANNELS):
        raise place.error(f"expected (H, W, C), (C, H, W) or (H, W) with 1, 3 or 4 channels, {found}")
    if 0 in shape:
        raise place.error(f"the image has no pixels, {found}")
    if not isinstance(image, np.ndarray) and (image.is_meta or "strided" not in str(image.layout)):
        raise place.error(f"expected a dense tensor that holds values, {found}, {image.layout} on {image.device}")
    if dtype == "uint8":
        return
    if dtype in _FLOATS or dtype.startswith(("int", "uint", "bool")):
        low, high = _extremes(image)
        found += f" in [{low:.7g}, {high:.7g}]"
    if dtype not in _FLOATS:
        raise place.error(f"expected uint8, or float in [0, 1], {found}; convert to uint8 or rescale to float")
    if not (np.isfinite(low) and np.isfinite(high)):
        raise place.error(f"the image has NaN or infinite pixels, {found}; look at what made it")
    if low < -_TOLERANCE or high > 1 + _TOLERANCE:
        advice = "divide by 255" if low >= -_TOLERANCE and high <= 255 else "rescale them"
        if -1 - _TOLERANCE <= low < -_TOLERANCE and high <= 1 + _TOLERANCE:
            advice = "use (x + 1) / 2 if they are in [-1, 1]"
        raise place.error(f"expected float pixels in [0, 1], {found}; {advice}")


def _extremes(pixels: Any) -> tuple[float, float]:
    """The lowest and the highest; NaN if any pixel is."""
    if isinstance(pixels, np.ndarray):
        return float(pixels.min()), float(pixels.max())
    low, high = (pixels.detach() if pixels.is_floating_point() else pixels.double()).aminmax()
    return float(low), float(high)


@contextmanager
def _decoding(what: str, place: _Place) -> Iterator[None]:
    """PIL's plugins raise nearly anything on a broken file, and its warnings may be errors."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or error  # the path is named already
        raise place.error(f"cannot read {what}: {type(error).__name__}: {reason}") from error


def _local(path: str | os.PathLike[Any], place: _Place) -> str:
    """A path as text. What is refused is not shown: an address may hold a password, a long text an image."""
    name = os.fsdecode(path)
    if found := _ADDRESS.match(name):
        raise place.error(f"media are not fetched, found an address ('{found[0]}...'); open it first, and pass that")
    if len(name) > 4096:
        raise place.error(f"expected a path, found a text of {len(name)} characters; decode it first, and pass that")
    return name


def _check_size(image: Image.Image, what: str, place: _Place) -> None:
    """Before decoding: a small file may hold more pixels than fit in memory."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        size = f"{image.width}x{image.height} pixels"
        raise place.error(f"{what} has {size}, more than Image.MAX_IMAGE_PIXELS = {limit}; resize it, or raise that")


def _open(path: str | os.PathLike[Any], place: _Place) -> Image.Image:
    """The image of a file, loaded whole and upright; the first frame of an animation."""
    name = _local(path, place)
    what = f"the image file {name!r}"
    with _decoding(what, place), Image.open(name) as image:  # reads the header only
        _check_size(image, what, place)
        image.load()
        return ImageOps.exif_transpose(image)


def _loaded(image: Any, place: _Place) -> Any:
    """A path as an image, and a lazily opened image read now, where its sample is known; all else as it is."""
    if isinstance(image, (str, os.PathLike)):
        return _open(image, place)
    if isinstance(image, Image.Image):
        if 0 in image.size:
            raise place.error(f"the image has no pixels, found {brief(image)}")
        if isinstance(image, ImageFile.ImageFile):
            _check_size(image, "the image", place)
        with _decoding(brief(image), place), _LOADING:
            image.load()
    return image


def _from_pil(image: Image.Image, place: _Place) -> NDArray[Any]:
    if image.mode == "F":
        return _read(np.array(image), place)
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _scaled(image, place)
    if image.mode == "LAB":  # PIL's `convert` knows no LAB
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        rgb = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        return np.asarray(cast("Image.Image", rgb))
    if image.has_transparency_data and image.mode not in ("CMYK", "HSV", "YCbCr"):  # there the key is a left-over
        straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)
        return np.asarray((image.convert(straight) if straight else image).convert("RGBA"))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _scaled(image: Image.Image, place: _Place) -> NDArray[Any]:
    """16 bits, where PIL's own conversion would clip at 255."""
    gray, transparent = np.asarray(image), image.info.get("transparency")  # the one gray that a PNG may name
    if gray.min() < 0 or gray.max() > 65535:
        found = f"{brief(image)} in [{gray.min()}, {gray.max()}]"
        raise place.error(f"expected 16-bit gray in [0, 65535], found {found}; rescale it")
    scaled = gray[:, :, None] / 65535
    return np.where(gray[:, :, None] == transparent, 1.0, scaled) if isinstance(transparent, int) else scaled


def _images(images: Any, place: _Place) -> Iterable[Any]:
    one = isinstance(images, (str, os.PathLike, Image.Image)) or (_is_array(images) and images.ndim in (2, 3))
    return [images] if one else _several(images, place, "images", "(N, C, H, W)")


def _videos(videos: Any, place: _Place) -> Iterable[Any]:
    one = _is_array(videos) and videos.ndim == 4
    return [videos] if one else _several(videos, place, "videos", "(N, T, C, H, W)")


def _several(values: Any, place: _Place, nouns: str, axes: str) -> Iterable[Any]:
    if isinstance(values, (str, os.PathLike)):
        name = _local(values, place)
        raise place.error(f"video files are not decoded here, found {name!r}; decode it to frames first")
    if not isinstance(values, (list, tuple)) and not (_is_array(values) and values.ndim == axes.count(",") + 1):
        raise place.error(f"expected a list of {nouns}, or an array or tensor {axes}, found {brief(values)}")
    if len(values) == 0:
        raise place.error(f"expected {nouns}, found none")
    return values  # type: ignore[no-any-return]


def _frames(video: Any, place: _Place, read: Callable[[Any, _Place], Any]) -> list[Any]:
    given = _several(video, place, "frames", "(T, C, H, W)")
    frames = [read(frame, place.at("frame", number)) for number, frame in enumerate(given)]
    forms = [_form(frame) for frame in frames]
    for number, form in enumerate(forms):
        if form != forms[0]:
            raise place.at("frame", number).error(f"is {form}, the first frame {forms[0]}; all must be alike")
    return frames


def _form(frame: Any) -> str:
    is_pil = isinstance(frame, Image.Image)
    return f"{frame.width}x{frame.height}" if is_pil else f"{frame.shape[2]}x{frame.shape[1]} on {frame.device}"


def _stacked(video: Any, place: _Place) -> torch.Tensor:
    import torch  # noqa: PLC0415  # only those who ask for tensors pay for it

    return torch.stack(_frames(video, place, _tensor))
