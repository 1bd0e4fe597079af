"""What lives: asked of the kernel, not of the library."""

import time
from pathlib import Path


def children_of(process: int) -> set[int]:
    """The processes below a process, at any depth; zombies are none."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = entry.read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            parents[int(entry.parent.name)] = int(parent)
    below: set[int] = set()
    grown = {process}
    while grown:
        grown = {child for child, parent in parents.items() if parent in grown} - below
        below |= grown
    return below


def alive(processes: set[int]) -> set[int]:
    """Those of them that still run."""
    running = set()
    for process in processes:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            running.add(process)
    return running


def left_after(processes: set[int], seconds: float = 10.0) -> set[int]:
    """Those that still run when they had time to end."""
    until = time.monotonic() + seconds
    while alive(processes) and time.monotonic() < until:
        time.sleep(0.02)
    return alive(processes)
