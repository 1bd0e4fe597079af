"""ImageReward's network: BLIP's image encoder, a BERT that looks at the image in every layer, and a linear head.

Published in Xu et al., "ImageReward: Learning and Evaluating Human Preferences for Text-to-Image Generation" (2023).
The parts are those of transformers; `image_reward_weights` reads the official files into them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from flux_rewards.errors import WeightsError
from flux_rewards.models.image_reward_weights import load_image_reward_network
from flux_rewards.models.placement import device_of, dtype_of, frozen, mixed_precision
from flux_rewards.models.preprocessing import Preprocessing
from flux_rewards.shared import shared

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from flux_rewards.models.checkpoint import Checkpoint

__all__ = ["MAX_TOKENS", "ImageRewardModel", "Tokens", "open_image_reward"]

MAX_TOKENS = 35
"""What the text encoder reads of a prompt, ``[CLS]`` and ``[SEP]`` among them; longer ones are cut, as in training."""

_MEAN, _STD = 0.16717362830052426, 1.0333394966054072


class Tokens(NamedTuple):
    """Prompts as the text encoder reads them.

    Attributes:
        ids: (N, 35), padded.
        seen: (N, 35): 1 for a token, 0 for padding.
        cut: How many tokens of each prompt did not fit.
    """

    ids: torch.Tensor
    seen: torch.Tensor
    cut: Sequence[int]


@dataclass(frozen=True, eq=False)
class ImageRewardModel:
    """The frozen network with its tokenizer and its preprocessing. Safe to call from several threads.

    Attributes:
        network: ``vision``, ``text`` and ``head``; the head is float32 whatever the others are.
        tokenizer: Uncased BERT's, with BLIP's ``[DEC]`` and ``[ENC]``.
        preprocessing: To the image encoder's size: shorter side, bicubic, centre.
        device: Where it is.
        dtype: Of the two encoders.
    """

    network: torch.nn.ModuleDict
    tokenizer: Tokenizer
    preprocessing: Preprocessing
    device: torch.device
    dtype: torch.dtype
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __call__(self, images: Sequence[torch.Tensor], prompts: Sequence[str]) -> tuple[torch.Tensor, Sequence[int]]:
        """Scores without a gradient, and how many tokens of each prompt did not fit.

        Args:
            images: (3, H, W) each, uint8 or float in [0, 1], of any sizes.
            prompts: One an image.

        Returns:
            (N,), float32, on the CPU; and N numbers.
        """
        import torch  # noqa: PLC0415  # loaded with the model

        tokens = self.tokens(prompts)
        with self._one_at_a_time, torch.no_grad():  # two batches at once would need the memory of two
            return self.scores(self.preprocessing(images, self.device), tokens).cpu(), tokens.cut

    def tokens(self, prompts: Sequence[str]) -> Tokens:
        """The prompts, cut and padded to 35 tokens, on the model's device.

        The first token stays ``[CLS]``: other models of BLIP put ``[ENC]`` there, this one was trained without.
        """
        import torch  # noqa: PLC0415  # loaded with the model

        # One by one: a batch would start threads of its own, which no fork survives.
        rows = [self.tokenizer.encode(prompt).ids for prompt in prompts]
        ids = torch.zeros(len(rows), MAX_TOKENS, dtype=torch.long)
        seen = torch.zeros(len(rows), MAX_TOKENS, dtype=torch.float32)
        for place, row in enumerate(rows):
            kept = row if len(row) <= MAX_TOKENS else [*row[: MAX_TOKENS - 1], row[-1]]
            ids[place, : len(kept)] = torch.tensor(kept)
            seen[place, : len(kept)] = 1.0
        return Tokens(ids.to(self.device), seen.to(self.device), [max(len(row) - MAX_TOKENS, 0) for row in rows])

    def scores(self, pixels: torch.Tensor, tokens: Tokens, *, activation_checkpointing: bool = False) -> torch.Tensor:
        """Normalised scores, about N(0, 1) over the images that the model was trained on.

        Args:
            pixels: (N, 3, size, size), preprocessed.
            tokens: Of N prompts.
            activation_checkpointing: Keep one activation a layer for the gradient, and compute the others again.

        Returns:
            (N,), float32, with a gradient to the pixels where they want one.
        """
        import torch  # noqa: PLC0415  # loaded with the model

        step = _recomputed if activation_checkpointing else _called
        with mixed_precision(self.device, self.dtype):
            features = self._text(tokens, self._image(pixels, step), step)[:, 0]
        head: Any = self.network["head"]
        with mixed_precision(self.device, torch.float32):
            raw: torch.Tensor = head(features.to(head[0].weight.dtype))[:, 0]
        return (raw - _MEAN) / _STD

    # The encoders' own `forward` is not called: it recomputes activations in training mode only, and asks a
    # configuration, which is one for all threads, whether to.

    def _image(self, pixels: torch.Tensor, step: Callable[..., torch.Tensor]) -> torch.Tensor:
        """All tokens of the image, (N, patches + 1, width), normalised."""
        vision: Any = self.network["vision"]
        hidden = vision.embeddings(pixels)
        for layer in vision.encoder.layers:
            hidden = step(layer, hidden)
        normalised: torch.Tensor = vision.post_layernorm(hidden)
        return normalised

    def _text(self, tokens: Tokens, image: torch.Tensor, step: Callable[..., torch.Tensor]) -> torch.Tensor:
        """All tokens of the text, (N, 35, width): each attends to the text in both directions and to the image."""
        import torch  # noqa: PLC0415

        text: Any = self.network["text"]
        hidden: torch.Tensor = text.embeddings(input_ids=tokens.ids)
        mask = ((1.0 - tokens.seen) * torch.finfo(torch.float32).min)[:, None, None]
        for layer in text.encoder.layer:
            hidden = step(layer, hidden, encoder_hidden_states=image, attention_mask=mask)
        return hidden


def open_image_reward(
    weights: Checkpoint, med_config: Checkpoint, tokenizer: Checkpoint, *, device: str | None, dtype: str
) -> ImageRewardModel:
    """The model of a checkpoint, frozen, and shared with all who name the same.

    Args:
        weights: ``ImageReward.pt``.
        med_config: ``med_config.json``, BERT's configuration.
        tokenizer: ``tokenizer.json`` of uncased BERT.
        device: See `device_of`.
        dtype: See `dtype_of`; of the two encoders.

    Raises:
        WeightsError: A file cannot be found, or does not fit.
    """
    files = weights.path(), med_config.path(), tokenizer.path()
    place, precision = device_of(device), dtype_of(dtype)

    def make() -> ImageRewardModel:
        import torch  # noqa: PLC0415  # seconds

        network = load_image_reward_network(*files[:2])
        vision, text = (cast("Any", network[part]).config for part in ("vision", "text"))
        read = _tokenizer(files[2], text.vocab_size, weights.label)
        for part in ("vision", "text"):
            frozen(network[part], place, precision)
        frozen(network["head"], place, torch.float32)
        preprocessing = Preprocessing((vision.image_size, vision.image_size))
        return ImageRewardModel(network.eval(), read, preprocessing, place, precision)

    identities = (checkpoint.identity() for checkpoint in (weights, med_config, tokenizer))
    return shared(("ImageReward", *identities, place, precision), make)


def _tokenizer(path: Path, vocabulary: int, origin: str) -> Tokenizer:
    from tokenizers import Tokenizer  # noqa: PLC0415  # comes with transformers

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # that is what it raises
        raise WeightsError(f"{path} cannot be read as a tokenizer.json: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.add_special_tokens(["[DEC]", "[ENC]"])  # in this order: their ids are the last two
    if tokenizer.get_vocab_size() != vocabulary:
        raise WeightsError(
            f"{path} has {tokenizer.get_vocab_size()} tokens with [DEC] and [ENC], {origin} has {vocabulary}; "
            'use the tokenizer that it was trained with, tokenizer="google-bert/bert-base-uncased"'
        )
    return tokenizer


def _called(layer: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
    return layer(*args, **kwargs)


def _recomputed(layer: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
    from torch.utils.checkpoint import checkpoint  # noqa: PLC0415

    hidden: torch.Tensor = checkpoint(layer, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)
    return hidden
