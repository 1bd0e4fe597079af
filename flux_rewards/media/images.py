"""One image, as PIL or as a tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from flux_rewards.media.place import Place
from flux_rewards.media.reading import channels_last, check_array, loaded, read_array

if TYPE_CHECKING:
    import torch

__all__ = ["as_pil", "as_pixels", "as_tensor", "to_pil", "to_pixels", "to_tensor", "unit_range"]


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
    return as_pil(image, Place(field, index, reward))


def to_tensor(image: Any, *, field: str = "image", index: int | None = None, reward: str | None = None) -> torch.Tensor:
    """An image as a contiguous float32 tensor (3, H, W) in [0, 1], on the device of a given tensor, else on the CPU.

    uint8 is divided by 255, 16-bit gray by 65535; a float32 RGB tensor keeps its values, and its gradient.
    Takes and refuses what `to_pil` does.

    Examples:
        >>> to_tensor(np.full((2, 3, 3), 51, dtype=np.uint8))[:, 0, 0]
        tensor([0.2000, 0.2000, 0.2000])
    """
    return as_tensor(image, Place(field, index, reward))


def to_pixels(image: Any, *, field: str = "image", index: int | None = None, reward: str | None = None) -> torch.Tensor:
    """An image as a tensor (3, H, W) with nothing lost: uint8 where it has 8 bits and no alpha, else as `to_tensor`.

    A quarter of the bytes to keep and to move. May share the memory of a given tensor; not contiguous.

    Examples:
        >>> to_pixels(np.full((2, 3, 3), 51, dtype=np.uint8))[:, 0, 0]
        tensor([51, 51, 51], dtype=torch.uint8)
    """
    return as_pixels(image, Place(field, index, reward))


def unit_range(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels of `to_pixels` as float32 in [0, 1].

    Examples:
        >>> import torch
        >>> unit_range(torch.tensor([51], dtype=torch.uint8))
        tensor([0.2000])
    """
    import torch  # noqa: PLC0415  # loaded already

    if pixels.dtype != torch.uint8:
        return pixels.float()
    # Divided by a tensor: CUDA multiplies by the reciprocal of a number, which is not the same.
    return pixels.float() / torch.full((), 255.0, dtype=torch.float32, device=pixels.device)


def as_pil(image: Any, place: Place) -> Image.Image:
    """As `to_pil`."""
    image = loaded(image, place)
    if isinstance(image, Image.Image) and image.mode == "RGB" and "transparency" not in image.info:
        return image
    pixels = read_array(image, place)
    if pixels.dtype == np.uint8 and pixels.shape[2] == 4:
        white = Image.new("RGBA", pixels.shape[1::-1], (255, 255, 255, 255))
        return Image.alpha_composite(white, Image.fromarray(pixels)).convert("RGB")
    if pixels.shape[2] == 4:
        pixels = pixels.astype(np.float64)
        pixels = pixels[:, :, :3] * pixels[:, :, 3:] + (1 - pixels[:, :, 3:])
    if pixels.dtype != np.uint8:
        pixels = np.floor(pixels.astype(np.float64) * 255 + 0.5).astype(np.uint8)  # to the nearest level
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3))))


def as_tensor(image: Any, place: Place) -> torch.Tensor:
    """As `to_tensor`."""
    import torch  # noqa: PLC0415  # only those who ask for tensors pay for it

    if isinstance(image, torch.Tensor):
        pixels = _channels_first(image, place)
    else:
        found = read_array(image, place).transpose(2, 0, 1)
        # A copy: never the caller's own memory.
        pixels = torch.from_numpy(found.astype(found.dtype if found.dtype == np.uint8 else np.float32, order="C"))
    pixels = unit_range(pixels) if pixels.dtype == torch.uint8 else pixels.float().clamp(0, 1)
    if pixels.shape[0] == 4:
        pixels = pixels[:3] * pixels[3:] + (1 - pixels[3:])
    return pixels.expand(3, -1, -1).contiguous()


def as_pixels(image: Any, place: Place) -> torch.Tensor:
    """As `to_pixels`."""
    import torch  # noqa: PLC0415  # only those who ask for tensors pay for it

    if isinstance(image, torch.Tensor):
        pixels = _channels_first(image, place)
    else:
        image = loaded(image, place)
        array = read_array(image, place)
        if array.dtype != np.uint8:
            return as_tensor(image, place)
        pixels = torch.from_numpy(np.array(array)).permute(2, 0, 1)  # a copy; the order of axes costs nothing
    if pixels.dtype != torch.uint8 or pixels.shape[0] == 4:
        return as_tensor(image, place)
    return pixels.expand(3, -1, -1)


def _channels_first(image: torch.Tensor, place: Place) -> torch.Tensor:
    check_array(image, place)
    pixels = image.unsqueeze(0) if image.ndim == 2 else image
    return pixels.permute(2, 0, 1) if channels_last(pixels.shape, prefer_last=False) else pixels
