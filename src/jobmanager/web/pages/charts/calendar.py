"""The calendar of a job: a row for each day, a column for each hour, and in each cell what became of what was due."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache, lru_cache

from markupsafe import Markup

from jobmanager.present.condition import Outcome
from jobmanager.web.pages.markup import filled, joined

HOURS, WIDTH, ROW, HEAD = 24, 100 / 24, 18, 18
GRAVITY: tuple[str, ...] = (
    "failed",
    "missed",
    "cancelled",
    "skipped",
    "running",
    "pending",
    "late",
    "succeeded",
    "due",
)
_INV = '<svg x="{x:.2f}%" y="{y}" width="1" height="1"><path class="inv" d="m-3-3 6 6m0-6-6 6"/></svg>'
_SHAPES: Mapping[str, str] = {
    "succeeded": '<rect class="good" x="{x:.2f}%" y="{y_good}" width="9" height="9" rx="2" transform="translate(-4.5 0)"/>',
    "late": '<rect class="good" x="{x:.2f}%" y="{y_good}" width="9" height="9" rx="2" transform="translate(-4.5 0)"/>'
    '<rect class="mark" x="{x:.2f}%" y="{y_cap}" width="9" height="3" transform="translate(-4.5 0)"/>',
    "failed": '<rect class="mark" x="{x:.2f}%" y="{y_bad}" width="16" height="16" rx="3" transform="translate(-8 0)"/>'
    + _INV,
    "missed": '<rect class="hollow" x="{x:.2f}%" y="{y_frame}" width="14.5" height="14.5" rx="3" transform="translate(-7.25 0)"/>'
    '<text x="{x:.2f}%" y="{y_text}" text-anchor="middle">!</text>',
    "skipped": '<rect class="mark" x="{x:.2f}%" y="{y_dash}" width="10" height="2" transform="translate(-5 0)"/>',
    "cancelled": '<rect class="hollow" x="{x:.2f}%" y="{y_good}" width="8" height="8" rx="1" transform="translate(-4 0)"/>',
    "running": '<rect class="mark live" x="{x:.2f}%" y="{y_good}" width="9" height="9" rx="2" transform="translate(-4.5 0)"/>',
    "pending": '<circle class="hollow" cx="{x:.2f}%" cy="{y}" r="2.5"/>',
    "due": '<circle class="hollow" cx="{x:.2f}%" cy="{y}" r="2"/>',
}


@dataclass(frozen=True, slots=True)
class Cell:
    """What was due in one hour of a day: the worst outcome, how many instants there were, a sentence, and where more is said."""

    outcome: Outcome | str
    count: int
    told: str
    link: str


def worst(outcomes: Collection[str]) -> str:
    """Return the gravest of these outcomes, of which there is at least one."""
    return min(outcomes, key=GRAVITY.index)


def calendar_chart(days: Sequence[date], cells: Mapping[tuple[date, int], Cell]) -> Markup:
    """Return the calendar of these days, oldest first; an hour without a cell had nothing due."""
    parts = [_hours()]
    by_place = {(day.toordinal(), hour): cell for (day, hour), cell in cells.items()}
    for row, day in enumerate(days):
        y, number = HEAD + row * ROW + ROW // 2, day.toordinal()
        for hour in range(HOURS):
            x, cell = (hour + 0.5) * WIDTH, by_place.get((number, hour))
            parts.append(_nothing(x, y) if cell is None else _cell(cell, x, y))
    height = HEAD + ROW * len(days)
    return filled('<svg class="chart" height="{}" aria-hidden="true">{}</svg>', height, joined(parts))


@cache
def _hours() -> Markup:
    return joined(
        filled('<text x="{:.2f}%" y="10">{:02}</text>', hour * WIDTH + 0.4, hour)
        for hour in range(0, HOURS, 3)
    )


@lru_cache(maxsize=1024)
def _nothing(x: float, y: int) -> Markup:
    return filled('<circle class="base" cx="{:.2f}%" cy="{}" r=".75"/>', x, y)


@lru_cache(maxsize=4096)
def _shape(outcome: str, x: float, y: int) -> Markup:
    places = {
        "x": x, "y": y, "y_good": y - 4.5, "y_cap": y - 8, "y_bad": y - 8, "y_frame": y - 7.25, "y_text": y + 4, "y_dash": y - 1,
    }  # fmt: skip
    return Markup(_SHAPES[outcome].format(**places))  # noqa: S704 - numbers alone


def _cell(cell: Cell, x: float, y: int) -> Markup:
    return filled(
        '<a href="{}" tabindex="-1" class="{}"><title>{}</title>'
        '<rect x="{:.2f}%" y="{}" width="4.167%" height="18" fill="transparent"/>{}</a>',
        cell.link,
        "pending" if cell.outcome == "due" else cell.outcome,
        cell.told,
        x - WIDTH / 2,
        y - ROW // 2,
        _shape(cell.outcome, x, y),
    )
