"""The gradient path: scores as tensors that a loss can go back through, to the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import ConfigError, ContractError, InputError, brief

if TYPE_CHECKING:
    import torch

    from flux_rewards.tree import Node

__all__ = ["LOSSES", "GradientPath", "check_loss", "check_pixels", "not_differentiable", "reward_loss"]

LOSSES = ("negative", "hinge", "distance")
"""``-r`` (DRaFT, AlignProp, VADER), ``relu(target - r)`` (ReFL) and ``|r - target|`` (AlignProp)."""

_SLACK = 1e-3


def check_pixels(pixels: Any, prompts: Any = None, *, reward: str, ndim: int = 4) -> None:
    """Raise unless pixels are float (N, 3, H, W), or (N, T, 3, H, W) for ``ndim=5``, in [0, 1], with a prompt for each.

    Raises:
        InputError: They are not. Up to 1e-3 out of range is let through, as elsewhere.

    Examples:
        >>> import torch
        >>> check_pixels(torch.zeros(2, 3, 8, 8), ["a", "b"], reward="mine")
    """
    import torch  # noqa: PLC0415  # loaded already

    wanted = "(N, 3, H, W)" if ndim == 4 else "(N, T, 3, H, W)"
    if not isinstance(pixels, torch.Tensor) or not pixels.is_floating_point():
        raise InputError(f"expected a float tensor {wanted}, found {brief(pixels)}", reward=reward, field="pixels")
    if pixels.ndim != ndim or pixels.shape[-3] != 3 or 0 in pixels.shape:
        raise InputError(f"expected {wanted}, found {tuple(pixels.shape)}", reward=reward, field="pixels")
    low, high = (float(end) for end in pixels.detach().aminmax())
    if not (low >= -_SLACK and high <= 1 + _SLACK):  # NaN is neither
        raise InputError(
            f"expected pixels in [0, 1], found [{low:.4g}, {high:.4g}]; what a decoder gives in [-1, 1] becomes "
            "(x / 2 + 0.5).clamp(0, 1)",
            reward=reward,
            field="pixels",
        )
    if prompts is None:
        return
    if isinstance(prompts, str) or len(prompts) != len(pixels):
        found = brief(prompts) if isinstance(prompts, str) else len(prompts)
        message = f"expected one for each of the {len(pixels)} images, found {found}"
        raise InputError(message, reward=reward, field="prompts")


def not_differentiable(reward: Node) -> str:
    """The parts of a tree that are in the way of a gradient, by name; empty where none is."""
    if reward.differentiable:
        return ""
    within = [found for child in reward.children if (found := not_differentiable(child))]
    own = f"{reward.name} ({type(reward).__name__})"
    return ", ".join(within) if within else own


def check_loss(kind: str, target: float | None, reward: str) -> None:
    """Raise a `ConfigError` unless there is such a loss, and a target where it has one.

    Examples:
        >>> check_loss("hinge", 2.0, "mine")
    """
    if kind not in LOSSES:
        raise ConfigError(f"kind must be one of {', '.join(LOSSES)}, found {brief(kind)}", reward=reward)
    if (target is None) != (kind == "negative"):
        advice = "needs a target, the score to reach" if target is None else "takes no target; see 'hinge', 'distance'"
        raise ConfigError(f"the loss {kind!r} {advice}", reward=reward)


def reward_loss(scores: torch.Tensor, kind: str, target: float | None, reward: str) -> torch.Tensor:
    """What to minimise so that scores rise, or come near a target: the mean over the samples that have a score.

    Args:
        scores: (N,); NaN where the reward does not apply.
        kind: One of `LOSSES`.
        target: For ``"hinge"`` and ``"distance"``.
        reward: For messages.

    Returns:
        A scalar; zero, with a gradient of zero, where the reward applies to none.

    Raises:
        ConfigError: The kind is none of those, or `target` is missing, or given in vain.

    Examples:
        >>> import torch
        >>> reward_loss(torch.tensor([1.0, 3.0]), "hinge", 2.0, "mine")
        tensor(0.5000)
    """
    import torch  # noqa: PLC0415  # loaded already

    check_loss(kind, target, reward)
    there = scores[~torch.isnan(scores)]
    if len(there) == 0:
        return torch.where(torch.isnan(scores), 0.0, scores).sum()
    if target is None:
        return -there.mean()
    missing = target - there
    return (missing.relu() if kind == "hinge" else missing.abs()).mean()


class GradientPath:
    """What a reward offers to those who train through it."""

    differentiable: bool = False
    name: str

    def forward(
        self,
        pixels: torch.Tensor,  # noqa: ARG002
        prompts: Sequence[str] | None = None,  # noqa: ARG002
        **columns: Sequence[Any],  # noqa: ARG002
    ) -> torch.Tensor:
        """Scores with a gradient to the pixels; the same that a call gives for them.

        Args:
            pixels: (N, 3, H, W), or (N, T, 3, H, W) where videos are scored; float in [0, 1], on any device.
            prompts: One a sample, where the reward reads them.
            columns: Other fields of `Sample`, one entry a sample, such as ``condition_images=[...]``.

        Returns:
            (N,), float32; NaN, with no gradient, where the reward does not apply.

        Raises:
            ContractError: The reward is not differentiable; names the part that is in the way.
            InputError: The pixels or prompts are not as above.
        """
        if self.differentiable:
            raise ContractError(
                "sets differentiable = True, and overrides no forward(self, pixels, prompts=None, **columns)",
                reward=self.name,
            )
        raise ContractError(
            f"has no gradient to the pixels: {not_differentiable(self)} is not differentiable; leave it out of what "  # type: ignore[arg-type]
            "is trained through, and score with it by calling it",
            reward=self.name,
        )

    def loss(
        self,
        pixels: torch.Tensor,
        prompts: Sequence[str] | None = None,
        *,
        kind: str = "negative",
        target: float | None = None,
        **columns: Sequence[Any],
    ) -> torch.Tensor:
        """What to minimise so that the reward of these pixels rises: a scalar with a gradient.

        Args:
            pixels: As for `forward`.
            prompts: As for `forward`.
            kind: ``"negative"``: ``-r``; ``"hinge"``: ``relu(target - r)``, no push beyond the target, as in ReFL;
                ``"distance"``: ``|r - target|``. The mean over the samples that have a score.
            target: The score to reach, for the latter two.
            columns: As for `forward`.

        Raises:
            ConfigError: The kind is unknown, or lacks its target.
            ContractError: As `forward`.
            InputError: As `forward`.
        """
        check_loss(kind, target, self.name)  # before the work
        return reward_loss(self.forward(pixels, prompts, **columns), kind, target, self.name)
