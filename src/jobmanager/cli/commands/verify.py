"""`jobmanager verify`: test each link between pg_cron and this application."""

from __future__ import annotations

import click
from click.exceptions import Exit

from jobmanager.cli.arguments import duration
from jobmanager.cli.commands.maintenance import print_findings
from jobmanager.cli.commands.pg_cron import care_of, settings_of
from jobmanager.cli.output.failures import FAILED, UsageError
from jobmanager.cli.session import Session
from jobmanager.cli.verbs import verb


@verb("verify", example="jobmanager --app shop.jobs:jobs verify nightly-report")
@click.argument("job", required=False, metavar="[JOB]", help="Run this job now, and see it succeed.")
@click.option(
    "--timeout",
    "patience",
    default="90s",
    metavar="LENGTH",
    help="Wait so long for pg_cron, and for the run.",
)
@click.pass_obj
def verify(here: Session, job: str | None, patience: str) -> None:
    """Test each link from pg_cron to the application. Without JOB no run is started. Exit 1 if a link is broken.

    Every link is reported whatever JOB does: where a run of it is active, that one is looked at, and none is started.
    """
    limit = duration(patience)
    settings = settings_of(here)
    if job is not None and here.jobs.resolution.backend != "pg_cron":
        raise UsageError(
            f"The application's backend is {here.jobs.resolution.backend}, because {here.jobs.resolution.reason}.",
            hint="Set JOBMANAGER_BACKEND=pg_cron, as where it is deployed; or leave JOB out.",
        )
    care = care_of(here, settings)
    from jobmanager.cli.commands.verify_links import looked_at

    found = list(looked_at(here, settings, care, job, limit))
    failing = any(finding.level == "failing" for finding in found)
    if here.as_json:
        listed = [{"check": f.check, "level": f.level, "text": f.text, "fix": f.fix} for f in found]
        here.emit({"ok": not failing, "checks": listed})
    else:
        print_findings(here, found)
    if failing:
        raise Exit(FAILED)
