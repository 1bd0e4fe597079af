"""Faces turned upright and cut out: a similarity transform of five points, and the crop that it gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

__all__ = ["CROP_SIZE", "TEMPLATE", "crop_faces", "similarity"]

CROP_SIZE = 112
"""Side of a crop, in pixels."""

TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Where ArcFace wants the five points in a crop: left eye, right eye, nose, left and right corner of the mouth."""


def similarity(points: NDArray[np.floating]) -> NDArray[np.float64] | None:
    """The rotation, scale and shift that brings five points closest to the template, in least squares.

    With points and template as complex numbers z and w, both less their means, it is the regression of w on z:
    ``a = sum(conj(z) w) / sum(|z|^2)``. In the plane that is Umeyama's solution without reflection.

    Args:
        points: (5, 2), x and y in pixels of the frame.

    Returns:
        (2, 3), from pixels of the frame to pixels of the crop; None where the points give none: they all coincide, or
        are not numbers.

    Source: Umeyama 1991, IEEE PAMI 13(4).

    Examples:
        >>> similarity(TEMPLATE * 2 + 10).round(6)
        array([[ 0.5, -0. , -5. ],
               [ 0. ,  0.5, -5. ]])
    """
    found, wanted = (np.asarray(side, dtype=np.float64) @ np.array([1, 1j]) for side in (points, TEMPLATE))
    around = found - found.mean()
    spread = np.vdot(around, around).real
    if not (np.isfinite(spread) and spread > 0):
        return None
    turn = np.vdot(around, wanted - wanted.mean()) / spread
    if abs(turn) * np.sqrt(spread) < 1e-6:  # such as on a line through nothing: no crop has that scale
        return None
    shift = wanted.mean() - turn * found.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def crop_faces(pixels: torch.Tensor, transforms: NDArray[np.float64]) -> torch.Tensor:
    """Crops of faces, bilinear, black beyond the frame; the gradient reaches the pixels.

    Args:
        pixels: (N, 3, H, W), float.
        transforms: (N, 2, 3), of `similarity`, one a frame.

    Returns:
        (N, 3, 112, 112), of the pixels' dtype and device.

    Does not smooth before it makes a face smaller: neither does insightface.

    Examples:
        >>> import torch
        >>> crop_faces(torch.ones(1, 3, 112, 112), np.array([[[1.0, 0, 0], [0, 1, 0]]])).mean()
        tensor(1.)
    """
    import torch  # noqa: PLC0415  # loaded already

    bottom = np.broadcast_to([[[0.0, 0.0, 1.0]]], (len(transforms), 1, 3))
    back = np.linalg.inv(np.concatenate([transforms, bottom], axis=1))  # from the crop to the frame
    # Sums of products, and no matrix product: CUDA may take that in a precision which moves the grid.
    terms = torch.from_numpy(back).to(device=pixels.device, dtype=pixels.dtype)[:, :2, None, None, :]
    row = torch.arange(CROP_SIZE, device=pixels.device, dtype=pixels.dtype)
    at = terms[..., 0] * row + terms[..., 1] * row[:, None] + terms[..., 2]  # (N, 2, 112, 112): x, y in the frame
    sides = torch.tensor([pixels.shape[3], pixels.shape[2]], device=pixels.device, dtype=pixels.dtype)
    # Pixel 0 has its centre half a pixel from the edge, which is at -1 (align_corners=False).
    grid = (2 * at.permute(0, 2, 3, 1) + 1) / sides - 1
    return torch.nn.functional.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
