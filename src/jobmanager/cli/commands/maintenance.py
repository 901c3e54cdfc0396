"""`jobmanager doctor`, `purge` and `version`: diagnosis, retention and versions."""

from __future__ import annotations

import sqlite3
import sys
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

import click
from click.exceptions import Exit

from jobmanager.cli.arguments import duration
from jobmanager.cli.asking import confirm
from jobmanager.cli.output.failures import FAILED, problem_of
from jobmanager.cli.session import Session
from jobmanager.cli.verbs import verb
from jobmanager.present.phrases import both, count, iso, length

if TYPE_CHECKING:
    from jobmanager.doctor import Finding

SIGNS = {"ok": ("✓", "green"), "note": ("·", "dim"), "warning": ("!", "yellow"), "failing": ("✗", "red")}


@verb("doctor", example="jobmanager doctor")
@click.pass_obj
def doctor(here: Session) -> None:
    """Look for what keeps jobs from running.

    Each finding names its fix. Nothing is changed. Exit 1 if a finding is failing.
    """
    found = _findings(here)
    failing = any(finding.level == "failing" for finding in found)
    if here.as_json:
        listed = [asdict(finding) for finding in found]
        here.emit({"ok": not failing, "findings": listed})
    else:
        print_findings(here, found)
    if failing:
        raise Exit(FAILED)


def _findings(here: Session) -> list[Finding]:
    from jobmanager.doctor import Finding, examine, examine_environment

    found = examine_environment()
    here.look_around()
    if not here.target:
        found.append(
            Finding(
                check="application",
                level="note",
                text="none is named (--app, JOBMANAGER_APP) or found here: its declarations are not looked at",
            )
        )
    try:
        manager = here.ledger
    except Exception as error:  # noqa: BLE001 - whatever the application does at import is a finding
        problem = problem_of(error)
        fix = "Correct that, then ask again." if "`jobmanager doctor`" in problem.hint else problem.hint
        found.append(Finding(check="application", level="failing", text=problem.message, fix=fix))
        return found
    if here.target:
        found.append(Finding(check="application", level="ok", text=f"{here.target} can be imported"))
    return [*found, *examine(manager, told=both)]


def print_findings(here: Session, found: list[Finding]) -> None:
    """Print each finding with its fix, and a verdict."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    said = ""
    for finding in found:
        sign, style = SIGNS[finding.level]
        text = Text(finding.text, "dim" if finding.level == "note" else "")
        if finding.fix:
            text.append("\ndo: ", "bold").append(finding.fix)
        table.add_row(Text(sign, style), Text("" if finding.check == said else finding.check, "bold"), text)
        said = finding.check
    levels = Counter(finding.level for finding in found)
    verdict = "failing" if levels["failing"] else "warning" if levels["warning"] else "ok"
    words = {
        "failing": f"{levels['failing']} failing, {count(levels['warning'], 'warning')}",
        "warning": f"nothing failing, {count(levels['warning'], 'warning')}",
        "ok": "nothing to find fault with",
    }
    here.print(table, "", Text(words[verdict], f"bold {SIGNS[verdict][1]}"))


@verb("purge", example="jobmanager purge --older-than 30d")
@click.option("--older-than", metavar="LENGTH", help="Like 30d; by default what retention says.")
@click.option("--job", metavar="JOB", help="Only of this job.")
@click.option("--dry-run", is_flag=True, help="Only count what would be deleted.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.pass_obj
def purge(here: Session, older_than: str | None, job: str | None, dry_run: bool, yes: bool) -> None:
    """Delete runs that ended long ago.

    Without --older-than what the retention settings say, as running processes do every six hours. Open runs always stay. While
    JOBMANAGER_DISABLED is set nothing is deleted.
    """
    manager = here.ledger
    now, settings = manager.store.now(), manager.settings
    age = None if older_than is None else duration(older_than)
    asks = here.console.is_terminal and not (yes or here.as_json or dry_run)
    if asks and age is not None and age < max(settings.retention_succeeded, settings.retention_failed):
        whose = f"of {job}" if job else "of all jobs"
        confirm(here, f"Delete every run {whose} that ended before {both(now - age)}?", yes=yes)
    deleted = manager.purge(older_than=age, job=job, dry_run=dry_run, by=here.user)
    if here.as_json:
        before = None if age is None else iso(now - age)
        here.emit({"deleted": deleted, "before": before, "job": job, "dry_run": dry_run})
        return
    if age is not None:
        why = f"ended more than {length(age)} ago"
    else:
        well, badly = length(settings.retention_succeeded), length(settings.retention_failed)
        why = f"retention no longer keeps ({well}, failed and missed ones {badly})"
    here.print(f"{count(deleted, 'run')} {'would be ' * dry_run}deleted that {why}.")


@verb("version", example="jobmanager --json version")
@click.pass_obj
def version(here: Session) -> None:
    """Print the versions."""
    from jobmanager import __version__

    python = sys.version.partition(" ")[0]
    if here.as_json:
        here.emit({"jobmanager": __version__, "python": python, "sqlite": sqlite3.sqlite_version})
    else:
        here.print(f"jobmanager {__version__} (Python {python}, SQLite {sqlite3.sqlite_version})")
