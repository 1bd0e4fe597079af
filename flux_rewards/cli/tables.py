"""The tables that the command prints."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from flux_rewards.cli.score import ScoredFile
    from flux_rewards.report.summary import RewardStatistics

__all__ = ["output_console", "plain_table", "summary_table"]

_UNLIMITED = 10_000


def output_console() -> Console:
    """A console for stdout that prints text as it is, and cuts nothing short where it is piped."""
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = _UNLIMITED
    return console


def plain_table(*columns: str, numbers_from: int | None = None) -> Table:
    """An empty table whose cells wrap where the terminal is narrow.

    Args:
        *columns: The headers.
        numbers_from: From this column on, cells are numbers.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for position, column in enumerate(columns):
        is_number = numbers_from is not None and position >= numbers_from
        table.add_column(column, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number)
    return table


def summary_table(scored: ScoredFile) -> Table:
    """The statistics of the total, then of each part."""
    columns = ["reward", "weight", "mean", "std", "min", "max", "n/a", "failed"]
    if scored.has_groups:
        columns.append("flat groups")
    table = plain_table(*columns, numbers_from=1)
    rows = [("total", "", scored.summary.total)]
    rows += [(name, f"{scored.weights[name]:g}", part) for name, part in scored.summary.parts.items()]
    for name, weight, statistics in rows:
        table.add_row(name, weight, *_cells(statistics, has_groups=scored.has_groups))
    return table


def _cells(statistics: RewardStatistics, *, has_groups: bool) -> list[str]:
    scores = (statistics.mean, statistics.std, statistics.min, statistics.max)
    shares = [statistics.not_applicable, statistics.failed, *([statistics.flat_groups] if has_groups else [])]
    return [
        *("-" if math.isnan(score) else f"{score:.4g}" for score in scores),
        *("-" if math.isnan(share) else f"{share:.1%}" for share in shares),
    ]
