"""One object for all who name the same one: a model, a client."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from typing import TypeVar, cast
from weakref import WeakValueDictionary

__all__ = ["shared"]

T = TypeVar("T")


class _Making:
    """Held by those who make an object of a key, or wait for it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # what asks for itself recurses, and is told so


_lock = threading.RLock()  # not a plain one: a collection of garbage may come here again, in the same thread
_making: WeakValueDictionary[Hashable, _Making] = WeakValueDictionary()
_held: WeakValueDictionary[Hashable, object] = WeakValueDictionary()


def _after_fork() -> None:
    """A child has none of the threads that were making something."""
    _making.clear()
    _lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_after_fork)


def shared(key: Hashable, make: Callable[[], T]) -> T:
    """The object of a key: made once, while others wait for it, and gone when nobody holds it any more.

    Args:
        key: All that decides what is made.
        make: Makes it; where it raises, the next caller tries again. What it returns can be referred to weakly, as
            objects of ordinary classes can; a tuple cannot.

    Examples:
        >>> class Model: ...
        >>> one, other = shared("a", Model), shared("a", Model)
        >>> one is other
        True
    """
    with _lock:
        making = _making.get(key)
        if making is None:
            making = _making[key] = _Making()
    with making.lock:
        with _lock:
            found = _held.get(key)
        if found is None:
            found = make()
            with _lock:
                _held[key] = found
        return cast("T", found)
