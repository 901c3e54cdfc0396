"""The rows of the page of all jobs. Fifty of them are most of that page, and a template takes three times as long for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote

from markupsafe import Markup, escape

from jobmanager.ledger.statistics import JobTotals
from jobmanager.present.condition import LATE_AFTER, Instant, Outcome, outcome_of
from jobmanager.present.phrases import share
from jobmanager.present.preview import in_words
from jobmanager.schedule import Cron, Schedule
from jobmanager.web.pages.markup import button, hidden, icon, joined
from jobmanager.web.pages.strip import strip
from jobmanager.web.pages.times import NONE, Times

if TYPE_CHECKING:
    from jobmanager.ledger.job_view import JobView
    from jobmanager.run import Run
    from jobmanager.web.pages.board import Entry


@dataclass(frozen=True)
class Row:
    """A job on the page: how it stands, what it is, its last instants newest first, and its runs of a week."""

    entry: Entry
    view: JobView
    instants: Sequence[Instant]
    totals: JobTotals | None

    @property
    def newest(self) -> Instant | None:
        """Its newest instant."""
        return self.instants[0] if self.instants else None

    @cached_property
    def run(self) -> Run | None:
        """The run of the newest instant, or the newest by hand of a job that has no instant."""
        if not self.instants:
            return self.view.last
        instant = self.instants[0].scheduled_for
        return next((run for run in self.view.latest if run.scheduled_for == instant), None)


@dataclass(frozen=True)
class Written:
    """Rows as markup for one visitor: below the mount `at`, with the token of its forms, in its times, on the page `here`."""

    at: str
    token: str
    here: str
    times: Times
    may_write: bool

    def rows(self, rows: Sequence[Row]) -> Markup:
        """Return the rows of a table."""
        return joined([self._row(row) for row in rows])

    def _row(self, row: Row) -> Markup:
        view, symbol, t = row.view, row.entry.condition.symbol, self.times
        id_, path, name = escape(view.id), f"/jobs/{quote(view.id)}", view.name
        named = f"<small>{escape(name)}</small>" if name != view.id else ""
        overridden = view.row is not None and bool(view.row.override)
        stored = view.source == "stored"
        return Markup(  # noqa: S704 - what is a text is escaped
            f'<tr role="row" id="job-{id_}" data-live="job run"><th role="rowheader" scope="row"><div class="row">'
            f'{icon(symbol, symbol)}<a href="{escape(self.at)}{path}"><b>{id_}</b></a></div>{named}</th>\n'
            f'<td role="cell" class="w2 full">{_schedule(view.schedule, view.on, t.zone, overridden=overridden, stored=stored)}</td>\n'
            f'<td role="cell" class="full nw">{strip(row.instants, t, late_after=LATE_AFTER)}</td>\n'
            f'<td role="cell" class="top">{_last(row, t)}</td>\n'
            f'<td role="cell" class="off">{_next(view, t)}</td>\n'
            f'<td role="cell" class="num w3">{_usual(row.totals, t)}</td>\n'
            f'<td role="cell" class="acts off w3">{self._actions(view, path) if self.may_write else ""}</td></tr>\n'
        )

    def _actions(self, view: JobView, path: str) -> str:
        state, id_ = view.state, view.id
        parts: list[Markup] = []
        if state != "disabled":
            run = f"{path}/run", f"Run {id_} now"
            parts.append(self._button(*run, "play", self._hidden))
        if state in ("active", "paused"):
            verb, symbol = ("Resume", "resume") if state == "paused" else ("Pause", "paused")
            parts.append(
                self._button(f"{path}/{verb.lower()}", f"{verb} {id_}", symbol, self._hidden_and_back)
            )
        return "".join(parts)

    def _button(self, action: str, told: str, symbol: str, inputs: Markup) -> Markup:
        return button(self.at, "", action, "", symbol, quiet=True, told=told, inputs=inputs)

    @cached_property
    def _hidden(self) -> Markup:
        return hidden({"token": self.token})

    @cached_property
    def _hidden_and_back(self) -> Markup:
        return hidden({"token": self.token, "back": self.here})


@lru_cache(maxsize=4096)  # saying a line of cron in words takes longer than the rest of its row
def _schedule(
    schedule: Schedule | None, on: str | None, zone: tzinfo, *, overridden: bool, stored: bool
) -> Markup:
    """Return a schedule in words, and the line it was written as; its zone where that is not the reader's."""
    line = ""
    if isinstance(schedule, Cron):
        line = f'<code class="nw">{escape(schedule.expression)}</code>'
        line += f" {escape(schedule.timezone)}" if schedule.timezone != str(zone) else ""
    line += ' <span class="tag">overridden</span>' if overridden else ""
    line += ' <span class="tag">stored</span>' if stored else ""
    opened = '<span class="nw">' if schedule else "<span>"
    return Markup(f'{opened}{escape(in_words(schedule, on))}</span><small class="nw">{line}</small>')  # noqa: S704 - what is a text is escaped


def _last(row: Row, t: Times) -> str:
    """Return what became of the newest instant of a row, and one fact about it."""
    instant, run = row.newest, row.run
    if instant is not None:
        outcome = outcome_of(instant)
        told = "Succeeded late" if outcome == "late" else outcome.capitalize()
        return _status(outcome, told, t.at(instant.scheduled_for), _fact(row, instant, outcome, t))
    if run is None:
        return f'<span class="st never">{icon("never")}Never ran</span>'
    word, by = run.status.value, f", by {run.requested_by}" if run.requested_by else ""
    return _status(word, word.capitalize(), t.at(run.instant), f"by hand{by}")


def _status(word: str, told: str, at: Markup, fact: str) -> str:
    return f'<span class="st {word}">{icon(word)}{told} {at}</span><small>{escape(fact)}</small>'


def _fact(row: Row, instant: Instant, outcome: Outcome, t: Times) -> str:
    run, began, ended = row.run, instant.started_at, instant.finished_at
    if outcome == "late" and began is not None:
        return f"{t.length(began - instant.scheduled_for)} late"
    if outcome == "failed" and run is not None and run.error is not None:
        return run.error.type or run.error.kind
    if outcome == "running":
        done = run.progress if run is not None else None
        if done is not None and done.total:
            return f"{done.processed:,} of {done.total:,}"
        return t.length(t.now - began) if began is not None else ""
    if outcome == "pending":
        return f"attempt {run.next_attempt} at {t.clock(run.due_at)}" if run is not None else ""
    if outcome == "skipped" and instant.reason == "paused" and row.view.row and row.view.row.state_by:
        return f"paused by {row.view.row.state_by}"
    if outcome == "succeeded":
        attempts = f"{run.attempt} attempts, " if run is not None and run.attempt > 1 else ""
        return attempts + (t.length(ended - began) if began is not None and ended is not None else "")
    return instant.reason or ""


def _next(view: JobView, t: Times) -> str:
    """Return when a job is due next, or why it is not."""
    if view.next_run is not None:
        return f'<span class="nw">{t.at(view.next_run)}</span><small>{t.ago(view.next_run)}</small>'
    why = view.state
    if why == "paused":
        why = "when resumed"
    elif why == "active":
        why = "ended" if view.ended else "by hand"
    return f"{NONE}<small>{escape(why)}</small>"


def _usual(totals: JobTotals | None, t: Times) -> str:
    """Return how long the runs of a week took, and how many went well."""
    if totals is None:
        return NONE
    took = t.length(totals.duration.p95) if totals.duration else NONE
    good = totals.share_good
    return took if good is None else f"{took}<small>{share(good)} good</small>"
