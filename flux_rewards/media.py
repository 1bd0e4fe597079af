"""The only place where pixels change type or range.

An image is a PIL image in any mode, a path, or an array or tensor: uint8, or float in [0, 1]; (H, W, C), (C, H, W)
or gray (H, W); 1, 3 or 4 channels. Where a shape can be read both ways, an array is (H, W, C) and a tensor (C, H, W).
Alpha is composited on white. Anything else is an `InputError` that names the field and the sample.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image, ImageCms, ImageOps

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
_TOLERANCE = 1e-3  # what a resize or a half-precision decoder may overshoot by; clamped


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
    """An image as PIL, mode RGB. Float pixels are rounded to the 256 levels that PIL holds.

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
    """An image as a float32 tensor (3, H, W) in [0, 1], on the device of a given tensor, else on the CPU.

    uint8 is divided by 255; a float32 RGB tensor keeps its values, and its gradient.

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
    found = enumerate(_videos(videos, place))
    return [_frames(video, place.at("video", number), _pil) for number, video in found]


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


# Images


def _pil(image: Any, place: _Place) -> Image.Image:
    if isinstance(image, (str, os.PathLike)):
        image = _open(image, place)
    if isinstance(image, Image.Image):
        return _rgb(image, place)
    pixels = _read(image, place)
    if pixels.dtype != np.uint8:
        pixels = np.floor(pixels.astype(np.float64) * 255 + 0.5).astype(np.uint8)  # to the nearest level
    if pixels.shape[2] == 4:
        return _on_white(Image.fromarray(pixels))
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3))))


def _tensor(image: Any, place: _Place) -> torch.Tensor:
    import torch  # noqa: PLC0415  # only those who ask for tensors pay for it

    if isinstance(image, torch.Tensor):
        return _from_tensor(image, place)
    if isinstance(image, (str, os.PathLike, Image.Image)):
        image = np.array(_pil(image, place))
    pixels = _read(image, place)
    tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32))
    return _composited(tensor / 255 if pixels.dtype == np.uint8 else tensor)


def _from_tensor(image: torch.Tensor, place: _Place) -> torch.Tensor:
    _check(str(image.dtype).removeprefix("torch."), tuple(image.shape), image.detach(), place)
    if image.ndim == 2:
        image = image.unsqueeze(0)
    elif _channels_last(tuple(image.shape), prefer_last=False):
        image = image.permute(2, 0, 1)
    pixels = image.float()
    return _composited(pixels / 255 if not image.is_floating_point() else pixels.clamp(0, 1))


def _composited(pixels: torch.Tensor) -> torch.Tensor:
    """(1, 3 or 4, H, W) as (3, H, W), alpha on white."""
    if pixels.shape[0] == 4:
        alpha = pixels[3:]
        return pixels[:3] * alpha + (1 - alpha)
    return pixels.expand(3, -1, -1) if pixels.shape[0] == 1 else pixels


def _read(image: Any, place: _Place) -> NDArray[Any]:
    """An array or tensor as an array (H, W, C), uint8 or float in [0, 1]."""
    torch = sys.modules.get("torch")
    is_tensor = torch is not None and isinstance(image, torch.Tensor)
    if is_tensor:
        pixels = _from_tensor(image, place).detach().cpu().numpy().transpose(1, 2, 0)
        exact = image.dtype == torch.uint8  # type: ignore[union-attr]
        return np.asarray(np.rint(pixels * 255).astype(np.uint8) if exact else pixels)
    if not isinstance(image, np.ndarray):
        raise place.error(f"expected an image (PIL, path, array or tensor), found {brief(image)}")
    _check(image.dtype.name, image.shape, image, place)
    if image.ndim == 2:
        image = image[:, :, None]
    elif not _channels_last(image.shape, prefer_last=True):
        image = image.transpose(1, 2, 0)
    return np.asarray(image if image.dtype == np.uint8 else np.clip(image, 0, 1))


def _channels_last(shape: tuple[int, ...], *, prefer_last: bool) -> bool:
    first, last = shape[0] in _CHANNELS, shape[2] in _CHANNELS
    return prefer_last if first and last else last


def _check(dtype: str, shape: tuple[int, ...], values: Any, place: _Place) -> None:
    """Whether an array or tensor holds the pixels of one image."""
    found = f"found {type(values).__name__} {dtype} {shape}"
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] not in _CHANNELS and shape[2] not in _CHANNELS):
        raise place.error(f"expected (H, W, C), (C, H, W) or (H, W) with 1, 3 or 4 channels, {found}")
    if 0 in shape:
        raise place.error(f"the image has no pixels, {found}")
    if dtype == "uint8":
        return
    if "float" not in dtype:
        raise place.error(f"expected uint8 or float pixels in [0, 1], {found}; convert them first")
    low, high = float(values.min()), float(values.max())  # NaN if any pixel is
    if not (np.isfinite(low) and np.isfinite(high)):
        raise place.error(f"the image has NaN or infinite pixels, {found}")
    if low < -_TOLERANCE or high > 1 + _TOLERANCE:
        advice = "use (x + 1) / 2" if -1 - _TOLERANCE <= low < 0 and high <= 1 + _TOLERANCE else "rescale them"
        if low >= 0 and high <= 255:
            advice = "divide by 255"
        raise place.error(f"expected float pixels in [0, 1], found {dtype} in [{low:.4g}, {high:.4g}]; {advice}")


# PIL


def _open(path: str | os.PathLike[Any], place: _Place) -> Image.Image:
    """The image of a file, loaded whole and upright; the first frame of an animation."""
    if isinstance(path, str) and path.partition(":")[0] in ("http", "https", "data", "file", "s3"):
        raise place.error(f"media are not fetched, found {brief(path)}; open it first, and pass the image")
    limit = Image.MAX_IMAGE_PIXELS
    try:
        with Image.open(Path(path)) as image:  # reads the header only
            if limit is not None and image.width * image.height > limit:
                raise place.error(f"{path} has {image.width}x{image.height} pixels, more than the {limit} allowed")
            image.load()
            return ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        if isinstance(error, InputError):
            raise
        raise place.error(f"cannot read the image file {path}: {type(error).__name__}: {error}") from error


def _rgb(image: Image.Image, place: _Place) -> Image.Image:
    if 0 in image.size:
        raise place.error(f"the image has no pixels, found {brief(image)}")
    try:
        if image.mode == "RGB" and "transparency" not in image.info:
            image.load()  # a lazily opened file fails here, where its sample is known
            return image
        if image.mode.startswith("I;16") or image.mode == "I":
            return _sixteen_bit(np.asarray(image).astype(np.int64), place)
        if image.mode == "F":
            return _pil(np.asarray(image), place)
        if image.mode == "LAB":
            lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
            found = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
            return found if found is not None else image.convert("RGB")
        if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
            straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)
            return _on_white((image.convert(straight) if straight else image).convert("RGBA"))
        return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, ImageCms.PyCMSError) as error:
        if isinstance(error, InputError):
            raise
        raise place.error(f"cannot read {brief(image)}: {type(error).__name__}: {error}") from error


def _sixteen_bit(gray: NDArray[np.int64], place: _Place) -> Image.Image:
    """Scaled, where PIL's own conversion would clip at 255."""
    if gray.min() < 0 or gray.max() > 65535:
        raise place.error(f"expected 16-bit gray in [0, 65535], found [{gray.min()}, {gray.max()}]")
    return Image.fromarray(((gray + 128) // 257).astype(np.uint8)).convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


# Several images, and videos


def _is_array(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return isinstance(value, np.ndarray) or (torch is not None and isinstance(value, torch.Tensor))


def _images(images: Any, place: _Place) -> Iterable[Any]:
    if isinstance(images, (str, os.PathLike, Image.Image)) or (_is_array(images) and images.ndim in (2, 3)):
        return [images]
    if not isinstance(images, (list, tuple)) and not (_is_array(images) and images.ndim == 4):
        raise place.error(f"expected a list of images, or an array or tensor (N, C, H, W), found {brief(images)}")
    if len(images) == 0:
        raise place.error("expected at least one image, found none; use None where there are none")
    return images  # type: ignore[no-any-return]


def _videos(videos: Any, place: _Place) -> Iterable[Any]:
    if _is_array(videos) and videos.ndim == 4:
        return [videos]
    if not isinstance(videos, (list, tuple)) and not (_is_array(videos) and videos.ndim == 5):
        raise place.error(f"expected a list of videos, or an array or tensor (N, T, C, H, W), found {brief(videos)}")
    if len(videos) == 0:
        raise place.error("expected at least one video, found none; use None where there are none")
    return videos  # type: ignore[no-any-return]


def _frames(video: Any, place: _Place, read: Callable[[Any, _Place], Any]) -> list[Any]:
    if isinstance(video, (str, os.PathLike)):
        raise place.error(
            f"video files are not decoded here, found {brief(video)}; pass its frames as a list of images"
        )
    if not isinstance(video, (list, tuple)) and not (_is_array(video) and video.ndim == 4):
        raise place.error(f"expected a list of frames, or an array or tensor (T, C, H, W), found {brief(video)}")
    if len(video) == 0:
        raise place.error("the video has no frames")
    frames = [read(frame, place.at("frame", number)) for number, frame in enumerate(video)]
    sizes = [frame.size if isinstance(frame, Image.Image) else tuple(frame.shape) for frame in frames]
    for number, size in enumerate(sizes):
        if size != sizes[0]:
            raise place.at("frame", number).error(f"has the size {size}, the first frame {sizes[0]}; all must be equal")
    return frames


def _stacked(video: Any, place: _Place) -> torch.Tensor:
    import torch  # noqa: PLC0415  # only those who ask for tensors pay for it

    return torch.stack(_frames(video, place, _tensor))
