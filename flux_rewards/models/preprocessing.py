"""Pixels as a checkpoint was trained on them: resized, cropped or padded, and normalised, on the model's device."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import WeightsError, brief
from flux_rewards.media import unit_range

if TYPE_CHECKING:
    import torch

__all__ = ["CLIP_MEAN", "CLIP_STD", "Preprocessing"]

Triple = tuple[float, float, float]

CLIP_MEAN: Triple = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Triple = (0.26862954, 0.26130258, 0.27577711)
"""Of the pixels that OpenAI's CLIP was trained on; nearly all of its successors keep them."""

_OFFSETS: dict[str, Callable[[int], int]] = {"down": lambda excess: excess // 2, "nearest": lambda e: round(e / 2)}
_MODES = ("bicubic", "bilinear", "nearest")


@dataclass(frozen=True)
class Preprocessing:
    """Resizes with antialias, crops or pads to `size`, and normalises; differentiable from float pixels on.

    Args:
        size: Height and width of what comes out.
        resize: ``"shortest"``: the shorter side to `edge`, then a crop from the middle; ``"longest"``: the longer side
            to `size`, then padding on both sides; ``"squash"``: both sides, whatever the ratio.
        edge: Length of the shorter side before the crop; None for that of `size`.
        mean: Of each channel, subtracted.
        std: Of each channel, divided by.
        interpolation: ``"bicubic"`` or ``"bilinear"``, both with antialias, or ``"nearest"``.
        crop_offset: How half of an odd excess is rounded: ``"down"`` (transformers) or ``"nearest"`` (torchvision).
        fill: Value in [0, 1] of the padding, before it is normalised.
        eight_bit: The original resized 8-bit images: what is given in 8 bits stays in whole levels, as in PIL, and
            what bicubic overshoots is cut off. Else floats are resized, and may leave [0, 1].

    Images in 8 bits come out as from PIL, nearly always to the level. Floats are not rounded, and so
    differ by a quarter of a level from what PIL makes of their nearest levels.

    Examples:
        >>> import torch
        >>> crop = Preprocessing((4, 4), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        >>> crop([torch.full((3, 8, 6), 51, dtype=torch.uint8)], torch.device("cpu"))[0, 0, 0]
        tensor([0.2000, 0.2000, 0.2000, 0.2000])
    """

    size: tuple[int, int]
    resize: str = "shortest"
    edge: int | None = None
    mean: Triple = CLIP_MEAN
    std: Triple = CLIP_STD
    interpolation: str = "bicubic"
    crop_offset: str = "nearest"
    fill: float = 0.0
    eight_bit: bool = True

    def __call__(self, images: Sequence[torch.Tensor] | torch.Tensor, device: torch.device) -> torch.Tensor:
        """The images as one batch.

        Args:
            images: (3, H, W) each, of any sizes, or (N, 3, H, W); uint8, or float in [0, 1].
            device: Where the work is done. Images of one size travel there together.

        Returns:
            (N, 3, height, width), float32, normalised.
        """
        import torch  # noqa: PLC0415  # loaded already

        if isinstance(images, torch.Tensor):
            return self._normalised(self._fitted(images.to(device)))
        alike: dict[tuple[Any, ...], list[int]] = {}
        for position, image in enumerate(images):
            alike.setdefault((image.shape, image.dtype, image.device), []).append(position)
        parts = [_stacked([images[position] for position in positions]) for positions in alike.values()]
        fitted = torch.cat([self._normalised(self._fitted(part.to(device, non_blocking=True))) for part in parts])
        order = [position for positions in alike.values() for position in positions]
        return fitted if len(parts) == 1 else fitted[torch.tensor(order, device=device).argsort()]

    def _fitted(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, 3, *size), of the type that they are, or float."""
        height, width = pixels.shape[-2:]
        scaled = self._scaled_size(height, width)
        if scaled != (height, width):
            whole = self.eight_bit  # else the original went through floats, and at once
            pixels = self._by_axes(pixels, scaled) if whole else self._interpolated(unit_range(pixels), scaled)
        return self._padded(self._cropped(pixels))

    def _by_axes(self, pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """As Pillow 13 does it: one axis after the other, in its order, what overshoots cut after each."""
        import torch  # noqa: PLC0415

        height, width = pixels.shape[-2:]
        down, right = height - size[0], width - size[1]
        first = (size[0], width) if down > max(0, 2 * right) else (height, size[1])  # before 13, always this one
        levels = not pixels.is_floating_point()
        pixels = pixels.float()
        for step in (first, size):
            if step == pixels.shape[-2:]:
                continue
            pixels = self._interpolated(pixels, step)
            # Bytes could be resized as such, and faster on a CPU, but not to the very levels that PIL gives.
            pixels = (pixels + 0.5).floor().clamp(0, 255) if levels else pixels.clamp(0, 1)
        return pixels.to(torch.uint8) if levels else pixels

    def _interpolated(self, pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        from torch.nn.functional import interpolate  # noqa: PLC0415

        if self.interpolation == "nearest":
            return interpolate(pixels, size=size, mode="nearest")
        return interpolate(pixels, size=size, mode=self.interpolation, align_corners=False, antialias=True)

    def _scaled_size(self, height: int, width: int) -> tuple[int, int]:
        if self.resize == "squash":
            return self.size
        if self.resize == "longest":
            scale = max(self.size) / max(height, width)
            return max(round(height * scale), 1), max(round(width * scale), 1)
        edge = self.edge or min(self.size)
        if height <= width:
            return edge, int(edge * width / height)
        return int(edge * height / width), edge

    def _cropped(self, pixels: torch.Tensor) -> torch.Tensor:
        for axis, wanted in zip((2, 3), self.size, strict=True):
            excess = pixels.shape[axis] - wanted
            if excess > 0:
                pixels = pixels.narrow(axis, _OFFSETS[self.crop_offset](excess), wanted)
        return pixels

    def _padded(self, pixels: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import pad  # noqa: PLC0415

        down, right = (wanted - found for wanted, found in zip(self.size, pixels.shape[-2:], strict=True))
        if down <= 0 and right <= 0:
            return pixels
        fill = self.fill if pixels.is_floating_point() else round(self.fill * 255)
        return pad(pixels, (right // 2, right - right // 2, down // 2, down - down // 2), value=fill)

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        import torch  # noqa: PLC0415

        statistics = torch.tensor([self.mean, self.std], dtype=torch.float32, device=pixels.device)
        mean, std = statistics.view(2, 3, 1, 1)
        normalised: torch.Tensor = (unit_range(pixels) - mean) / std
        return normalised

    @classmethod
    def of_transformers(cls, folder: Path) -> Preprocessing:
        """That of a transformers checkpoint, from its ``preprocessor_config.json``.

        Raises:
            WeightsError: There is no such file, or it asks for something that is not known here.
        """
        file = next(
            (
                folder / name
                for name in ("preprocessor_config.json", "processor_config.json")
                if (folder / name).is_file()
            ),
            None,
        )
        if file is None:
            raise WeightsError(f"{folder} holds no preprocessor_config.json, which says how images are prepared")
        config = json.loads(file.read_text())
        config = config.get("image_processor", config) if isinstance(config, dict) else None
        if not isinstance(config, dict):
            raise WeightsError(f"{file} holds no object")
        config = {key: value for key, value in config.items() if value is not None}
        factor = config.get("rescale_factor", 1 / 255)
        if not (config.get("do_normalize", True) and config.get("do_rescale", True) and abs(factor * 255 - 1) < 1e-3):
            raise WeightsError(
                f"{file} does not scale pixels to [0, 1] and normalise them; other ways are not known here"
            )
        kind = str(config.get("image_processor_type", config.get("feature_extractor_type", "CLIP")))
        needed = {"resample", "image_mean", "image_std", "size"} - config.keys()
        if needed and not kind.startswith("CLIP"):
            raise WeightsError(
                f"{file} does not say {', '.join(sorted(needed))}, and the defaults of {kind} are not known"
            )
        size, crop = config.get("size", 224), config.get("crop_size", 224)
        edge = size if isinstance(size, int) else size.get("shortest_edge")
        crops = config.get("do_center_crop", "crop_size" in config or kind.startswith("CLIP"))
        if edge is None and not {"height", "width"} <= size.keys():
            raise WeightsError(f"{file} asks for the size {brief(size)}; known are shortest_edge, and height and width")
        squash = (edge, edge) if edge is not None else (size["height"], size["width"])
        crop = (crop, crop) if isinstance(crop, int) else (crop["height"], crop["width"])
        if edge is not None and not crops and not isinstance(size, int):
            raise WeightsError(f"{file} scales the shorter side and does not crop, so sizes differ; that is not known")
        resample = int(config.get("resample", 3))
        modes = {0: "nearest", 2: "bilinear", 3: "bicubic"}
        if resample not in modes or not config.get("do_resize", True):
            raise WeightsError(f"{file} asks for resample {resample}; known are {brief(modes)}, with do_resize")
        return cls(
            crop if crops and edge is not None else squash,
            "shortest" if crops and edge is not None else "squash",
            edge if crops else None,
            _triple(config.get("image_mean", CLIP_MEAN)),
            _triple(config.get("image_std", CLIP_STD)),
            modes[resample],
            "down",
        )

    @classmethod
    def of_open_clip(cls, config: Mapping[str, Any], *, image_size: int | tuple[int, int]) -> Preprocessing:
        """That of an open_clip checkpoint, from the ``preprocess_cfg`` of its configuration.

        Raises:
            WeightsError: It asks for something that is not known here.
        """
        size = config.get("size") or image_size
        size = (size, size) if isinstance(size, int) else (int(size[-2]), int(size[-1]))
        resize, mode = config.get("resize_mode") or "shortest", config.get("interpolation") or "bicubic"
        if resize not in ("shortest", "longest", "squash") or mode not in _MODES:
            raise WeightsError(f"the preprocessing asks for {resize!r} and {mode!r}, which are not known here")
        if resize == "shortest" and size[0] != size[1]:
            raise WeightsError(f"the preprocessing crops to {size}; only squares are known here")
        fill = float(config.get("fill_color") or 0) / 255
        mean, std = config.get("mean") or CLIP_MEAN, config.get("std") or CLIP_STD
        return cls(size, resize, None, _triple(mean), _triple(std), mode, "nearest", fill)


def _stacked(images: Sequence[torch.Tensor]) -> torch.Tensor:
    """(N, 3, H, W), in the order of axes in memory that the images have: to change it costs more than to resize."""
    import torch  # noqa: PLC0415

    if images[0].stride(0) != 1:
        return torch.stack(list(images))
    return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)


def _triple(values: Sequence[float]) -> Triple:
    first, second, third = values
    return float(first), float(second), float(third)
