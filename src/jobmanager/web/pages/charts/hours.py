"""Due instants by the hour of a day: volume as pale bars, and a lane with its count for each kind of trouble."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

HOURS, WIDTH = 24, 100 / 24
TOP, FLOOR, LANE, HEIGHT = 18.0, 72.0, 20, 172
LANES = ("failed", "missed", "late", "skipped")
EVERY = 3


@dataclass(frozen=True, slots=True)
class Hour:
    """What was due in an hour of the day: how many instants, and how many of them ended in each way; `link` shows those of a lane."""

    hour: int
    due: int = 0
    failed: int = 0
    missed: int = 0
    late: int = 0
    skipped: int = 0

    def count(self, lane: str) -> int:
        """Return the count of one lane."""
        return int(getattr(self, lane))

    @property
    def told(self) -> str:
        """The hour in words: `04:00 to 05:00: 82 due, 1 failed`."""
        parts = [f"{self.count(lane)} {lane}" for lane in LANES if self.count(lane)]
        return f"{self.span}: {', '.join([f'{self.due} due', *parts])}"

    @property
    def span(self) -> str:
        """Its beginning and end: `04:00 to 05:00`."""
        return f"{self.hour:02}:00 to {(self.hour + 1) % HOURS:02}:00"


def hours_chart(hours: Sequence[Hour], *, now: int, links: Sequence[Sequence[str]]) -> Markup:
    """Return the chart of the hours of a day up to `now`, in minutes since midnight; `links` has for each hour an address for each lane."""
    most = max((hour.due for hour in hours), default=0)
    top = _nice(most)
    parts = [*_grid(top)]
    for hour in hours:
        parts += _bar(hour, top)
    parts += [_label(hour) for hour in range(0, HOURS, EVERY)]
    for place, lane in enumerate(LANES):
        y = FLOOR + 1 + place * LANE
        parts.append(_line(y))
        parts += [
            _mark(hour, lane, y, address[place])
            for hour, address in zip(hours, links, strict=True)
            if hour.count(lane)
        ]
    x = min(now / 60, HOURS) * WIDTH
    parts.append(
        Markup('<line class="stroke running" x1="{0:.2f}%" x2="{0:.2f}%" y1="4" y2="72"/>').format(x)
    )
    at = f"{now // 60:02}:{now % 60:02}"
    # Late in the day the words stand before the line, or they would leave the chart.
    side = ("end", x - 0.6) if now > HOURS * 51 else ("start", x + 0.6)
    parts.append(Markup('<text x="{1:.2f}%" y="14" text-anchor="{0}">now {2}</text>').format(*side, at))
    return Markup('<svg class="chart" height="{}" aria-hidden="true">{}</svg>').format(
        HEIGHT, Markup("").join(parts)
    )


def _nice(most: int) -> int:
    """Return the first of 2, 4, 10, 20, 40, 100, ... that is not below: half of it is whole too."""
    size = 1
    while True:
        for step in (2, 4, 10):
            if most <= step * size:
                return step * size
        size *= 10


def _grid(top: int) -> list[Markup]:
    lines = []
    for value in (top // 2, top):
        y = FLOOR - (FLOOR - TOP) * value / top
        lines.append(_line(y))
        lines.append(Markup('<text x="100%" y="{:.1f}" text-anchor="end">{:,}</text>').format(y - 3, value))
    return lines


def _line(y: float) -> Markup:
    return Markup('<line x1="0" x2="100%" y1="{0:.1f}" y2="{0:.1f}"/>').format(y)


def _bar(hour: Hour, top: int) -> list[Markup]:
    if not hour.due:
        return []
    height = max((FLOOR - TOP) * hour.due / top, 2)
    return [
        Markup(
            '<g><title>{0}</title><rect class="vol" x="{1:.2f}%" y="{2:.1f}" width="3.17%" height="{3:.1f}"/>'
            '<rect class="edge" x="{1:.2f}%" y="{2:.1f}" width="3.17%" height="2"/></g>'
        ).format(hour.told, hour.hour * WIDTH + 0.5, FLOOR - height, height)
    ]


def _label(hour: int) -> Markup:
    return Markup('<text x="{:.2f}%" y="168">{:02}:00</text>').format(hour * WIDTH + 0.4, hour)


def _mark(hour: Hour, lane: str, y: float, address: str) -> Markup:
    x, count = (hour.hour + 0.5) * WIDTH, hour.count(lane)
    width = 10 + 6 * max(1, len(f"{count:,}"))
    if lane == "failed":
        shape = Markup(
            '<rect class="mark" x="{0:.2f}%" y="{1:.0f}" width="{2}" height="16" rx="3" transform="translate(-{3} 0)"/>'
            '<text class="n" x="{0:.2f}%" y="{4:.0f}" text-anchor="middle">{5:,}</text>'
        ).format(x, y + 2, width, width // 2, y + 14, count)
    elif lane == "missed":
        shape = Markup(
            '<rect class="hollow" x="{0:.2f}%" y="{1:.0f}" width="{2}" height="15" rx="3" transform="translate(-{3} 0)"/>'
            '<text x="{0:.2f}%" y="{4:.0f}" text-anchor="middle">{5:,}</text>'
        ).format(x, y + 3, width, width // 2, y + 14, count)
    else:
        shape = Markup(
            '<text x="{0:.2f}%" y="{1:.0f}" text-anchor="middle">{2:,}</text>'
            '<line class="stroke" x1="{3:.2f}%" x2="{4:.2f}%" y1="{5:.1f}" y2="{5:.1f}"/>'
        ).format(x, y + 14, count, x - 0.8, x + 0.8, y + 17.5)
    return Markup('<a class="{}" href="{}" tabindex="-1"><title>{}: {} {}</title>{}</a>').format(
        lane, address, hour.span, count, lane, shape
    )
