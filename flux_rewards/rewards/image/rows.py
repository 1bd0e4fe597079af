"""Samples on their way to a model, and their scores on the way back: one that cannot be read takes no other along."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from flux_rewards.contract import locate
from flux_rewards.data import RewardOutput, Sample
from flux_rewards.errors import ComputeError, InputError
from flux_rewards.views import position_of

if TYPE_CHECKING:
    import torch

    from flux_rewards.models.features import ImageEncoder

__all__ = ["encode_in_batches", "image_keys", "outputs", "prompt_of", "prompts_of", "score_readable"]

T = TypeVar("T")


def prompt_of(sample: Sample) -> str:
    """The text of a prompt, checked to be what a tokenizer can read.

    Raises:
        InputError: It is neither text nor messages with a user among them, or holds half a character.

    Examples:
        >>> prompt_of(Sample("a cat"))
        'a cat'
    """
    text = sample.prompt_text
    try:
        text.encode()
    except UnicodeEncodeError as error:
        message = f"expected text, found half a character (a lone surrogate) at position {error.start}; decode it anew"
        raise InputError(message, field="prompt") from error
    return text


def prompts_of(prompts: Sequence[Any], reward: str) -> list[str]:
    """The texts of prompts that were given to `forward`.

    Raises:
        InputError: As `prompt_of`, with the reward and the index.
    """
    found = []
    for index, prompt in enumerate(prompts):
        try:
            found.append(prompt_of(Sample(prompt)))
        except InputError as error:
            raise locate(error, reward=reward, index=index) from error
    return found


def score_readable(
    samples: Sequence[Sample], read: Callable[[Sample], T], score: Callable[[Sequence[Sample], list[T]], Sequence[Any]]
) -> list[Any]:
    """Read each sample, score those that can be read together, and give each its row: a score, or its own error."""
    rows: list[Any] = []
    readable: list[int] = []
    items: list[T] = []
    for row, sample in enumerate(samples):
        rows.append(None)
        try:
            items.append(read(sample))
        except InputError as error:
            rows[row] = error
        else:
            readable.append(row)
    if readable:
        for row, found in zip(readable, score([samples[row] for row in readable], items), strict=True):
            rows[row] = found
    return rows


def outputs(scores: torch.Tensor, cut: Sequence[int]) -> list[RewardOutput]:
    """Rows from scores (N,) and from how many tokens of each prompt were cut. NaN, from an overflow, is a failure."""
    return [
        RewardOutput(score, metadata={"prompt_tokens_cut": lost} if lost else {})
        for score, lost in zip(scores.tolist(), cut, strict=True)
    ]


def image_keys(samples: Sequence[Sample]) -> list[Hashable] | None:
    """What tells the images of a batch apart for all its rewards, or None where the samples are no batch's."""
    positions = [position_of(sample) for sample in samples]
    return None if None in positions else [("image", position) for position in positions]


def encode_in_batches(
    model: ImageEncoder, pixels: torch.Tensor, batch_size: int | None, *, checkpointing: bool, reward: str
) -> torch.Tensor:
    """Unit features (N, D) with a gradient to the pixels, so many images at a time.

    Raises:
        ComputeError: The model overflowed in its half precision.
    """
    import torch  # noqa: PLC0415  # loaded already

    parts = torch.split(pixels, batch_size or len(pixels))
    features = torch.cat([model.encode(part, checkpointing=checkpointing) for part in parts])
    if not bool(torch.isfinite(features.detach()).all()):
        raise ComputeError(f"the model overflowed in {model.dtype}; use dtype='bfloat16' or 'float32'", reward=reward)
    return features
