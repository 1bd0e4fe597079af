"""A file that appears under its name only when it is complete."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from flux_rewards.errors import InputError

__all__ = ["check_output", "complete_or_absent"]


def check_output(path: Path, inputs: list[Path]) -> None:
    """Find out early that a result could not be written.

    Raises:
        InputError: The folder is missing, the path is a folder, or it is one of the inputs.
    """
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; make it first")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file in it")
    for given in inputs:
        if path.resolve() == given.resolve() or (path.exists() and given.exists() and path.samefile(given)):
            raise InputError(f"{path}: is also an input; write the result to a file of its own")


@contextlib.contextmanager
def complete_or_absent(path: Path) -> Iterator[IO[bytes]]:
    """A new file for bytes that takes the place of `path` at the end of the block, at once.

    Whatever ends the block early, an interrupt too, removes it and leaves `path` as it was. Until then it is in the
    same folder, hidden.

    Raises:
        OSError: The file cannot be made there, or written.

    Examples:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with complete_or_absent(folder / "rows.jsonl") as file:
        ...     _ = file.write(b"{}")
        ...     (folder / "rows.jsonl").exists()
        False
        >>> [found.name for found in folder.iterdir()]
        ['rows.jsonl']
    """
    target = path.resolve()  # through a symbolic link, not over it
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    # Opened here and not by a module for temporary files, whose files only their owner may read.
    with partial.open("xb") as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    partial.replace(target)
