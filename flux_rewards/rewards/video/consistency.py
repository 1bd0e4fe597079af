"""How much a video keeps showing the same thing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards.gradients import check_pixels
from flux_rewards.models.opening import encoder_checkpoints, open_image_encoder
from flux_rewards.rewards.image.rows import encode_in_batches
from flux_rewards.rewards.model_reward import ModelOptions, ModelReward
from flux_rewards.validation import whole_number
from flux_rewards.views import position_of

if TYPE_CHECKING:
    import torch
    from typing_extensions import Unpack

    from flux_rewards.data import Sample
    from flux_rewards.models.checkpoint import Checkpoint
    from flux_rewards.models.features import ImageEncoder

__all__ = ["FrameConsistency"]


class FrameConsistency(ModelReward):
    """How much a video keeps showing the same thing: its frames against the one before and the first.

    ``mean over t >= 1 of (max(0, cos(f_t, f_{t-1})) + max(0, cos(f_t, f_0))) / 2``, from 0 to 1, where a still video
    has 1. With a DINO model this is VBench's subject consistency, with CLIP its background consistency. VBench feeds
    its own preprocessing; here it is that of the checkpoint.

    Args:
        model_name_or_path: A DINO or CLIP model; see `ImageSimilarity`.
        frame_batch_size: Frames that the model sees at once, of whichever videos.
        model_revision: Branch, tag or commit of the weights on the hub.
        activation_checkpointing: On the gradient path, compute activations again instead of keeping them.
        **options: `device`, `dtype` (`ModelReward`), and those of every reward (`RewardFunction`); `batch_size` is in
            videos.

    Raises:
        ConfigError: An argument is not one of its values.
        WeightsError: At the first call: the checkpoint cannot be found, or does not fit.

    Does not apply (None) to a video of one frame. Differentiable, with ``forward(pixels)`` on (N, T, 3, H, W).
    Source: Huang et al. 2023 (arXiv 2311.17982).

    Does not reward motion: a still video is perfect. Combine it with `MotionAmount`.

    Examples:
        >>> FrameConsistency("facebook/dinov2-base").required_fields
        ('video',)
    """

    required_fields = ("video",)
    optional_fields = ()
    bounds = (0.0, 1.0)
    batch_size = 8
    differentiable = True

    def __init__(
        self,
        model_name_or_path: str = "facebook/dino-vitb16",
        *,
        frame_batch_size: int = 32,
        model_revision: str | None = None,
        activation_checkpointing: bool = False,
        **options: Unpack[ModelOptions],
    ) -> None:
        super().__init__(**options)
        self.model_name_or_path = model_name_or_path
        self.frame_batch_size = whole_number(frame_batch_size, "frame_batch_size", self.name, low=1)
        self.model_revision = model_revision
        self.activation_checkpointing = activation_checkpointing

    def checkpoints(self) -> Sequence[Checkpoint]:
        """One."""
        return encoder_checkpoints(self.model_name_or_path, self.model_revision)

    def open_model(self) -> ImageEncoder:
        """The image tower."""
        return open_image_encoder(self.model_name_or_path, self.model_revision, device=self.device, dtype=self.dtype)

    def compute_rewards(self, samples: Sequence[Sample]) -> list[float | None]:
        """One score a video."""
        frames = [
            (position_of(sample), number, frame) for sample in samples for number, frame in enumerate(sample.video)
        ]
        keys = [("video", position, number) for position, number, _ in frames]
        known = all(position is not None for position, _, _ in frames)
        images = [frame for _, _, frame in frames]
        features = self.model.features(images, keys if known else None, self.frame_batch_size)
        each = features.split([len(sample.video) for sample in samples])
        return [float(_consistency(video).clamp(0, 1)) if len(video) > 1 else None for video in each]

    def forward(
        self,
        pixels: torch.Tensor,
        prompts: Sequence[str] | None = None,  # noqa: ARG002  # for other parts of a composite
        **columns: Sequence[Any],  # noqa: ARG002
    ) -> torch.Tensor:
        """Scores with a gradient to the pixels (N, T, 3, H, W); see `RewardFunction.forward`."""
        check_pixels(pixels, reward=self.name, ndim=5)
        count, length = pixels.shape[:2]
        if length == 1:
            return pixels.flatten(1)[:, :0].sum(dim=1).float() + float("nan")  # still a part of the graph
        features = encode_in_batches(
            self.model,
            pixels.flatten(0, 1),
            self.frame_batch_size,
            checkpointing=self.activation_checkpointing,
            reward=self.name,
        )
        return self.rescaled(_consistency(features.view(count, length, -1))).to(pixels.device)


def _consistency(features: torch.Tensor) -> torch.Tensor:
    """Unit features (..., T, D) to scores (...)."""
    later, before, first = features[..., 1:, :], features[..., :-1, :], features[..., :1, :]
    similar = [(later * other).sum(dim=-1).relu() for other in (before, first)]
    return ((similar[0] + similar[1]) / 2).mean(dim=-1)
