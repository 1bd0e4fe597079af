"""The base of rewards that compare an image with its prompt in a dual encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import InputError
from flux_rewards.gradients import check_pixels
from flux_rewards.rewards.image.rows import (
    encode_in_batches,
    image_keys,
    outputs,
    prompt_of,
    prompts_of,
    score_readable,
)
from flux_rewards.rewards.model_reward import ModelReward

if TYPE_CHECKING:
    import torch

    from flux_rewards.data import RewardOutput, Sample
    from flux_rewards.models.dual_encoder import DualEncoder

__all__ = ["DualEncoderReward"]


class DualEncoderReward(ModelReward, abstract=True):
    """A reward that is a function of the cosine of an image and its prompt.

    Each distinct prompt is encoded once and kept; each image is encoded once for all rewards of a batch that share the
    checkpoint. Metadata: ``prompt_tokens_cut``, how many tokens of the prompt did not fit, where some did not.

    A subclass overrides `checkpoints`, `open_model` (which returns a `DualEncoder`) and `score`.
    """

    required_fields = ("image", "prompt")
    optional_fields = ()
    differentiable = True
    prefix: str = ""
    activation_checkpointing: bool = False

    def score(self, cosines: torch.Tensor, model: DualEncoder) -> torch.Tensor:
        """Scores from cosines, both (N,), float32, and the model that gave them."""
        raise NotImplementedError

    def compute_rewards(self, samples: Sequence[Sample]) -> list[Any]:
        """One score a sample."""
        return score_readable(samples, prompt_of, self._rows)

    def _rows(self, samples: Sequence[Sample], prompts: list[str]) -> list[RewardOutput]:
        import torch  # noqa: PLC0415  # loaded already

        model: DualEncoder = self.model
        texts = model.texts([self.prefix + prompt for prompt in prompts])
        features = model.features([sample.image for sample in samples], image_keys(samples))
        cosines = (features * torch.stack([text.feature for text in texts])).sum(dim=-1).clamp(-1, 1)
        return outputs(self.score(cosines, model), [text.tokens_cut for text in texts])

    def forward(
        self,
        pixels: torch.Tensor,
        prompts: Sequence[str] | None = None,
        **columns: Sequence[Any],  # noqa: ARG002  # for other parts of a composite
    ) -> torch.Tensor:
        """Scores with a gradient to the pixels (N, 3, H, W); see `RewardFunction.forward`."""
        import torch  # noqa: PLC0415  # loaded already

        if prompts is None:
            raise InputError("the reward compares images with their prompts", reward=self.name, field="prompts")
        check_pixels(pixels, prompts, reward=self.name)
        model: DualEncoder = self.model
        texts = model.texts([self.prefix + prompt for prompt in prompts_of(prompts, self.name)])
        features = encode_in_batches(
            model, pixels, self.batch_size, checkpointing=self.activation_checkpointing, reward=self.name
        )
        cosines = (features * torch.stack([text.feature for text in texts]).to(features.device)).sum(dim=-1)
        return self.rescaled(self.score(cosines, model)).to(pixels.device)
