"""How alike an image and its reference look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import InputError
from flux_rewards.gradients import check_pixels
from flux_rewards.media import Place, read_media
from flux_rewards.models.opening import encoder_checkpoints, open_image_encoder
from flux_rewards.rewards.image.rows import encode_in_batches, image_keys, outputs, score_readable
from flux_rewards.rewards.model_reward import ModelOptions, ModelReward
from flux_rewards.validation import one_of
from flux_rewards.views import position_of

if TYPE_CHECKING:
    import torch
    from typing_extensions import Unpack

    from flux_rewards.data import RewardOutput, Sample
    from flux_rewards.models.checkpoint import Checkpoint
    from flux_rewards.models.features import ImageEncoder

__all__ = ["ImageSimilarity"]

_AGAINST = ("condition_images", "reference")


class ImageSimilarity(ModelReward):
    """How alike an image and its reference look: the cosine of their features in CLIP or DINO, -1 to 1.

    Args:
        model_name_or_path: A CLIP model (`CLIPScore`), whose features tell what is in an image, or a DINO model
            (``"facebook/dino-vitb16"``, ``"facebook/dinov2-base"``), whose features tell it closer to the pixels.
        against: ``"condition_images"``, the images that the policy was given, or ``"reference"``, an image.
        reduce: What becomes of several condition images: ``"mean"``, ``"max"``, ``"min"`` or ``"first"``.
        model_revision: Branch, tag or commit of the weights on the hub.
        activation_checkpointing: On the gradient path, compute activations again instead of keeping them.
        **options: `device`, `dtype` (`ModelReward`), and those of every reward (`RewardFunction`).

    Raises:
        ConfigError: An argument is not one of its values.
        WeightsError: At the first call: the checkpoint cannot be found, or does not fit.

    Differentiable, with ``forward(pixels, condition_images=[...])`` or ``forward(pixels, reference=[...])``; no
    gradient reaches the references.
    Source: flow_grpo's `image_similarity` (CLIP ViT-L/14), VBench's consistency (DINO ViT-B/16, class token).

    Does not align the two images.

    Examples:
        >>> ImageSimilarity("facebook/dinov2-base", against="reference").required_fields
        ('image', 'reference')
    """

    bounds = (-1.0, 1.0)
    optional_fields = ()
    reference_is_media = True
    differentiable = True

    def __init__(
        self,
        model_name_or_path: str = "openai/clip-vit-large-patch14",
        *,
        against: str = "condition_images",
        reduce: str = "mean",
        model_revision: str | None = None,
        activation_checkpointing: bool = False,
        **options: Unpack[ModelOptions],
    ) -> None:
        super().__init__(**options)
        self.model_name_or_path = model_name_or_path
        self.against = one_of(against, "against", self.name, _AGAINST)
        self.required_fields = ("image", self.against)
        self.reduce = one_of(reduce, "reduce", self.name, ("mean", "max", "min", "first"))
        self.model_revision = model_revision
        self.activation_checkpointing = activation_checkpointing

    def checkpoints(self) -> Sequence[Checkpoint]:
        """One."""
        return encoder_checkpoints(self.model_name_or_path, self.model_revision)

    def open_model(self) -> ImageEncoder:
        """The image tower."""
        return open_image_encoder(self.model_name_or_path, self.model_revision, device=self.device, dtype=self.dtype)

    def compute_rewards(self, samples: Sequence[Sample]) -> list[Any]:
        """One score a sample."""
        return score_readable(samples, self._references_of, self._rows)

    def _references_of(self, sample: Sample) -> list[torch.Tensor]:
        return self._read(getattr(sample, self.against), position_of(sample))

    def _rows(self, samples: Sequence[Sample], images: list[list[torch.Tensor]]) -> list[RewardOutput]:
        features = self.model.features([sample.image for sample in samples], image_keys(samples), self.batch_size)
        references, owners = self._references(images, [position_of(sample) for sample in samples])
        return outputs(self._score(features, references, owners).clamp(-1, 1), [0] * len(samples))

    def forward(
        self,
        pixels: torch.Tensor,
        prompts: Sequence[str] | None = None,  # noqa: ARG002  # for other parts of a composite
        **columns: Sequence[Any],
    ) -> torch.Tensor:
        """Scores with a gradient to the pixels (N, 3, H, W); see `RewardFunction.forward`."""
        check_pixels(pixels, reward=self.name)
        given = columns.get(self.against)
        if given is None or len(given) != len(pixels):
            found = "none" if given is None else len(given)
            message = f"expected {self.against}=[...] one for each of the {len(pixels)} images, found {found}"
            raise InputError(message, reward=self.name, field=self.against)
        images = [self._read(value, index) for index, value in enumerate(given)]
        references, owners = self._references(images, None)
        features = encode_in_batches(
            self.model, pixels, self.batch_size, checkpointing=self.activation_checkpointing, reward=self.name
        )
        scores = self._score(features, references.to(features.device), owners)
        return self.rescaled(scores).to(pixels.device)

    def _read(self, value: Any, index: int | None) -> list[torch.Tensor]:
        """The images that the sample's is compared with."""
        place = Place(self.against, index, self.name)
        if self.against == "reference":
            return [read_media("image", value, "pixels", place)]
        images: list[torch.Tensor] = read_media("condition_images", value, "pixels", place)
        return images[:1] if self.reduce == "first" else images

    def _references(
        self, images: Sequence[Sequence[torch.Tensor]], positions: Sequence[int | None] | None
    ) -> tuple[torch.Tensor, list[int]]:
        """Their features (M, D), and the row that each belongs to."""
        rows = [(row, number) for row, several in enumerate(images) for number in range(len(several))]
        known = positions is not None and None not in positions
        keys = [(self.against, positions[row], number) for row, number in rows] if known and positions else None
        flat = [images[row][number] for row, number in rows]
        return self.model.features(flat, keys, self.batch_size), [row for row, _ in rows]

    def _score(self, features: torch.Tensor, references: torch.Tensor, owners: Sequence[int]) -> torch.Tensor:
        import torch  # noqa: PLC0415  # loaded already

        owner = torch.tensor(owners, device=features.device)
        cosines = (features[owner] * references).sum(dim=-1)
        how = {"mean": "mean", "max": "amax", "min": "amin", "first": "mean"}[self.reduce]
        empty = features.new_zeros(len(features))
        return empty.scatter_reduce(0, owner, cosines, how, include_self=False)
