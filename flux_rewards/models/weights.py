"""Tensors from a file into a module, all of them or none."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import WeightsError

if TYPE_CHECKING:
    import torch

__all__ = ["blank", "check_keys", "load_exactly", "read_tensors"]

# Methods of tensors, and initialisers of torch.nn.init, that fill a tensor by chance.
_FILLS = {
    *("normal_", "uniform_", "random_", "bernoulli_", "exponential_", "log_normal_", "cauchy_", "geometric_"),
    *("trunc_normal_", "xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_"),
    *("orthogonal_", "sparse_"),
}

_building = threading.RLock()


def _after_fork() -> None:
    """A child has none of the threads that were building something."""
    global _building  # noqa: PLW0603
    _building = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def read_tensors(path: Path, *, under: str | None = None) -> dict[str, torch.Tensor]:
    """The tensors of a ``.safetensors`` file or of a torch pickle, which is read with ``weights_only=True``.

    Args:
        path: The file.
        under: The entry of a pickled mapping that holds the tensors, such as ``"state_dict"``.

    Raises:
        WeightsError: The file cannot be read, or holds something else than named tensors.

    Examples:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"weight": torch.ones(2)}, Path(folder, "tiny.pt"))
        ...     read_tensors(Path(folder, "tiny.pt"))
        {'weight': tensor([1., 1.])}
    """
    import torch  # noqa: PLC0415  # only those who load pay for it

    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise WeightsError(f"{path} cannot be read: {error.strerror}") from error
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code:
            raise WeightsError(
                f"{path} holds more than tensors ({code[1]}), and is not loaded: unpickling it may run code; save the "
                "state_dict alone, or as safetensors"
            ) from error
        raise WeightsError(
            f"{path} cannot be read as weights ({type(error).__name__}); it may be cut short: delete it, and fetch it "
            "again"
        ) from error
    if under is not None:
        if not isinstance(held, Mapping) or under not in held:
            raise WeightsError(f"{path} has no entry {under!r}; it holds {_listed(held)}")
        held = held[under]
    if not isinstance(held, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in held.items()
    ):
        raise WeightsError(f"{path} holds something else than tensors by name: {_listed(held)}")
    return dict(held)


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415

    try:
        with safe_open(path, framework="pt") as file:
            # A tensor of the file is a view of it, and would change with it.
            return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  # it is no mapping
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} cannot be read as safetensors ({error}); it may be cut short: delete it, and fetch it again"
        ) from error


def load_exactly(
    module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], origin: str, ignore: Collection[str] = ()
) -> None:
    """Put tensors into a module: every one that it has, and no others.

    Args:
        module: The module; its own tensors are replaced, so it may be on the meta device.
        tensors: By the module's names.
        origin: The checkpoint, for messages.
        ignore: Names that may be left over, or missing where they are buffers: a parameter has no value of its own.

    Raises:
        WeightsError: Names, shapes or kinds of numbers differ.

    Examples:
        >>> import torch
        >>> linear = torch.nn.Linear(2, 1)
        >>> load_exactly(linear, {"weight": torch.zeros(1, 2)}, "tiny.pt")
        Traceback (most recent call last):
        ...
        flux_rewards.errors.WeightsError: tiny.pt does not fit Linear: missing bias
    """
    own = module.state_dict()
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    optional = {name for name in ignore if name not in parameters and name in own and not own[name].is_meta}
    missing = [name for name in own if name not in tensors and name not in optional]
    unexpected = [name for name in tensors if name not in own and name not in ignore]
    misshaped = [
        f"{name} {_told(tensors[name])} for {_told(own[name])}"
        for name in own
        if name in tensors and _kind(tensors[name]) != _kind(own[name])
    ]
    check_keys(origin, type(module).__name__, missing=missing, unexpected=unexpected, misshaped=misshaped)
    fitting = {name: tensor for name, tensor in tensors.items() if name in own}
    module.load_state_dict(fitting, strict=False, assign=True)


def check_keys(
    origin: str,
    architecture: str,
    *,
    missing: Sequence[str] = (),
    unexpected: Sequence[str] = (),
    misshaped: Sequence[str] = (),
) -> None:
    """Raise a `WeightsError` if there is anything in the lists."""
    found = {"missing": missing, "unexpected": unexpected, "misshaped": misshaped}
    told = [f"{what} {_some(names)}" for what, names in found.items() if names]
    if told:
        raise WeightsError(f"{origin} does not fit {architecture}: {'; '.join(told)}")


@contextmanager
def blank() -> Iterator[None]:
    """Within, this thread builds modules without drawing their random weights: nothing is computed, no generator moves.

    Parameters hold whatever the memory held, so load all of them. Buffers such as masks are made as ever. One thread
    builds at a time: transformers changes torch's default precision, for all threads, while it builds.

    Examples:
        >>> import torch
        >>> before = torch.get_rng_state()
        >>> with blank():
        ...     linear = torch.nn.Linear(2, 1)
        >>> bool((torch.get_rng_state() == before).all())
        True
    """
    with _building, _blank_mode():
        yield


def _blank_mode() -> AbstractContextManager[object]:
    import torch  # noqa: PLC0415
    from torch.overrides import TorchFunctionMode  # noqa: PLC0415

    fresh = {
        torch.rand: torch.empty,
        torch.randn: torch.empty,
        torch.rand_like: torch.empty_like,
        torch.randn_like: torch.empty_like,
        torch.randperm: torch.arange,
    }

    class _Blank(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            # By name: the initialisers of torch are transformers' own while it builds.
            if getattr(func, "__name__", None) in _FILLS:
                return args[0] if args else kwargs["tensor"]
            if func in fresh:
                func, kwargs = fresh[func], {key: value for key, value in kwargs.items() if key != "generator"}
            return func(*args, **kwargs)

    return _Blank()


def _kind(tensor: torch.Tensor) -> tuple[Any, ...]:
    """What must agree: any floating-point type can be turned into another one."""
    return tensor.shape, tensor.is_floating_point() or tensor.dtype


def _told(tensor: torch.Tensor) -> str:
    kind = "" if tensor.is_floating_point() else f"{str(tensor.dtype).removeprefix('torch.')} "
    return f"{kind}{tuple(tensor.shape)}"


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def _listed(held: Any) -> str:
    return _some([str(key) for key in held]) if isinstance(held, Mapping) else type(held).__name__
