"""``flux-rewards cache``: what a file of cached scores holds, and forgetting it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flux_rewards.cli.tables import plain_table
from flux_rewards.errors import InputError
from flux_rewards.store import SQLiteStore

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["cache_table", "clear_cache"]


def cache_table(path: Path) -> Table:
    """How much a cache holds.

    Raises:
        InputError: There is no such file.
        ConfigError: It is no cache.
    """
    stats = _store(path).stats()
    table = plain_table("cache", "scores", "bytes", "bytes on disk", numbers_from=1)
    table.add_row(str(path), str(stats.entries), str(stats.bytes), str(_size_on_disk(path)))
    return table


def clear_cache(path: Path) -> int:
    """Forget every score of a cache; returns how many there were.

    Raises:
        InputError: There is no such file.
        ConfigError: It is no cache; it is left as it is.
    """
    return _store(path).clear()


def _store(path: Path) -> SQLiteStore:
    if not path.exists():  # opening it would make it
        raise InputError(f"{path}: no such file")
    return SQLiteStore(path)


def _size_on_disk(path: Path) -> int:
    parts = [path, path.with_name(f"{path.name}-wal")]
    return sum(part.stat().st_size for part in parts if part.exists())
