"""One computation a batch, of which several functions each take their own column."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

__all__ = ["OncePerBatch"]

Scores = Mapping[str, "list[float | None]"]

KEPT = 32
"""Batches that are done and wait for a function that has not asked yet; one that was left out never will."""


class _Entry:
    """One batch. Its columns are held: while they live, no other batch has their identity."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self.columns = columns
        self.future: Future[Scores] = Future()
        self.taken: set[str] = set()

    def has(self, columns: Mapping[str, Any]) -> bool:
        """Whether these are its columns; what cannot be compared, such as images, counts as equal."""
        return not any(_differ(columns[name], self.columns.get(name)) for name in columns)


class OncePerBatch:
    """Finds the computation of a batch by the identity of its columns; from any thread.

    Of several functions that are called with the same lists, the first computes, and the others take what it found. A
    function that comes a second time with the same list wants it computed anew.

    Args:
        functions: The names of all of them; a batch of which each has taken its part is forgotten.

    Examples:
        >>> once, completions = OncePerBatch(["length", "style"]), ["a", "b"]
        >>> future, is_first = once.claim(completions, "length")
        >>> future.set_result({"length": [1.0, 2.0], "style": [None, 0.5]})
        >>> once.claim(completions, "style")[0].result()["style"], len(once)
        ([None, 0.5], 0)
    """

    def __init__(self, functions: Sequence[str]) -> None:
        self._functions = frozenset(functions)
        self._entries: dict[int, _Entry] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (sorted(self._functions),)

    def __len__(self) -> int:
        """Batches of which something is still to be taken."""
        return len(self._entries)

    def claim(
        self, completions: Sequence[Any], function: str, columns: Mapping[str, Any] | None = None
    ) -> tuple[Future[Scores], bool]:
        """The scores of a batch, and whether the caller is the one to compute them, and to settle the future.

        Args:
            completions: The batch, by its identity.
            function: Who asks.
            columns: All columns; where they are not those of the batch that is known, it is another batch.
        """
        key, columns = id(completions), {"completions": completions, **(columns or {})}
        with self._lock:
            entry = self._entries.get(key)
            is_first = entry is None or function in entry.taken or not entry.has(columns) or _failed(entry.future)
            if entry is None or is_first:
                entry = self._entries[key] = _Entry(columns)
            entry.taken.add(function)
            if entry.taken == self._functions:
                del self._entries[key]  # whoever waits holds the future
            for old in [held for held, other in self._entries.items() if other.future.done()][:-KEPT]:
                del self._entries[old]
            return entry.future, is_first


def _differ(one: Any, other: Any) -> bool:
    if one is other or not isinstance(one, list):
        return False
    try:
        return bool(one != other)
    except (TypeError, ValueError, RuntimeError):
        return False


def _failed(future: Future[Scores]) -> bool:
    return future.done() and future.exception() is not None
