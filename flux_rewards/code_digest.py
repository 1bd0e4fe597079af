"""What a function or a class does, as a digest: an edit must not meet scores that the old code gave."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
import types
from collections.abc import Iterator
from typing import Any

from flux_rewards.fingerprint import fingerprint

__all__ = ["code_digest"]


def code_digest(source: Any, *, until: type = object, seen: set[int] | None = None) -> bytes:
    """Digest the code of a function or class: its own, what it closes over, and what it uses of its own module.

    Args:
        source: A function, method, partial, class or callable object.
        until: Base classes from this one on are left out.
        seen: What is being digested already, by ``id``.

    Does not follow calls into other modules, nor attribute look-ups; and other Python versions have other code.

    Examples:
        >>> code_digest(lambda x: x + 1) == code_digest(lambda x: x + 2)
        False
    """
    seen = set() if seen is None else seen
    digest = hashlib.sha256()
    if id(source) in seen:
        return digest.digest()
    seen.add(id(source))
    for part in _parts(source, until):
        if isinstance(part, types.CodeType):
            digest.update(_of_code(part))
        else:
            digest.update(fingerprint(part, unknown=functools.partial(_of_unknown, seen=seen)))
    return digest.digest()


# What stands for other code, and the attributes that hold it.
_HOLDERS: dict[type, tuple[str, ...]] = {
    types.MethodType: ("__func__", "__self__"),
    types.BuiltinFunctionType: ("__module__", "__qualname__"),
    functools.partial: ("func", "args", "keywords"),
    functools.cached_property: ("func",),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    property: ("fget", "fset"),
}


def _parts(source: Any, until: type) -> Iterator[Any]:
    """What a digest is made of: code, and values that it meets."""
    if isinstance(source, types.FunctionType):
        yield from _parts_of_function(source)
    elif isinstance(source, type):
        yield from _parts_of_class(source, until)
    elif (holder := next((kind for kind in _HOLDERS if isinstance(source, kind)), None)) is not None:
        yield from (getattr(source, attribute) for attribute in _HOLDERS[holder])
    elif hasattr(source, "__wrapped__"):  # functools.cache and its like
        yield source.__wrapped__


def _parts_of_function(function: types.FunctionType) -> Iterator[Any]:
    yield function.__code__
    yield [function.__defaults__, function.__kwdefaults__]
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # not filled yet
            yield cell.cell_contents
    for name in _global_names(function.__code__):
        value = function.__globals__.get(name)
        if _is_followed(value, function.__module__):
            yield [name, value]


def _parts_of_class(kind: type, until: type) -> Iterator[Any]:
    yield f"{kind.__module__}.{kind.__qualname__}"
    for base in kind.__mro__:
        if base not in until.__mro__:
            yield [[name, value] for name, value in sorted(vars(base).items()) if name not in _INCIDENTAL]


_INCIDENTAL = {
    "__annotations__",
    "__abstractmethods__",
    "__dict__",
    "__doc__",
    "__firstlineno__",
    "__module__",
    "__parameters__",
    "__static_attributes__",
    "__weakref__",
    "_abc_impl",
    "example_config",
    "name",
}


def _of_code(code: types.CodeType) -> bytes:
    """Instructions, names and constants; not the lines where they stand."""
    digest = hashlib.sha256(code.co_code)
    digest.update(repr((code.co_names, code.co_varnames, code.co_argcount, code.co_kwonlyargcount)).encode())
    for constant in code.co_consts:
        digest.update(_of_code(constant) if isinstance(constant, types.CodeType) else fingerprint(constant))
    return digest.digest()


def _global_names(code: types.CodeType) -> list[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names.update(_global_names(constant))
    return sorted(names)


def _is_followed(value: Any, module: str) -> bool:
    """Whether a global is part of what a function does: helpers of its own module, and constants."""
    if isinstance(value, (types.FunctionType, type)):
        return value.__module__ == module
    return isinstance(value, (str, bytes, int, float, tuple, list, dict, set, frozenset, re.Pattern))


def _of_unknown(value: Any, seen: set[int]) -> bytes:
    if isinstance(value, re.Pattern):
        return repr((value.pattern, value.flags)).encode()
    if isinstance(value, types.ModuleType):
        return value.__name__.encode()
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}".encode() + code_digest(value, seen=seen)
