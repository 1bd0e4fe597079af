"""How far scoring is, on a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import rich.progress
from rich.console import Console

from flux_rewards.cli.score import Progress

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["TerminalProgress"]


class TerminalProgress(Progress):
    """A bar on stderr where that is a terminal; warnings in any case."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, markup=False, emoji=False, highlight=False)
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TimeRemainingColumn(),
            console=self._console,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("checking", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._bar.stop()

    def warn(self, text: str) -> None:
        """One line."""
        self._console.print(f"warning: {text}", soft_wrap=True)

    def scoring(self, total: int) -> None:
        """From now on the bar fills."""
        self._bar.update(self._task, description="scoring", total=total)

    def advance(self, samples: int) -> None:
        """Fill the bar."""
        self._bar.advance(self._task, samples)
