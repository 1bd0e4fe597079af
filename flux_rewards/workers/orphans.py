"""What jobs started and did not end: found by the server that their workers were forked from, and killed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Set as AbstractSet
from pathlib import Path

__all__ = ["adopt", "children", "end", "kill_group"]

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
_ROUNDS = 100  # against a process that forks faster than it can be killed


def adopt() -> None:
    """Let processes whose parents die become this one's children, on Linux; elsewhere they are init's."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


def children() -> set[int]:
    """This process's children, adopted ones and zombies too; none where the kernel does not tell.

    Examples:
        >>> os.getpid() in children()
        False
    """
    found: set[int] = set()
    for tasks in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread that has ended
            found.update(map(int, tasks.read_text().split()))
    return found


def kill_group(leader: int) -> None:
    """Kill a child of this process, and its process group where it leads one."""
    # Nobody else waits for it, so that neither id can be another process's by now.
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(leader, signal.SIGKILL)


def end(kept: AbstractSet[int]) -> None:
    """Kill all children but those, and what these leave in turn; they are gone when it returns."""
    for _ in range(_ROUNDS):
        orphans = children() - kept
        if not orphans:
            return
        for orphan in orphans:
            kill_group(orphan)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(orphan, 0)
