"""Models of transformers, loaded whole or not at all."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from flux_rewards.errors import WeightsError
from flux_rewards.models.placement import frozen
from flux_rewards.models.weights import check_keys

if TYPE_CHECKING:
    import torch

    from flux_rewards.models.checkpoint import Checkpoint

__all__ = ["load_transformers"]


def load_transformers(
    kind: Any, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype, **options: Any
) -> Any:
    """A frozen model of transformers, on its device and in its precision.

    Args:
        kind: A class with `from_pretrained`, such as ``AutoModel``.
        checkpoint: Configuration and weights.
        device: Where it goes.
        dtype: In which it is held.
        **options: Of `from_pretrained`.

    Raises:
        WeightsError: It cannot be found or read, or its tensors are not those of its architecture.
    """
    folder = checkpoint.path()
    try:
        with _quiet():
            model, found = kind.from_pretrained(
                folder,
                dtype=dtype,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are told below, by name
                **options,
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise WeightsError(f"{checkpoint.label} cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    check_keys(
        checkpoint.label,
        type(model).__name__,
        missing=sorted(found["missing_keys"]),
        unexpected=sorted(found["unexpected_keys"]),
        misshaped=[f"{name} {tuple(held)} for {tuple(own)}" for name, held, own in sorted(found["mismatched_keys"])],
    )
    return frozen(model, device, dtype)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Its table of what did not fit: an error says so."""
    log = logging.getLogger("transformers.modeling_utils")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)
