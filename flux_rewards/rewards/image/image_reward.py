"""ImageReward: how people would judge an image for its prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from flux_rewards.errors import ComputeError, InputError
from flux_rewards.gradients import check_pixels
from flux_rewards.models.checkpoint import Checkpoint
from flux_rewards.models.image_reward import ImageRewardModel, open_image_reward
from flux_rewards.rewards.image.rows import outputs, prompt_of, prompts_of, score_readable
from flux_rewards.rewards.model_reward import ModelOptions, ModelReward
from flux_rewards.validation import one_of

if TYPE_CHECKING:
    import torch
    from typing_extensions import Unpack

    from flux_rewards.data import RewardOutput, Sample

__all__ = ["ImageReward"]

_SCALINGS: Mapping[str, tuple[float, float]] = {"raw": (0.0, 1.0), "unit": (2.0, 0.25)}
"""What is added to the published score, and what it is multiplied by then."""


class ImageReward(ModelReward):
    """ImageReward 1.0: BLIP fine-tuned on 137,000 comparisons by people; reads image and prompt together.

    | `scaling` | value | typical | used by |
    |---|---|---|---|
    | ``"raw"`` | ``r = (head - 0.1672) / 1.0333``, as published | -2 to 2 | the official package, ReFL, imscore |
    | ``"unit"`` | ``(r + 2) / 4``, not cut | 0 to 1 | UniRL |

    ReFL minimises ``relu(2 - r)``, which is ``loss(..., kind="hinge", target=2.0)``. The model reads 35 tokens of a
    prompt, some 25 words, and never sees the rest.

    Args:
        model_name_or_path: Hub id, or a directory with the two files.
        file: The weights, in the format of ``ImageReward.pt``; ``med_config.json`` lies beside it.
        model_revision: Branch, tag or commit of the weights on the hub.
        tokenizer: Hub id of uncased BERT, or a directory that holds its ``tokenizer.json``, or that file.
        scaling: See above.
        activation_checkpointing: On the gradient path, keep one activation a layer and compute the others again.
        **options: `device`, `dtype` (`ModelReward`), and those of every reward (`RewardFunction`).

    Raises:
        ConfigError: An argument is not one of its values.
        WeightsError: At the first call: a file cannot be found, or does not fit.

    Differentiable. Metadata: ``prompt_tokens_cut``, how many tokens of the prompt did not fit, where some did not.
    Source: Xu et al. 2023 (arXiv 2304.05977), THUDM/ImageReward (Apache-2.0).

    Keeps no features: image and prompt meet in every layer, so each pair is computed anew.

    Examples:
        >>> ImageReward(scaling="unit", dtype="bfloat16")
        ImageReward(scaling='unit', dtype='bfloat16')
    """

    required_fields = ("image", "prompt")
    optional_fields = ()
    differentiable = True
    neutral_parameters: ClassVar[Sequence[str]] = (*ModelReward.neutral_parameters, "activation_checkpointing")

    def __init__(
        self,
        model_name_or_path: str = "THUDM/ImageReward",
        file: str = "ImageReward.pt",
        model_revision: str | None = None,
        tokenizer: str = "google-bert/bert-base-uncased",
        *,
        scaling: str = "raw",
        activation_checkpointing: bool = False,
        **options: Unpack[ModelOptions],
    ) -> None:
        super().__init__(**options)
        self.model_name_or_path = model_name_or_path
        self.file = file
        self.model_revision = model_revision
        self.tokenizer = tokenizer
        self.scaling = one_of(scaling, "scaling", self.name, list(_SCALINGS))
        self.activation_checkpointing = activation_checkpointing

    def checkpoints(self) -> Sequence[Checkpoint]:
        """Weights, BERT's configuration, BERT's tokenizer."""
        return [
            Checkpoint(self.model_name_or_path, self.file, self.model_revision),
            Checkpoint(self.model_name_or_path, "med_config.json", self.model_revision),
            Checkpoint(self.tokenizer, "tokenizer.json"),
        ]

    def open_model(self) -> ImageRewardModel:
        """The network, shared with all who name the same files."""
        weights, med_config, tokenizer = self.checkpoints()
        return open_image_reward(weights, med_config, tokenizer, device=self.device, dtype=self.dtype)

    def compute_rewards(self, samples: Sequence[Sample]) -> list[Any]:
        """One score a sample."""
        return score_readable(samples, prompt_of, self._rows)

    def _rows(self, samples: Sequence[Sample], prompts: list[str]) -> list[RewardOutput]:
        model: ImageRewardModel = self.model
        scores, cut = model([sample.image for sample in samples], prompts)
        return outputs(self._scaled(scores), cut)

    def forward(
        self,
        pixels: torch.Tensor,
        prompts: Sequence[str] | None = None,
        **columns: Sequence[Any],  # noqa: ARG002  # for other parts of a composite
    ) -> torch.Tensor:
        """Scores with a gradient to the pixels (N, 3, H, W); see `RewardFunction.forward`."""
        import torch  # noqa: PLC0415  # loaded already

        if prompts is None:
            raise InputError("the reward reads images with their prompts", reward=self.name, field="prompts")
        check_pixels(pixels, prompts, reward=self.name)
        model: ImageRewardModel = self.model
        texts = prompts_of(prompts, self.name)
        size = self.batch_size or len(texts)
        parts = [
            model.scores(
                model.preprocessing(pixels[start : start + size], model.device),
                model.tokens(texts[start : start + size]),
                activation_checkpointing=self.activation_checkpointing,
            )
            for start in range(0, len(texts), size)
        ]
        scores = torch.cat(parts)
        if not bool(torch.isfinite(scores.detach()).all()):
            advice = "use dtype='bfloat16' or 'float32'"
            raise ComputeError(f"the model overflowed in {model.dtype}; {advice}", reward=self.name)
        return self.rescaled(self._scaled(scores)).to(pixels.device)

    def _scaled(self, scores: torch.Tensor) -> torch.Tensor:
        shift, factor = _SCALINGS[self.scaling]
        return (scores + shift) * factor
