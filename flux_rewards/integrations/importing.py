"""Trainers, imported when an adapter needs them."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import threading
from pathlib import Path
from typing import Any

from flux_rewards.callables import resolve_callable
from flux_rewards.errors import ConfigError, FluxRewardsError, MissingDependencyError, close_match

__all__ = ["foreign_function", "imported"]

_loading = threading.RLock()


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


def foreign_function(function: Any, reward: str) -> Any:
    """A function, or what its dotted path, or the path of its file (``"folder/rewards.py:compute_score"``), names.

    A file is run once in each process; a relative path begins at the current folder.

    Raises:
        ConfigError: There is no such module, file or function, or it cannot be imported.

    Examples:
        >>> foreign_function("math.sqrt", "my_reward")(4.0)
        2.0
    """
    file, _, name = function.rpartition(":") if isinstance(function, str) else ("", "", "")
    if not file.endswith(".py"):
        if isinstance(function, str) and function.endswith(".py"):
            raise ConfigError(
                f"{function!r} names a file; write the function behind it, {function}:NAME", reward=reward
            )
        return resolve_callable(function, reward)
    module = _module_of(Path(file).expanduser().resolve(), reward)
    found = getattr(module, name, None)
    if found is None:
        raise ConfigError(f"{file} has no {name!r}{close_match(name, dir(module))}", reward=reward)
    return resolve_callable(found, reward)


def _module_of(file: Path, reward: str) -> Any:
    if not file.is_file():
        raise ConfigError(f"there is no file {file}", reward=reward)
    name = f"flux_rewards_file_{hashlib.sha256(str(file).encode()).hexdigest()[:16]}"
    with _loading:
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, file)
            module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]  # of a .py there is one
            sys.modules[name] = module  # data classes and pickles look for it there
            try:
                spec.loader.exec_module(module)  # type: ignore[union-attr]
            except BaseException as error:
                del sys.modules[name]
                if isinstance(error, FluxRewardsError) or not isinstance(error, Exception):
                    raise
                raise ConfigError(
                    f"{file} cannot be imported: {type(error).__name__}: {error}", reward=reward
                ) from error
        return sys.modules[name]
