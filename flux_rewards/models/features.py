"""Features of images, each image once: the base of all models that look at images alone."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from flux_rewards.models.cpu_linear import quick_on_cpu
from flux_rewards.models.placement import mixed_precision
from flux_rewards.threads import RenewedLock, this_thread

if TYPE_CHECKING:
    import torch

    from flux_rewards.models.preprocessing import Preprocessing

__all__ = ["ImageEncoder"]


class ImageEncoder:
    """A frozen image tower with the preprocessing of its checkpoint. Safe to call from several threads.

    Args:
        module: The module that holds the tower; frozen, on its device.
        preprocessing: What the checkpoint expects.
        device: Where the module is.
        dtype: In which its weights are held; its sums are taken in float32 where autocast does.
        width: Of a feature, D below.

    A subclass overrides `tower`.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        preprocessing: Preprocessing,
        device: torch.device,
        dtype: torch.dtype,
        *,
        width: int,
    ) -> None:
        quick_on_cpu(module)
        self.module = module
        self.preprocessing = preprocessing
        self.device = device
        self.dtype = dtype
        self.width = width
        self._one_at_a_time = RenewedLock()  # two batches at once would need the memory of two

    def tower(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, 3, height, width) normalised to (N, D), of any precision, not normalised."""
        raise NotImplementedError

    def encode(self, pixels: Sequence[torch.Tensor] | torch.Tensor, *, checkpointing: bool = False) -> torch.Tensor:
        """Unit features of images, with a gradient where the pixels want one.

        Args:
            pixels: (3, H, W) each, uint8 or float in [0, 1], of any sizes; or a batch of float (N, 3, H, W).
            checkpointing: Keep no activations for the backward pass; compute them again there.

        Returns:
            (N, D), float32, on the model's device.
        """
        import torch  # noqa: PLC0415  # loaded already
        from torch.utils.checkpoint import checkpoint  # noqa: PLC0415

        prepared = self.preprocessing(pixels, self.device).to(self.dtype)
        with mixed_precision(self.device, self.dtype):
            if checkpointing and torch.is_grad_enabled() and prepared.requires_grad:
                features = checkpoint(self.tower, prepared, use_reentrant=False, preserve_rng_state=False)
            else:
                features = self.tower(prepared)
        return torch.nn.functional.normalize(features.float(), dim=-1)

    def features(
        self,
        images: Sequence[torch.Tensor],
        keys: Sequence[Hashable] | None = None,
        batch_size: int | None = None,
    ) -> torch.Tensor:
        """Unit features of images, without a gradient; what another reward of the same batch encoded is taken from it.

        Args:
            images: As for `encode`.
            keys: What tells the images of a batch apart, the same for every reward, such as their positions; None
                for images that no other reward sees.
            batch_size: How many are encoded at once; None for all.

        Returns:
            (N, D), float32, on the CPU.
        """
        import torch  # noqa: PLC0415  # loaded already

        kept: dict[Any, torch.Tensor] = {} if keys is None or this_thread.shared is None else this_thread.shared
        names = [(self, key) for key in (range(len(images)) if keys is None else keys)]
        with self._one_at_a_time:
            unknown = [row for row, name in enumerate(names) if name not in kept]
            parts = []
            with torch.inference_mode(mode=False), torch.no_grad():  # what is kept must serve a gradient, too
                for start in range(0, len(unknown), batch_size or len(unknown) or 1):
                    rows = unknown[start : start + (batch_size or len(unknown))]
                    parts.append(self.encode([images[row] for row in rows]))
                found = torch.cat(parts).cpu() if parts else torch.empty(0)  # waits for the device once
            for row, feature in zip(unknown, found, strict=True):
                kept[names[row]] = feature
        return torch.stack([kept[name] for name in names])
