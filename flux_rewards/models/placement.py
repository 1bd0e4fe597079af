"""Where a model runs, and how precisely."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TypeVar

from flux_rewards.errors import ConfigError, brief

if TYPE_CHECKING:
    import torch

    M = TypeVar("M", bound=torch.nn.Module)

__all__ = ["DTYPES", "check_dtype", "device_of", "dtype_of", "frozen", "mixed_precision"]

DTYPES = ("float32", "bfloat16", "float16")
"""In which a model may be held. In the latter two, sums are taken in float32 where torch's autocast does."""

_SHORT = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def check_dtype(dtype: str, reward: str) -> str:
    """A precision by its full name; short ones and torch's own objects are known, too.

    Raises:
        ConfigError: It is none of `DTYPES`.

    Examples:
        >>> check_dtype("bf16", "mine")
        'bfloat16'
    """
    name = str(dtype).removeprefix("torch.")
    name = _SHORT.get(name, name)
    if name not in DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(DTYPES)}, found {brief(dtype)}", reward=reward)
    return name


def device_of(device: str | None) -> torch.device:
    """The device of that name; the current CUDA device for None and ``"cuda"``, the CPU where there is no CUDA.

    Raises:
        ConfigError: There is no such device.

    Examples:
        >>> device_of("cpu")
        device(type='cpu')
    """
    import torch  # noqa: PLC0415  # only those who load pay for it

    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"there is no device {brief(device)}; write 'cpu', 'cuda' or 'cuda:1'") from error
    if found.type == "meta" or (found.type == "mps" and not torch.backends.mps.is_available()):
        raise ConfigError(f"nothing can be computed on {str(found)!r} here; write 'cpu', 'cuda' or 'cuda:1'")
    if found.type == "cuda":
        count = torch.cuda.device_count()
        if not 0 <= (found.index or 0) < count:
            raise ConfigError(f"there is no device {str(found)!r}: torch sees {count} CUDA devices; use device='cpu'")
        if ":" not in str(device):  # a module must stay where it was put, whichever device is current later
            found = torch.device("cuda", torch.cuda.current_device())
    return found


def dtype_of(dtype: str) -> torch.dtype:
    """Torch's object for one of `DTYPES`.

    Examples:
        >>> dtype_of("bfloat16")
        torch.bfloat16
    """
    import torch  # noqa: PLC0415

    found = getattr(torch, check_dtype(dtype, "dtype"))
    assert isinstance(found, torch.dtype)  # noqa: S101  # for the type checker
    return found


def frozen(module: M, device: torch.device, dtype: torch.dtype) -> M:
    """The module in evaluation mode, without gradients to its weights, moved to the device and the precision.

    What costs nothing and decides much keeps its precision: lone numbers, such as the logarithm of a logit scale, and
    buffers that are no part of a checkpoint, such as the frequencies of rotary positions.

    Examples:
        >>> import torch
        >>> frozen(torch.nn.Linear(1, 1), torch.device("cpu"), torch.bfloat16).weight.requires_grad
        False
    """
    saved = module.state_dict()
    constants = {name: buffer for name, buffer in module.named_buffers(remove_duplicate=False) if name not in saved}
    lone = {weight: weight.data for weight in module.parameters() if weight.numel() == 1}
    module.eval().requires_grad_(requires_grad=False).to(device=device, dtype=dtype)
    for weight, value in lone.items():
        weight.data = value.to(device)
    for name, buffer in constants.items():
        owner, _, own = name.rpartition(".")
        setattr(module.get_submodule(owner), own, buffer.to(device))
    return module


def mixed_precision(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Autocast to a half precision; in float32, none: also not one that the caller has switched on.

    Examples:
        >>> import torch
        >>> with mixed_precision(torch.device("cpu"), torch.bfloat16):
        ...     (torch.ones(1, 1) @ torch.ones(1, 1)).dtype
        torch.bfloat16
    """
    import torch  # noqa: PLC0415

    if not torch.amp.autocast_mode.is_autocast_available(device.type):
        return contextlib.nullcontext()
    if dtype == torch.float32:
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, dtype=dtype)
