"""What a trained reward model says about itself: `reward_model.json` beside its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flux_rewards import __version__
from flux_rewards.errors import ConfigError, WeightsError
from flux_rewards.models.text_format import TextFormat

if TYPE_CHECKING:
    from flux_rewards.models.checkpoint import Checkpoint

__all__ = ["REWARD_MODEL_FILE", "RewardModelFile"]

REWARD_MODEL_FILE = "reward_model.json"


@dataclass(frozen=True)
class RewardModelFile:
    """How the model was trained to read text, and what its head says; scoring goes by it.

    Args:
        format: How prompt and response became tokens.
        output: What the score is: ``"logit"``, ``"probability"`` or ``"log_odds"``.
        label: Whose; None for a head with one output.
        training: Facts for the reader, such as the number of pairs and the accuracy: values that JSON knows.
        version: Of the library that wrote it.

    Examples:
        >>> import tempfile
        >>> from flux_rewards.models.checkpoint import Checkpoint
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = RewardModelFile(TextFormat("{prompt} {response}"), training={"pairs": 800}).save(folder)
        ...     found = RewardModelFile.of(Checkpoint(folder))
        >>> found.format.template, found.training
        ('{prompt} {response}', {'pairs': 800})
    """

    format: TextFormat
    output: str = "logit"
    label: str | int | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    version: str = __version__

    def save(self, folder: str | Path) -> Path:
        """Write it into the directory of the weights.

        Raises:
            ConfigError: A fact about the training is nothing that JSON knows.
        """
        held = {
            "flux_rewards": self.version,
            "format": self.format.to_dict(),
            "output": self.output,
            "label": self.label,
            "training": dict(self.training),
        }
        try:
            text = json.dumps(held, indent=2, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"training and chat_options must be values that JSON knows: {error}") from error
        path = Path(folder) / REWARD_MODEL_FILE
        path.write_text(text + "\n", encoding="utf-8")
        return path

    @staticmethod
    def of(checkpoint: Checkpoint) -> RewardModelFile | None:
        """What the checkpoint says; None where it has no such file, as those that others trained.

        Raises:
            WeightsError: The file cannot be read, or says something that this version does not know.
        """
        if not checkpoint.has(REWARD_MODEL_FILE):
            return None
        path = checkpoint.part(REWARD_MODEL_FILE).path()
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            return RewardModelFile(
                TextFormat(**held["format"]),
                held["output"],
                held["label"],
                held["training"],
                held["flux_rewards"],
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WeightsError(
                f"{path} cannot be read ({type(error).__name__}: {error}); it is written by flux_rewards, and this is "
                f"version {__version__}"
            ) from error
