"""How all jobs stand, the gravest trouble first: kept for a moment for each part of the record that a visitor may see."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from jobmanager import RunFilter
from jobmanager.access.acting import current
from jobmanager.access.principal import ADMIN
from jobmanager.ledger.standing import Standing
from jobmanager.ledger.statistics import JobTotals
from jobmanager.present.condition import ORDER, Condition, condition_at_a_glance
from jobmanager.web.site import Site

FRESH = 2.0
"""Seconds for which it is kept."""
HANDLERS_FRESH = 30.0
"""Seconds for which it says well enough which handlers no process has."""
TOTALS_FRESH = 60.0
"""Seconds for which the sums over a week are kept."""
SOON = timedelta(hours=1)
OF_LATE = timedelta(hours=24)
MOST_DEAD = 1_000


@dataclass(frozen=True)
class Entry:
    """A job among all."""

    standing: Standing
    condition: Condition
    dead: Sequence[str] = ()
    """The ids of its failed runs of the last 24 hours that nobody saw to, those of one error together."""

    @property
    def id(self) -> str:
        """Its id."""
        return self.standing.id

    def is_found_by(self, text: str) -> bool:
        """Whether id, name or handler contain the text, in small letters."""
        standing = self.standing
        return any(text in value.lower() for value in (standing.id, standing.name, standing.handler))


@dataclass(frozen=True)
class Board:
    """All jobs that a visitor sees, sorted by trouble and then by id, as they stood `at` a moment."""

    at: datetime
    entries: Sequence[Entry]

    @cached_property
    def active(self) -> int:
        """How many are active."""
        return sum(entry.standing.state == "active" for entry in self.entries)

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """How many jobs each filter shows."""
        return {health: len(self.which(health)) for health in FILTERS}

    @property
    def in_trouble(self) -> list[Entry]:
        """Those that need a person."""
        return [entry for entry in self.entries if entry.condition.needs_attention]

    def which(self, health: str) -> list[Entry]:
        """Return the jobs that a filter of `FILTERS` shows; all for another word."""
        wanted = FILTERS.get(health)
        return [entry for entry in self.entries if wanted is None or wanted(entry, self.at)]


def _is(word: str) -> Callable[[Entry, datetime], bool]:
    return lambda entry, _: entry.condition.word == word


def _is_due_soon(entry: Entry, now: datetime) -> bool:
    due = entry.standing.next_due
    return due is not None and due - now <= SOON


FILTERS: Mapping[str, Callable[[Entry, datetime], bool]] = {
    "attention": lambda entry, _: entry.condition.needs_attention,
    "failing": lambda entry, _: entry.condition.word in ("failed", "recovered"),
    "missed": _is("missed"),
    "late": _is("late"),
    "handler-missing": _is("missing"),
    "running": lambda entry, _: entry.standing.runs.running > 0,
    "paused": _is("paused"),
    "disabled": _is("disabled"),
    "never-ran": lambda entry, _: not entry.standing.runs.ran and entry.standing.state == "active",
    "due-within-1-h": _is_due_soon,
}


def board_of(site: Site, *, fresh: float = FRESH) -> Board:
    """Return the board of the visitor for whom this is called, after so many seconds read anew; see `Cached`."""
    return site.cached.get(("board", seen_by()), fresh, lambda: _taken(site))


def totals_of(site: Site, job_ids: Sequence[str]) -> Mapping[str, JobTotals]:
    """Return what the runs of these jobs came to over a week, after a minute read anew."""
    key = "totals", seen_by(), tuple(job_ids)
    return site.cached.get(key, TOTALS_FRESH, lambda: site.jobs.totals(job_ids, "7d"))


def seen_by() -> Hashable:
    """Return what the visitor sees, as a key: what one may not see must never come from what is kept for another."""
    principal = current().principal
    if principal is None:
        return None
    scopes = None if principal.scopes is None else frozenset(principal.scopes)
    return principal.may(ADMIN), scopes


def _taken(site: Site) -> Board:
    now = site.now()
    dead: dict[str, list[str]] = {}
    for letters in site.jobs.dead_letters_by_error(RunFilter(since=now - OF_LATE), limit=MOST_DEAD):
        dead.setdefault(letters.job_id, []).extend(letters.run_ids)
    entries = [
        Entry(
            standing,
            condition_at_a_glance(standing, dead=len(dead.get(standing.id, ()))),
            tuple(dead.get(standing.id, ())),
        )
        for standing in site.jobs.standings()
    ]
    entries.sort(key=lambda entry: (ORDER.index(entry.condition.word), entry.id))
    return Board(now, entries)
