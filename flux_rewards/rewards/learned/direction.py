"""Whether a language model reads from left to right, asked of the model itself."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import WeightsError
from flux_rewards.models.placement import mixed_precision

if TYPE_CHECKING:
    import torch

    from flux_rewards.models.text_models import TextModel

__all__ = ["check_left_to_right"]

_KEPT = 6
_CHANGED = 6
_ROUNDING = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.05}  # half precisions: mixtures of experts regroup sums


def check_left_to_right(model: TextModel) -> None:
    """Read two short texts that differ at the end only: what it makes of their beginning must be the same.

    Configurations don't say it in one way: the same class may be a decoder or not, by settings of its own.

    Args:
        model: A few tokens are run through it.

    Raises:
        WeightsError: It sees the whole text at every token, as an encoder does: a score at a token would depend on what
            comes after, and the likelihood of a token on that token itself.
    """
    size = len(model.tokenizer)
    spread = [size * (step + 1) // (_KEPT + 2 * _CHANGED + 1) for step in range(_KEPT + 2 * _CHANGED)]
    start, one, other = spread[:_KEPT], spread[_KEPT : _KEPT + _CHANGED], spread[_KEPT + _CHANGED :]
    # One after the other: of the same shape, sums are made in the same order.
    moved = (_hidden(model, start + one) - _hidden(model, start + other)).abs()
    before, after = float(moved[:_KEPT].max()), float(moved[_KEPT:].max())
    if not before <= _ROUNDING[str(model.dtype).removeprefix("torch.")] * after:
        raise WeightsError(
            f"{model.label} ({type(model.network).__name__}) does not read from left to right: what follows a token "
            "changes what it says there; use a decoder, or for a score of the whole text RewardModelReward"
        )


def _hidden(model: TextModel, ids: list[int]) -> torch.Tensor:
    """(tokens, channels): what the body of the model makes of each token."""
    import torch  # noqa: PLC0415  # loaded already

    inputs = torch.tensor([ids], device=model.device)
    body: Any = model.network.base_model
    options = {"use_cache": False} if "use_cache" in inspect.signature(body.forward).parameters else {}
    with (
        model.one_at_a_time,
        torch.inference_mode(mode=False),
        torch.no_grad(),
        mixed_precision(model.device, torch.float32),
    ):
        hidden: torch.Tensor = body(input_ids=inputs, attention_mask=torch.ones_like(inputs), **options)[0][0]
    return hidden.float()
