"""Any image as an array, checked: from PIL, a file, an array or a tensor."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image, ImageCms, ImageFile, ImageOps

from flux_rewards.errors import InputError, brief

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flux_rewards.media.place import Place

__all__ = ["channels_last", "check_array", "decoding", "is_array", "loaded", "local_path", "read_array"]

_CHANNELS = (1, 3, 4)
_FLOATS = ("float16", "bfloat16", "float32", "float64", "float128")  # not float8, which nothing can compare
_TOLERANCE = 1e-3  # what a resize or a half-precision decoder may overshoot by; clamped
_ADDRESS = re.compile(r"data:|[a-z][a-z0-9+.-]+://", re.IGNORECASE)

# Two threads that read one lazily opened image tear it: PIL decodes it in place, from one file position.
_LOADING = threading.Lock()
if hasattr(os, "register_at_fork"):  # a forked child must inherit neither a held lock nor half an image
    os.register_at_fork(before=_LOADING.acquire, after_in_parent=_LOADING.release, after_in_child=_LOADING.release)


def read_array(image: Any, place: Place) -> NDArray[Any]:
    """Any image as an array (H, W, C), uint8 or float in [0, 1], alpha not yet composited."""
    image = loaded(image, place)
    if isinstance(image, Image.Image):
        with decoding(brief(image), place):
            return _from_pil(image, place)
    if not is_array(image):
        raise place.error(f"expected an image (PIL, path, array or tensor), found {brief(image)}")
    check_array(image, place)
    if prefer_last := isinstance(image, np.ndarray):
        pixels = np.asarray(image)
    else:
        image = image.detach().cpu()
        pixels = (image.float() if image.is_floating_point() and image.itemsize < 4 else image).numpy()
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if not channels_last(pixels.shape, prefer_last=prefer_last):
        pixels = pixels.transpose(1, 2, 0)
    return pixels if pixels.dtype == np.uint8 else np.clip(pixels, 0, 1)


def is_array(value: Any) -> bool:
    """Whether it is an array or a tensor; torch is not imported, and may be half imported by another thread."""
    if isinstance(value, np.ndarray):
        return not isinstance(value, np.ma.MaskedArray)  # what is masked out has no colour
    return isinstance(value, getattr(sys.modules.get("torch"), "Tensor", ()))


def channels_last(shape: tuple[int, ...], *, prefer_last: bool) -> bool:
    """Whether a shape of three is (H, W, C); where it may be either, it is what is preferred."""
    first, last = shape[0] in _CHANNELS, shape[2] in _CHANNELS
    return prefer_last if first and last else last


def check_array(image: Any, place: Place) -> None:
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
def decoding(what: str, place: Place) -> Iterator[None]:
    """PIL's plugins raise nearly anything on a broken file, and its warnings may be errors."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or error  # the path is named already
        raise place.error(f"cannot read {what}: {type(error).__name__}: {reason}") from error


def local_path(path: str | os.PathLike[Any], place: Place) -> str:
    """A path as text. What is refused is not shown: an address may hold a password, a long text an image."""
    name = os.fsdecode(path)
    if found := _ADDRESS.match(name):
        raise place.error(f"media are not fetched, found an address ('{found[0]}...'); open it first, and pass that")
    if len(name) > 4096:
        raise place.error(f"expected a path, found a text of {len(name)} characters; decode it first, and pass that")
    return name


def _check_size(image: Image.Image, what: str, place: Place) -> None:
    """Before decoding: a small file may hold more pixels than fit in memory."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        size = f"{image.width}x{image.height} pixels"
        raise place.error(f"{what} has {size}, more than Image.MAX_IMAGE_PIXELS = {limit}; resize it, or raise that")


def _open(path: str | os.PathLike[Any], place: Place) -> Image.Image:
    """The image of a file, loaded whole and upright; the first frame of an animation."""
    name = local_path(path, place)
    what = f"the image file {name!r}"
    with decoding(what, place), Image.open(name) as image:  # reads the header only
        _check_size(image, what, place)
        image.load()
        return ImageOps.exif_transpose(image)


def loaded(image: Any, place: Place) -> Any:
    """A path as an image, and a lazily opened image read now, where its sample is known; all else as it is."""
    if isinstance(image, (str, os.PathLike)):
        return _open(image, place)
    if isinstance(image, Image.Image):
        if 0 in image.size:
            raise place.error(f"the image has no pixels, found {brief(image)}")
        if isinstance(image, ImageFile.ImageFile):
            _check_size(image, "the image", place)
        with decoding(brief(image), place), _LOADING:
            image.load()
    return image


def _from_pil(image: Image.Image, place: Place) -> NDArray[Any]:
    if image.mode == "F":
        return read_array(np.array(image), place)
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


def _scaled(image: Image.Image, place: Place) -> NDArray[Any]:
    """16 bits, where PIL's own conversion would clip at 255."""
    gray, transparent = np.asarray(image), image.info.get("transparency")  # the one gray that a PNG may name
    if gray.min() < 0 or gray.max() > 65535:
        found = f"{brief(image)} in [{gray.min()}, {gray.max()}]"
        raise place.error(f"expected 16-bit gray in [0, 65535], found {found}; rescale it")
    scaled = gray[:, :, None] / 65535
    return np.where(gray[:, :, None] == transparent, 1.0, scaled) if isinstance(transparent, int) else scaled
