"""The filters of the page of runs: read from the address, said as chips, and offered as facets with their counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from functools import cached_property
from operator import attrgetter
from typing import Any, NamedTuple, get_args
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from jobmanager.present.runs import STARTED_BY
from jobmanager.run import RunStatus, Trigger
from jobmanager.search import RunCount, RunCounts, RunFilter

PERIODS: Mapping[str, tuple[str, timedelta | None]] = {
    "1h": ("Last hour", timedelta(hours=1)),
    "today": ("Today", None),
    "24h": ("Last 24 hours", timedelta(hours=24)),
    "7d": ("Last 7 days", timedelta(days=7)),
    "30d": ("Last 30 days", timedelta(days=30)),
}
STATUSES = ("failed", "missed", "running", "pending", "cancelled", "skipped", "succeeded")
TEXTS = {
    "job": "job",
    "reason": "reason",
    "kind": "error_kind",
    "text": "text",
    "scope": "scope",
    "by": "requested_by",
}
FLAGS = {"late": "late", "retried": "retried", "dead": "dead"}
WORDS = {"late": "Late", "retried": "Tried again", "dead": "Dead letters"}
MOST_JOBS = 6


class Chip(NamedTuple):
    """A filter in force: what it says, and the address without it."""

    told: str
    without: str
    symbol: str = ""


class Choice(NamedTuple):
    """A value that a facet offers, and how many instants and starts it would show."""

    value: str
    told: str
    number: int
    more: bool
    chosen: bool
    query: str


@dataclass(frozen=True)
class Filters:
    """The filters that an address holds: as given, and as the manager takes them."""

    given: Sequence[tuple[str, str]]
    wanted: RunFilter
    period: str = ""

    def values(self, name: str) -> list[str]:
        """Return the values of one filter."""
        return [value for key, value in self.given if key == name]

    def value(self, name: str) -> str:
        """Return the value of a filter, empty if it is not in force."""
        return next(iter(self.values(name)), "")

    @property
    def query(self) -> str:
        """The filters as a query."""
        return urlencode(self.given)

    def without(self, name: str, value: str | None = None) -> str:
        """Return the query without a filter, or without one value of it."""
        return urlencode([pair for pair in self.given if pair[0] != name or value not in (None, pair[1])])

    def with_(self, name: str, value: str) -> str:
        """Return the query with one value of a filter, and no other value of it."""
        return urlencode([*(pair for pair in self.given if pair[0] != name), (name, value)])


def filters_of(query: QueryParams, now: datetime, zone: tzinfo) -> Filters:
    """Return the filters of an address; what cannot be meant is left out of it."""
    given: list[tuple[str, str]] = [
        ("status", status) for status in STATUSES if status in query.getlist("status")
    ]
    fields: dict[str, Any] = {"statuses": frozenset(RunStatus(status) for _, status in given)}
    for name, field in TEXTS.items():
        if text := query.get(name, "").strip():
            given.append((name, text))
            fields[field] = text
    if (trigger := query.get("trigger", "")) in get_args(Trigger):
        given.append(("trigger", trigger))
        fields["trigger"] = trigger
    for name, field in FLAGS.items():
        if query.get(name) or (name == "retried" and query.get("attempt")):
            given.append((name, "1"))
            fields[field] = True
    period = ""
    for name in ("since", "until"):
        for text in reversed(query.getlist(name)):
            moment = _start_of(text, now, zone) if name == "since" else _moment(text, zone)
            if moment is not None:
                given.append((name, text))
                fields[name] = moment
                period = text if text in PERIODS else period
                break
    if (length := _seconds(query.get("longer", ""))) is not None:
        given.append(("longer", query["longer"]))
        fields["duration"] = length
    return Filters(tuple(given), RunFilter(**fields), period)


def _start_of(text: str, now: datetime, zone: tzinfo) -> datetime | None:
    if text not in PERIODS:
        return _moment(text, zone)
    back = PERIODS[text][1]
    return (
        now.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)
        if back is None
        else now - back
    )


def _moment(text: str, zone: tzinfo) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(zone)
    except (ValueError, OverflowError):
        return None


def _seconds(text: str) -> timedelta | None:
    try:
        return timedelta(seconds=float(text)) if float(text) > 0 else None
    except (ValueError, OverflowError):
        return None


def chips_of(filters: Filters, clock: Callable[[datetime], str]) -> list[Chip]:
    """Return a chip for each value of a filter in force."""
    wanted = filters.wanted
    said: dict[str, Callable[[str], str]] = {
        "status": str.capitalize,
        "job": lambda value: f"Job {value}",
        "reason": lambda value: f"Reason {value}",
        "kind": lambda value: f"Error {value}",
        "text": lambda value: f"“{value}”",
        "scope": lambda value: f"Scope {value}",
        "by": lambda value: f"Asked for by {value}",
        "trigger": lambda value: f"Started by {STARTED_BY[value].removeprefix('by ')}",
        "since": lambda _: (
            PERIODS[filters.period][0] if filters.period else f"From {clock(_known(wanted.since))}"
        ),
        "until": lambda _: f"Until {clock(_known(wanted.until))}",
        "longer": lambda value: f"{value} s or longer",
        **{name: (lambda _, word=word: word) for name, word in WORDS.items()},  # type: ignore[misc]
    }
    return [
        Chip(said[name](value), filters.without(name, value), value if name == "status" else "")
        for name, value in filters.given
    ]


def _known(moment: datetime | None) -> datetime:
    assert moment is not None  # noqa: S101 - the chip stands for it
    return moment


class Facets:
    """What each filter offers, counted as if only the others were in force."""

    def __init__(self, counts: RunCounts, filters: Filters) -> None:
        self._counts = counts
        self._filters = filters

    @cached_property
    def statuses(self) -> list[Choice]:
        """All statuses."""
        found = self._count("status", attrgetter("status.value"))
        chosen = self._filters.values("status")
        return [self._choice("status", status, status.capitalize(), found, chosen) for status in STATUSES]

    @cached_property
    def jobs(self) -> list[Choice]:
        """The jobs with the most runs."""
        found = self._of_jobs
        names = [name for name, _ in found.most_common(MOST_JOBS)]
        return [self._choice("job", name, name, found) for name in self._and_chosen("job", names)]

    @cached_property
    def other_jobs(self) -> int:
        """How many more jobs have runs."""
        return max(0, len(self._of_jobs) - len(self.jobs))

    @cached_property
    def _of_jobs(self) -> Counter[str]:
        return self._count("job", attrgetter("job_id"))

    @cached_property
    def reasons(self) -> list[Choice]:
        """Why runs did not run, or wait."""
        found = self._count("reason", attrgetter("reason"))
        return [
            self._choice("reason", name, name, found) for name in self._and_chosen("reason", _ranked(found))
        ]

    @cached_property
    def kinds(self) -> list[Choice]:
        """The kinds of errors."""
        found = self._count("kind", attrgetter("error_kind"))
        return [self._choice("kind", name, name, found) for name in self._and_chosen("kind", _ranked(found))]

    @cached_property
    def triggers(self) -> list[Choice]:
        """Who or what started runs."""
        found = self._count("trigger", attrgetter("trigger"))
        return [
            self._choice("trigger", name, STARTED_BY.get(name, name), found)
            for name in self._and_chosen("trigger", _ranked(found))
        ]

    @cached_property
    def total(self) -> tuple[int, int, bool]:
        """Return how many rows all filters together show, for how many instants and starts, and whether there are more."""
        fitting = list(self._fitting(""))
        wanted = frozenset(self._filters.wanted.statuses) or frozenset(RunStatus)
        more = bool(self._counts.more & wanted)
        return sum(count.rows for count in fitting), sum(count.ticks for count in fitting), more

    def _and_chosen(self, name: str, values: Iterable[str]) -> list[str]:
        value = self._filters.value(name)
        found = list(values)
        return found if not value or value in found else [value, *found]

    def _choice(
        self, name: str, value: str, told: str, found: Counter[str], chosen: Sequence[str] | None = None
    ) -> Choice:
        chosen = self._filters.values(name) if chosen is None else chosen
        wanted = (
            {RunStatus(value)}
            if name == "status"
            else frozenset(self._filters.wanted.statuses) or frozenset(RunStatus)
        )
        is_chosen = value in chosen
        query = self._filters.without(name) if is_chosen else self._filters.with_(name, value)
        return Choice(value, told, found[value], bool(self._counts.more & wanted), is_chosen, query)

    def _count(self, name: str, value: Callable[[RunCount], str | None]) -> Counter[str]:
        found: dict[str, int] = {}
        for count in self._fitting(name):
            if (said := value(count)) is not None:
                found[said] = found.get(said, 0) + count.ticks
        return Counter(found)

    def _fitting(self, but: str) -> Iterable[RunCount]:
        """Return the counts that fit the other filters than this one."""
        wanted = self._filters.wanted
        filters = {
            "job_id": None if but == "job" else wanted.job,
            "reason": None if but == "reason" else wanted.reason,
            "error_kind": None if but == "kind" else wanted.error_kind,
            "trigger": None if but == "trigger" else wanted.trigger,
        }
        found: Iterable[RunCount] = self._counts.counts
        if wanted.statuses and but != "status":
            found = [count for count in found if count.status in wanted.statuses]
        for name, value in filters.items():
            if value is not None:
                found = [count for count in found if getattr(count, name) == value]
        return found


def _ranked(found: Counter[str]) -> list[str]:
    return [name for name, _ in found.most_common()]
