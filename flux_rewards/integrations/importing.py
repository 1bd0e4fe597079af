"""Trainers, imported when an adapter needs them."""

from __future__ import annotations

import importlib
from typing import Any

from flux_rewards.errors import MissingDependencyError

__all__ = ["imported"]


def imported(module: str, install: str) -> Any:
    """A module of somebody else's.

    Args:
        module: Its name.
        install: The line that installs it.

    Raises:
        MissingDependencyError: It cannot be imported.

    Examples:
        >>> imported("math", "").floor(1.5)
        1
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(f"{module} cannot be imported ({error}): {install}") from error
