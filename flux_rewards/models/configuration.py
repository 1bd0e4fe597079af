"""What a checkpoint of transformers says about itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from flux_rewards.errors import WeightsError

if TYPE_CHECKING:
    from flux_rewards.models.checkpoint import Checkpoint

__all__ = ["model_type"]


def model_type(checkpoint: Checkpoint) -> str:
    """The kind of model, such as ``"clip"``, from its ``config.json``.

    Raises:
        WeightsError: There is no such file, or it does not say.
    """
    file = checkpoint.part("config.json").path()
    try:
        return str(json.loads(file.read_text())["model_type"])
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{file} does not say what model_type it is: {error}") from error
