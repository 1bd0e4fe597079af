"""HPSv2: which images people prefer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flux_rewards.models.checkpoint import Checkpoint
from flux_rewards.models.open_clip_model import open_clip_architecture, open_open_clip
from flux_rewards.models.preprocessing import Preprocessing
from flux_rewards.rewards.image.dual import DualEncoderReward
from flux_rewards.validation import one_of

if TYPE_CHECKING:
    import torch
    from typing_extensions import Unpack

    from flux_rewards.models.dual_encoder import DualEncoder
    from flux_rewards.rewards.model_reward import ModelOptions

__all__ = ["HPSv2"]

_FILES = {"2.0": "HPS_v2_compressed.pt", "2.1": "HPS_v2.1_compressed.pt"}


class HPSv2(DualEncoderReward):
    """How well people would like an image for its prompt: a CLIP ViT-H/14 trained on the Human Preference Dataset.

    The cosine, without the logit scale; typically 0.20 to 0.35:

    | `scaling` | value | used by |
    |---|---|---|
    | ``"cosine"`` | ``cosine`` | the official package's `score`, DanceGRPO, MixGRPO, DiffusionNFT |
    | ``"x100"`` | ``100 * cosine`` | the tables of the paper and of its benchmark |

    The longer side is scaled to 224 and the rest padded with black, where a plain CLIP would cut the sides off: as in
    the official code, on float pixels with antialias (torchvision 0.17 and later), values beyond [0, 1] left as they
    come. The official code fails on an image that is not square and has 224 on its longer side; this one pads it.

    Args:
        version: ``"2.1"`` or ``"2.0"``: which of the two published checkpoints.
        model_name_or_path: Where the checkpoint is: a hub id, a directory, or the file itself.
        model_revision: Branch, tag or commit of the weights on the hub.
        architecture: open_clip's name of it, or the path of a JSON file with an architecture of one's own.
        scaling: See above.
        activation_checkpointing: On the gradient path, compute activations again instead of keeping them.
        **options: `device`, `dtype` (`ModelReward`), and those of every reward (`RewardFunction`).

    Raises:
        ConfigError: An argument is not one of its values.
        WeightsError: At the first call: the checkpoint cannot be found, or does not fit.

    Differentiable. Metadata: ``prompt_tokens_cut``, where a prompt is longer than 77 tokens.
    Source: Wu et al. 2023 (arXiv 2306.09341), xswu/HPSv2 (Apache-2.0).

    Does not need the official package, and does not read the LAION weights that it loads first and overwrites.

    Examples:
        >>> HPSv2(version="2.0").checkpoints()[0].file
        'HPS_v2_compressed.pt'
    """

    def __init__(
        self,
        version: str = "2.1",
        *,
        model_name_or_path: str = "xswu/HPSv2",
        model_revision: str | None = None,
        architecture: str = "ViT-H-14",
        scaling: str = "cosine",
        activation_checkpointing: bool = False,
        **options: Unpack[ModelOptions],
    ) -> None:
        self.bounds = (-100.0, 100.0) if scaling == "x100" else (-1.0, 1.0)  # before the base rescales them
        super().__init__(**options)
        self.version = one_of(str(version), "version", self.name, tuple(_FILES))
        self.model_name_or_path = model_name_or_path
        self.model_revision = model_revision
        self.architecture = architecture
        self.scaling = one_of(scaling, "scaling", self.name, ("cosine", "x100"))
        self.activation_checkpointing = activation_checkpointing

    def checkpoints(self) -> Sequence[Checkpoint]:
        """The file of the version."""
        return (Checkpoint(self.model_name_or_path, _FILES[self.version], self.model_revision),)

    def open_model(self) -> DualEncoder:
        """Both towers."""
        (weights,) = self.checkpoints()
        architecture = open_clip_architecture(self.architecture)
        size = architecture["vision_cfg"]["image_size"]
        preprocessing = Preprocessing((size, size), "longest", eight_bit=False)
        return open_open_clip(
            weights, architecture, preprocessing, device=self.device, dtype=self.dtype, under="state_dict"
        )

    def score(self, cosines: torch.Tensor, model: DualEncoder) -> torch.Tensor:  # noqa: ARG002  # others are scaled
        """As `scaling` says."""
        return 100 * cosines if self.scaling == "x100" else cosines
