"""`jobmanager sync`, `override`, `backfill`, `dead` and `healthcheck`: the verbs that change, backfill and watch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click
from click.exceptions import Exit

from jobmanager.cli.arguments import duration, moment, option_words
from jobmanager.cli.commands.runs import find, runs_table
from jobmanager.cli.output.failures import FAILED, UsageError
from jobmanager.cli.session import Session
from jobmanager.cli.verbs import Verbs, verb
from jobmanager.present.phrases import both, count, iso, tail
from jobmanager.present.records import run_record

if TYPE_CHECKING:
    from jobmanager.ledger.backfill import MadeUp
    from jobmanager.ledger.job_sync import Change
    from jobmanager.process.health import HealthReport

dead = Verbs("dead", help="Dead letters: failed runs neither redriven nor discarded.", default=["list"])
JOB_ID = click.argument("job", metavar="JOB", help="Its id.")
MARKS = {"create": "+", "update": "~", "active": "~", "disabled": "~", "undeclared": "-"}


# ---------------------------------------------------------------- sync and override


@verb("sync", example="jobmanager sync --apply")
@click.option("--apply/--plan", default=False, help="Make it so, or only show it (default).")
@click.pass_obj
def sync(here: Session, apply: bool) -> None:
    """List what differs between the code and the store: new jobs, changed declarations, jobs that no process declares."""
    changes = here.jobs.sync(plan=True)
    if apply:  # also where only the outside system differs
        here.jobs.sync()
    if here.as_json:
        listed = [{"job": c.job_id, "action": c.action, "detail": c.detail} for c in changes]
        here.emit({"applied": apply, "changes": listed})
        return
    for change in changes:
        here.print(_in_words(change))
    if not changes:
        here.print("The store says what the code says.")
    elif apply:
        here.print(f"{count(len(changes), 'difference')} carried over. Nothing was fired.")
    else:
        here.print(f"{count(len(changes), 'difference')}; `jobmanager sync --apply` carries them over.")


def _in_words(change: Change) -> str:
    said = {
        "undeclared": "not declared here; disabled once no living process declares it",
        "active": "enabled again",
        "disabled": "disabled by its gate",
    }.get(change.action, f"{change.action} {change.detail}".rstrip())
    return f"{MARKS[change.action]} {change.job_id}: {said}"


class _Words(click.Argument):
    """The words of an override. Their list is loaded when the help of this verb is asked for."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        from jobmanager.ledger.overrides import WORDS

        return self.make_metavar(ctx), f"One of {', '.join(sorted(WORDS))}; config takes JSON."


@verb("override", example="jobmanager override nightly-report cron='0 4 * * *' timeout=10m")
@JOB_ID
@click.argument("words", cls=_Words, nargs=-1, metavar="[WORD=VALUE]...")
@click.option("--reset", is_flag=True, help="Take all overrides back; the code decides.")
@click.pass_obj
def override(here: Session, job: str, words: tuple[str, ...], reset: bool) -> None:
    """Change a job without touching code; kept in the store, never overwritten by a deployment. Nothing fires, unless its on_change says so."""
    if reset == bool(words):
        raise UsageError(
            "Say what to change, or --reset.", hint=f"jobmanager override {job} cron='0 3 * * *' timeout=5m"
        )
    if reset:
        here.jobs.reset_job(job, by=here.user)
    else:
        from jobmanager.ledger.overrides import OVERRIDABLE

        here.jobs.override_job(job, by=here.user, **option_words(words, OVERRIDABLE, here.jobs.store.now()))
    row = here.jobs.store.jobs.get(job)
    told = dict(row.override or {}) if row else {}
    if here.as_json:
        here.emit({"job": job, "override": told})
    elif told:
        here.print(
            f"{job}: overridden {', '.join(f'{word}={value}' for word, value in sorted(told.items()))}"
        )
    else:
        here.print(f"{job}: no override; the code decides.")


# ---------------------------------------------------------------- backfill and dead letters


@verb("backfill", example="jobmanager backfill nightly-report --from 2026-11-01 --to 2026-11-08 --dry-run")
@JOB_ID
@click.option("--from", "start", required=True, metavar="MOMENT", help="After this instant.")
@click.option("--to", "end", default="now", metavar="MOMENT", help="Up to this instant.")
@click.option("--dry-run", is_flag=True, help="Only list what would run.")
@click.pass_obj
def backfill(here: Session, job: str, start: str, end: str, dry_run: bool) -> None:
    """Open a run for each instant of a range that did not succeed; the runs wait in line for their job."""
    now = here.jobs.store.now()
    made_up = here.jobs.backfill(job, moment(start, now), moment(end, now), dry_run=dry_run, by=here.user)
    if here.as_json:
        listed = [
            {"scheduled_for": iso(m.scheduled_for), "action": m.action, "run": m.run_id} for m in made_up
        ]
        here.emit({"dry_run": dry_run, "instants": listed})
        return
    for item in made_up:
        here.print(
            f"{both(item.scheduled_for)}  {item.action}{f'  {tail(item.run_id)}' if item.run_id else ''}"
        )
    here.print(_summary(made_up, dry_run=dry_run))


def _summary(made_up: list[MadeUp], *, dry_run: bool) -> str:
    actions = Counter(item.action for item in made_up)
    again = actions["open"] + actions["redrive"]
    left = ", ".join(
        f"{number} {action}"
        for action, number in sorted(actions.items())
        if action not in ("open", "redrive")
    )
    said = f"{count(again, 'run')} {'would be opened' if dry_run else 'opened'}"
    return f"{said}; unchanged: {left}." if left else f"{said}."


@dead.command("list", example="jobmanager dead list --job nightly-report")
@click.option("--job", metavar="JOB", help="Only of this job.")
@click.option("--limit", "-n", metavar="N", type=click.IntRange(min=1), default=50, help="At most so many.")
@click.pass_obj
def list_dead(here: Session, job: str | None, limit: int) -> None:
    """List failed runs that were neither redriven nor discarded, newest first."""
    found = here.ledger.dead_letters(job, limit=limit)
    if here.as_json:
        here.emit([run_record(run) for run in found])
    elif found:
        here.print(runs_table(here, found, of_one_job=job is not None))
    else:
        here.print("No dead letters.")


@dead.command("redrive", example="jobmanager dead redrive --job nightly-report --limit 10")
@click.option("--job", metavar="JOB", help="Only of this job.")
@click.option(
    "--limit",
    "-n",
    metavar="N",
    type=click.IntRange(min=1),
    default=100,
    help="At most so many, oldest first.",
)
@click.pass_obj
def redrive_dead(here: Session, job: str | None, limit: int) -> None:
    """Open dead letters again, oldest first; a process that keeps time executes them."""
    redriven = here.ledger.redrive_all(job, limit=limit)
    if here.as_json:
        here.emit([run_record(run) for run in redriven])
    else:
        here.print(f"{count(len(redriven), 'run')} opened again.")


@dead.command("discard", example="jobmanager dead discard 8f0c2b1a")
@click.argument("run", nargs=-1, required=True, metavar="RUN...", help="Their ids, or the ends of them.")
@click.pass_obj
def discard_dead(here: Session, run: tuple[str, ...]) -> None:
    """Take failed runs off the dead letters; they stay on record."""
    discarded = [here.ledger.discard(find(here.ledger, one).id) for one in run]
    if here.as_json:
        here.emit([run_record(one) for one in discarded])
    else:
        here.print(f"{count(len(discarded), 'dead letter')} discarded.")


# ---------------------------------------------------------------- healthcheck


@verb("healthcheck", example="jobmanager healthcheck --max-lag 2m")
@click.option(
    "--max-lag", "most", default="60s", metavar="LENGTH", help="How late ticks may come and still be well."
)
@click.option(
    "--timeout", "within", default="5s", metavar="LENGTH", help="How long the store may take to reply."
)
@click.pass_obj
def healthcheck(here: Session, most: str, within: str) -> None:
    """Exit 0 if a process of this namespace lives and nothing stands still, else 1; for probes.

    Looks for ticks that are due and do not come, runs that do not begin, and a store that does not reply. Reads only.
    """
    manager = here.ledger
    report = manager.health(
        late=duration(most), thorough=True, within=duration(within).total_seconds(), told=both
    )
    if here.as_json:
        here.emit(_health_record(report))
    else:
        for line in _health_lines(report, manager.store.url):
            here.print(line)
    if not report.ok:
        raise Exit(FAILED)


def _health_record(report: HealthReport) -> dict[str, Any]:
    facts = report.facts
    return {
        "healthy": report.ok,
        "processes": len(facts.processes) if facts else 0,
        "last_tick_at": iso(facts.last_tick_at) if facts else None,
        "lag_seconds": facts.lag_seconds if facts else None,
        "symptoms": [
            {"kind": one.kind, "failing": one.failing, "text": one.text, "fix": one.fix}
            for one in report.symptoms
        ],
    }


def _health_lines(report: HealthReport, url: str) -> Iterator[str]:
    facts = report.facts
    if report.ok and facts is not None:
        last = f"last tick {both(facts.last_tick_at)}" if facts.last_tick_at else "no tick yet"
        yield f"well: {count(len(facts.processes), 'process', 'processes')}, {last}"
    for symptom in report.symptoms:
        if symptom.kind == "no_process":
            yield f"no process lives in {url}: nothing fires\ndo: {symptom.fix}"
        else:
            yield f"{symptom.text}\ndo: {symptom.fix}"
