"""The files with which somebody else's clock calls our endpoint: Vercel, Kubernetes, cron, systemd and GitHub Actions.

Each only wakes us: which instant is due, and that it gets one run, is decided by the endpoint. So a text may wake too often,
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
from urllib.parse import urlsplit

from jobmanager.cli.output.phrases import count
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
LONGEST_NAME = 52  # of a CronJob: Kubernetes adds eleven characters
ENVIRONMENT_FILE = "/etc/jobmanager/tick.env"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticker:
    """A job as the other clock knows it: `text` are five fields in `zone`; `remarks` say what is not exact."""

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

    renders: Callable[[Sequence[Ticker]], dict[str, str]]
    zones: bool
    notes: tuple[str, ...]


def ticker_of(job: str, schedule: Schedule, target: str, *, url: str, patience: int, now: datetime) -> Ticker:
    """The job for a target, with a remark for each way in which it is not exact."""
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
    return Ticker(
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
    """The text itself, or with the last minute of each five in which it wakes, if it wakes more often."""
    minutes, *rest = text.split()
    listed = list(range(60)) if minutes == "*" else [int(minute) for minute in minutes.split(",")]
    following = [*listed[1:], listed[0] + 60]
    if all(later - minute >= 5 for minute, later in zip(listed, following, strict=True)):
        return text
    return " ".join(
        [",".join(str(last) for last in sorted({minute // 5 * 5 + 4 for minute in listed})), *rest]
    )


# --- texts that all share


def _about(ticker: Ticker) -> list[str]:
    """The lines of a comment on a job: what it asks for, and what is not exact."""
    asked = f"{ticker.job}: {ticker.schedule.describe()} ({ticker.schedule.text})"
    return [asked, *(f"  {remark}" for remark in ticker.remarks)]


def _head(target: str) -> list[str]:
    return [
        f"# Made by `jobmanager export {target}`; make it again when a schedule changes, and once a year.",
        *(f"# {note}" for note in TARGETS[target].notes),
    ]


def _curl(url: str, patience: int) -> str:
    """A call with the secret from the environment; it goes in on standard input, so that no list of processes shows it."""
    return (
        """printf 'Authorization: Bearer %s' "$JOBMANAGER_SECRET" | curl --silent --show-error --fail --retry 2 """
        f"--retry-connrefused --max-time {patience} --header @- --request POST {url}"
    )


def _lines(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A scalar of YAML: its double-quoted strings are those of JSON."""
    return json.dumps(text)


# --- Vercel


def _vercel(tickers: Sequence[Ticker]) -> dict[str, str]:
    crons = [{"path": urlsplit(ticker.url).path, "schedule": ticker.text} for ticker in tickers]
    document = {"$schema": "https://openapi.vercel.sh/vercel.json", "crons": crons}
    return {"vercel.json": json.dumps(document, indent=2) + "\n"}


def merged(before: str, made: str) -> str | None:
    """A vercel.json with our entries renewed and everything else kept; None if it cannot be read."""
    try:
        known, ours = json.loads(before), json.loads(made)
        path = str(ours["crons"][0]["path"]).rpartition("/")[0] + "/"
        foreign = [entry for entry in known.get("crons", []) if not str(entry["path"]).startswith(path)]
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return json.dumps({**known, "crons": foreign + ours["crons"]}, indent=2) + "\n"


# --- Kubernetes


def _k8s(tickers: Sequence[Ticker]) -> dict[str, str]:
    documents = [_lines(_head("k8s")), *(_lines(_cron_job(ticker)) for ticker in tickers)]
    return {"jobmanager-cronjobs.yaml": "---\n".join(documents)}


def _cron_job(ticker: Ticker) -> list[str]:
    return [
        *(f"# {line}" for line in _about(ticker)),
        "apiVersion: batch/v1",
        "kind: CronJob",
        "metadata:",
        f"  name: {_quoted(_cron_job_name(ticker.job))}",
        "  labels:",
        "    app.kubernetes.io/managed-by: jobmanager",
        "  annotations:",
        f"    jobmanager/job: {_quoted(ticker.job)}",
        "spec:",
        f"  schedule: {_quoted(ticker.text)}",
        f"  timeZone: {_quoted('Etc/UTC' if ticker.zone == 'UTC' else ticker.zone)}",
        "  concurrencyPolicy: Forbid",
        f"  startingDeadlineSeconds: {STARTED_WITHIN}",
        "  successfulJobsHistoryLimit: 1",
        "  failedJobsHistoryLimit: 3",
        "  jobTemplate:",
        "    spec:",
        "      backoffLimit: 1",
        f"      activeDeadlineSeconds: {4 * ticker.patience}",
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
        f"                - {_quoted(_curl(ticker.url, ticker.patience))}",
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
    """A DNS label; where the job's id is none, it ends in a digest of the id, so that no two are the same."""
    plain = f"jobmanager-{job}"
    if len(plain) <= LONGEST_NAME and re.fullmatch(r"[a-z0-9-]*[a-z0-9]", plain):
        return plain
    digest = sha256(job.encode()).hexdigest()[:8]
    return f"{re.sub('[^a-z0-9-]', '-', plain)[: LONGEST_NAME - 9].rstrip('-')}-{digest}"


# --- cron


def _crontab(tickers: Sequence[Ticker]) -> dict[str, str]:
    lines = [*_head("crontab"), "SHELL=/bin/sh", "CRON_TZ=UTC", f"TICK_ENV={ENVIRONMENT_FILE}"]
    for ticker in tickers:
        command = f'. "$TICK_ENV"; {_curl(ticker.url, ticker.patience)} --output /dev/null'
        # cron ends the command at a bare %.
        lines += [
            "",
            *(f"# {line}" for line in _about(ticker)),
            f"{ticker.text} {command}".replace("%", r"\%"),
        ]
    return {"jobmanager.crontab": _lines(lines)}


# --- systemd


def _systemd(tickers: Sequence[Ticker]) -> dict[str, str]:
    patience = max(ticker.patience for ticker in tickers)
    # systemd replaces % and $ itself; %i is what stands behind the @, the job's id.
    command = _curl(tickers[0].url.removesuffix(tickers[0].job), patience)
    command = command.replace("%", "%%").replace("$", "$$") + "%i"
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
    for ticker in tickers:
        timer = [
            *(f"# {line}" for line in _about(ticker)),
            "[Unit]",
            f"Description=When to wake the job {ticker.job}",
            "",
            "[Timer]",
            f"OnCalendar={on_calendar(ticker.text, ticker.zone)}",
            "AccuracySec=1s",
            "Persistent=true",
            "",
            "[Install]",
            "WantedBy=timers.target",
        ]
        files[f"jobmanager-tick@{ticker.job}.timer"] = _lines(timer)
    return files


def on_calendar(text: str, zone: str) -> str:
    """Five fields as systemd writes them: weekdays, date, time and zone."""
    minute, hour, day, month, weekday = text.split()
    days = "" if weekday == "*" else ",".join(WEEKDAYS[int(one)].title() for one in weekday.split(",")) + " "
    return f"{days}*-{month}-{day} {hour}:{minute}:00 {zone}"


def _in_systemd(argument: str) -> str:
    escaped = argument.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


# --- GitHub Actions


def _github(tickers: Sequence[Ticker]) -> dict[str, str]:
    by_text = [
        (text, list(alike))
        for text, alike in groupby(sorted(tickers, key=lambda one: one.text), lambda one: one.text)
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
            f"    timeout-minutes: {sum(4 * ticker.patience for ticker in alike) // 60 + 1}",
            "    env:",
            "      JOBMANAGER_SECRET: ${{ secrets.JOBMANAGER_SECRET }}",
            "    steps:",
        ]
        for ticker in alike:
            lines += [
                *(f"      # {line}" for line in _about(ticker)),
                f"      - name: {_quoted(ticker.job)}",
                '        if: "!cancelled()"',
                f"        run: {_quoted(_curl(ticker.url, ticker.patience))}",
            ]
    return {".github/workflows/jobmanager.yml": _lines(lines)}


TARGETS: dict[str, Target] = {
    "vercel": Target(
        renders=_vercel,
        zones=False,
        notes=(
            "Set CRON_SECRET in the Vercel project to the value of JOBMANAGER_SECRET: Vercel sends it as Bearer token.",
            "On the Hobby plan Vercel takes only schedules of once a day, and starts them within the hour.",
        ),
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


def record(ticker: Ticker) -> dict[str, Any]:
    """The ticker for machines."""
    return {
        "job": ticker.job,
        "schedule": ticker.schedule.text,
        "cron": ticker.text,
        "timezone": ticker.zone,
        "url": ticker.url,
        "exact": not ticker.remarks,
        "remarks": list(ticker.remarks),
    }
