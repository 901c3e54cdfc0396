"""`jobmanager export`: the files with which Vercel, Kubernetes, cron, systemd or GitHub wake the jobs of this application."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobmanager.cli.commands.export_jobs import export_jobs
from jobmanager.cli.output.failures import ConflictError, UsageError
from jobmanager.cli.session import Session
from jobmanager.cli.verbs import verb
from jobmanager.errors import StoreError
from jobmanager.present.phrases import Block

if TYPE_CHECKING:
    from jobmanager.cli.commands.export_targets import ExternalJob
    from jobmanager.job import Job
    from jobmanager.schedule import Schedule
    from jobmanager.settings import Settings

EPILOG = (
    "Prints the files, or writes them with --out. What the other side cannot keep exactly stands on standard error, job by job: "
    "it then wakes too often, and the ledger opens one run per instant. No file holds the secret."
)
ITSELF = "https://vercel.invalid"  # only paths go into its file


class Platform(StrEnum):
    """The platform whose clock it is; `jobs` is none."""

    vercel = "vercel"
    vercel_crons = "vercel-crons"
    trigger_dev = "trigger-dev"
    gcloud = "gcloud"
    cloudflare = "cloudflare"
    k8s = "k8s"
    crontab = "crontab"
    systemd = "systemd"
    github = "github"
    jobs = "jobs"


@verb(
    "export",
    example="jobmanager --app shop.jobs:jobs export k8s --url https://shop.example.com --out deploy",
    epilog=EPILOG,
)
@click.argument(
    "target",
    type=click.Choice([platform.value for platform in Platform]),
    metavar="TARGET",
    help="vercel, vercel-crons, trigger-dev, gcloud, cloudflare, k8s, crontab, systemd or github; or jobs: those that operators made, as Python.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Write the files into this folder."
)
@click.option("--force", is_flag=True, help="Replace files that differ.")
@click.option("--url", metavar="URL", help="Of the application; by default JOBMANAGER_PUBLIC_URL.")
@click.pass_obj
def export(here: Session, target: str, out: Path | None, force: bool, url: str | None) -> None:
    """Write the files with which an external clock calls GET or POST /jobs/tick/JOB, for every job that has a schedule.

    `export jobs` prints the jobs that operators made: as Python that declares them, with --json as commands that make them elsewhere.
    """
    from jobmanager.cli.commands.export_targets import TARGETS, external_job, record
    from jobmanager.clock import SystemClock

    platform = Platform(target)
    if platform is Platform.jobs:
        export_jobs(here)
        return
    base = _base(here.jobs.settings, url, platform)
    now = SystemClock().now()
    entries = [
        external_job(job, schedule, target, url=f"{base}{job}", patience=patience, now=now)
        for job, schedule, patience in _scheduled(here)
    ]
    if not entries:
        raise UsageError(
            "No job of this application has a schedule.",
            hint="Give one a cron=, every= or at=; see `jobmanager jobs`.",
        )
    files = TARGETS[target].renders(entries)
    written = _written(out, files, force=force) if out is not None else {}
    if here.as_json:
        shown = [
            {"path": path, "content": content, "written": written.get(path)}
            for path, content in files.items()
        ]
        here.emit({"target": target, "files": shown, "jobs": [record(entry) for entry in entries]})
        return
    _print_remarks(here, target, entries)
    for path in _left_over(out, files) if out is not None and platform is Platform.systemd else ():
        here.aside.print(
            f"{path}: of no job that has a schedule; disable and delete it.", markup=False, soft_wrap=True
        )
    for path, content in files.items():
        if path in written:
            here.print(f"{path}: {'written' if written[path] else 'unchanged'}")
        else:
            here.print(*([f"# --- {path}"] if len(files) > 1 else []), Block(content.rstrip()))


# ---------------------------------------------------------------- what to export


def _base(settings: Settings, url: str | None, target: Platform) -> str:
    """Return the URL of the ticks, up to the job's id; UsageError if the application's URL is not given."""
    public = url or settings.public_url
    if public is None and target in (Platform.vercel, Platform.vercel_crons):
        public = ITSELF
    if public is None:
        raise UsageError(
            "The URL of the application is not given.",
            hint="Give --url https://host, or set JOBMANAGER_PUBLIC_URL.",
        )
    if not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._~-]+)*/?", public):
        raise UsageError(
            f"{public!r} cannot be written into these files.",
            hint="Give https://host/path, of letters, digits and ._~- alone: other characters mean something to a shell.",
        )
    return f"{public.rstrip('/')}{settings.run_path.rpartition('/')[0]}/tick/"


def _scheduled(here: Session) -> Iterator[tuple[str, Schedule, int]]:
    """Return each job that has a schedule, with the schedule in force and how many seconds a call may take."""
    from jobmanager.cli.commands.export_targets import LONGEST_WAIT, PATIENCE

    for job in _in_force(here):
        patience = PATIENCE
        if here.jobs.settings.wait:
            patience += LONGEST_WAIT if job.timeout is None else math.ceil(job.timeout.total_seconds())
        if job.schedule is not None:
            yield job.id, job.schedule, patience


def _in_force(here: Session) -> list[Job]:
    """Return the declared jobs with their overrides; without the overrides, and with a warning, if the store is unreachable."""
    try:
        return [view.job for view in here.jobs.list_jobs() if view.job is not None]
    except StoreError as error:
        here.aside.print(
            f"Schedules are exported as declared, without overrides: {error}", markup=False, soft_wrap=True
        )
        return sorted(here.jobs.registry.declared.values(), key=attrgetter("id"))


# ---------------------------------------------------------------- telling and writing it


def _print_remarks(here: Session, target: str, entries: Sequence[ExternalJob]) -> None:
    """Print on standard error what is not exact, job by job, and the notes of the target."""
    from jobmanager.cli.commands.export_targets import TARGETS

    lines = [f"{entry.job}: {remark}." for entry in entries for remark in entry.remarks]
    if entries[0].url.startswith("http:"):
        lines.append("The URL is http: the secret travels unencrypted.")
    if here.jobs.resolution.backend == "noop":
        lines.append(
            f"{here.jobs.resolution}: it answers every call with 503. Set JOBMANAGER_BACKEND=external where it serves."
        )
    lines += TARGETS[target].notes
    for line in lines:
        here.aside.print(line, markup=False, soft_wrap=True)


def _written(folder: Path, files: Mapping[str, str], *, force: bool) -> dict[str, bool]:
    """Write the files and return those that changed; ConflictError, with nothing written, if a file differs."""
    before = {path: _text(folder / path) for path in files}
    wanted = {path: _kept(before[path], path, content) for path, content in files.items()}
    differing = [str(folder / path) for path, text in before.items() if text not in (None, wanted[path])]
    if differing and not force:
        raise ConflictError(
            f"{', '.join(differing)}: there already, and different.",
            hint="Look at the difference; --force replaces.",
        )
    for path, content in wanted.items():
        if before[path] != content:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(content, encoding="utf-8")
    return {path: before[path] != content for path, content in wanted.items()}


def _left_over(folder: Path, files: Mapping[str, str]) -> list[str]:
    """Return the timers of an earlier export whose job is gone."""
    return sorted(path.name for path in folder.glob("jobmanager-tick@*.timer") if path.name not in files)


def _kept(before: str | None, path: str, made: str) -> str:
    """Return the new content of a file; entries of a vercel.json that are not of jobmanager stay."""
    from jobmanager.cli.commands.export_clocks import merged

    if before is None or path != "vercel.json":
        return made
    kept = merged(before, made)
    if kept is None:
        raise ConflictError(
            "The vercel.json that is there cannot be read, and may hold more than crons.",
            hint="Print ours without --out, and put its crons there by hand.",
        )
    return kept


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConflictError(
            f"{path} cannot be read: {error}.", hint="Choose another folder with --out."
        ) from error
