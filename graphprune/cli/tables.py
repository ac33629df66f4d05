"""Tables whose first column is a name: whole and to be copied, however narrow the terminal.

Where a row is wider than there is room, the name stands on a line of its own, and the rest of the row beneath it. What
is text may wrap; names and numbers do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

_GAP, _INDENT = 2, 2
_NARROW = 24
"""What a column of text needs at least, if it has as much to say."""


@dataclass(frozen=True)
class Column:
    """A column behind the name.

    Attributes:
        name: its heading.
        text: whether it is words, which stand left and may wrap; else a number.
    """

    name: str
    text: bool = False


Row = Sequence[str | Text]


def listing(out: Console, name: str, columns: Sequence[Column], rows: Sequence[Row], title: str = "") -> None:
    """Print a table; of no rows nothing.

    Args:
        out: where to.
        name: heading of the first column, which holds names.
        columns: the others.
        rows: a name, and a cell for each column.
        title: above it.
    """
    if not rows:
        return
    if title:
        out.print(Text(title, style="bold"))
    widths = _widths(columns, rows)
    if fits(out, name, columns, rows):
        first = max(cell_len(name), *(_width(row[0]) for row in rows))
        names = Column(name, text=True)
        out.print(_table((names, *columns), (first, *widths), rows, header=True))
        return
    out.print(Text(name, style="bold"))
    out.print(Padding(_table(columns, widths, [], header=True), (0, 0, 0, _INDENT)))
    for row in rows:
        out.print(Text.assemble(row[0]), soft_wrap=True)
        out.print(Padding(_table(columns, widths, [row[1:]]), (0, 0, 0, _INDENT)))


def fits(out: Console, name: str, columns: Sequence[Column], rows: Sequence[Row]) -> bool:
    """Whether each row has room on one line, but for words that wrap."""
    least = [min(_NARROW, w) if c.text else w for c, w in zip(columns, _widths(columns, rows), strict=True)]
    first = max([cell_len(name), *(_width(row[0]) for row in rows)])
    return first + sum(least) + _GAP * len(columns) <= out.width


def _table(columns: Sequence[Column], widths: Sequence[int], rows: Sequence[Row], header: bool = False) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), show_header=header)
    for column, width in zip(columns, widths, strict=True):
        wraps = column.text and width > _NARROW
        table.add_column(
            column.name,
            justify="left" if column.text else "right",
            no_wrap=not wraps,
            overflow="fold" if wraps else "crop",
            width=None if wraps else width,
        )
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return table


def _widths(columns: Sequence[Column], rows: Sequence[Row]) -> list[int]:
    return [max([cell_len(c.name), *(_width(row[k]) for row in rows)]) for k, c in enumerate(columns, 1)]


def _width(cell: str | Text) -> int:
    return max((cell_len(line) for line in str(cell).splitlines()), default=0)
