"""`jobmanager jobs create`, `edit`, `delete`, `enable`, `disable` and `history`, and `jobmanager audit`: jobs that operators make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from jobmanager.cli.arguments import moment, option_words
from jobmanager.cli.asking import confirm
from jobmanager.cli.output.failures import UsageError
from jobmanager.cli.session import Session
from jobmanager.cli.verbs import verb
from jobmanager.present.account import audit_record
from jobmanager.present.phrases import both, compact
from jobmanager.present.records import shown_payload
from jobmanager.validation.printable import printable

if TYPE_CHECKING:
    from jobmanager.stores.values import AuditEntry

JOB_ID = click.argument("job", metavar="JOB", help="Its id.")
LIMIT = click.option(
    "-n", "--limit", metavar="N", type=click.IntRange(min=1, max=1000), default=50, help="How many at most."
)


class _Words(click.Argument):
    """The words of a definition. Their list is loaded when the help of the verb is asked for."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        from jobmanager.ledger.definition import WORDS

        return self.make_metavar(ctx), f"One of {', '.join(sorted(WORDS))}; config and retry take JSON."


WORDS = click.argument("words", cls=_Words, nargs=-1, metavar="[WORD=VALUE]...")


@verb("create", example="jobmanager jobs create nightly-export --handler export-orders cron='0 3 * * *'")
@JOB_ID
@click.option("--handler", required=True, metavar="KEY", help="The key of a registered handler.")
@WORDS
@click.pass_obj
def create(here: Session, job: str, handler: str, words: tuple[str, ...]) -> None:
    """Make a job of a registered handler; it fires from now on in every process, without a restart."""
    here.jobs.create_job(job, handler=handler, by=here.user, **_options(here, words))
    _print_job(here, job, "made")


@verb("edit", example="jobmanager jobs edit nightly-export cron='0 4 * * *' config='{\"region\": \"eu\"}'")
@JOB_ID
@WORDS
@click.option("--handler", metavar="KEY", help="Another handler.")
@click.option(
    "--if-rev", metavar="N", type=int, help="Only if the job has this revision still: see its history."
)
@click.pass_obj
def edit(here: Session, job: str, words: tuple[str, ...], handler: str | None, if_rev: int | None) -> None:
    """Change a job that an operator made, or override one of the code. Nothing fires by it, unless its on_change says so; `none` takes an option back."""
    options = _options(here, words) | ({"handler": handler} if handler else {})
    if not options:
        raise UsageError("Say what to change.", hint=f"jobmanager jobs edit {job} cron='0 4 * * *'")
    here.jobs.update_job(job, by=here.user, if_rev=if_rev, **options)
    _print_job(here, job, "changed")


@verb("delete", example="jobmanager jobs delete nightly-export --yes")
@JOB_ID
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete(here: Session, job: str, yes: bool) -> None:
    """Delete a job that an operator made: it fires no more, and its pending runs are cancelled. Its history stays."""
    if not here.as_json:
        confirm(here, f"Delete job {job}?", yes=yes)
    here.jobs.delete_job(job, by=here.user)
    if here.as_json:
        here.emit({"job": job, "state": "deleted"})
    else:
        here.print(f"{job}: deleted. `jobmanager jobs history {job}` shows what it was.")


@verb("enable", example="jobmanager jobs enable nightly-export")
@JOB_ID
@click.pass_obj
def enable(here: Session, job: str) -> None:
    """Let a disabled job fire again, from its next instant on."""
    here.jobs.enable_job(job, by=here.user)
    _print_job(here, job, "enabled")


@verb("disable", example="jobmanager jobs disable nightly-export --reason 'no contract any more'")
@JOB_ID
@click.option("--reason", help="Why; shown where the job is listed as disabled.")
@click.pass_obj
def disable(here: Session, job: str, reason: str | None) -> None:
    """Start a job by nothing any more, not even by hand, until it is enabled; its pending runs are closed."""
    here.jobs.disable_job(job, reason=reason, by=here.user)
    _print_job(here, job, "disabled")


@verb("history", example="jobmanager jobs history nightly-export")
@JOB_ID
@LIMIT
@click.pass_obj
def history(here: Session, job: str, limit: int) -> None:
    """List who changed a job by hand, when, from what to what, newest first."""
    _print_entries(here, here.jobs.history(job, limit=limit), of_one_job=True)


@verb("audit", example="jobmanager audit --limit 20")
@click.option("--job", metavar="JOB", help="Of this job and its runs only.")
@click.option("--target", metavar="KIND", help="Of one kind: job, run, key, webhook, ...")
@click.option("--target-id", metavar="ID", help="Of this one.")
@click.option("--actor", metavar="NAME", help="By this person or service.")
@click.option("--action", metavar="WORD", help="Like pause, trigger, cancel.")
@click.option("--refused", "outcome", flag_value="refused", help="Only attempts that were refused.")
@click.option("--since", metavar="WHEN", help="From then on: a moment, or a length before now like 2h.")
@click.option("--until", metavar="WHEN", help="Before then.")
@click.option("--before", metavar="ID", help="Older than this entry: the last one of the page before.")
@LIMIT
@click.pass_obj
def audit(here: Session, /, since: str | None, until: str | None, **wanted: Any) -> None:
    """List what was changed by hand, and what was refused, by whom, when and from where, newest first."""
    jobs = here.ledger
    now = jobs.store.now()
    entries = jobs.audit(
        since=moment(since, now) if since else None, until=moment(until, now) if until else None, **wanted
    )
    _print_entries(here, entries, of_one_job=False)


VERBS = (create, edit, delete, enable, disable, history)


def _options(here: Session, words: Sequence[str]) -> dict[str, Any]:
    from jobmanager.job import POLICY_OPTIONS

    return option_words(words, POLICY_OPTIONS, here.jobs.store.now())


def _print_job(here: Session, job: str, what: str) -> None:
    from jobmanager.present.jobs import job_record

    view = here.jobs.get_job(job)
    if here.as_json:
        here.emit(job_record(view))
        return
    coming = f"; next {both(view.next_run)}" if view.next_run else ""
    here.print(f"{view.id}: {what}, {view.words}{coming}. Nothing was fired.")


def _print_entries(here: Session, entries: Sequence[AuditEntry], *, of_one_job: bool) -> None:
    if here.as_json:
        here.emit([audit_record(entry) for entry in entries])
        return
    if not entries:
        here.print("Nothing was changed by hand.")
        return
    from jobmanager.cli.output.lists import Column, listing

    from_elsewhere = any(entry.address for entry in entries)
    columns = [
        Column("WHEN"),
        Column("BY", yields=True),
        *([Column("FROM")] if from_elsewhere else []),
        Column("WHAT"),
        *([] if of_one_job else [Column("OF", yields=True)]),
        Column("REV", right=True),
        Column("CHANGE", folds=True, yields=True),
    ]
    rows = [
        [
            both(entry.at),
            printable(entry.by or "unnamed"),
            *([printable(entry.address or "")] if from_elsewhere else []),
            entry.action if entry.outcome == "done" else f"{entry.action} {entry.outcome}",
            *([] if of_one_job else [_target(entry)]),
            str(entry.rev or ""),
            printable(_difference(entry) if entry.reason is None else entry.reason),
        ]
        for entry in entries
    ]
    here.print(listing(here.console, columns, rows))


def _target(entry: AuditEntry) -> str:
    """Return what was changed: a job by its id, all else with its kind."""
    return entry.target_id if entry.target == "job" else f"{entry.target} {entry.target_id}"


def _difference(entry: AuditEntry) -> str:
    """Return what differs, in words: `cron=0 3 * * * -> 0 4 * * *`."""
    before, after = _flat(entry.before), _flat(entry.after)
    return "; ".join(
        f"{word}={_shown(after[word])}"
        if before.get(word) is None
        else f"{word}={_shown(before[word])} -> {_shown(after.get(word))}"
        for word in sorted({*before, *after})
        if before.get(word) != after.get(word)
    )


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else compact(value)


def _flat(facts: Any) -> dict[str, Any]:
    """Return the words of definition and override beside the state; the schedule stands in them."""
    flat = {**(facts or {})}
    for name in ("definition", "override"):
        flat.update(flat.pop(name, None) or {})
    flat.pop("schedule", None)
    return dict(shown_payload(flat))
