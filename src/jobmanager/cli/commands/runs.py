"""`jobmanager runs` and `cancel`: the outcome of ticks and of starts by hand, and ending a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, get_args

import click

from jobmanager.cli.arguments import moment
from jobmanager.cli.output.failures import ConflictError, UsageError
from jobmanager.cli.session import Session
from jobmanager.cli.verbs import Verbs, verb
from jobmanager.clock import SystemClock
from jobmanager.present.phrases import both, clock, compact, continued, distance, length, tail
from jobmanager.present.records import run_record
from jobmanager.present.steps import MOST_COUNTED, whole_run_record
from jobmanager.run import SUSPENDED
from jobmanager.validation.printable import printable, printable_json

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from jobmanager.manager.manager import JobManager
    from jobmanager.run import Attempt, LogLine, Progress, Run

runs = Verbs("runs", help="The runs: list, show.", default=["list"])
RUN_ID = click.argument("run", metavar="RUN", help="Its id, or the end of it.")
LOOK_EVERY_SECONDS = 1.0
LINES_SHOWN = 20
PAGE, MOST_LOOKED_AT = 1000, 20_000


def find(manager: JobManager, run_id: str) -> Run:
    """Return the run with this id, or whose id ends so; RunNotFoundError."""
    return manager.run(run_id.strip().lower())


# ---------------------------------------------------------------- list


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """Which runs are asked for."""

    job: str | None
    statuses: Sequence[str]
    before: str | None
    limit: int
    since: datetime | None
    scope: str | None
    trigger: str | None
    text: str

    def fits(self, run: Run) -> bool:
        """Whether the run is one of them, as far as the store was not asked."""
        return (
            (self.since is None or run.opened_at >= self.since)
            and self.scope in (None, run.scope)
            and self.trigger in (None, run.trigger)
            and (not self.text or self.text in _spoken(run).lower())
        )

    def found(self, manager: JobManager) -> tuple[list[Run], bool]:
        """Return the newest of them, and whether older ones were not looked at."""
        found: list[Run] = []
        before, looked_at = self.before, 0
        plain = (self.since, self.scope, self.trigger, self.text) == (None, None, None, "")
        size = self.limit if plain else PAGE
        while looked_at < MOST_LOOKED_AT:
            page = manager.runs(self.job, self.statuses, before=before, limit=size)
            found += filter(self.fits, page)
            looked_at += len(page)
            # Runs of one job come in the order of their instants: a backfill opens old ones now.
            passed = self.since is not None and self.job is None and page and page[-1].opened_at < self.since
            if plain or passed or len(found) >= self.limit or len(page) < size:
                return found[: self.limit], False
            before = page[-1].id
        return found, True


def _spoken(run: Run) -> str:
    """Return the texts of a run in which --text looks: those that the list and `runs show` print, without the payload."""
    return " ".join(
        filter(
            None, [run.job_id, run.requested_by, run.idempotency_key, run.reason, run.scope, said(run).plain]
        )
    )


@runs.command("list", example="jobmanager runs list --job nightly-report --status failed --since -2d")
@click.option("--job", metavar="JOB", help="Only of this job.")
@click.option("--status", multiple=True, metavar="STATUS", help="Only with this status; may be repeated.")
@click.option(
    "--since", metavar="MOMENT", help="Only those opened since then, like today, -2h or 2026-11-23."
)
@click.option("--scope", help="Only of this scope.")
@click.option(
    "--trigger", metavar="TRIGGER", help="Only those started so: schedule, manual, backfill or another."
)
@click.option("--text", help="Only where the job, its key, its user or what it said contains this.")
@click.option(
    "--limit", "-n", metavar="N", type=click.IntRange(min=1, max=10_000), default=20, help="How many."
)
@click.option("--before", metavar="RUN", help="Only older ones than this run.")
@click.option("--watch", "-w", is_flag=True, help="Go on and show what changes, until Ctrl-C.")
@click.pass_obj
def list_runs(
    here: Session,
    job: str | None,
    status: tuple[str, ...],
    since: str | None,
    scope: str | None,
    trigger: str | None,
    text: str | None,
    limit: int,
    before: str | None,
    watch: bool,
) -> None:
    """List runs, newest first."""
    from jobmanager.run import RunStatus, Trigger

    _check_words("status", status, [word.value for word in RunStatus])
    _check_words("trigger", [trigger] if trigger else [], get_args(Trigger))
    if job is not None and here.target:
        here.jobs.get_job(job)  # a mistyped id is an error, not an empty list
    wanted = _Wanted(
        job=job,
        statuses=status,
        before=find(here.ledger, before).id if before else None,
        limit=limit,
        since=moment(since, here.ledger.store.now()) if since else None,
        scope=scope,
        trigger=trigger,
        text=(text or "").lower(),
    )
    if watch:
        _watch(here, wanted)
        return
    found, more = wanted.found(here.ledger)
    if here.as_json:
        here.emit([run_record(run) for run in found])
    elif found:
        here.print(runs_table(here, found))
    else:
        here.print(f"No such run is on record in {here.ledger.store.url}.")
    if more:
        here.aside.print(f"Only the newest {MOST_LOOKED_AT:,} runs were looked at.", soft_wrap=True)


def _check_words(noun: str, words: Sequence[str], known: Sequence[str]) -> None:
    for word in words:
        if word not in known:
            raise UsageError(f"{word!r} is no {noun}.", hint=f"It is one of {', '.join(known)}.")


def _watch(here: Session, wanted: _Wanted) -> None:
    """Show the list as it changes: drawn anew in a terminal, in a pipe a line for each run that is new or has another status."""
    if here.console.is_terminal and not here.as_json:
        from rich.live import Live

        with Live(console=here.console, auto_refresh=False) as live:
            while True:
                live.update(runs_table(here, wanted.found(here.ledger)[0]), refresh=True)
                SystemClock().sleep(LOOK_EVERY_SECONDS)
    told: dict[str, str] = {}
    while True:
        found, _ = wanted.found(here.ledger)
        for run in reversed(found):
            if told.get(run.id) == run.status.value:
                continue
            if here.as_json:
                here.emit(run_record(run), line=True)
            else:
                now = here.ledger.store.now()
                when = clock(run.finished_at or run.started_at or run.opened_at, now)
                here.print(
                    f"{when}  {tail(run.id)}  {run.job_id}  {run.status.value}  {said(run, now).plain}"
                )
        told = {run.id: run.status.value for run in found}
        SystemClock().sleep(LOOK_EVERY_SECONDS)


def runs_table(here: Session, found: list[Run], *, of_one_job: bool = False) -> RenderableType:
    """Return a table of runs: short id, status, when, how long, and a summary."""
    from jobmanager.cli.output.lists import Column, listing, status

    now = here.ledger.store.now()
    columns = (
        Column("RUN"),
        *(() if of_one_job else (Column("JOB", yields=True),)),
        Column("STATUS"),
        Column("DUE", wide=84),
        Column("WHEN", right=True),
        Column("TOOK", wide=66, right=True),
        Column("WHAT IT SAID" if here.console.is_terminal else "SAID", wide=70, yields=True),
    )
    rows = []
    for run in found:
        when = run.finished_at or run.started_at or run.opened_at
        due = (
            clock(run.scheduled_for, now)
            if run.scheduled_for
            else run.requested_by
            if run.by_event and run.requested_by
            else f"by hand ({run.requested_by})"
            if run.requested_by
            else "by hand"
        )
        rows.append(
            (
                tail(run.id),
                *(() if of_one_job else (run.job_id,)),
                status(run.status.value),
                due,
                distance(when, now),
                length(run.duration),
                said(run, now),
            )
        )
    return listing(here.console, columns, rows)


def said(run: Run, now: datetime | None = None) -> Text:
    """Return a summary of a run on one line: its error, progress, reason or output; with `now` also until when it rests."""
    from rich.text import Text

    from jobmanager.present.runs import resting_words

    if run.error is not None:
        told = f"{run.error.type or run.error.kind}: {run.error.message}"
        return Text(told.splitlines()[0] if told.strip() else run.error.kind, "red")
    if run.status.closed:
        many = f"{run.ticks:,} ticks, " if run.ticks > 1 else ""
        return Text(
            f"{many}{run.reason or ''}".strip(", ") or compact(run.output), "" if run.output else "dim"
        )
    rests = "" if now is None else resting_words(run, now, lambda at: clock(at, now))
    return Text(": ".join(filter(None, (rests, _progress_in_words(run.progress)))), "cyan")


def _progress_in_words(progress: Progress | None) -> str:
    if progress is None:
        return ""
    total = f"/{progress.total:,}" if progress.total else ""
    return f"{progress.processed:,}{total} {progress.message}".strip()


# ---------------------------------------------------------------- show


@runs.command("show", example="jobmanager runs show 8f0c2b1a")
@RUN_ID
@click.pass_obj
def show(here: Session, run: str) -> None:
    """Show everything about one run: timeline, attempts, error, output, log."""
    found = find(here.ledger, run)
    if here.as_json:
        here.emit(whole_run_record(here.ledger, found))
        return
    store = here.ledger.store
    attempts, lines = store.history.attempts(found.id), store.history.lines(found.id)
    steps, children = here.ledger.steps(found.id), here.ledger.children(found.id, limit=MOST_COUNTED)
    from jobmanager.cli.output.steps import family_parts, rest, steps_parts

    now = store.now()
    course = [*steps_parts(here.console, steps, now), *family_parts(here.ledger, found, now)] if steps else []
    told = _portrait(here, found, attempts, [(attempt, line) for _, attempt, line in lines], course)
    here.print(told[0], *rest(found, steps, children, now), *told[1:])


def _portrait(
    here: Session,
    run: Run,
    attempts: list[Attempt],
    lines: list[tuple[int, LogLine]],
    course: Sequence[RenderableType],
) -> list[RenderableType]:
    from rich.text import Text

    from jobmanager.cli.output.lists import dim, facts, heading, status
    from jobmanager.ledger.redaction import Redactor

    hidden = Redactor(here.ledger.settings.secret_values())
    parts: list[RenderableType] = [
        Text.assemble(
            (run.job_id, "bold"), "  ", status(run.status.value), f"  {printable(run.reason or '')}"
        ),
        facts(
            [
                ("run", run.id),
                ("started by", _started_by(run)),
                (
                    "attempt",
                    f"{run.attempt} of {run.max_attempts}" if run.attempt or run.max_attempts > 1 else "",
                ),
                ("priority", str(run.priority) if run.priority else ""),
                ("key", run.idempotency_key or ""),
                ("scope", run.scope or ""),
                ("blocked by", tail(run.blocked_by) if run.blocked_by else ""),
                ("parent", tail(run.parent_id) if run.parent_id else ""),
                ("ticks", f"{run.ticks:,}, from {both(run.first_for)}" if run.first_for else ""),
                ("payload", compact(hidden.value(run.payload))),
                ("progress", _progress_in_words(run.progress)),
                ("output", _block(run.output)),
            ],
        ),
        "",
        heading("Timeline"),
        facts(_timeline(run, attempts)),
    ]
    parts += course
    for attempt in attempts:
        if attempt.outcome in SUSPENDED:  # the steps say what it waited for
            continue
        parts += ["", heading(f"Attempt {attempt.attempt}"), *_attempt(attempt)]
    if run.error is not None:
        parts += [
            "",
            heading("Error"),
            Text(continued(f"{run.error.kind}: {run.error.type}: {run.error.message}"), "red"),
        ]
        if run.error.traceback:
            parts.append(Text("  " + continued(run.error.traceback.rstrip()), "dim"))
    if lines:
        cut = len(lines) - LINES_SHOWN if here.console.is_terminal else 0
        parts += ["", heading("Log")]
        if cut > 0:
            parts.append(dim(f"... {cut:,} lines before; `jobmanager logs {tail(run.id)}` shows all"))
        parts += [log_line(line) for _, line in lines[max(0, cut) :]]
    return parts


def _started_by(run: Run) -> str:
    who = {
        "schedule": "its schedule",
        "catch_up": "its schedule, caught up",
        "manual": "hand",
        "backfill": "a backfill",
        "sweep": "the account",
    }[run.trigger]
    return f"{who} ({run.requested_by})" if run.requested_by else who


def _timeline(run: Run, earlier: Sequence[Attempt]) -> list[tuple[str, str]]:
    """Return the moments of the run: its first start, and the start of the last attempt if that is another one."""
    first = next((attempt.started_at for attempt in earlier if attempt.started_at), None)
    # A retry moves `due_at`: how late the run began is counted from its instant then.
    delay = run.queue_delay if first is None else first - run.instant
    late = f"  {length(delay)} after it was due" if delay else ""
    started = first or run.started_at
    again = run.started_at if first is not None else None
    took = f"  after {length(run.duration)}" if run.duration is not None else ""
    is_resting = run.status.value == "pending" and run.reason in SUSPENDED  # what it waits for is said above
    due_later = run.due_at > run.opened_at and run.started_at is None and not is_resting
    return [
        ("due", both(run.scheduled_for) if run.scheduled_for else both(run.due_at) if due_later else ""),
        ("opened", both(run.opened_at)),
        ("started", f"{both(started)}{late}" if started else ""),
        ("went on" if _rested(earlier) else f"attempt {run.attempt}", both(again) if again else ""),
        ("cancel asked", both(run.cancel_requested_at) if run.cancel_requested_at else ""),
        ("finished", f"{both(run.finished_at)}{took}" if run.finished_at else ""),
    ]


def _rested(earlier: Sequence[Attempt]) -> bool:
    """Whether the last start was none of a new attempt, but of one that had waited in a step."""
    return bool(earlier) and earlier[-1].outcome in SUSPENDED


def _attempt(attempt: Attempt) -> list[RenderableType]:
    from rich.text import Text

    took = attempt.ended_at - attempt.started_at if attempt.started_at else None
    began = f"started {both(attempt.started_at)}, " if attempt.started_at else ""
    told = f"{began}{attempt.outcome} {both(attempt.ended_at)}" + (
        f" after {length(took)}" if took is not None else ""
    )
    error = attempt.error
    return [
        told,
        *([Text(continued(f"{error.type or error.kind}: {error.message}"), "red")] if error else []),
    ]


def _block(value: Any) -> RenderableType:
    """Return a JSON value, on several lines if it is long."""
    from rich.text import Text

    one_line = compact(value)
    return one_line if len(one_line) <= 80 else Text(printable_json(value, indent=2))


def log_line(line: LogLine) -> Text:
    """Return a captured line with its time and level."""
    from rich.text import Text

    style = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red", "DEBUG": "dim"}.get(line.level, "")
    moment = line.at.astimezone()
    return Text.assemble(
        (f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03} ", "dim"),
        (f"{line.level:<8}", style),
        continued(line.text),
    )


# ---------------------------------------------------------------- cancel


@verb("cancel", example="jobmanager cancel 8f0c2b1a")
@RUN_ID
@click.option("--keep-children", is_flag=True, help="Let the runs go on that it has started in steps.")
@click.pass_obj
def cancel(here: Session, run: str, *, keep_children: bool) -> None:
    """Ask a run to end, and the runs that it has started.

    A pending run ends at once, a running one when its handler looks at context.cancelled or comes to a step.
    """
    before = find(here.ledger, run)
    if before.status.closed and before.status.value != "cancelled":
        raise ConflictError(
            f"Run {tail(before.id)} of {before.job_id} has already ended: {before.status}.",
            hint=f"`jobmanager runs show {tail(before.id)}` shows how.",
        )
    after = here.ledger.cancel(before.id, children="keep" if keep_children else "cancel")
    if here.as_json:
        here.emit(run_record(after))
    elif after.status.closed:
        here.print(f"Run {tail(after.id)} of {after.job_id} is cancelled.")
    else:
        here.print(
            f"Run {tail(after.id)} of {after.job_id} is asked to end; it does when its handler looks at context.cancelled."
        )
