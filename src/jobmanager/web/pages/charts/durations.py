"""The lengths of a job's last runs as dots, with the middle, the 95th percentile and the time-out as lines."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from markupsafe import Markup

from jobmanager.web.pages.markup import filled, joined

TOP, FLOOR, HEIGHT = 8.0, 120.0, 140
STEPS = (1, 2, 5)


class Dot(NamedTuple):
    """One run: how long it took, whether it failed, and a sentence."""

    took: timedelta
    is_failed: bool
    told: str


def percentile(lengths: Sequence[timedelta], share: float) -> timedelta | None:
    """Return the length that this share of the lengths does not exceed; None of none."""
    if not lengths:
        return None
    ordered = sorted(lengths)
    return ordered[max(0, -(-len(ordered) * int(share * 100) // 100) - 1)]


def durations_chart(
    dots: Sequence[Dot],
    *,
    p50: timedelta | None,
    p95: timedelta | None,
    timeout: timedelta | None,
    told: dict[float, str],
) -> Markup:
    """Return the chart of the runs, oldest first; `told` says the values of its grid in words."""
    longest = max((dot.took.total_seconds() for dot in dots), default=1.0)
    # A time-out far above what runs take would press them flat: it is drawn where it is near.
    near = timeout is not None and timeout.total_seconds() <= longest * 4
    top = max(longest * 1.1, timeout.total_seconds() if timeout is not None and near else 0.0, 0.001)

    def y_of(seconds: float) -> float:
        return FLOOR - (FLOOR - TOP) * min(seconds / top, 1.0)

    parts = []
    for value, words in told.items():
        if 0 <= value < top:  # the words of the time-out have no place of their own
            parts.append(_line(y_of(value)))
            parts.append(Markup('<text x="0" y="{:.1f}">{}</text>').format(y_of(value) - 3, words))
    if timeout is not None and near:
        y = y_of(timeout.total_seconds())
        parts.append(
            Markup(
                '<line class="stroke failed" stroke-dasharray="4 4" x1="0" x2="100%" y1="{0:.1f}" y2="{0:.1f}"/>'
                '<text x="0" y="{1:.1f}">timeout {2}</text>'
            ).format(y, y + 12, told.get(-1.0, ""))
        )
    parts.append(_line(FLOOR))
    step = 100 / max(len(dots), 1)
    for place, dot in enumerate(dots):
        x, y = (place + 0.5) * step, y_of(dot.took.total_seconds())
        if dot.is_failed:
            shape = '<svg x="{:.2f}%" y="{:.1f}" width="1" height="1" class="failed"><title>{}</title><path class="stroke" d="m-4-4 8 8m0-8-8 8"/></svg>'
        else:
            shape = '<circle class="good" cx="{:.2f}%" cy="{:.1f}" r="2.5"><title>{}</title></circle>'
        parts.append(filled(shape, x, y, dot.told))
    for hue, line in (("running", p50), ("late", p95)):
        if line is not None:
            parts.append(
                Markup('<line class="stroke {0}" x1="0" x2="100%" y1="{1:.1f}" y2="{1:.1f}"/>').format(
                    hue, y_of(line.total_seconds())
                )
            )
    return filled('<svg class="chart" height="{}" aria-hidden="true">{}</svg>', HEIGHT, joined(parts))


def grid(longest: timedelta) -> list[float]:
    """Return one or two round values, in seconds, below the longest."""
    seconds, size = max(longest.total_seconds(), 0.001), 0.001
    while size * 10 <= seconds:
        size *= 10
    step = max((size * factor for factor in STEPS if size * factor <= seconds), default=size)
    step = step / 2 if step * 2 > seconds else step
    return [round(step, 6), round(step * 2, 6)]


def _line(y: float) -> Markup:
    return Markup('<line x1="0" x2="100%" y1="{0:.1f}" y2="{0:.1f}"/>').format(y)
