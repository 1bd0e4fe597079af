"""Objects named by a dotted path, so that a configuration or a pickle can hold a function."""

from __future__ import annotations

import importlib
from typing import Any

from flux_rewards.errors import ConfigError, FluxRewardsError, brief, close_match

__all__ = ["path_of", "resolve_callable", "resolve_path"]


def resolve_path(path: str) -> Any:
    """Import ``package.module.name`` or ``package.module:name``.

    Raises:
        ConfigError: No such module or name; the message says which.

    Examples:
        >>> resolve_path("math.exp")(0.0)
        1.0
    """
    module_name, _, name = path.replace(":", ".").rpartition(".")
    if not module_name:
        raise ConfigError(f"expected a dotted path such as 'package.module.name', found {path!r}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigError(f"{path!r} cannot be imported: {error}") from error
        raise ConfigError(
            f"cannot find the module {error.name!r} of {path!r}; is it installed, on PYTHONPATH, or in the "
            "folder in which you run this?"
        ) from error
    except FluxRewardsError:
        raise
    except Exception as error:
        raise ConfigError(f"{path!r} cannot be imported: {type(error).__name__}: {error}") from error
    try:
        return getattr(module, name)
    except AttributeError as error:
        raise ConfigError(f"the module {module_name!r} has no {name!r}{close_match(name, dir(module))}") from error


def resolve_callable(function: Any, reward: str) -> Any:
    """The function itself, or the one that its dotted path names.

    Examples:
        >>> resolve_callable("math.sqrt", "my_reward")(4.0)
        2.0
    """
    found = resolve_path(function) if isinstance(function, str) else function
    if not callable(found):
        raise ConfigError(f"{function!r} is not callable but {brief(found)}", reward=reward)
    return found


def path_of(value: Any) -> str | None:
    """The dotted path that imports `value` again, or None where there is none, as for a lambda.

    Examples:
        >>> import math
        >>> path_of(math.exp), path_of(lambda x: x)
        ('math.exp', None)
    """
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "<none>")
    if module is None or module == "__main__" or "<" in name or "." in name:
        return None
    path = f"{module}.{name}"
    try:
        return path if resolve_path(path) is value else None
    except ConfigError:
        return None
