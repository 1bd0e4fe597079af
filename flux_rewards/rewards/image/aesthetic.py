"""The LAION aesthetic score: how beautiful an image is, whatever its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from flux_rewards.gradients import check_pixels
from flux_rewards.models.aesthetic import open_aesthetic_head
from flux_rewards.models.checkpoint import Checkpoint
from flux_rewards.models.opening import encoder_checkpoints, open_dual_encoder
from flux_rewards.models.placement import mixed_precision
from flux_rewards.rewards.image.rows import encode_in_batches, image_keys
from flux_rewards.rewards.model_reward import ModelOptions, ModelReward
from flux_rewards.validation import one_of

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from typing_extensions import Unpack

    from flux_rewards.data import Sample
    from flux_rewards.models.dual_encoder import DualEncoder

__all__ = ["AestheticScore"]

_HEAD = (
    "https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/sac%2Blogos%2Bava1-l14-linearMSE.pth"
)


class _Predictor(NamedTuple):
    encoder: DualEncoder
    head: torch.nn.Module


class AestheticScore(ModelReward):
    """How beautiful people find an image, about 1 to 10, whatever its prompt: the LAION aesthetic predictor v2.

    A head of five linear layers on the unit features of a CLIP ViT-L/14, whose tower is shared with `CLIPScore`.

    | `scaling` | value | used by |
    |---|---|---|
    | ``"raw"`` | about 1 to 10 | ddpo-pytorch, flow_grpo, AlignProp, VADER |
    | ``"/10"`` | a tenth of it | UniRL |

    Args:
        model_name_or_path: The CLIP model that the head was trained on.
        head: The head: a file, a hub id with `head_file`, or an address, fetched once.
        head_file: The name of the file, where `head` is a hub id or directory.
        model_revision: Branch, tag or commit of the CLIP weights on the hub.
        scaling: See above.
        activation_checkpointing: On the gradient path, compute activations again instead of keeping them.
        **options: `device`, `dtype` (`ModelReward`), and those of every reward (`RewardFunction`).

    Raises:
        ConfigError: An argument is not one of its values.
        WeightsError: At the first call: a checkpoint cannot be found, or does not fit.

    Differentiable.
    Source: Schuhmann 2022, christophschuhmann/improved-aesthetic-predictor (Apache-2.0).

    Is not the first version of that predictor (``sa_0_4_vit_l_14_linear``), which VBench uses.

    Examples:
        >>> AestheticScore().required_fields
        ('image',)
    """

    required_fields = ("image",)
    optional_fields = ()
    differentiable = True

    def __init__(
        self,
        model_name_or_path: str = "openai/clip-vit-large-patch14",
        *,
        head: str = _HEAD,
        head_file: str | None = None,
        model_revision: str | None = None,
        scaling: str = "raw",
        activation_checkpointing: bool = False,
        **options: Unpack[ModelOptions],
    ) -> None:
        super().__init__(**options)
        self.model_name_or_path = model_name_or_path
        self.head = head
        self.head_file = head_file
        self.model_revision = model_revision
        self.scaling = one_of(scaling, "scaling", self.name, ("raw", "/10"))
        self.activation_checkpointing = activation_checkpointing

    def checkpoints(self) -> Sequence[Checkpoint]:
        """The CLIP model, then the head."""
        return (
            *encoder_checkpoints(self.model_name_or_path, self.model_revision),
            Checkpoint(self.head, self.head_file),
        )

    def open_model(self) -> Any:
        """Tower and head."""
        encoder = open_dual_encoder(self.model_name_or_path, self.model_revision, device=self.device, dtype=self.dtype)
        return _Predictor(encoder, open_aesthetic_head(self.checkpoints()[-1], encoder.width, device=self.device))

    def compute_rewards(self, samples: Sequence[Sample]) -> NDArray[np.float64]:
        """One score a sample."""
        import torch  # noqa: PLC0415  # loaded already

        model: _Predictor = self.model
        features = model.encoder.features([sample.image for sample in samples], image_keys(samples))
        with torch.no_grad():
            scores: NDArray[np.float64] = (
                self._score(features.to(model.encoder.device), model.head).double().cpu().numpy()
            )
        return scores

    def forward(
        self,
        pixels: torch.Tensor,
        prompts: Sequence[str] | None = None,  # noqa: ARG002  # for other parts of a composite
        **columns: Sequence[Any],  # noqa: ARG002
    ) -> torch.Tensor:
        """Scores with a gradient to the pixels (N, 3, H, W); see `RewardFunction.forward`."""
        check_pixels(pixels, reward=self.name)
        model: _Predictor = self.model
        features = encode_in_batches(
            model.encoder,
            pixels,
            self.batch_size,
            checkpointing=self.activation_checkpointing,
            reward=self.name,
        )
        return self.rescaled(self._score(features, model.head)).to(pixels.device)

    def _score(self, features: torch.Tensor, head: torch.nn.Module) -> torch.Tensor:
        import torch  # noqa: PLC0415  # loaded already

        with mixed_precision(features.device, torch.float32):  # whatever the caller's autocast says
            scores: torch.Tensor = head(features)[:, 0]
        return scores / 10 if self.scaling == "/10" else scores
