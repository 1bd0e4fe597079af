"""Objects that are their constructor's arguments: they print, compare, pickle and rebuild from them."""

from __future__ import annotations

import copy
import inspect
import itertools
import re
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

from flux_rewards.fingerprint import same

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["LeftBehind", "Parametrised", "accepted_parameters"]


class LeftBehind:
    """What stands for a credential in an object that came out of a pickle."""

    def __repr__(self) -> str:
        return "'...'"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LeftBehind)

    def __hash__(self) -> int:
        return hash(LeftBehind)


def accepted_parameters(kind: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The named parameters of a function, or of a class's constructor, following ``**options`` to the base classes.

    Where a constructor says which options it takes, ``**options: Unpack[SomeOptions]``, those of the base classes are
    only these.

    Examples:
        >>> class Base:
        ...     def __init__(self, *, name=None): ...
        >>> class Child(Base):
        ...     def __init__(self, size, **options): ...
        >>> list(accepted_parameters(Child))
        ['size', 'name']
    """
    found: dict[str, inspect.Parameter] = {}
    passed_on: set[str] | None = None
    if not isinstance(kind, type):
        found.update(inspect.signature(kind).parameters)
    for base in getattr(kind, "__mro__", ()):
        constructor = vars(base).get("__init__")
        if constructor is None:
            continue
        own = list(inspect.signature(constructor).parameters.values())[1:]
        for entry in own:
            if entry.name not in found and (passed_on is None or entry.name in passed_on):
                found[entry.name] = entry
        options = next((entry for entry in own if entry.kind is entry.VAR_KEYWORD), None)
        if options is None:
            break
        named = _options_named(options.annotation, kind)
        if named is not None:
            passed_on = named if passed_on is None else passed_on & named
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {name: entry for name, entry in found.items() if entry.kind not in variadic}


def _options_named(annotation: Any, kind: Any) -> set[str] | None:
    """The keys of ``Unpack[SomeOptions]``, where a base class's module has them."""
    found = re.fullmatch(r"(?:\w+\.)?Unpack\[(\w+)\]", annotation) if isinstance(annotation, str) else None
    homes = [sys.modules.get(base.__module__) for base in getattr(kind, "__mro__", ())] if found else []
    options = next((getattr(home, found[1]) for home in homes if found and hasattr(home, found[1])), None)
    return set(options.__annotations__) if hasattr(options, "__total__") else None


class Parametrised:
    """Remembers the arguments of its constructor, whether or not a subclass calls ``super().__init__()``.

    Anything else that an instance holds (weights, clients, locks, caches) is not part of it: it is left behind
    by a pickle or a copy, and made again on first use.
    """

    settings: ClassVar[tuple[str, ...]] = ()
    """Attributes that may also be set after construction, and that travel with the object."""
    secret_parameters: ClassVar[Sequence[str]] = ()
    """Credentials: a pickle and a configuration leave them out, and two objects are equal without them."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Capture the arguments."""
        self = super().__new__(cls)
        # Here and not in __init__, since an author's need not call ours.
        vars(self)["_flux_arguments"] = (args, kwargs)
        return self

    @property
    def parameters(self) -> dict[str, Any]:
        """The arguments that the constructor was given, by name."""
        args, kwargs = vars(self)["_flux_arguments"]
        bound = inspect.signature(type(self).__init__).bind(self, *args, **kwargs).arguments
        named = list(bound.items())[1:]
        kinds = inspect.signature(type(self).__init__).parameters
        flat: dict[str, Any] = {}
        for name, value in named:
            if kinds[name].kind is inspect.Parameter.VAR_KEYWORD:
                flat.update(value)
            else:
                flat[name] = value
        return flat

    @property
    def all_parameters(self) -> dict[str, Any]:
        """The constructor's arguments, by name, with the defaults of those that were not given."""
        accepted = accepted_parameters(type(self)).items()
        defaults = {name: entry.default for name, entry in accepted if entry.default is not entry.empty}
        return {**defaults, **self.parameters}

    def _state(self) -> dict[str, Any]:
        """What may have been set since: the settings, and plain attributes that have a parameter's name."""
        held = vars(self)
        state = {name: held[name] for name in self.settings if name in held}
        named = {
            name: held[name] for name in self.all_parameters if name in held and name not in self.secret_parameters
        }
        return state | {
            name: value for name, value in named.items() if isinstance(value, (bool, int, float, str, type(None)))
        }

    def _told(self) -> dict[str, Any]:
        """All parameters but the secret ones."""
        return {name: value for name, value in self.all_parameters.items() if name not in self.secret_parameters}

    def __repr__(self) -> str:
        shown = (f"{name}={_shown(name, value)}" for name, value in self.parameters.items())
        return f"{type(self).__name__}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other) or not isinstance(other, Parametrised):
            return NotImplemented
        return same(self._told(), other._told()) and same(self._state(), other._state())

    def __hash__(self) -> int:
        return hash(type(self))  # equal objects have one type; parameters need not be hashable

    def __reduce__(self) -> tuple[Any, ...]:
        args, kwargs = vars(self)["_flux_arguments"]
        if self.secret_parameters:
            names = list(inspect.signature(type(self).__init__).parameters)[1:]
            args = tuple(self._sendable(name, value) for name, value in itertools.zip_longest(names[: len(args)], args))
            kwargs = {name: self._sendable(name, value) for name, value in kwargs.items()}
        return _rebuild, (type(self), args, kwargs, self._state())

    def _sendable(self, name: str | None, value: Any) -> Any:
        return LeftBehind() if name in self.secret_parameters and value is not None else value

    def __copy__(self) -> Self:
        args, kwargs = vars(self)["_flux_arguments"]
        return cast("Self", _rebuild(type(self), args, kwargs, self._state()))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        args, kwargs = vars(self)["_flux_arguments"]
        given = copy.deepcopy((args, kwargs, self._state()), memo)
        return cast("Self", _rebuild(type(self), *given))


_SECRET = re.compile(r"_?(api|access|private)_?key$|secret|password|credential|(^|_)token$", re.IGNORECASE)


def _shown(name: str, value: Any) -> str:
    """A parameter for a message or a log: credentials stay out of them."""
    return "'...'" if isinstance(value, str) and _SECRET.search(name) else repr(value)


def _rebuild(kind: type, args: tuple[Any, ...], kwargs: dict[str, Any], state: dict[str, Any]) -> Any:
    rebuilt = kind(*args, **kwargs)
    vars(rebuilt).update(state)
    return rebuilt
