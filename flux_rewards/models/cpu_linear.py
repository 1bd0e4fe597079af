"""Linear layers on a CPU."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["quick_on_cpu"]


def quick_on_cpu(module: torch.nn.Module) -> None:
    """Let the float32 linear layers of a module on the CPU run in oneDNN, where that is the faster.

    PyTorch multiplies float32 matrices in MKL, which leaves the AVX-512 units of AMD's processors idle: oneDNN, which
    comes with PyTorch and is what its convolutions run in, takes half the time for the layers of a transformer. A
    linear layer is a convolution with a kernel of one pixel. Its sums are taken in another order, no less precisely.

    Args:
        module: Its parameters stay what and where they are; on other devices, in other precisions and on processors
            without AVX-512 nothing changes.

    Examples:
        >>> import torch
        >>> layer, states = torch.nn.Linear(8, 4), torch.rand(2, 3, 8)
        >>> plain = layer(states)
        >>> quick_on_cpu(layer)
        >>> torch.allclose(layer(states), plain, atol=1e-6)
        True
    """
    import torch  # noqa: PLC0415  # loaded already

    if not torch.backends.mkldnn.is_available() or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return
    for part in module.modules():
        if type(part) is torch.nn.Linear and part.weight.device.type == "cpu" and part.weight.dtype == torch.float32:
            part.__class__ = _quick_linear()


@functools.cache
def _quick_linear() -> type[torch.nn.Linear]:
    import torch  # noqa: PLC0415  # loaded already

    class QuickLinear(torch.nn.Linear):
        """A linear layer that is a convolution for states (N, L, D), N rows of L pixels."""

        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # torch's name
            if input.ndim != 3:
                return super().forward(input)
            pixels = input.unsqueeze(1).permute(0, 3, 1, 2)  # (N, D, 1, L), channels last, nothing copied
            kernel = self.weight[:, :, None, None]
            return torch.nn.functional.conv2d(pixels, kernel, self.bias).permute(0, 2, 3, 1).squeeze(1)

    return QuickLinear
