"""How much moves in a video."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.gradients import check_pixels
from flux_rewards.media import unit_range
from flux_rewards.models.placement import device_of

if TYPE_CHECKING:
    import torch
    from typing_extensions import Unpack

    from flux_rewards.data import Sample

__all__ = ["MotionAmount"]

_LONGEST_SIDE = 256  # of the frames that motion is looked for in
_PAIRS_AT_ONCE = 16
_TOP = 0.05  # of the pixels: VBench's share
_SHORTEST_SIDE = 12  # of the coarsest level
_MARGIN = 2  # pixels at the edge whose slopes and blur lack a neighbour
_ITERATIONS = 4
_WINDOW, _SMOOTHING = 9, 7
# All in squares of pixel values in [0, 1], or of their change from one pixel to the next.
_DAMPING = 1e-3
_TEXTURE = 2e-4  # less is no texture: a contrast of about 4 of the 255 levels
_ROUNDING = 2e-5  # a change of 1 of the 255 levels
_CONTRAST = 4e-4


class MotionAmount(RewardFunction):
    """How fast the fastest twentieth of a video moves: the frame's diagonals that it covers from frame to frame.

    Of each pair of successive frames, the mean length of the 5 % longest vectors of the optical flow, in diagonals;
    then the mean over pairs. 0.0 is a still video; at 16 frames a second, 0.01 crosses the picture in six seconds.

    The statistic is the one by which VBench's dynamic_degree decides, but NOT its number: VBench takes RAFT's flow, in
    pixels, and says yes or no. Here the flow needs no weights: iterated Lucas-Kanade from coarse to fine, on gray
    frames whose longer side is at most 256 pixels. What has no texture counts as still, and so does what the flow
    does not explain. Brightness and contrast of whole frames are matched first; the brightness of each window is left
    out.

    Args:
        device: Where the flow is computed by a call, such as ``"cuda"`` or ``"cpu"``; None for the current CUDA device
            where there is one, else the CPU. `forward` stays where its pixels are.
        activation_checkpointing: On the gradient path, compute activations again instead of keeping them.
        **options: Of every reward; see `RewardFunction`.

    Does not apply (None) to a video of one frame. Differentiable, with ``forward(pixels)`` on (N, T, 3, H, W); the
    gradient of a still video is zero.

    Raises:
        ConfigError: At the first call: there is no such device.

    How exact it is, on twelve photographs panned by whole pixels: 1 % too large (median; 11 % at worst) for shifts of 5
    to 25 pixels of the 256 a frame, 5 % for 2 pixels, 10 % below one; beyond an eighth of the longer side, too small.
    Brightness that changes by 10 % reads as 0.02 pixels, a change that clips highlights as 0.2, noise of 5 of the 255
    levels as 0.02. Frames of less than 5 pixels a side count as still.

    Does not tell the camera's motion from that of things, good motion from bad, or a cut from a fast move. What is
    trained through it alone learns to shimmer; combine it. Source of the statistic: Huang et al. 2023
    (arXiv 2311.17982); of the flow: Lucas and Kanade 1981, in Bouguet's pyramid (2001).

    Examples:
        >>> import numpy as np
        >>> rows, columns = np.mgrid[:64, :96]
        >>> def picture(shift):
        ...     waves = np.sin((columns - shift) / 4) + np.sin(rows / 5) + np.sin((columns - shift + rows) / 6)
        ...     return np.uint8(128 + 40 * waves)
        >>> batch = MotionAmount("cpu")(video=[[picture(2 * t) for t in range(4)], [picture(0)] * 4])
        >>> (batch.rewards * np.hypot(64, 96)).round()
        array([2., 0.])
    """

    required_fields = ("video",)
    optional_fields = ()
    media_form = "pixels"
    differentiable = True
    neutral_parameters: ClassVar[Sequence[str]] = (
        *RewardFunction.neutral_parameters,
        "device",
        "activation_checkpointing",
    )
    example_config: ClassVar[Mapping[str, Any]] = {}

    def __init__(
        self,
        device: str | None = None,
        activation_checkpointing: bool = False,
        **options: Unpack[RewardOptions],
    ) -> None:
        super().__init__(**options)
        self.device = None if device is None else str(device)
        self.activation_checkpointing = activation_checkpointing

    def compute_reward(self, sample: Sample) -> float | None:
        """One score, of a few frames at a time: a video may be long."""
        import torch  # noqa: PLC0415  # loaded already

        video: Any = sample.video
        pairs = len(video) - 1
        if pairs == 0:
            return None
        total, device = 0.0, device_of(self.device)
        with torch.no_grad():
            for start in range(0, pairs, _PAIRS_AT_ONCE):
                frames = _gray(video[start : start + _PAIRS_AT_ONCE + 1].to(device))
                total += float(_speed(frames[:-1], frames[1:]).sum())
        return total / pairs

    def forward(
        self,
        pixels: torch.Tensor,
        prompts: Sequence[str] | None = None,  # noqa: ARG002  # for other parts of a composite
        **columns: Sequence[Any],  # noqa: ARG002
    ) -> torch.Tensor:
        """Scores with a gradient to the pixels (N, T, 3, H, W); see `RewardFunction.forward`."""
        import torch  # noqa: PLC0415  # loaded already
        from torch.utils.checkpoint import checkpoint  # noqa: PLC0415

        check_pixels(pixels, reward=self.name, ndim=5)
        count, length = pixels.shape[:2]
        if length == 1:
            return pixels.flatten(1)[:, :0].sum(dim=1).float() + float("nan")  # still a part of the graph
        frames = _gray(pixels.flatten(0, 1))
        frames = frames.view(count, length, *frames.shape[1:])
        before, after = frames[:, :-1].flatten(0, 1), frames[:, 1:].flatten(0, 1)
        speed: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = _speed
        if self.activation_checkpointing and torch.is_grad_enabled():
            speed = lambda one, other: checkpoint(_speed, one, other, use_reentrant=False)  # noqa: E731
        speeds = [
            speed(one, other)
            for one, other in zip(torch.split(before, _PAIRS_AT_ONCE), torch.split(after, _PAIRS_AT_ONCE), strict=True)
        ]
        return self.rescaled(torch.cat(speeds).view(count, length - 1).mean(dim=1).float())


def _gray(frames: torch.Tensor) -> torch.Tensor:
    """(T, 3, H, W) to (T, 1, h, w) in [0, 1], small enough, in float32 at least."""
    import torch  # noqa: PLC0415  # loaded already

    frames = unit_range(frames) if frames.itemsize < 4 else frames
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=frames.dtype, device=frames.device)
    gray = (frames * weights.view(3, 1, 1)).sum(dim=1, keepdim=True)
    height, width = gray.shape[-2:]
    if max(height, width) <= _LONGEST_SIDE:
        return gray
    scale = _LONGEST_SIDE / max(height, width)
    return _resized(gray, (max(1, round(height * scale)), max(1, round(width * scale))))


def _speed(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Pairs of frames (P, 1, h, w) to the mean length of the longest vectors, in diagonals, (P,)."""
    before, after = _matched(before, after)
    flow, change_x, change_y = _optical_flow(before, after)
    # The small number keeps the gradient of a length of zero finite.
    lengths = (flow.square().sum(dim=1, keepdim=True) + 1e-12).sqrt() - 1e-6
    lengths = (lengths * _trust(before, after, flow, change_x, change_y)).flatten(1)
    height, width = before.shape[-2:]
    longest = lengths.topk(max(1, int(_TOP * height * width)), dim=1).values
    return longest.mean(dim=1) / math.hypot(height, width)


def _matched(before: torch.Tensor, after: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both with the mean zero, and with the contrast between theirs; a little blurred, since flow reads slopes."""
    centred = [frames - frames.mean(dim=(1, 2, 3), keepdim=True) for frames in (before, after)]
    contrast = [(one.square().mean(dim=(1, 2, 3), keepdim=True) + _CONTRAST).sqrt() for one in centred]
    between = (contrast[0] * contrast[1]).sqrt()
    one, other = (_window(frames * between / own, 3) for frames, own in zip(centred, contrast, strict=True))
    return one, other


def _optical_flow(before: torch.Tensor, after: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Where each pixel of `before` went, (P, 2, h, w) in pixels right and down; and the slopes of `before`."""
    levels = [(before, after)]
    while min(before.shape[-2:]) >= 2 * _SHORTEST_SIDE:
        half = -(-before.shape[-2] // 2), -(-before.shape[-1] // 2)
        before, after = _resized(before, half), _resized(after, half)
        levels.append((before, after))
    flow = before.new_zeros(len(before), 2, *before.shape[-2:])
    for before, after in reversed(levels):
        height, width = before.shape[-2:]
        longer = flow.new_tensor([width / flow.shape[-1], height / flow.shape[-2]]).view(2, 1, 1)
        flow = _resized(flow, (height, width)) * longer
        slope_x, slope_y = _slopes(before)
        for _ in range(_ITERATIONS):
            flow = flow + _correction(before, after, flow, slope_x, slope_y)
        # Where there is texture, it knows; the rest follows.
        weight = _window(slope_x.square() + slope_y.square(), 3) + 1e-5
        flow = _window(flow * weight, _SMOOTHING) / _window(weight, _SMOOTHING)
    return flow, slope_x, slope_y


def _correction(
    before: torch.Tensor, after: torch.Tensor, flow: torch.Tensor, slope_x: torch.Tensor, slope_y: torch.Tensor
) -> torch.Tensor:
    """One step of Lucas and Kanade: least squares over a window, with its brightness as a third unknown."""
    import torch  # noqa: PLC0415  # loaded already

    warped, inside = _warped(after, flow)
    change = warped - before
    one = torch.ones_like(change)
    products = [slope_x * slope_x, slope_x * slope_y, slope_y * slope_y, slope_x * change, slope_y * change]
    sums = _window(torch.cat([one, slope_x, slope_y, change, *products], dim=1) * inside, _WINDOW)
    means = sums[:, 1:] / sums[:, :1].clamp(min=1e-3)
    x, y, t, xx, xy, yy, xt, yt = (means[:, at : at + 1] for at in range(8))
    # Covariances leave the window's brightness out. Damping holds still what has no texture.
    xx, xy, yy, xt, yt = xx - x * x + _DAMPING, xy - x * y, yy - y * y + _DAMPING, xt - x * t, yt - y * t
    determinant = xx * yy - xy * xy
    steps = [(xy * yt - yy * xt) / determinant, (xy * xt - xx * yt) / determinant]
    return torch.cat(steps, dim=1).clamp(-1, 1)  # a slope holds for a pixel or so


def _trust(
    before: torch.Tensor, after: torch.Tensor, flow: torch.Tensor, slope_x: torch.Tensor, slope_y: torch.Tensor
) -> torch.Tensor:
    """(P, 1, h, w) in [0, 1]: whether there is texture, and whether the flow explains half of what changed there."""
    warped, inside = _warped(after, flow)
    weight = _window(inside, _WINDOW).clamp(min=1e-3)

    def energy(change: torch.Tensor) -> torch.Tensor:
        mean = _window(change * inside, _WINDOW) / weight
        return _window(change * change * inside, _WINDOW) / weight - mean * mean

    changed, left = energy(after - before), energy(warped - before)
    explained = (2 * (changed - left) / (changed + _ROUNDING)).clamp(0, 1)
    squares = _window(slope_x.square() + slope_y.square(), _WINDOW)
    texture = squares - _window(slope_x, _WINDOW).square() - _window(slope_y, _WINDOW).square()
    return explained * (texture / _TEXTURE).clamp(0, 1)


def _warped(frames: torch.Tensor, flow: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The frames read where the flow points to, and 1.0 where a pixel is inside, before and after, else 0.0."""
    import torch  # noqa: PLC0415  # loaded already

    height, width = frames.shape[-2:]
    column = torch.arange(width, dtype=flow.dtype, device=flow.device) + flow[:, 0]
    row = torch.arange(height, dtype=flow.dtype, device=flow.device)[:, None] + flow[:, 1]
    grid = torch.stack([(2 * column + 1) / width - 1, (2 * row + 1) / height - 1], dim=-1)
    inside = torch.zeros_like(column, dtype=torch.bool)
    inside[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN] = True
    inside &= (column >= _MARGIN) & (column <= width - 1 - _MARGIN) & (row >= _MARGIN) & (row <= height - 1 - _MARGIN)
    warped = torch.nn.functional.grid_sample(frames, grid, padding_mode="border", align_corners=False)
    return warped, inside[:, None].to(flow.dtype)


def _slopes(frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The change from pixel to pixel, to the right and down."""
    import torch  # noqa: PLC0415  # loaded already

    wider = torch.nn.functional.pad(frames, (1, 1, 1, 1), mode="replicate")
    return (wider[..., 1:-1, 2:] - wider[..., 1:-1, :-2]) / 2, (wider[..., 2:, 1:-1] - wider[..., :-2, 1:-1]) / 2


def _window(values: torch.Tensor, size: int) -> torch.Tensor:
    """Means over what a window around each pixel holds of the frame, most of its middle."""
    import torch  # noqa: PLC0415  # loaded already

    half = size // 2
    for kernel, padding in [((size, 1), (half, 0)), ((1, size), (0, half))] * 2:
        values = torch.nn.functional.avg_pool2d(values, kernel, 1, padding, count_include_pad=False)
    return values


def _resized(values: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    import torch  # noqa: PLC0415  # loaded already

    smaller = size[0] < values.shape[-2] or size[1] < values.shape[-1]
    return torch.nn.functional.interpolate(values, size=size, mode="bilinear", antialias=smaller, align_corners=False)
