"""What the demo shows: a table that lives, a line per ended run, and what happened in the end. It only reads the ledger."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from rich import box
from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jobmanager import Job, JobManager, Run, RunStatus

STYLES = {
    RunStatus.PENDING: "dim",
    RunStatus.RUNNING: "cyan",
    RunStatus.SUCCEEDED: "green",
    RunStatus.FAILED: "red",
    RunStatus.CANCELLED: "yellow",
    RunStatus.SKIPPED: "yellow",
    RunStatus.MISSED: "magenta",
}


@dataclass
class Tally:
    """What became of the runs of one job."""

    statuses: Counter[RunStatus] = field(default_factory=Counter)
    sums: Counter[str] = field(default_factory=Counter)
    latest: Run | None = None
    active: Run | None = None

    def add(self, run: Run) -> None:
        """Count a run that has ended, and what it says it did."""
        self.statuses[run.status] += 1
        self.latest = run
        if isinstance(run.output, dict):
            self.sums.update({key: value for key, value in run.output.items() if isinstance(value, int)})

    def outputs(self) -> list[tuple[str, object]]:
        """Return what the latest run said."""
        return (
            list(self.latest.output.items()) if self.latest and isinstance(self.latest.output, dict) else []
        )

    def last(self, key: str) -> object:
        """Return what the latest run said about `key`."""
        return (
            self.latest.output.get(key, "-") if self.latest and isinstance(self.latest.output, dict) else "-"
        )


DID: dict[str, Callable[[Tally], str]] = {
    "process-pending-emails": lambda tally: (
        f"{tally.sums['sent']} mails sent, {tally.sums['failed']} refused, {tally.last('left')} wait for another try"
    ),
    "generate-analytics": lambda tally: f"one row of figures for {tally.last('day')}",
    "check-llm-credits": lambda tally: ", ".join(f"{name} {state}" for name, state in tally.outputs()),
}


def figures(tally: Tally) -> str:
    """Return what the latest run counted, as it was said: the figures that are computed anew each time."""
    counted = [(len(value) if isinstance(value, list) else value, name) for name, value in tally.outputs()]
    return ", ".join(f"{value} {name.replace('_', ' ')}" for value, name in counted)


def sums(tally: Tally) -> str:
    """Return what all runs did together."""
    return ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in tally.sums.items())


class Screen:
    """The demo's view of a manager: `look` reads, the rest draws what was read."""

    def __init__(self, manager: JobManager) -> None:
        self._manager = manager
        self._tallies: defaultdict[str, Tally] = defaultdict(Tally)
        self._counted: set[str] = set()
        self._next: dict[str, datetime | None] = {}

    def look(self) -> list[Run]:
        """Read the ledger; the runs that ended since the last look, in the order in which they ended."""
        self._next = {status.id: status.next_run for status in self._manager.get_all_job_statuses()}
        recent = self._manager.runs(limit=200)
        for tally in self._tallies.values():
            tally.active = None
        for run in recent:
            if not run.status.closed:
                self._tallies[run.job_id].active = run
        ended = [run for run in recent if run.status.closed and run.id not in self._counted]
        ended.sort(key=lambda run: run.finished_at or run.opened_at)
        for run in ended:
            self._counted.add(run.id)
            self._tallies[run.job_id].add(run)
        return ended

    def live(self, width: int, height: int) -> Table:
        """As many jobs as fit, those that work and those that ran last: when they run, what they do, how it went.

        Below 100 columns the schedule gives way.
        """
        jobs = self._newest_first()
        shown_jobs = jobs[: max(height - 6, 5)]
        more = (
            f"; {len(jobs) - len(shown_jobs)} more jobs are in the dashboard"
            if len(shown_jobs) < len(jobs)
            else ""
        )
        table = Table(box=box.SIMPLE_HEAD, expand=True, caption=f"Ctrl-C ends the demo{more}")
        table.add_column("Job", no_wrap=True)
        if width >= 100:
            table.add_column("Schedule", no_wrap=True)
        table.add_column("Next", justify="right", no_wrap=True)
        table.add_column("Last run", no_wrap=True)
        table.add_column("Took", justify="right", no_wrap=True)
        table.add_column("Progress", ratio=1)
        table.add_column("Runs", justify="right", no_wrap=True)
        for job in shown_jobs:
            tally = self._tallies[job.id]
            shown = tally.active or tally.latest
            schedule = [job.schedule.describe() if job.schedule else "by hand"] if width >= 100 else []
            table.add_row(
                job.id,
                *schedule,
                _until(self._next.get(job.id)),
                _status(shown),
                _took(shown),
                _progress(shown),
                str(tally.statuses.total()),
            )
        return table

    def _newest_first(self) -> list[Job]:
        """Return the jobs: first those that work, then those that ended last."""

        def rank(job: Job) -> tuple[bool, float]:
            tally = self._tallies[job.id]
            ended = tally.latest.finished_at if tally.latest else None
            return tally.active is None, -(ended.timestamp() if ended else 0)

        return sorted(self._manager.registry.jobs.values(), key=rank)

    def summary(self) -> Table:
        """Every job: how its runs ended and what they did, all together."""
        table = Table(box=box.SIMPLE_HEAD, title="What happened", title_justify="left", title_style="bold")
        table.add_column("Job", no_wrap=True)
        for heading in ("Runs", "Succeeded", "Failed", "Other"):
            table.add_column(heading, justify="right")
        table.add_column("What they did")
        for job_id in self._manager.registry.jobs:
            tally = self._tallies[job_id]
            runs, succeeded = tally.statuses.total(), tally.statuses[RunStatus.SUCCEEDED]
            failed = tally.statuses[RunStatus.FAILED]
            table.add_row(
                job_id,
                str(runs),
                Text(str(succeeded), "green"),
                Text(str(failed), "red" if failed else "dim"),
                Text(str(runs - succeeded - failed), "dim"),
                _deeds(job_id, tally),
            )
        return table


def line(run: Run) -> str:
    """Return an ended run as one line of plain text."""
    moment = (run.finished_at or run.opened_at).astimezone(UTC)
    return f"{moment:%H:%M:%S}  {run.job_id:<23} {run.status:<10} {_took(run):>7}  {_words(run)}".rstrip()


def _deeds(job_id: str, tally: Tally) -> str:
    error = tally.latest.error.message if tally.latest and tally.latest.error else ""
    told = DID.get(job_id, figures if job_id.startswith("analytics-") else sums)(tally)
    return "; ".join(filter(None, [told, error])) or "nothing yet"


def _until(moment: datetime | None) -> str:
    if moment is None:
        return ""
    return f"{max((moment - datetime.now(UTC)).total_seconds(), 0):.0f} s"


def _status(run: Run | None) -> Text:
    return Text(run.status, STYLES[run.status]) if run else Text("")


def _took(run: Run | None) -> str:
    if run is None or run.started_at is None:
        return ""
    took = run.duration or datetime.now(UTC) - run.started_at
    return f"{took / timedelta(seconds=1):.2f} s"


def _progress(run: Run | None) -> RenderableType:
    if run is None:
        return ""
    if run.status.closed or run.progress is None:
        return Text(_words(run), "red" if run.error else "", no_wrap=True, overflow="ellipsis")
    grid = Table.grid(padding=(0, 1))
    grid.add_row(
        ProgressBar(run.progress.total or 100, run.progress.processed, width=16),
        Text(run.progress.message, no_wrap=True, overflow="ellipsis"),
    )
    return grid


def _words(run: Run) -> str:
    if run.error:
        return run.error.message
    if not isinstance(run.output, dict):
        return run.reason or ""
    return ", ".join(_figure(key.replace("_", " "), value) for key, value in run.output.items())


def _figure(name: str, value: object) -> str:
    if isinstance(value, list):
        return f"{len(value):,} {name}"
    return f"{value:,} {name}" if isinstance(value, int) else str(value)
