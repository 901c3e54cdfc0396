"""The strip: what became of a job's last due instants, as one small picture in which height is trouble."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache

from markupsafe import Markup

from jobmanager.present.condition import Instant, outcome_of
from jobmanager.web.pages.markup import filled
from jobmanager.web.pages.times import Times

CELLS, WIDTH, STEP, HEIGHT = 30, 5, 7, 20
_SHAPES = {
    "late": '<rect class="mark" x="{0}" y="8" width="5" height="3"/>',
    "failed": '<rect class="mark" x="{0}" y="0" width="5" height="20" rx="1"/>',
    "missed": '<rect class="hollow" x="{1}" y="0.75" width="3.5" height="18.5"/>',
    "skipped": '<rect class="mark" x="{0}" y="17" width="5" height="2"/>',
    "cancelled": '<rect class="hollow" x="{1}" y="10" width="3.5" height="9.25"/>',
    "running": '<rect class="mark live" x="{0}" y="5" width="5" height="15"/>',
    "pending": '<circle class="hollow" cx="{2}" cy="17" r="2"/>',
}


def strip(instants: Sequence[Instant], times: Times, *, late_after: timedelta) -> Markup:
    """Return the strip of the instants, given newest first; without one, the bare line."""
    shown = instants[CELLS - 1 :: -1]
    outcomes = tuple([outcome_of(instant, late_after) for instant in shown])
    first = CELLS - len(shown)
    others: list[Markup] = []
    for place, outcome in enumerate(outcomes):
        if outcome != "succeeded":
            instant, x = shown[place], (first + place) * STEP
            title = f"{times.clock(instant.scheduled_for)} {outcome}" + (
                f" ({instant.reason})" if instant.reason else ""
            )
            shape = filled(_SHAPES[outcome], x, x + 0.75, x + 2.5)
            others.append(filled('<g class="{}"><title>{}</title>{}</g>', outcome, title, shape))
    return Markup("").join((_opened(outcomes), *others, _END))


_END = Markup("</svg>")


@lru_cache(maxsize=1024)
def _opened(outcomes: Sequence[str]) -> Markup:
    """Return the beginning of a strip: what it says to those who do not see it, and what went well. Strips of many jobs begin alike."""
    first = CELLS - len(outcomes)
    good = "".join(
        f"M{place * STEP} 13h5v7h-5z"
        for place, outcome in enumerate(outcomes, start=first)
        if outcome in ("succeeded", "late")
    )
    return filled(
        '<svg class="strip" width="208" height="20" role="img" aria-label="{}">'
        '<line class="base" x1="0" x2="208" y1="20.5" y2="20.5"/>{}',
        _told(outcomes),
        filled('<path class="good" d="{}"/>', good) if good else "",
    )


def _told(outcomes: Sequence[str]) -> str:
    if not outcomes:
        return "No instant was due yet."
    counts = Counter(outcomes)
    parts = [
        f"{counts[outcome]} {outcome}" for outcome in sorted(counts, key=lambda word: word == "succeeded")
    ]
    return f"Last {len(outcomes)} due: {', '.join(parts)}."
