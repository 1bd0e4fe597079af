"""What decides the result of a piece of code, as a digest: an edit must not meet scores that the old code gave."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import re
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from flux_rewards.errors import brief
from flux_rewards.fingerprint import Memo, fingerprint

__all__ = ["Opaque", "meaning_of"]


class Opaque(Exception):  # noqa: N818  # a finding, which its finder turns into an error
    """A value whose content cannot be told; the message says which."""


def meaning_of(value: Any, *, until: type = object, known: Callable[[Any], bytes | None] | None = None) -> bytes:
    """Digest a value by what it is and does, 32 bytes, the same in every process of one Python version.

    Plain values, arrays and images go by their content, functions by their code, what they close over and what they
    use of their own package's globals, classes by their attributes and bases, other objects by class and attributes.

    Args:
        value: A value, function, class or object.
        until: The attributes of this class and of its bases are left out.
        known: Digests values of some kinds in another way; None for all others.

    Raises:
        Opaque: There is something in it whose content cannot be told, such as a socket.

    Does not follow functions of other packages: those go by their name.

    Examples:
        >>> meaning_of(lambda x: x + 1) == meaning_of(lambda x: x + 2)
        False
    """
    return _Walk(until, known).digest(value)


# What stands for other code, and the attributes that hold it.
_HOLDERS: dict[type, tuple[str, ...]] = {
    types.MethodType: ("__func__", "__self__"),
    functools.partial: ("func", "args", "keywords"),
    functools.cached_property: ("func",),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    property: ("fget", "fset"),
    re.Pattern: ("pattern", "flags"),
    logging.Logger: ("name",),
    types.ModuleType: ("__name__",),
}
# Parts of a class that Python itself makes from the rest of it.
_MADE = (
    types.MemberDescriptorType,
    types.GetSetDescriptorType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
)
_INCIDENTAL = {
    "__annotations__",
    "__annotate__",
    "__annotate_func__",
    "__annotations_cache__",
    "__abstractmethods__",
    "__dict__",
    "__doc__",
    "__firstlineno__",
    "__module__",
    "__orig_bases__",
    "__parameters__",
    "__static_attributes__",
    "__type_params__",
    "__weakref__",
    "_abc_impl",
}
# Of a class below `until`: how it runs, and not what it says.
_SAYS_NOTHING = {"async_reward", "batch_size", "example_config", "name", "num_workers"}
_SINGLE = (Ellipsis, NotImplemented)


class _Walk:
    """One digest under way. What is met again is the place where it was met first: so cycles end."""

    def __init__(self, until: type, known: Callable[[Any], bytes | None] | None) -> None:
        self._until = until
        self._left_out = set(until.__mro__)
        self._known = known
        self._places: dict[int, int] = {}
        self._kept: list[Any] = []  # ids are of living things
        self._memo: Memo = {}

    def digest(self, value: Any) -> bytes:
        return fingerprint(value, self._memo, self._of_object, dataclasses_by_fields=False)

    def _of_object(self, value: Any) -> bytes:
        if self._known is not None and (given := self._known(value)) is not None:
            return given
        if any(value is single for single in _SINGLE):
            return repr(value).encode()
        if (place := self._places.get(id(value))) is not None:
            return f"met before: {place}".encode()
        self._places[id(value)] = len(self._places)
        self._kept.append(value)
        digest = hashlib.sha256(f"{type(value).__module__}.{type(value).__qualname__}".encode())
        for part in self._parts(value):
            digest.update(self.digest(part))
        return digest.digest()

    def _parts(self, value: Any) -> Iterator[Any]:
        if isinstance(value, types.FunctionType):
            yield from self._parts_of_function(value)
        elif isinstance(value, type):
            yield from self._parts_of_class(value)
        elif isinstance(value, types.CodeType):
            # Not the lines where it stands.
            yield [value.co_code, value.co_names, value.co_varnames, value.co_argcount, value.co_kwonlyargcount]
            yield list(value.co_consts)
        elif isinstance(value, (types.BuiltinFunctionType, *_MADE)):
            yield [value.__qualname__, getattr(value, "__module__", None), getattr(value, "__self__", None)]
        elif (holder := next((kind for kind in _HOLDERS if isinstance(value, kind)), None)) is not None:
            yield from (getattr(value, attribute) for attribute in _HOLDERS[holder])
        elif hasattr(value, "__wrapped__"):  # functools.cache and its like
            yield value.__wrapped__
        else:
            yield from self._parts_of_instance(value)

    def _parts_of_function(self, function: types.FunctionType) -> Iterator[Any]:
        yield function.__code__
        yield [function.__defaults__, function.__kwdefaults__]
        for cell in function.__closure__ or ():
            with contextlib.suppress(ValueError):  # not filled yet
                yield cell.cell_contents
        house = _house(function.__module__)
        for name in _global_names(function.__code__):
            if name in function.__globals__:
                value = function.__globals__[name]
                home = getattr(value, "__module__", None)
                is_code = isinstance(value, (types.FunctionType, type)) or hasattr(value, "__wrapped__")
                yield [name, _full_name(value) if is_code and _house(home) != house else value]

    def _parts_of_class(self, kind: type) -> Iterator[Any]:
        yield _full_name(kind)
        for base in kind.__mro__:
            if base in self._left_out:
                continue
            if base is not kind and _house(base.__module__) in sys.stdlib_module_names:
                yield _full_name(base)
                continue
            left_out = _INCIDENTAL | (
                _SAYS_NOTHING if len(self._left_out) > 1 and issubclass(base, self._until) else set()
            )
            own = sorted(vars(base).items())
            yield [[name, value] for name, value in own if name not in left_out and not isinstance(value, _MADE)]

    def _parts_of_instance(self, value: Any) -> Iterator[Any]:
        kind = type(value)
        slots = [name for base in kind.__mro__ for name in _slots(base)]
        if slots or hasattr(value, "__dict__"):
            yield kind
            yield {name: getattr(value, name) for name in slots if hasattr(value, name)}
            yield getattr(value, "__dict__", {})
            return
        try:
            yield value.__reduce_ex__(2)  # what a pickle would hold
        except TypeError:
            raise Opaque(f"{brief(value)} of {kind.__module__}.{kind.__qualname__}") from None


def _slots(kind: type) -> list[str]:
    given = vars(kind).get("__slots__", ())
    names = [given] if isinstance(given, str) else list(given)
    return [name for name in names if name not in ("__dict__", "__weakref__")]


def _global_names(code: types.CodeType) -> list[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names.update(_global_names(constant))
    return sorted(names)


def _house(module: Any) -> str:
    """The package that a module belongs to."""
    return str(module).partition(".")[0]


def _full_name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value)}"
