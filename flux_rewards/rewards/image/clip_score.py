"""CLIPScore: how well an image fits its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flux_rewards.errors import ConfigError, brief
from flux_rewards.models.checkpoint import Checkpoint
from flux_rewards.models.opening import encoder_checkpoints, open_dual_encoder
from flux_rewards.rewards.image.dual import DualEncoderReward
from flux_rewards.validation import one_of

if TYPE_CHECKING:
    import torch
    from typing_extensions import Unpack

    from flux_rewards.models.dual_encoder import DualEncoder
    from flux_rewards.rewards.model_reward import ModelOptions

__all__ = ["CLIPScore"]


class CLIPScore(DualEncoderReward):
    """How well an image fits its prompt: the cosine of the two in a CLIP model.

    `scaling` chooses whose number it is:

    | `scaling` | value | typical | used by |
    |---|---|---|---|
    | ``"cosine"`` | ``cosine`` | 0.15 to 0.35 | Flow-Factory, flow_grpo, DiffusionNFT (as logits / 100) |
    | ``"logit"`` | ``exp(logit_scale) * cosine`` | 15 to 35 | CLIP itself |
    | ``"clipscore"`` | ``2.5 * max(cosine, 0)`` | 0.4 to 0.9 | the original: ViT-B/32, ``prefix="A photo depicts "`` |

    Args:
        model_name_or_path: A CLIP model in transformers' or in open_clip's format, such as
            ``"apple/DFN5B-CLIP-ViT-H-14-384"``; ``"hf-hub:..."`` and ``"local-dir:..."`` ask for open_clip's.
        model_revision: Branch, tag or commit of the weights on the hub.
        processor_name_or_path: Tokenizer and preprocessing, where the checkpoint has none of its own, as after a
            fine-tuning that saved the model alone. For transformers' format.
        scaling: See above.
        prefix: What stands in front of each prompt.
        activation_checkpointing: On the gradient path, compute activations again instead of keeping them.
        **options: `device`, `dtype` (`ModelReward`), and those of every reward (`RewardFunction`).

    Raises:
        ConfigError: An argument is not one of its values.
        WeightsError: At the first call: the checkpoint cannot be found, or does not fit.

    Differentiable. Metadata: ``prompt_tokens_cut``, where a prompt is longer than the model reads (77 tokens).
    In bfloat16 cosines of one prompt's images, which differ by some 0.01, are still told apart: they are taken in
    float32, and only the features' own error (about 0.001) remains.
    Source: Radford et al. 2021 (arXiv 2103.00020), Hessel et al. 2021 (arXiv 2104.08718).

    Does not read SigLIP checkpoints.

    Examples:
        >>> CLIPScore(scaling="clipscore", prefix="A photo depicts ").bounds
        (0.0, 2.5)
    """

    def __init__(
        self,
        model_name_or_path: str = "openai/clip-vit-large-patch14",
        *,
        model_revision: str | None = None,
        processor_name_or_path: str | None = None,
        scaling: str = "cosine",
        prefix: str = "",
        activation_checkpointing: bool = False,
        **options: Unpack[ModelOptions],
    ) -> None:
        self.bounds = {"cosine": (-1.0, 1.0), "clipscore": (0.0, 2.5)}.get(scaling)  # before the base rescales them
        super().__init__(**options)
        self.model_name_or_path = model_name_or_path
        self.model_revision = model_revision
        self.processor_name_or_path = processor_name_or_path
        self.scaling = one_of(scaling, "scaling", self.name, ("cosine", "logit", "clipscore"))
        if not isinstance(prefix, str):
            raise ConfigError(f"prefix must be text, found {brief(prefix)}", reward=self.name)
        self.prefix = prefix
        self.activation_checkpointing = activation_checkpointing

    def checkpoints(self) -> Sequence[Checkpoint]:
        """The model, and the processor where that is another one."""
        model = encoder_checkpoints(self.model_name_or_path, self.model_revision)
        other = self.processor_name_or_path
        return model if other is None else (*model, Checkpoint(other, weights=False))

    def open_model(self) -> DualEncoder:
        """Both towers."""
        return open_dual_encoder(
            self.model_name_or_path,
            self.model_revision,
            device=self.device,
            dtype=self.dtype,
            processor=self.processor_name_or_path,
        )

    def score(self, cosines: torch.Tensor, model: DualEncoder) -> torch.Tensor:
        """As `scaling` says."""
        if self.scaling == "clipscore":
            return 2.5 * cosines.relu()
        return cosines * model.logit_scale if self.scaling == "logit" else cosines
