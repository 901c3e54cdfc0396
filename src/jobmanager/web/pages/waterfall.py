"""The attempts and the steps of a run on one scale of time: what it waited for, and how long its handler worked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from markupsafe import Markup

from jobmanager.present.phrases import length
from jobmanager.present.steps import WAITS
from jobmanager.run import SUSPENDED, Attempt, Run, RunStatus
from jobmanager.step import Step
from jobmanager.web.pages.times import Times

STEPS = (
    0.1,
    0.2,
    0.5,
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    900,
    1800,
    3600,
    7200,
    10800,
    21600,
    43200,
    86400,
)
MOST_TICKS = 5
LIMITED = frozenset({"waiting", "children"})
"""Reasons of a pending run that is due only at the latest: the picture ends now, not there."""
Call = tuple[datetime, datetime]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One attempt: since when it was waited for, when its last call of the handler began and ended, and as what.

    `calls` are the earlier calls of the handler, each of which ended because the run rested in a step.
    """

    number: int
    owner: str
    waited_from: datetime
    began: datetime | None
    ended: datetime | None
    status: str
    told: str
    is_retry: bool
    calls: Sequence[Call] = ()

    @property
    def first(self) -> datetime | None:
        """When the handler was called first."""
        return self.calls[0][0] if self.calls else self.began

    @property
    def waited(self) -> timedelta | None:
        """The time until the first call."""
        return None if self.first is None else max(timedelta(0), self.first - self.waited_from)

    @property
    def worked(self) -> Sequence[Call]:
        """From when to when the handler worked."""
        if self.began is None or self.ended is None:
            return self.calls
        return (*self.calls, (self.began, self.ended))

    @property
    def took(self) -> timedelta | None:
        """The time that the handler worked, without the rests between."""
        return sum((ended - began for began, ended in self.worked), timedelta(0)) if self.worked else None


@dataclass(frozen=True)
class Scale:
    """From when to when the picture goes."""

    start: datetime
    end: datetime

    def at(self, moment: datetime) -> float:
        """Return where a moment is, in per cent."""
        share = (moment - self.start) / max(self.end - self.start, timedelta(milliseconds=1))
        return min(100.0, max(0.0, 100 * share))

    @property
    def ticks(self) -> list[datetime]:
        """Return the moments that are marked."""
        total = (self.end - self.start).total_seconds()
        days = next((step for step in STEPS if total / step <= MOST_TICKS), None)
        step = days if days is not None else -(-total // (MOST_TICKS * 86_400)) * 86_400
        return (
            [self.start + timedelta(seconds=step * place) for place in range(int(total // step) + 1)]
            if total
            else [self.start]
        )


def bars_of(run: Run, attempts: Sequence[Attempt], hosts: Mapping[str, str], now: datetime) -> list[Bar]:
    """Return a bar for each start of a run, the last one being of the run itself."""
    bars: list[Bar] = []
    calls: list[Call] = []
    waited_from = run.instant
    for attempt in attempts:
        if attempt.outcome in SUSPENDED and attempt.started_at is not None:
            calls.append((attempt.started_at, attempt.ended_at))
            continue
        kind = attempt.error.kind if attempt.error else ""
        bars.append(
            Bar(
                number=attempt.attempt,
                owner=hosts.get(attempt.owner or "", attempt.owner or ""),
                waited_from=waited_from,
                began=attempt.started_at,
                ended=attempt.ended_at,
                status=_status_of(attempt.outcome),
                told=kind or attempt.outcome,
                is_retry=bool(bars),
                calls=tuple(calls),
            )
        )
        calls.clear()
        waited_from = attempt.ended_at
    began = run.started_at if run.started_at and run.started_at >= waited_from else None
    if began is None and run.status.closed and not calls:
        return bars
    ended = run.finished_at if run.status.closed else (now if began else None)
    bars.append(
        Bar(
            number=run.attempt if began else run.next_attempt,
            owner=hosts.get(run.owner or "", run.owner or ""),
            waited_from=waited_from,
            began=began,
            ended=ended,
            status=run.status.value,
            told=run.error.kind if run.error and run.status is RunStatus.FAILED else run.status.value,
            is_retry=bool(bars),
            calls=tuple(calls),
        )
    )
    return bars


def _status_of(outcome: str) -> str:
    return outcome if outcome in tuple(RunStatus) else "pending"


def scale_of(run: Run, bars: Sequence[Bar], now: datetime) -> Scale:
    """Return the scale on which all bars have room."""
    moments = [
        moment for bar in bars for moment in (bar.waited_from, bar.first, bar.ended) if moment is not None
    ]
    if not run.status.closed:
        moments.append(now)
        if run.reason not in LIMITED:
            moments.append(run.due_at)
    start = min(moments, default=run.instant)
    return Scale(start, max(moments, default=start))


def axis(scale: Scale, times: Times) -> Markup:
    """Return the head of the column: the first moment, and distances from it."""
    texts = [
        Markup('<text x="{:.2f}%" y="11">{}</text>').format(
            scale.at(tick),
            times.clock(tick, seconds=scale.end - scale.start < timedelta(minutes=1))
            if place == 0
            else f"+{length(tick - scale.start)}",
        )
        for place, tick in enumerate(scale.ticks)
        if place == 0 or scale.at(tick) < 92
    ]
    return Markup('<svg class="chart" height="14" aria-hidden="true">{}</svg>').format(Markup("").join(texts))


def waterfall(bar: Bar, scale: Scale, now: datetime) -> Markup:
    """Return the picture of one attempt: dotted while it waited, solid while the handler worked, hollow if its process died."""
    lines = _lines(scale)
    to = bar.began or (bar.ended if bar.ended and bar.calls else max(now, bar.waited_from))
    waits = _waits(scale, bar.waited_from, to)
    works = Markup("").join(
        _works(scale, began, ended, f"attempt {bar.number}: {length(ended - began)}, {told}", status, shape)
        for began, ended, told, status, shape in _looks(bar)
    )
    return _picture(lines, waits, works)


def _looks(bar: Bar) -> Iterator[tuple[datetime, datetime, str, str, str]]:
    for began, ended in bar.calls:
        yield began, ended, "then it rested", "succeeded", "mark"
    if bar.began is not None and bar.ended is not None:
        shape = "hollow" if bar.told == "crashed" else "mark live" if bar.status == "running" else "mark"
        yield bar.began, bar.ended, bar.told, bar.status, shape


def step_picture(step: Step, scale: Scale, now: datetime) -> Markup:
    """Return the picture of one step: dotted while it waited, solid from its first try to its end."""
    end = step.ended_at or now
    if step.kind in WAITS or not step.is_done:
        until = step.wakes_at if step.kind == "sleep" and not step.is_done else None
        return _picture(_lines(scale), _waits(scale, step.started_at, until or end), Markup(""))
    told = f"{step.name}: {length(end - step.started_at)}, {step.status}"
    return _picture(_lines(scale), Markup(""), _works(scale, step.started_at, end, told, step.status, "mark"))


def _lines(scale: Scale) -> Markup:
    return Markup("").join(
        Markup('<line x1="{0:.2f}%" x2="{0:.2f}%" y1="-14" y2="22"/>').format(scale.at(tick))
        for tick in scale.ticks
    )


def _waits(scale: Scale, since: datetime, until: datetime) -> Markup:
    if until <= since:
        return Markup("")
    return Markup(
        '<g class="pending"><title>waits {}</title><line class="stroke pending" stroke-dasharray="2 3" x1="{:.2f}%" x2="{:.2f}%" y1="10" y2="10"/></g>'
    ).format(length(until - since), scale.at(since), scale.at(until))


def _works(scale: Scale, began: datetime, ended: datetime, told: str, status: str, shape: str) -> Markup:
    begin = scale.at(began)
    return Markup(
        '<g class="{}"><title>{}</title><rect class="{}" x="{:.2f}%" y="4" width="{:.2f}%" height="12" rx="2"/></g>'
    ).format(status, told, shape, min(begin, 99.5), max(0.5, scale.at(ended) - begin))


def _picture(*parts: Markup) -> Markup:
    return Markup('<svg class="chart" height="20" aria-hidden="true">{}</svg>').format(Markup("").join(parts))
