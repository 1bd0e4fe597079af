"""The base of rewards with weights."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from flux_rewards.base import RewardFunction, RewardOptions
from flux_rewards.errors import FluxRewardsError, WeightsError
from flux_rewards.models.placement import check_dtype
from flux_rewards.threads import RenewedLock

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from flux_rewards.models.checkpoint import Checkpoint

__all__ = ["ModelOptions", "ModelReward"]


class ModelOptions(RewardOptions, total=False):
    """Keyword arguments that every reward with weights takes beside its own; see `ModelReward`."""

    device: str | None
    dtype: str


class ModelReward(RewardFunction, abstract=True):
    """A reward with weights: read at the first call or by `load`, shared with all who name the same, left by `close`.

    A subclass overrides `checkpoints`, `open_model` and one of the methods that score, and uses `model`.

    Args:
        device: Where the model runs, such as ``"cuda"``, ``"cuda:1"`` or ``"cpu"``; None for the current CUDA device
            where there is one, else the CPU.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``: how weights are held. In the latter two, torch's autocast
            chooses what is summed in float32; features and scores are float32 in any case.
        **options: Of every reward; see `RewardFunction`. `batch_size` is what the model sees at once.

    Raises:
        ConfigError: The precision is unknown.
    """

    optional_fields: Sequence[str] | None = ()
    async_reward = False
    batch_size = 16
    media_form = "pixels"
    neutral_parameters: ClassVar[Sequence[str]] = (
        *RewardFunction.neutral_parameters,
        "device",
        "activation_checkpointing",
        "frame_batch_size",
    )
    example_config: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, device: str | None = None, dtype: str = "float32", **options: Unpack[RewardOptions]) -> None:
        super().__init__(**options)
        self.device = None if device is None else str(device)
        self.dtype = check_dtype(dtype, self.name)
        self._opening = RenewedLock()

    def checkpoints(self) -> Sequence[Checkpoint]:
        """The files that it needs, for `flux-rewards download` and for the keys of caches."""
        raise NotImplementedError

    def open_model(self) -> Any:
        """The model, from `flux_rewards.models`; called once."""
        raise NotImplementedError

    @property
    def model(self) -> Any:
        """The model; opened on first use, while others wait."""
        found = vars(self).get("_model")
        if found is None:
            with self._opening:
                found = vars(self).get("_model")
                if found is None:
                    identities: list[str] | None = None
                    import torch  # noqa: PLC0415  # only those who load pay for it

                    # Weights made in a caller's inference mode could never pass a gradient on.
                    with torch.inference_mode(mode=False):
                        with contextlib.suppress(WeightsError):  # opening says it better
                            identities = self._on_disk()
                        found = self._model = self._opened()
                        self._identities = identities
        return found

    def _opened(self) -> Any:
        """A checkpoint that cannot be opened will not open for the next sample either."""
        try:
            return self.open_model()
        except (FluxRewardsError, ImportError, MemoryError):
            raise
        except Exception as error:
            if type(error).__name__ == "OutOfMemoryError":  # torch's
                raise
            files = ", ".join(checkpoint.label for checkpoint in self.checkpoints())
            raise WeightsError(f"{files} cannot be opened: {type(error).__name__}: {error}") from error

    def load(self) -> None:
        """Read the weights now, fetched first where they are not on this machine.

        Raises:
            WeightsError: They cannot be found, or do not fit.
        """
        _ = self.model

    def close(self) -> None:
        """Let go of the weights: they leave memory when nobody else uses them. The next call reads them again."""
        with self._opening:
            vars(self).update(_model=None, _identities=None)

    @property
    def decided_by(self) -> Sequence[Any]:  # type: ignore[override]  # not an author's choice here
        """Which weights they are: those that are held, or else those that the next call would read."""
        return vars(self).get("_identities") or self._on_disk()

    def _on_disk(self) -> list[str]:
        return [checkpoint.identity() for checkpoint in self.checkpoints()]
