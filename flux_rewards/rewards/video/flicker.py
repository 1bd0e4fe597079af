"""How little a video flickers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards.base import RewardFunction
from flux_rewards.gradients import check_pixels
from flux_rewards.media import unit_range

if TYPE_CHECKING:
    import torch

    from flux_rewards.data import Sample

__all__ = ["TemporalFlicker"]


class TemporalFlicker(RewardFunction):
    """How little a video changes from frame to frame, pixel by pixel: 1.0 where it is still.

    ``(255 - MAE) / 255``, where MAE is the mean absolute difference of successive frames over all pixels, colours and
    pairs of frames, in levels of 0 to 255.

    Args:
        **options: Of every reward; see `RewardFunction`.

    Bounds: (0, 1); generated videos mostly lie above 0.9. Does not apply (None) to a video of one frame.
    Differentiable, with ``forward(pixels)`` on (N, T, 3, H, W).

    Does not tell flicker from motion: whatever moves costs too, and a still video is perfect. VBench, whose
    temporal_flickering this is, measures it on prompts for static scenes, and drops videos that RAFT finds to move; put
    `MotionAmount` beside it. Source: Huang et al. 2023 (arXiv 2311.17982).

    Examples:
        >>> import numpy as np
        >>> still = np.zeros((3, 8, 8, 3), dtype=np.uint8)
        >>> blinking = still.copy()
        >>> blinking[1] = 51
        >>> TemporalFlicker()(video=[still, blinking, still[:1]]).rewards.round(6)
        array([1. , 0.8, nan])
    """

    required_fields = ("video",)
    optional_fields = ()
    bounds = (0.0, 1.0)
    media_form = "pixels"
    differentiable = True

    def compute_reward(self, sample: Sample) -> float | None:
        """One score, of two frames at a time: a video may be long."""
        import torch  # noqa: PLC0415  # loaded already

        video: Any = sample.video
        pairs = len(video) - 1
        if pairs == 0:
            return None
        with torch.no_grad():
            changes = [float(_change(unit_range(video[at]), unit_range(video[at + 1]))) for at in range(pairs)]
        return 1.0 - sum(changes) / pairs

    def forward(
        self,
        pixels: torch.Tensor,
        prompts: Sequence[str] | None = None,  # noqa: ARG002  # for other parts of a composite
        **columns: Sequence[Any],  # noqa: ARG002
    ) -> torch.Tensor:
        """Scores with a gradient to the pixels (N, T, 3, H, W); see `RewardFunction.forward`."""
        check_pixels(pixels, reward=self.name, ndim=5)
        if pixels.shape[1] == 1:
            return pixels.flatten(1)[:, :0].sum(dim=1).float() + float("nan")
        frames = pixels.float() if pixels.itemsize < 4 else pixels  # half precision would round the differences
        return self.rescaled((1.0 - _change(frames[:, :-1], frames[:, 1:], dim=(1, 2, 3, 4))).float())


def _change(one: torch.Tensor, other: torch.Tensor, dim: tuple[int, ...] | None = None) -> torch.Tensor:
    return (other - one).abs().mean(dim=dim)
