"""The next instants on a logarithmic axis, from half a minute to a day."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from math import log
from typing import NamedTuple

from markupsafe import Markup

FIRST, LAST = 30.0, 86_400.0
MARKS = ((60, "1 min"), (600, "10 min"), (3_600, "1 h"), (21_600, "6 h"))
NEAR = 1.5
"""Dots that are not this many per cent apart stand above each other."""
MOST_ABOVE = 2


class Dot(NamedTuple):
    """One instant: when, in words, and whether it is a further attempt."""

    at: datetime
    told: str
    is_retry: bool = False


def axis_chart(dots: Sequence[Dot], now: datetime) -> Markup:
    """Return the chart of the instants, the soonest first; what is beyond a day stands at its end."""
    parts = [Markup('<line x1="0" x2="100%" y1="22.5" y2="22.5"/>')]
    for seconds, told in MARKS:
        parts.append(
            Markup(
                '<line x1="{0:.1f}%" x2="{0:.1f}%" y1="18" y2="27"/><text x="{0:.1f}%" y="40" text-anchor="middle">{1}</text>'
            ).format(_place(timedelta(seconds=seconds)), told)
        )
    parts.append(Markup('<text x="100%" y="40" text-anchor="end">1 d</text>'))
    before, level = -100.0, 0
    for dot in dots:
        x = _place(dot.at - now)
        level = min(level + 1, MOST_ABOVE) if x - before < NEAR else 0
        before = x
        parts.append(
            Markup(
                '<g class="{}"><title>{}</title><circle class="{}" cx="{:.1f}%" cy="{}" r="4"/></g>'
            ).format(
                "late" if dot.is_retry else "running",
                dot.told,
                "hollow" if dot.is_retry else "mark",
                x,
                22.5 - 9 * level,
            )
        )
    return Markup('<svg class="chart" height="44" aria-hidden="true">{}</svg>').format(Markup("").join(parts))


def _place(distance: timedelta) -> float:
    """Return the place of a distance in per cent."""
    seconds = min(max(distance.total_seconds(), FIRST), LAST)
    return log(seconds / FIRST) / log(LAST / FIRST) * 100
