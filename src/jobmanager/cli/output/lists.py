"""Lists for people: columns that make room when the terminal is narrow, and the colours of the statuses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from jobmanager.present.phrases import Block
from jobmanager.validation.printable import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

STYLES = {
    "pending": "blue",
    "running": "cyan",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "yellow",
    "skipped": "yellow",
    "missed": "magenta",
    "active": "green",
    "paused": "yellow",
    "disabled": "red",
    "deleted": "red",
}
SIGNS = {
    "pending": "○",
    "running": "●",
    "succeeded": "✓",
    "failed": "✗",
    "cancelled": "■",
    "skipped": "-",
    "missed": "!",
}


NARROWEST = 8


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a list.

    `wide`: the width of the terminal from which on there is room for it. `folds`: long cells go on below. `yields`: is cut
    when there is no room for all, the last such column first.
    """

    heading: str
    wide: int = 0
    right: bool = False
    folds: bool = False
    yields: bool = False


def listing(
    console: Console, columns: Sequence[Column], rows: Iterable[Sequence[RenderableType]]
) -> RenderableType:
    """Return the rows under those columns that fit; in a pipe under all columns, as plain text without lines."""
    rows = [[_on_one_line(cell) for cell in row] for row in rows]
    if not console.is_terminal:
        return _plain(columns, rows)
    shown = [place for place, column in enumerate(columns) if console.width >= column.wide]
    table = Table(
        box=box.SIMPLE_HEAD,
        header_style="bold",
        border_style="dim",
        pad_edge=False,
        padding=(0, 2, 0, 0),
        show_edge=False,
    )
    bounds = _bounds(columns, rows, shown, console.width)
    for place in shown:
        column = columns[place]
        table.add_column(
            column.heading,
            max_width=bounds.get(place),
            justify="right" if column.right else "left",
            no_wrap=not column.folds,
            overflow="fold" if column.folds else "ellipsis",
        )
    for row in rows:
        table.add_row(*(row[place] for place in shown))
    return table


def _plain(columns: Sequence[Column], rows: Sequence[Sequence[RenderableType]]) -> str:
    """Align the rows by blanks, one line each: rich would take milliseconds a row."""
    texts = [
        [column.heading for column in columns],
        *([" ".join(str(cell).split()) for cell in row] for row in rows),
    ]
    widths = [max(map(cell_len, column)) for column in zip(*texts, strict=True)]

    def aligned(row: Sequence[str]) -> str:
        blanks = [" " * (width - cell_len(cell)) for width, cell in zip(widths, row, strict=True)]
        cells = zip(columns, row, blanks, strict=True)
        return "  ".join(
            f"{gap}{cell}" if column.right else f"{cell}{gap}" for column, cell, gap in cells
        ).rstrip()

    return Block("\n".join(map(aligned, texts)))


def _bounds(
    columns: Sequence[Column], rows: Sequence[Sequence[RenderableType]], shown: Sequence[int], width: int
) -> dict[int, int]:
    """Return how wide the yielding columns may be."""
    wanted = {place: _width(columns, rows, place) for place in shown}
    excess = sum(wanted.values()) + 3 * (len(shown) - 1) - width
    bounds = {}
    for place in reversed(shown):
        if columns[place].yields and excess > 0:
            bounds[place] = max(wanted[place] - excess, NARROWEST * (2 if columns[place].folds else 1))
            excess -= wanted[place] - bounds[place]
    return bounds


def _width(columns: Sequence[Column], rows: Iterable[Sequence[RenderableType]], place: int) -> int:
    """Return the width of the column if nothing in it is cut."""
    return max(map(_cells, (columns[place].heading, *(row[place] for row in rows))))


def _cells(cell: RenderableType) -> int:
    return cell_len(str(cell)) if isinstance(cell, str | Text) else getattr(cell, "width", None) or NARROWEST


def facts(pairs: Iterable[tuple[str, RenderableType]]) -> Table:
    """Return names and values, one pair a line; pairs without a value are left out."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        if value not in ("", None):
            table.add_row(name, printable(value) if isinstance(value, str) else value)
    return table


def _on_one_line(cell: RenderableType) -> RenderableType:
    """Return the cell without lines of its own: a row that a text made up must not look like one of ours."""
    if isinstance(cell, str):
        return printable(cell)
    return Text(printable(cell.plain), cell.style) if isinstance(cell, Text) and "\n" in cell.plain else cell


def status(word: str, *, sign: bool = True) -> Text:
    """Return a status in its colour."""
    return Text(f"{SIGNS.get(word, '')} {word}".strip() if sign else word, STYLES.get(word, ""))


def dim(text: str) -> Text:
    """Return a text in a faint style."""
    return Text(text, "dim")


def heading(text: str) -> Text:
    """Return the title of a section."""
    return Text(text, "bold")
