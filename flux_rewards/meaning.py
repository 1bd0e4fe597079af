"""What decides the result of a piece of code, as a digest: an edit must not meet scores that the old code gave."""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import dis
import fractions
import functools
import hashlib
import logging
import pathlib
import re
import sys
import types
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from flux_rewards.errors import brief
from flux_rewards.fingerprint import Memo, fingerprint, is_buffer

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

    Does not follow classes and functions of other installed packages: those go by their name and version, and those of
    this library by all of its code.

    Examples:
        >>> meaning_of(lambda x: x + 1) == meaning_of(lambda x: x + 2)
        False
    """
    first = value[0] if isinstance(value, list) and value else value
    home = getattr(first, "__module__", None) if isinstance(first, (type, types.FunctionType)) else None
    try:
        return _Walk(until, known, {_house(home)} if home else set()).digest(value)
    except RecursionError:
        raise Opaque(f"{brief(value)}, which is nested too deeply,") from None


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
    "__slotnames__",  # that pickle leaves there
    "__static_attributes__",
    "__type_params__",
    "__weakref__",
    "_abc_impl",
}
# Of a class below `until`: how it runs, and not what it says.
_SAYS_NOTHING = {"async_reward", "batch_size", "example_config", "name", "num_workers"}
_SINGLE = (Ellipsis, NotImplemented)


# Of these very types, and not of their subclasses, the content says all.
_PLAIN = {
    *(bool, int, float, complex, str, bytes, bytearray, range, type(None)),
    *(dt.date, dt.datetime, dt.time, dt.timedelta, decimal.Decimal, fractions.Fraction, uuid.UUID),
    *(pathlib.PosixPath, pathlib.WindowsPath, pathlib.PurePosixPath, pathlib.PureWindowsPath),
}
_DEEPEST = 60
_OURS = __name__.partition(".")[0]


class _Walk:
    """One digest under way. What is met again is the place where it was met first: so cycles end."""

    def __init__(
        self, until: type, known: Callable[[Any], bytes | None] | None, homes: set[str], depth: int = 0
    ) -> None:
        self._until = until
        self._left_out = set(until.__mro__)
        self._known = known
        self._homes = homes
        self._depth = depth
        self._places: dict[int, int] = {}
        self._kept: list[Any] = []  # ids are of living things
        self._memo: Memo = {}

    def digest(self, value: Any) -> bytes:
        kind = type(value)
        if kind in _PLAIN or is_buffer(value):
            return fingerprint(value, self._memo)
        if kind in (list, tuple, dict, set, frozenset):
            return self._of_items(value)
        return self._of_object(value)

    def _of_items(self, value: Any) -> bytes:
        """Order counts in a mapping, too: code may take the first that fits."""
        if isinstance(value, dict):
            digests = [self.digest(part) for pair in value.items() for part in pair]
        elif isinstance(value, (set, frozenset)):
            # Each by itself, since a set has another order in another process.
            if self._depth == _DEEPEST:
                raise Opaque(f"{brief(value)}, which is nested too deeply,")
            digests = sorted(
                _Walk(self._until, self._known, self._homes, self._depth + 1).digest(item) for item in value
            )
        else:
            digests = [self.digest(item) for item in value]
        return hashlib.sha256(f"{type(value).__name__} {len(value)} ".encode() + b"".join(digests)).digest()

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
        if isinstance(value, (types.FunctionType, type)) and self._is_foreign(value):
            yield [_full_name(value), _version(_house(value.__module__))]
        elif isinstance(value, types.FunctionType):
            yield from self._parts_of_function(value)
        elif isinstance(value, type):
            yield from self._parts_of_class(value)
        elif isinstance(value, types.CodeType):
            # Not the lines where it stands.
            yield [value.co_code, getattr(value, "co_exceptiontable", b""), value.co_names, value.co_varnames]
            yield [value.co_freevars, value.co_cellvars, value.co_argcount, value.co_kwonlyargcount, value.co_flags]
            yield list(value.co_consts)
        elif isinstance(value, (types.BuiltinFunctionType, *_MADE)):
            yield [value.__qualname__, getattr(value, "__module__", None), getattr(value, "__self__", None)]
        elif (holder := next((kind for kind in _HOLDERS if isinstance(value, kind)), None)) is not None:
            yield from (getattr(value, attribute) for attribute in _HOLDERS[holder])
        elif isinstance(value, types.MappingProxyType):
            yield dict(value)
        elif hasattr(value, "__wrapped__"):  # functools.cache and its like
            yield value.__wrapped__
        else:
            yield from self._parts_of_instance(value)

    def _is_foreign(self, value: Any) -> bool:
        """Whether it goes by name and version: this library, and what is installed but the walk did not begin in."""
        house = _house(value.__module__)
        typed_in = getattr(getattr(value, "__code__", None), "co_filename", "").startswith("<")  # such as an example
        return (house == _OURS and not typed_in) or (house not in self._homes and _is_installed(house))

    def _parts_of_function(self, function: types.FunctionType) -> Iterator[Any]:
        if isinstance(revision := vars(function).get("revision"), str):  # its author's word
            yield [_full_name(function), revision]
            return
        yield function.__code__
        yield [function.__defaults__, function.__kwdefaults__]
        for cell in function.__closure__ or ():
            with contextlib.suppress(ValueError):  # not filled yet
                yield cell.cell_contents
        names = _names(function.__code__)
        for name in _global_names(function.__code__):
            if name not in function.__globals__:
                continue
            value = function.__globals__[name]
            yield [name, value]
            if isinstance(value, types.ModuleType) and not _is_installed(_house(value.__name__)):
                yield [[used, vars(value)[used]] for used in names if used in vars(value)]

    def _parts_of_class(self, kind: type) -> Iterator[Any]:
        yield _full_name(kind)
        for base in kind.__mro__:
            if base in self._left_out:
                continue
            if base is not kind and self._is_foreign(base):
                yield [_full_name(base), _version(_house(base.__module__))]
                continue
            below = self._until is not object and issubclass(base, self._until)
            left_out = _INCIDENTAL | _SAYS_NOTHING if below else _INCIDENTAL
            own = sorted(vars(base).items())
            yield [[name, value] for name, value in own if name not in left_out and not isinstance(value, _MADE)]

    def _parts_of_instance(self, value: Any) -> Iterator[Any]:
        kind = type(value)
        yield kind
        if isinstance(name := getattr(value, "__qualname__", None), str):  # a function of some compiler's
            yield [str(getattr(value, "__module__", "")), name]
        try:
            reduced = value.__reduce_ex__(2)  # what a pickle would hold
        except Exception:  # noqa: BLE001  # each kind has its own way to refuse
            raise Opaque(f"{brief(value)} of {kind.__module__}.{kind.__qualname__}") from None
        own = {name for base in kind.__mro__[:-1] for name in vars(base)}
        builtin = any(base.__module__ == "builtins" and base is not object for base in kind.__mro__)
        slots = [name for base in kind.__mro__ for name in _slots(base)]
        if own.isdisjoint(("__reduce__", "__reduce_ex__")) and not builtin and (slots or hasattr(value, "__dict__")):
            yield {name: getattr(value, name) for name in slots if hasattr(value, name)}
            yield getattr(value, "__dict__", {})
            return
        parts = list(reduced) if isinstance(reduced, tuple) else [reduced]
        yield [part if index < 3 or part is None else list(part) for index, part in enumerate(parts)]


def _slots(kind: type) -> list[str]:
    given = vars(kind).get("__slots__", ())
    names = [given] if isinstance(given, str) else list(given)
    mangled = f"_{kind.__name__.lstrip('_')}"
    return [
        f"{mangled}{name}" if name.startswith("__") and not name.endswith("__") else name
        for name in names
        if name not in ("__dict__", "__weakref__")
    ]


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code itself, and that of the functions within."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _names(code: types.CodeType) -> list[str]:
    """Of globals and of attributes."""
    return sorted({name for each in _codes(code) for name in each.co_names})


def _global_names(code: types.CodeType) -> list[str]:
    loads = (step for each in _codes(code) for step in dis.get_instructions(each))
    return sorted({step.argval for step in loads if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")})


@functools.cache
def _is_installed(house: str) -> bool:
    """Whether a package is Python's own, or lies where installers put them."""
    if house == "__main__":  # it may be a launcher's, but what is defined there is the user's
        return False
    if house in sys.stdlib_module_names or house in sys.builtin_module_names:
        return True
    file = getattr(sys.modules.get(house), "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file


@functools.cache
def _version(house: str) -> str:
    module = sys.modules.get(house)
    if house != _OURS:
        return str(getattr(module, "__version__", ""))
    # Any change of the library's code: its locks and models could not be told from others, piece by piece.
    digest = hashlib.sha256()
    for folder in getattr(module, "__path__", ()):
        for file in sorted(pathlib.Path(folder).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _house(module: Any) -> str:
    """The package that a module belongs to."""
    return str(module).partition(".")[0]


def _full_name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value)}"
