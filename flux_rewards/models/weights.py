"""Tensors from a file into a module, all of them or none."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import WeightsError

if TYPE_CHECKING:
    import torch

__all__ = ["blank", "check_keys", "load_exactly", "read_tensors"]


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
        from safetensors import SafetensorError  # noqa: PLC0415
        from safetensors.torch import load_file  # noqa: PLC0415

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} is no readable safetensors file: {error}") from error
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(
            f"{path} cannot be read as weights only ({type(error).__name__}: {str(error).splitlines()[0]}); it may be "
            "cut short, so fetch it again; files that hold code are not loaded"
        ) from error
    if under is not None:
        if not isinstance(held, Mapping) or under not in held:
            raise WeightsError(f"{path} has no entry {under!r}; it holds {_listed(held)}")
        held = held[under]
    if not isinstance(held, Mapping) or not all(isinstance(tensor, torch.Tensor) for tensor in held.values()):
        raise WeightsError(f"{path} holds something else than tensors by name: {_listed(held)}")
    return dict(held)


def load_exactly(
    module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], origin: str, ignore: Collection[str] = ()
) -> None:
    """Put tensors into a module: every one that it has, and no others.

    Args:
        module: The module; its own tensors are replaced, so it may be on the meta device.
        tensors: By the module's names.
        origin: The checkpoint, for messages.
        ignore: Names that may be missing or left over.

    Raises:
        WeightsError: Names or shapes differ.

    Examples:
        >>> import torch
        >>> linear = torch.nn.Linear(2, 1)
        >>> load_exactly(linear, {"weight": torch.zeros(1, 2)}, "tiny.pt")
        Traceback (most recent call last):
        ...
        flux_rewards.errors.WeightsError: tiny.pt does not fit Linear: missing bias
    """
    own = module.state_dict()
    missing = [name for name in own if name not in tensors and name not in ignore]
    unexpected = [name for name in tensors if name not in own and name not in ignore]
    misshaped = [
        f"{name} {tuple(tensors[name].shape)} for {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
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
    """Within, modules are built without drawing their random weights: nothing is computed, no generator moves.

    Parameters hold whatever the memory held, so load all of them. Buffers such as masks are made as ever.

    Examples:
        >>> import torch
        >>> before = torch.get_rng_state()
        >>> with blank():
        ...     linear = torch.nn.Linear(2, 1)
        >>> bool((torch.get_rng_state() == before).all())
        True
    """
    import torch  # noqa: PLC0415
    from torch.overrides import TorchFunctionMode  # noqa: PLC0415

    draws = {
        getattr(torch.Tensor, name)
        for name in ("normal_", "uniform_", "random_", "bernoulli_", "exponential_", "log_normal_", "cauchy_")
    }
    fresh = {torch.rand: torch.empty, torch.randn: torch.empty}
    initialisers = {
        getattr(torch.nn.init, name)
        for name in vars(torch.nn.init)
        if name.endswith("_") and not name.startswith("_") and name not in ("constant_", "ones_", "zeros_", "eye_")
    }

    class _Blank(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func in draws or func in initialisers:
                return args[0] if args else kwargs["tensor"]
            return fresh.get(func, func)(*args, **(kwargs or {}))

    with _Blank():
        yield


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def _listed(held: Any) -> str:
    return _some([str(key) for key in held]) if isinstance(held, Mapping) else type(held).__name__
