"""One model for all who name the same one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from typing import TypeVar, cast
from weakref import WeakValueDictionary

__all__ = ["shared"]

T = TypeVar("T")

_lock = threading.Lock()
_making: dict[Hashable, threading.Lock] = {}
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
        make: Makes it; where it raises, the next caller tries again.

    Examples:
        >>> class Model: ...
        >>> one, other = shared("a", Model), shared("a", Model)
        >>> one is other
        True
    """
    with _lock:
        making = _making.setdefault(key, threading.Lock())
    with making:
        found = _held.get(key)
        if found is None:
            found = make()
            _held[key] = found
        return cast("T", found)
