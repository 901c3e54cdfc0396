"""Import of the lines of a crontab: each command becomes a handler that runs it as cron did, by /bin/sh."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from zoneinfo import ZoneInfo

from jobmanager.bridge.brought import (
    ImportedJob,
    Remark,
    call,
    changed,
    literal,
    manual,
    refused,
    skipped,
    titled,
)
from jobmanager.bridge.comparison import AROUND, clock_changes
from jobmanager.errors import CronError
from jobmanager.schedule import Cron
from jobmanager.schedule.instants import SECOND

BLANKS = " \t\r"
"""The blanks that cron knows; others belong to the command."""

_VARIABLE = re.compile(r"""\s*("[^"]*"|'[^']*'|\w+)\s*=\s*(.*?)\s*""")
_STARTERS = re.compile(
    r"-|[\d.]+[smhd]?$|\w+=|/(dev|tmp|var|run)/|(env|nice|ionice|sudo|exec|test|timeout|flock|setsid|nohup|(ba|da|z|k)?sh|python[\d.]*|manage\.py|php|perl|ruby|node|uv|run|poetry)$"
)

RUN_COMMAND = '''\
def run_command(context: RunContext, command: str, given: str = "", **options: Any) -> None:
    """Run a command as cron did: what it prints is the log of the run, and an exit code fails it."""
    with tempfile.TemporaryFile("w+") as lines:
        lines.write(given)
        lines.seek(0)
        with subprocess.Popen(
            command,
            shell=True,
            stdin=lines,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            **options,
        ) as process:
            for line in process.stdout or ():
                context.log.info("%s", line.rstrip("\\n"))
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)'''
"""The function that the generated handlers call; it is pasted once above them."""


@dataclass(slots=True)
class Reading:
    """The variables that the lines so far have set for those that follow."""

    zone: str
    told: bool
    system: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)


def machine_zone() -> str:
    """Return the IANA name of this machine's zone; UTC if it has none."""
    name = str(Path("/etc/localtime").resolve()).rpartition("zoneinfo/")[2]
    return "UTC" if name in ("Etc/UTC", "/etc/localtime") else name


def bring(text: str, now: datetime, *, zone: str | None = None, system: bool = False) -> list[ImportedJob]:
    """Import each command, after one entry with the remarks on all of them. `system`: a column names the user.

    `zone` is that of the machine whose crontab it is; CRON_TZ in the text overrides it from there on.
    """
    reading = Reading(zone=zone or machine_zone(), told=zone is not None, system=system)
    guess, guessed = reading.zone, False
    found = []
    for number, line in enumerate(text.split("\n"), start=1):
        variable = _VARIABLE.fullmatch(line)
        if variable:
            found += _variable(reading, variable[1].strip("\"'"), _unquoted(variable[2]), number)
        elif line.strip(BLANKS) and not line.strip(BLANKS).startswith("#"):
            found.append(_command(reading, line.strip(BLANKS), number, now))
            guessed |= not reading.told
    whole = [manual(f"the file does not say its zone: {guess}, this machine's, was taken.")] * guessed + [
        manual(
            "cron runs a command in the user's home with almost no environment; here it gets the process's."
        ),
        manual(
            "cron mails what it prints; here that is the log of the run (`jobmanager logs RUN`), and an exit code fails the run."
        ),
    ]
    return [ImportedJob(entry="crontab", remarks=tuple(whole)), *found] if found else []


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value


def _variable(reading: Reading, name: str, value: str, number: int) -> list[ImportedJob]:
    if name == "CRON_TZ":
        reading.zone, reading.told = value, True
    elif name == "MAILTO":
        told = f"mail to {value} is not sent; notify_on_failure or your logs can replace it."
        return [skipped(f"line {number}: MAILTO", told)] if value else []
    else:
        reading.environment[name] = value
    return []


def _command(reading: Reading, line: str, number: int, now: datetime) -> ImportedJob:
    count = 1 if line.startswith("@") else 5
    words = line.split(None, count + reading.system)
    entry = f"line {number}: {line}"
    if len(words) <= count + reading.system:
        return skipped(entry, "it has no command: it is no line of a crontab.")
    expression, command = " ".join(words[:count]), words[-1]
    if expression.lower() == "@reboot":
        return skipped(entry, "no job is bound to a restart: let your service manager start it.")
    remarks = [manual(f"it ran as {words[count]}; here as the process's user.")] if reading.system else []
    if "TZ" in reading.environment:
        remarks.append(
            manual(f"TZ={reading.environment['TZ']} reaches the command only; CRON_TZ sets the times.")
        )
    try:
        remarks += _meaning(expression, reading.zone, now)
    except CronError as error:
        return ImportedJob(entry=entry, remarks=(*remarks, manual(str(error))))
    job_id, title = titled(_program(command), reading.taken)
    zone = {} if reading.zone == "UTC" else {"timezone": reading.zone}
    options = {**title, "cron": expression, **zone, "overlap": "allow", "catch_up": "none"}
    refusal = refused(job_id, options)
    if refusal:
        return ImportedJob(entry=entry, remarks=(*remarks, refusal))
    source = f"@{call('jobs.job', (job_id,), options)}\n{_function(job_id, command, reading.environment)}"
    return ImportedJob(entry=entry, job_id=job_id, source=source, remarks=tuple(remarks))


def _program(command: str) -> str:
    """Name what a command runs: `backup` for `cd /srv && nice python3 /srv/backup.py --all`."""
    last = re.split(r"&&|\|\||;", re.sub(r"(?<!\\)%.*", "", command))[-1]
    words = [
        w
        for w in last.split("|")[0].split()
        if not _STARTERS.match(PurePosixPath(w).name) and not _STARTERS.match(w)
    ]
    return PurePosixPath(words[0].strip("\"'()")).stem if words else "command"


def _function(job_id: str, command: str, environment: Mapping[str, str]) -> str:
    """Write the handler: the command up to the first bare `%`, and what follows as its input, line by line."""
    name = "run_" + re.sub(r"\W", "_", job_id)
    command, *lines = (part.replace(r"\%", "%") for part in re.split(r"(?<!\\)%", command))
    variables = {name: value for name, value in environment.items() if name != "SHELL"}
    said = {
        "given": literal("\n".join(lines) + "\n") if lines else "",
        "env": "{**os.environ, " + literal(variables)[1:] if variables else "",
        "executable": literal(environment["SHELL"])
        if environment.get("SHELL", "/bin/sh") != "/bin/sh"
        else "",
    }
    arguments = ["context", literal(command), *(f"{word}={value}" for word, value in said.items() if value)]
    line = f"    run_command({', '.join(arguments)})"
    if len(line) > 79:
        line = "    run_command(\n" + "".join(f"        {argument},\n" for argument in arguments) + "    )"
    return f"def {name}(context: RunContext) -> None:\n{line}"


_ELSEWHERE = (
    (r"[A-Z0-9]+#\d", "cron reads {0} as every such weekday; here it is counted."),
    (r"(?<![-\d*])\d+/\d+", "cron refuses {0}, so this never ran; here it goes on to the end of the field."),
    (r"(?<=[, ])L\b|\b[A-Z0-9]+L\b", "cron does not know {0}, so this never ran; here it is the last."),
    (r"[A-Z]{3}-SUN", "cron never fires for {0}; here Sunday ends the week."),
)


def _meaning(expression: str, zone: str, now: datetime) -> list[Remark]:
    """Remark on what our dialect takes and cron does not, and on instants at which cron starts several runs."""
    cron = Cron(expression, zone)
    remarks = [
        changed(told.format(found[0]))
        for pattern, told in _ELSEWHERE
        if (found := re.search(pattern, expression.upper())) and not expression.startswith("@")
    ]
    for change in () if cron.fields.wildcard else clock_changes(zone, now.date().toordinal())[:AROUND]:
        before, after = (_wall(moment, zone) for moment in (change - SECOND, change))
        # The times that are skipped, and the one that the clock shows then.
        due = list(Cron(expression).between(before, after)) if before < after - SECOND else []
        if len(due) > 1:
            told = f"on {after.date()} cron starts it {len(due)} times at once, for the times that clocks skip; here once."
            return [*remarks, changed(told)]
    return remarks


def _wall(moment: datetime, zone: str) -> datetime:
    """Return what the clock shows, as if it were UTC."""
    return moment.astimezone(ZoneInfo(zone)).replace(tzinfo=UTC)
