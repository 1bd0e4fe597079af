"""How much one request may hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from flux_rewards.errors import InputError

__all__ = ["Allowance", "TooManyError"]


class TooManyError(ValueError):
    """More samples than a request may have."""


@dataclass
class Allowance:
    """What a request may still hold. It is taken before anything is built from what was sent.

    Attributes:
        pixels: Of all images together.
        samples: Of the request.

    Examples:
        >>> allowance = Allowance(pixels=100)
        >>> allowance.take_pixels(60, "image", 0)
        >>> allowance.pixels
        40
    """

    pixels: int
    samples: int = 2**31

    def take_samples(self, count: int) -> None:
        """Take samples.

        Raises:
            TooManyError: There are not so many left.
        """
        if count > self.samples:
            raise TooManyError(f"{count} samples in a request; at most {self.samples}: send several requests")
        self.samples -= count

    def take_pixels(self, count: int, field: str, index: int) -> None:
        """Take pixels for a field of a sample.

        Raises:
            InputError: There are not so many left.
        """
        self.pixels -= count
        if self.pixels < 0:
            raise InputError("the request has too many pixels; send fewer samples", field=field, index=index)


def pixels_of(value: Any) -> int:
    """How many pixels there are in arrays and tensors, and lists of them; channels are not counted.

    Examples:
        >>> pixels_of([np.zeros((4, 4, 3)), np.zeros((2, 2))])
        20
    """
    if isinstance(value, (list, tuple)):
        return sum(map(pixels_of, value))
    shape = tuple(getattr(value, "shape", ()))
    if len(shape) < 2:
        return 0
    channels = min(shape[-1], shape[-3], 4) if len(shape) > 2 else 1
    return int(np.prod(shape, dtype=np.int64)) // max(1, channels)
