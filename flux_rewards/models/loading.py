"""Models of transformers, loaded whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flux_rewards.errors import FluxRewardsError, WeightsError
from flux_rewards.models.placement import frozen
from flux_rewards.models.weights import blank, check_keys

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
        dtype: In which it is held. Weights pass the CPU in float32 (four bytes each) whatever it is.
        **options: Of `from_pretrained`. Code that comes with a checkpoint is not run.

    Raises:
        WeightsError: It cannot be found or read, or its tensors are not those of its architecture.
        ImportError: The architecture needs a package that is not installed.
    """
    import torch  # noqa: PLC0415  # loaded already

    folder = checkpoint.path()
    if (folder / "adapter_config.json").is_file():  # it would be applied where peft is installed, and only there
        raise WeightsError(f"{checkpoint.label} is an adapter (LoRA); merge it into its base model, and save that")
    options.setdefault("trust_remote_code", False)  # where nothing is said, transformers asks on the terminal
    try:
        # Weights made in inference mode could never pass a gradient on; what a checkpoint lacks would be drawn.
        with torch.inference_mode(mode=False), blank():
            model, found = kind.from_pretrained(
                folder,
                dtype=torch.float32,  # of another one it makes torch's default meanwhile, for all threads
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are told below, by name
                **options,
            )
    except (FluxRewardsError, ImportError):
        raise
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), "")
        raise WeightsError(f"{checkpoint.label} cannot be loaded ({type(error).__name__}: {first})") from error
    check_keys(
        checkpoint.label,
        type(model).__name__,
        missing=sorted(found["missing_keys"]),
        unexpected=sorted(found["unexpected_keys"]),
        misshaped=[f"{name} {tuple(held)} for {tuple(own)}" for name, held, own in sorted(found["mismatched_keys"])],
    )
    with torch.inference_mode(mode=False):
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.device == device and not tensor.is_meta:  # still a view of the file, and would change with it
                tensor.data = tensor.data.clone()
        return frozen(model, device, dtype)
