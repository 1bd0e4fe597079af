"""PickScore: which of two images people picked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flux_rewards.groups import GroupRank
from flux_rewards.models.checkpoint import Checkpoint
from flux_rewards.models.transformers_clip import open_transformers_clip
from flux_rewards.rewards.image.dual import DualEncoderReward
from flux_rewards.validation import one_of

if TYPE_CHECKING:
    import torch
    from typing_extensions import Unpack

    from flux_rewards.models.dual_encoder import DualEncoder
    from flux_rewards.rewards.model_reward import ModelOptions

__all__ = ["PickScore", "pick_score_rank"]


class PickScore(DualEncoderReward):
    """How well people would like an image for its prompt: a CLIP ViT-H/14 trained on the choices of Pick-a-Pic.

    ``exp(logit_scale) * cosine``, divided by 26 by default. `scaling` chooses whose number it is:

    | `scaling` | value | typical | used by |
    |---|---|---|---|
    | ``"/26"`` | ``exp(logit_scale) * cosine / 26`` | 0.6 to 1.0 | flow_grpo, Flow-Factory, DiffusionNFT, verl-omni |
    | ``"raw"`` | ``exp(logit_scale) * cosine`` | 15 to 26 | PickScore itself |
    | ``"cosine"`` | ``cosine`` | 0.15 to 0.26 | DanceGRPO, Pref-GRPO |

    SRPO's is ``scaling="raw", scale=1 / 20``. The softmax of raw scores over images of one prompt is the probability
    that each is picked.

    Args:
        model_name_or_path: The weights, in transformers' format.
        processor_name_or_path: Tokenizer and preprocessing: shorter side to 224, bicubic, crop from the middle.
        model_revision: Branch, tag or commit of the weights on the hub.
        scaling: See above.
        activation_checkpointing: On the gradient path, compute activations again instead of keeping them.
        **options: `device`, `dtype` (`ModelReward`), and those of every reward (`RewardFunction`).

    Raises:
        ConfigError: An argument is not one of its values.
        WeightsError: At the first call: the checkpoint cannot be found, or does not fit.

    Differentiable. Metadata: ``prompt_tokens_cut``, where a prompt is longer than 77 tokens.
    Source: Kirstain et al. 2023 (arXiv 2305.01569), yuvalkirstain/PickScore_v1 (MIT).

    Does not compare the images of a group; see `GroupRank`, or ``PickScore_Rank`` in configurations.

    Examples:
        >>> PickScore(scaling="raw", dtype="bfloat16").required_fields
        ('image', 'prompt')
    """

    def __init__(
        self,
        model_name_or_path: str = "yuvalkirstain/PickScore_v1",
        *,
        processor_name_or_path: str = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        model_revision: str | None = None,
        scaling: str = "/26",
        activation_checkpointing: bool = False,
        **options: Unpack[ModelOptions],
    ) -> None:
        super().__init__(**options)
        self.model_name_or_path = model_name_or_path
        self.processor_name_or_path = processor_name_or_path
        self.model_revision = model_revision
        self.scaling = one_of(scaling, "scaling", self.name, ("/26", "raw", "cosine"))
        self.activation_checkpointing = activation_checkpointing

    def checkpoints(self) -> Sequence[Checkpoint]:
        """Weights, then tokenizer and preprocessing."""
        return (
            Checkpoint(self.model_name_or_path, revision=self.model_revision),
            Checkpoint(self.processor_name_or_path, weights=False),
        )

    def open_model(self) -> DualEncoder:
        """Both towers."""
        weights, processor = self.checkpoints()
        return open_transformers_clip(weights, processor, device=self.device, dtype=self.dtype)

    def score(self, cosines: torch.Tensor, model: DualEncoder) -> torch.Tensor:
        """As `scaling` says."""
        if self.scaling == "cosine":
            return cosines
        raw = cosines * model.logit_scale
        return raw / 26 if self.scaling == "/26" else raw


def pick_score_rank(
    model_name_or_path: str = "yuvalkirstain/PickScore_v1",
    *,
    processor_name_or_path: str = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    model_revision: str | None = None,
    device: str | None = None,
    dtype: str = "float32",
    ties: str = "mean",
) -> GroupRank:
    """The rank of each image within its group by `PickScore`, 0 to 1: `GroupRank` around it.

    Args:
        model_name_or_path: As for `PickScore`.
        processor_name_or_path: As for `PickScore`.
        model_revision: As for `PickScore`.
        device: As for `PickScore`.
        dtype: As for `PickScore`.
        ties: As for `GroupRank`.

    Flow-Factory's reward of this name gives ``argsort(argsort) / n``, up to (n - 1) / n, and breaks ties by position.

    Examples:
        >>> pick_score_rank().reward.name
        'PickScore'
    """
    reward = PickScore(
        model_name_or_path,
        processor_name_or_path=processor_name_or_path,
        model_revision=model_revision,
        device=device,
        dtype=dtype,
    )
    return GroupRank(reward, ties=ties)
