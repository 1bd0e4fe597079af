"""How small, or how large, an image is as a JPEG."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, ClassVar

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.data import RewardOutput
from flux_rewards.errors import ConfigError, InputError
from flux_rewards.validation import whole_number

if TYPE_CHECKING:
    from PIL import Image
    from typing_extensions import Unpack

    from flux_rewards.data import Sample

__all__ = ["JPEGCompressibility", "JPEGIncompressibility"]

_LONGEST_SIDE = 65500  # what libjpeg takes


class JPEGIncompressibility(RewardFunction):
    """Kilobytes (1000 bytes) of the image as a JPEG: much detail is much reward.

    Args:
        quality: Of the JPEG, 1 to 95, as Pillow counts. 95 everywhere this reward is used; colours are stored at half
            the resolution (4:2:0), and the tables are Pillow's own.
        **options: Of every reward; see `RewardFunction`. ``scale`` sets the unit.

    Who uses which unit: kilobytes, the default, are those of DDPO (the paper's code, ddpo-pytorch) and of flow_grpo,
    which trains with them as they are. For flow_grpo's compressibility, see `JPEGCompressibility`.

    Metadata: ``jpeg_bytes``. Needs no weights: the reward with which to see whether a training loop works.

    Raises:
        ConfigError: `quality` is out of its range.
        InputError: A side of the image is longer than the 65500 pixels that a JPEG may have.

    Does not account for the size of the image: more pixels are more bytes. Other versions of libjpeg may differ by a
    few bytes. Not differentiable. Source: Black et al. 2023 (arXiv 2305.13301), section 5.1.

    Examples:
        >>> import numpy as np
        >>> noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        >>> flat = np.zeros((64, 64, 3), dtype=np.uint8)
        >>> batch = JPEGIncompressibility()(image=[noise, flat])
        >>> bool(batch.rewards[0] > 5 * batch.rewards[1])
        True
    """

    required_fields = ("image",)
    optional_fields = ()
    media_form = "pil"
    _sign: ClassVar[float] = 1.0

    def __init__(self, quality: int = 95, **options: Unpack[RewardOptions]) -> None:
        super().__init__(**options)
        self.quality = whole_number(quality, "quality", self.name, low=1)
        if quality > 95:
            raise ConfigError(f"quality must be at most 95, found {quality}; above, files only grow", reward=self.name)

    def compute_reward(self, sample: Sample) -> RewardOutput:
        """One size."""
        size = _jpeg_bytes(sample.image, self.quality)
        return RewardOutput(self._sign * size / 1000, metadata={"jpeg_bytes": size})


class JPEGCompressibility(JPEGIncompressibility):
    """Kilobytes (1000 bytes) of the image as a JPEG, negative: little detail is much reward.

    Args:
        quality: As for `JPEGIncompressibility`.
        **options: Of every reward; see `RewardFunction`. ``scale`` sets the unit.

    Who uses which unit: negative kilobytes, the default, are those of DDPO (the paper's code, ddpo-pytorch) and of
    what was built on it; flow_grpo and what was built on that divide by 500: ``JPEGCompressibility(scale=1 / 500)``.
    Where rewards are normalised by group or batch, both train alike.

    Metadata, errors and limits are those of `JPEGIncompressibility`, whose value is this one's negative.

    Examples:
        >>> import numpy as np
        >>> batch = JPEGCompressibility()(image=[np.zeros((64, 64, 3), dtype=np.uint8)])
        >>> bool(batch.rewards[0] == -batch.metadata[0]["jpeg_bytes"] / 1000)
        True
    """

    _sign: ClassVar[float] = -1.0


def _jpeg_bytes(image: Image.Image, quality: int) -> int:
    if max(image.size) > _LONGEST_SIDE:
        raise InputError(
            f"a JPEG has at most {_LONGEST_SIDE} pixels a side, found {image.width}x{image.height}; resize it",
            field="image",
        )
    bare = image.copy()
    bare.info = {}  # a comment or the like of the file that it came from would count too
    file = io.BytesIO()
    bare.save(file, format="JPEG", quality=quality)
    return file.tell()
