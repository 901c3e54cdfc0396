"""The files with which an external clock calls the endpoint: Vercel, Kubernetes, cron, systemd and GitHub Actions.

Each file only wakes the endpoint, which decides which instant is due and gives it one run. So a wake-up text may fire too often,
never too rarely. No file holds the secret; each says where it is read from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import groupby, islice
from typing import Any

from jobmanager.cli.commands import export_clocks
from jobmanager.present.phrases import count
from jobmanager.schedule import At, Cron, Every, Schedule
from jobmanager.schedule.dialect import WEEKDAYS
from jobmanager.schedule.instants import SECOND
from jobmanager.schedule.wakeup import HOLDS_FOR, local_wakeup, wakeup

CURL_IMAGE = "curlimages/curl:8.11.1"
PATIENCE = (
    60  # seconds for an answer; the endpoint gives it in a tenth of one, where it does not wait for the run
)
LONGEST_WAIT = 900  # seconds; where it does wait, for a run that has no timeout
STARTED_WITHIN = 300  # seconds; what Kubernetes could not start by then is left to the next wake-up
SAMPLE = 200  # instants, to tell whether a text wakes at others
THE_JOB = "<job>"  # where systemd is to put its id
LONGEST_NAME = 52  # of a CronJob: Kubernetes adds eleven characters
COME_AGAIN = 31  # seconds; twice that is more than a call may come early without being `not_due`
ENVIRONMENT_FILE = "/etc/jobmanager/tick.env"
SET_IN_VERCEL = "Set CRON_SECRET in the Vercel project to the value of JOBMANAGER_SECRET: Vercel sends it as Bearer token."


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalJob:
    """A job as the external clock knows it: `text` are five fields in `zone`; `remarks` say what is not exact."""

    job: str
    schedule: Schedule
    url: str
    patience: int
    text: str
    zone: str
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A kind of clock. `zones`: it keeps one per job. `renders`: files by their path. `notes`: what to do, and to know."""

    renders: Callable[[Sequence[ExternalJob]], dict[str, str]]
    zones: bool
    notes: tuple[str, ...]


def external_job(
    job: str, schedule: Schedule, target: str, *, url: str, patience: int, now: datetime
) -> ExternalJob:
    """Return the job for a target, with a remark on each way in which it is not exact."""
    local = local_wakeup(schedule, now) if TARGETS[target].zones and isinstance(schedule, Cron) else None
    text = wakeup(schedule, now) if local is None else local
    zone = schedule.timezone if isinstance(schedule, Cron) and local is not None else "UTC"
    remarks = [*_about_seconds(schedule), *_about_extras(schedule, text, zone, now)]
    if target == "github" and (slower := _every_five_minutes(text)) != text:
        text = slower
        remarks.append(
            "GitHub starts nothing more often than every 5 minutes: woken up to 4 minutes late, and of the instants since the "
            "last wake-up only the latest gets its run from it"
        )
    return ExternalJob(
        job=job,
        schedule=schedule,
        url=url,
        patience=patience,
        text=text,
        zone=zone,
        remarks=tuple(remarks),
    )


# --- what is not exact


def _about_seconds(schedule: Schedule) -> Iterator[str]:
    if schedule.resolution < timedelta(minutes=1):
        yield (
            f"asks for every {schedule.resolution // SECOND} s and is woken once a minute: of the instants of a minute only "
            "the latest gets its run from it"
        )
    elif _has_seconds(schedule):
        yield "is due between full minutes and woken at the next one"


def _has_seconds(schedule: Schedule) -> bool:
    match schedule:
        case Cron():
            return schedule.fields.seconds != (0,)
        case Every():
            return bool(schedule.interval.seconds % 60 or schedule.anchor.second)
        case At():
            return bool(schedule.moment.second)


def _about_extras(schedule: Schedule, text: str, zone: str, now: datetime) -> Iterator[str]:
    if isinstance(schedule, At):
        yield "is due once, and this wakes every year: take it out when it has run"
        return
    begin = now.replace(second=0, microsecond=0)
    instants = list(islice(schedule.between(begin, begin + timedelta(days=HOLDS_FOR)), SAMPLE))
    if not instants:
        yield f"is not due within {HOLDS_FOR} days"
        return
    minutes = {instant + timedelta(seconds=-instant.second % 60) for instant in instants}
    woken = list(islice(Cron(text, zone).between(begin, max(minutes)), 50 * SAMPLE))
    if len(woken) > len(minutes):
        yield f"{_why(schedule, zone)}: woken {len(woken)} times for {count(len(instants), 'instant')}"


def _why(schedule: Schedule, zone: str) -> str:
    if isinstance(schedule, Every):
        return f"{schedule.describe()} is no pattern of hours and minutes"
    if isinstance(schedule, Cron) and schedule.timezone != zone:
        return f"keeps the time of {schedule.timezone}, written in UTC for each of its offsets"
    return "has days that not every cron knows, or reads alike"


def _every_five_minutes(text: str) -> str:
    """Return the text itself or, if it wakes more often than every five minutes, the last such minute of each five."""
    minutes, *rest = text.split()
    listed = list(range(60)) if minutes == "*" else [int(minute) for minute in minutes.split(",")]
    following = [*listed[1:], listed[0] + 60]
    if all(later - minute >= 5 for minute, later in zip(listed, following, strict=True)):
        return text
    return " ".join(
        [",".join(str(last) for last in sorted({minute // 5 * 5 + 4 for minute in listed})), *rest]
    )


# --- texts that all share


def _about(entry: ExternalJob) -> list[str]:
    """Return the comment lines of a job: its schedule, and what is not exact."""
    asked = f"{entry.job}: {entry.schedule.describe()} ({entry.schedule.text})"
    return [asked, *(f"  {remark}" for remark in entry.remarks)]


def _head(target: str) -> list[str]:
    return [
        f"# Made by `jobmanager export {target}`; make it again when a schedule changes, and once a year.",
        *(f"# {note}" for note in TARGETS[target].notes),
    ]


def _curl(job: str, url: str, patience: int) -> str:
    """Return a shell command that calls for the job, and fails unless the response names it: a redirect or a login page does not.

    It calls again when it is told that it came early. curl reads the secret from the environment by standard input, so that no
    list of processes shows it.
    """
    return (
        f"tick() {{ for pause in 0 {COME_AGAIN} {COME_AGAIN}; do sleep $pause; "
        """answer=$(printf 'Authorization: Bearer %s' "$JOBMANAGER_SECRET" | curl --silent --show-error --retry 2 """
        f"""--retry-connrefused --max-time {patience} --write-out ' %{{http_code}}' --header @- "$@"); """
        f"""case "$answer" in *'"job":'*'"{job}"'*' 20'?) return 0;; *' 425') ;; *) break;; esac; done; """
        f"""printf '%.300s\\n' "$answer" >&2; return 1; }}; tick --request POST {url}"""
    )


def _lines(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Quote a scalar for YAML, whose double-quoted strings are those of JSON."""
    return json.dumps(text)


# --- Kubernetes


def _k8s(entries: Sequence[ExternalJob]) -> dict[str, str]:
    documents = [_lines(_head("k8s")), *(_lines(_cron_job(entry)) for entry in entries)]
    return {"jobmanager-cronjobs.yaml": "---\n".join(documents)}


def _cron_job(entry: ExternalJob) -> list[str]:
    return [
        *(f"# {line}" for line in _about(entry)),
        "apiVersion: batch/v1",
        "kind: CronJob",
        "metadata:",
        f"  name: {_quoted(_cron_job_name(entry.job))}",
        "  labels:",
        "    app.kubernetes.io/managed-by: jobmanager",
        "  annotations:",
        f"    jobmanager/job: {_quoted(entry.job)}",
        "spec:",
        f"  schedule: {_quoted(entry.text)}",
        f"  timeZone: {_quoted('Etc/UTC' if entry.zone == 'UTC' else entry.zone)}",
        "  concurrencyPolicy: Forbid",
        f"  startingDeadlineSeconds: {STARTED_WITHIN}",
        "  successfulJobsHistoryLimit: 1",
        "  failedJobsHistoryLimit: 3",
        "  jobTemplate:",
        "    spec:",
        "      backoffLimit: 1",
        f"      activeDeadlineSeconds: {4 * entry.patience}",
        "      ttlSecondsAfterFinished: 3600",
        "      template:",
        "        spec:",
        "          restartPolicy: Never",
        "          automountServiceAccountToken: false",
        "          containers:",
        "            - name: tick",
        f"              image: {_quoted(CURL_IMAGE)}",
        '              command: ["/bin/sh", "-c"]',
        "              args:",
        f"                - {_quoted(_curl(entry.job, entry.url, entry.patience))}",
        "              env:",
        "                - name: JOBMANAGER_SECRET",
        "                  valueFrom:",
        "                    secretKeyRef:",
        "                      name: jobmanager",
        "                      key: secret",
        "              resources:",
        "                requests: {cpu: 10m, memory: 16Mi}",
        "                limits: {memory: 64Mi}",
        "              securityContext:",
        "                runAsNonRoot: true",
        "                runAsUser: 65532",
        "                allowPrivilegeEscalation: false",
        "                readOnlyRootFilesystem: true",
        '                capabilities: {drop: ["ALL"]}',
        "                seccompProfile: {type: RuntimeDefault}",
    ]


def _cron_job_name(job: str) -> str:
    """Return a DNS label; for a job id that is none it ends in a digest of the id, so that no two are the same."""
    plain = f"jobmanager-{job}"
    if len(plain) <= LONGEST_NAME and re.fullmatch(r"[a-z0-9-]*[a-z0-9]", plain):
        return plain
    digest = sha256(job.encode()).hexdigest()[:8]
    return f"{re.sub('[^a-z0-9-]', '-', plain)[: LONGEST_NAME - 9].rstrip('-')}-{digest}"


# --- cron


def _crontab(entries: Sequence[ExternalJob]) -> dict[str, str]:
    lines = [*_head("crontab"), "SHELL=/bin/sh", "CRON_TZ=UTC", f"TICK_ENV={ENVIRONMENT_FILE}"]
    for entry in entries:
        command = f'. "$TICK_ENV"; {_curl(entry.job, entry.url, entry.patience)}'
        # cron ends the command at a bare %.
        lines += [
            "",
            *(f"# {line}" for line in _about(entry)),
            f"{entry.text} {command}".replace("%", r"\%"),
        ]
    return {"jobmanager.crontab": _lines(lines)}


# --- systemd


def _systemd(entries: Sequence[ExternalJob]) -> dict[str, str]:
    patience = max(entry.patience for entry in entries)
    # systemd replaces % and $ itself; %i is what stands behind the @, the job's id.
    command = _curl(THE_JOB, entries[0].url.removesuffix(entries[0].job) + THE_JOB, patience)
    command = command.replace("%", "%%").replace("$", "$$").replace(THE_JOB, "%i")
    service = [
        *_head("systemd"),
        "[Unit]",
        "Description=Wake the job %i",
        "Wants=network-online.target",
        "After=network-online.target",
        "",
        "[Service]",
        "Type=oneshot",
        f"EnvironmentFile={ENVIRONMENT_FILE}",
        f"ExecStart=/bin/sh -c {_in_systemd(command)}",
        f"TimeoutStartSec={4 * patience}",
        "DynamicUser=yes",
        "PrivateTmp=yes",
        "ProtectSystem=strict",
        "NoNewPrivileges=yes",
    ]
    files = {"jobmanager-tick@.service": _lines(service)}
    for entry in entries:
        timer = [
            *(f"# {line}" for line in _about(entry)),
            "[Unit]",
            f"Description=When to wake the job {entry.job}",
            "",
            "[Timer]",
            f"OnCalendar={on_calendar(entry.text, entry.zone)}",
            "AccuracySec=1s",
            "Persistent=true",
            "",
            "[Install]",
            "WantedBy=timers.target",
        ]
        files[f"jobmanager-tick@{entry.job}.timer"] = _lines(timer)
    return files


def on_calendar(text: str, zone: str) -> str:
    """Convert five fields to the form of systemd: weekdays, date, time and zone."""
    minute, hour, day, month, weekday = text.split()
    days = "" if weekday == "*" else ",".join(WEEKDAYS[int(one)].title() for one in weekday.split(",")) + " "
    return f"{days}*-{month}-{day} {hour}:{minute}:00 {zone}"


def _in_systemd(argument: str) -> str:
    escaped = argument.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


# --- GitHub Actions


def _github(entries: Sequence[ExternalJob]) -> dict[str, str]:
    by_text = [
        (text, list(alike))
        for text, alike in groupby(sorted(entries, key=lambda one: one.text), lambda one: one.text)
    ]
    lines = [
        *_head("github"),
        "name: jobmanager",
        '"on":',
        "  workflow_dispatch:",
        "  schedule:",
        *(f"    - cron: {_quoted(text)}" for text, _ in by_text),
        "permissions: {}",
        "jobs:",
    ]
    for number, (text, alike) in enumerate(by_text, start=1):
        condition = f"github.event_name == 'workflow_dispatch' || github.event.schedule == '{text}'"
        lines += [
            f"  tick-{number}:",
            f"    if: {_quoted(condition)}",
            "    runs-on: ubuntu-latest",
            f"    timeout-minutes: {sum(4 * entry.patience for entry in alike) // 60 + 1}",
            "    env:",
            "      JOBMANAGER_SECRET: ${{ secrets.JOBMANAGER_SECRET }}",
            "    steps:",
        ]
        for entry in alike:
            lines += [
                *(f"      # {line}" for line in _about(entry)),
                f"      - name: {_quoted(entry.job)}",
                '        if: "!cancelled()"',
                f"        run: {_quoted(_curl(entry.job, entry.url, entry.patience))}",
            ]
    return {".github/workflows/jobmanager.yml": _lines(lines)}


TARGETS: dict[str, Target] = {
    "vercel": Target(
        renders=export_clocks.vercel,
        zones=True,
        notes=(SET_IN_VERCEL, "These are Vercel's Schedules; `vercel-crons` writes its older Cron Jobs."),
    ),
    "vercel-crons": Target(
        renders=export_clocks.vercel_crons,
        zones=False,
        notes=(
            SET_IN_VERCEL,
            "On the Hobby plan Vercel takes only schedules of once a day, and starts them within the hour.",
        ),
    ),
    "trigger-dev": Target(
        renders=export_clocks.trigger_dev,
        zones=True,
        notes=(
            "It is the task alone: JOBMANAGER_BACKEND=trigger_dev makes the schedules, after the task is deployed.",
            "The token: JOBMANAGER_SECRET as environment variable of the Trigger.dev project.",
        ),
    ),
    "gcloud": Target(
        renders=export_clocks.gcloud,
        zones=True,
        notes=(
            "The token is kept in the jobs: who may read them reads it.",
            "A job that was taken out is left: `gcloud scheduler jobs list` shows it.",
        ),
    ),
    "cloudflare": Target(
        renders=export_clocks.cloudflare,
        zones=False,
        notes=("The token: npx wrangler secret put JOBMANAGER_SECRET.",),
    ),
    "k8s": Target(
        renders=_k8s,
        zones=True,
        notes=(
            'The token: printf %s "$JOBMANAGER_SECRET" | kubectl create secret generic jobmanager --from-file=secret=/dev/stdin',
            "Needs Kubernetes 1.27 or newer (timeZone).",
        ),
    ),
    "crontab": Target(
        renders=_crontab,
        zones=False,
        notes=(
            f"{ENVIRONMENT_FILE} has the line JOBMANAGER_SECRET=..., readable for this user alone.",
            "All times are UTC. cronie heeds CRON_TZ; the crons of Debian and busybox do not: there the machine has to keep UTC.",
        ),
    ),
    "systemd": Target(
        renders=_systemd,
        zones=True,
        notes=(
            f"{ENVIRONMENT_FILE} has the line JOBMANAGER_SECRET=..., readable for root alone.",
            "Install: copy all into /etc/systemd/system, systemctl daemon-reload, systemctl enable --now each timer.",
        ),
    ),
    "github": Target(
        renders=_github,
        zones=False,
        notes=(
            "The token: the repository's secret JOBMANAGER_SECRET.",
            "GitHub starts workflows late at busy times, leaves some out, and takes schedules from the default branch alone.",
            "In a public repository it stops after 60 days without a commit.",
        ),
    ),
}


def record(entry: ExternalJob) -> dict[str, Any]:
    """Return the entry as a JSON object."""
    return {
        "job": entry.job,
        "schedule": entry.schedule.text,
        "cron": entry.text,
        "timezone": entry.zone,
        "url": entry.url,
        "exact": not entry.remarks,
        "remarks": list(entry.remarks),
    }
