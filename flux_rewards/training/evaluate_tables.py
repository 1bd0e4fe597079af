"""Plain text tables of reports."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["bars", "cell", "share", "text_table"]


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, indent: str = "") -> str:
    """Columns as wide as their cells; the first is to the left, the others to the right.

    Examples:
        >>> print(text_table(["subset", "pairs"], [["easy", "10"], ["hard", "5"]]))
        subset  pairs
        easy       10
        hard        5
    """
    table = [list(header), *map(list, rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    lines = (
        "  ".join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    )
    return "\n".join(indent + line.rstrip() for line in lines)


def cell(value: float | None, digits: int = 3) -> str:
    """A number for a table, or ``-`` where there is none.

    Examples:
        >>> cell(0.12345), cell(None)
        ('0.123', '-')
    """
    return "-" if value is None else f"{value:.{digits}f}"


def share(count: int, of: int) -> str:
    """A count and its share.

    Examples:
        >>> share(3, 12), share(0, 0)
        ('3 (25.0%)', '0')
    """
    return f"{count} ({count / of:.1%})" if of else str(count)


def bars(counts: Sequence[int], edges: Sequence[float], *, width: int = 30) -> str:
    """A histogram in text: one line a bin, ``[low, high)``, the last one closed.

    Examples:
        >>> print(bars([1, 2], [0.0, 0.5, 1.0], width=4))
        0.00 .. 0.50  1  ##
        0.50 .. 1.00  2  ####
    """
    highest = max(counts, default=0) or 1
    wide = max((len(f"{edge:.2f}") for edge in edges), default=0)
    number = len(str(max(counts, default=0)))
    return "\n".join(
        f"{low:{wide}.2f} .. {high:{wide}.2f}  {count:{number}d}  {'#' * round(width * count / highest)}".rstrip()
        for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True)
    )
