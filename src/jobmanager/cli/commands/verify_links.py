"""The links between pg_cron and the application, each tested for `jobmanager verify`."""

from __future__ import annotations

import base64
import hmac
import http.client
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from jobmanager.backends.pg_cron.admin import PgCronAdmin
from jobmanager.cli.session import Session
from jobmanager.clock import SystemClock
from jobmanager.doctor.finding import Finding
from jobmanager.errors import JobManagerError, JobNotFoundError, RunConflictError, WaitTimeoutError
from jobmanager.present.phrases import both, count, length, tail
from jobmanager.run import Run, RunStatus
from jobmanager.settings import Settings, key_of

PATIENCE = 10.0  # seconds for one response
LOOK_EVERY = 0.5
ENDS = (RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED)
PROBE = b'{"v":1,"call":0,"kind":"ticks","runs":[]}'
"""The body of a call that asks for nothing: the endpoint accepts it, and nothing happens."""


def looked_at(
    here: Session, settings: Settings, care: PgCronAdmin, job: str | None, limit: timedelta
) -> Iterator[Finding]:
    """Test each link, in order; with `job` start a run of it, and wait for it for `limit`."""
    yield Finding(check="database", level="ok", text=care.shown)
    ticker = care.ticker()
    if ticker is None:
        yield Finding(
            check="database",
            level="failing",
            text=f"it keeps the time of no application {settings.namespace!r}",
            fix="Run `jobmanager init`, or correct JOBMANAGER_NAMESPACE.",
        )
        return
    yield from _entries(care)
    if ticker["transport"] == "notify":
        yield Finding(check="URL", level="ok", text="none is needed: processes listen (transport notify)")
    else:
        yield _secret(settings, care)
        yield endpoint(settings, ticker["url"])
    awake = _wakeups(here, care, limit)
    yield awake
    if ticker["transport"] == "pg_net" and awake.level == "ok":
        yield _call_now(here, care, limit)
    yield from _run_now(here, care, job, limit)
    yield _runs(care)
    yield _calls(care)


def _entries(care: PgCronAdmin) -> Iterator[Finding]:
    entries = care.entries()
    wrong = [entry for entry in entries if entry.drift]
    for entry in wrong:
        orphan, paused = entry.orphan, entry.drift == "paused"
        fix = "`jobmanager init` puts it right."
        if orphan:
            fix = "`jobmanager pg-cron purge` removes it."
        elif paused:
            fix = f"`jobmanager pg-cron resume {entry.name}` ends the pause."
        yield Finding(
            check="entries",
            level="warning" if orphan else "failing",
            text=f"{entry.name} is {entry.drift}",
            fix=fix,
        )
    if not entries:
        yield Finding(
            check="entries",
            level="failing",
            text="pg_cron has none of ours",
            fix="`jobmanager init` makes them.",
        )
    elif not wrong:
        names = ", ".join(entry.name for entry in entries[:3]) + (", ..." if len(entries) > 3 else "")
        yield Finding(check="entries", level="ok", text=f"{count(len(entries), 'entry', 'entries')}: {names}")


def _secret(settings: Settings, care: PgCronAdmin) -> Finding:
    if not settings.secrets:
        return Finding(
            check="secret", level="note", text="JOBMANAGER_SECRET is not set here, so it is not compared"
        )
    if any(care.knows(secret) for secret in settings.secrets):
        return Finding(check="secret", level="ok", text="the database signs with that of JOBMANAGER_SECRET")
    return Finding(
        check="secret",
        level="failing",
        text="the database does not sign with that of JOBMANAGER_SECRET: calls are refused with 401",
        fix="`jobmanager init` lets it sign with this one, too; or set the one that `jobmanager secret rotate` shows.",
    )


# ---------------------------------------------------------------- the endpoint


@dataclass(frozen=True, slots=True)
class Response:
    """The response of the URL, without following a redirect."""

    status: int
    location: str
    facts: Mapping[str, Any]
    """The JSON object of the body; empty if it is none."""


def endpoint(settings: Settings, url: str) -> Finding:
    """Call the URL from here, signed if the secret is known, with a body that asks for nothing, and return the finding."""
    try:
        answer = _post(url, _headers(settings))
    except (OSError, http.client.HTTPException) as error:
        return Finding(
            check="URL",
            level="failing",
            text=f"{url} cannot be reached from here: {str(error) or type(error).__name__}",
            fix="Start the application, or correct JOBMANAGER_PUBLIC_URL.",
        )
    text, fix = _judged(settings, answer)
    return Finding(check="URL", level="failing" if fix else "ok", text=f"{url} {text}", fix=fix)


def _judged(settings: Settings, answer: Response) -> tuple[str, str]:
    """Return what the response means, and the fix if it is not right."""
    signed = bool(settings.secrets)
    match answer.status:
        case 200 | 202 if answer.facts.get("call") == 0:
            return f"replies to our call with {answer.status}", ""
        case 401 if answer.facts.get("error") == "unauthorized" and not signed:
            return "replies, and refuses unsigned calls (401)", ""
        case 401:
            return (
                "refuses our call (401)",
                "Let the application have the JOBMANAGER_SECRET (and JOBMANAGER_AUTH) that is set here; both clocks must agree.",
            )
        case 503 if "unavailable" in str(answer.facts.get("error")):
            return (
                "replies 503: the application has no JOBMANAGER_SECRET, or does not reach its store",
                "Set JOBMANAGER_SECRET where it runs; its log says more.",
            )
        case 301 | 302 | 303 | 307 | 308:
            return (
                f"redirects ({answer.status}) to {answer.location or 'somewhere'}; the database's POST would arrive as a GET",
                "Set JOBMANAGER_PUBLIC_URL to where it leads: https, with or without www, no slash at the end.",
            )
        case 404 | 405 | 410:
            return (
                f"replies {answer.status}: there is no endpoint",
                "Mount jobmanager.web.asgi(jobs) there, or say where it is: JOBMANAGER_PUBLIC_URL and JOBMANAGER_RUN_PATH.",
            )
        case _ if 200 <= answer.status < 300:
            return (
                f"replies {answer.status}, but it is not our endpoint",
                "Something else replies there, such as a login page or a proxy: let this path through.",
            )
        case _:
            return (
                f"replies {answer.status}",
                "Look into the log of the application, and of what stands before it.",
            )


def _post(url: str, headers: Mapping[str, str]) -> Response:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=PATIENCE)
    try:
        connection.request("POST", parts.path, PROBE, dict(headers))
        response = connection.getresponse()
        try:
            said = json.loads(response.read(10_000))
        except ValueError:
            said = None
        return Response(
            response.status, response.getheader("Location") or "", said if isinstance(said, dict) else {}
        )
    finally:
        connection.close()


def _headers(settings: Settings) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "User-Agent": "jobmanager verify"}
    if settings.secrets and settings.auth == "bearer":
        headers["Authorization"] = f"Bearer {settings.secrets[0]}"
    elif settings.secrets:
        second = str(int(SystemClock().now().timestamp()))
        message = f"call_0.{second}.".encode() + PROBE
        signature = base64.b64encode(hmac.digest(key_of(settings.secrets[0]), message, "sha256")).decode()
        headers |= {
            "webhook-id": "call_0",
            "webhook-timestamp": second,
            "webhook-signature": f"v1,{signature}",
        }
    return headers


# ---------------------------------------------------------------- what happens


def _wakeups(here: Session, care: PgCronAdmin, limit: timedelta) -> Finding:
    """Test whether pg_cron fires; its first instant comes with the next full minute."""
    clock = SystemClock()
    until = clock.monotonic() + limit.total_seconds()
    with _waiting(here, "waiting for pg_cron's next full minute"):
        while not (swept := care.swept())[0] and clock.monotonic() < until and not care.failing_wakeups():
            clock.sleep(LOOK_EVERY)
    awake, at = swept
    failing = care.failing_wakeups()
    if awake and not failing:
        return Finding(check="pg_cron", level="ok", text=f"woke us last {both(at)}" if at else "wakes us")
    said = next(iter(failing.values()), "")
    return Finding(
        check="pg_cron",
        level="failing",
        text=f"wakes us, and that fails: {said}" if failing else f"has not woken us within {length(limit)}",
        fix="`jobmanager doctor` looks for the reason: how pg_cron logs in, its free slots, whether it runs at all.",
    )


def _call_now(here: Session, care: PgCronAdmin, limit: timedelta) -> Finding:
    """Test whether a call by the database itself gets through: from here the URL may look different."""
    clock = SystemClock()
    until = clock.monotonic() + limit.total_seconds()
    number = care.test_call()
    with _waiting(here, "waiting for the database to hear what became of its call"):
        while (called := care.call(number)) is None and clock.monotonic() < until:
            clock.sleep(LOOK_EVERY)
    if called is not None and called.outcome == "accepted":
        return Finding(check="call now", level="ok", text="the database called, and the application accepted")
    said = f"no reply within {length(limit)}" if called is None else called.outcome
    detail = f": {called.detail}" if called is not None and called.detail else ""
    return Finding(
        check="call now",
        level="failing",
        text=f"a call of the database was {said}{detail}",
        fix="`jobmanager doctor` says what each outcome means.",
    )


# ---------------------------------------------------------------- a run of the job


def _run_now(here: Session, care: PgCronAdmin, job: str | None, limit: timedelta) -> Iterator[Finding]:
    """Start a run, or follow the one that is active, and return the findings on it, on its worker and on the record of its end."""
    if job is None:
        yield Finding(
            check="run now", level="note", text="none was started; `jobmanager verify JOB` starts one"
        )
        return
    active = False
    try:
        run = here.jobs.trigger_job(job, requested_by=here.user)
    except RunConflictError as conflict:
        run, active = here.jobs.run(conflict.run_id), True
    except JobManagerError as refused:
        yield Finding(
            check="run now",
            level="failing" if isinstance(refused, JobNotFoundError) else "warning",
            text=f"none was started: {refused}",
            fix="Put that right, or verify another job; what stands above and below is tested all the same.",
        )
        yield _readiness(here, job)
        yield _newest_end(here, job)
        return
    if not (active and run.status is RunStatus.RUNNING):
        with suppress(WaitTimeoutError), _waiting(here, f"waiting for run {tail(run.id)} of {job}"):
            here.jobs.wait(run.id, limit)
        run = here.jobs.run(run.id)
    yield _outcome(run, limit, active=active)
    yield _readiness(here, job, care, run)
    if run.status.closed:
        yield Finding(check="recorder", level="ok", text=f"the end of run {tail(run.id)} is on record")
    else:
        yield _newest_end(here, job)


def _outcome(run: Run, limit: timedelta, *, active: bool) -> Finding:
    name = f"run {tail(run.id)} of {run.job_id}"
    if active:
        name = f"{name} was active, so none was started; it"
    said = str(run.status)
    if run.status is RunStatus.SUCCEEDED:
        return Finding(check="run now", level="ok", text=f"{name} {said}")
    if run.status.closed:
        missing = run.error is not None and run.error.kind == "handler_missing"
        return Finding(
            check="run now",
            level="failing",
            text=f"{name} {said}" + (f": {run.error.message}" if run.error else ""),
            fix="Import the module of the handler where the application runs."
            if missing
            else f"`jobmanager runs show {tail(run.id)}` has the traceback and the log.",
        )
    if run.started_at is None:
        return Finding(
            check="run now",
            level="failing",
            text=f"{name} is {said} after {length(limit)}",
            fix="Put right what is above, or below, and ask again: the run goes on by itself.",
        )
    return Finding(
        check="run now",
        level="note" if active else "warning",
        text=f"{name} is {said}" + ("" if active else f" after {length(limit)}"),
        fix=f"`jobmanager runs show {tail(run.id)}` says how far it is; it goes on by itself.",
    )


def _readiness(here: Session, job: str, care: PgCronAdmin | None = None, run: Run | None = None) -> Finding:
    """Return the finding on what executes the job: that its run was begun, or that processes live which would begin one."""
    if run is not None and care is not None and run.started_at is not None:
        late = length(max(run.started_at - run.due_at, timedelta(0)))
        return Finding(
            check="worker",
            level="ok",
            text=f"began run {tail(run.id)} {late} after it was due; {_called(care, run)}",
        )
    found = len(here.jobs.executors(job))
    if found:
        living = count(found, "living process executes it", "living processes execute it")
        stuck = run is not None
        return Finding(
            check="worker",
            level="failing" if stuck else "ok",
            text=f"{living}, and none has begun the run" if stuck else living,
            fix="All their workers may be busy: `jobmanager runs list --status running` shows with what."
            if stuck
            else "",
        )
    return Finding(
        check="worker",
        level="failing" if run is not None else "note",
        text=f"no living process executes {job}; a call of the database has to start one",
        fix="Start the application, with the module that declares the job.",
    )


def _newest_end(here: Session, job: str) -> Finding:
    """Return the finding on the record of ends, where the run has not ended: of the newest run that was executed."""
    ended = here.jobs.runs(job, ENDS, limit=1)
    if not ended:
        return Finding(check="recorder", level="note", text=f"no end of a run of {job} is on record")
    [run] = ended
    at = f" of {both(run.finished_at)}" if run.finished_at else ""
    return Finding(
        check="recorder", level="ok", text=f"the newest end on record is that of run {tail(run.id)}{at}"
    )


def _called(care: PgCronAdmin, run: Run) -> str:
    called = care.call_of(run.id)
    if called is None:
        return "a living process took it before the database called for it"
    return f"the database called for it: {called.outcome}" + (f" ({called.detail})" if called.detail else "")


def _runs(care: PgCronAdmin) -> Finding:
    found = care.stats()
    ended = {word: found[f"{word}_24h"] for word in ("succeeded", "failed", "missed")}
    said = ", ".join(f"{number:,} {word}" for word, number in ended.items() if number)
    if not said:
        return Finding(check="runs", level="note", text="none ended in the last 24 hours")
    if ended["failed"] or ended["missed"]:
        return Finding(
            check="runs",
            level="warning",
            text=f"in the last 24 hours {said}",
            fix="`jobmanager runs list --status failed` and `--status missed` show them.",
        )
    return Finding(check="runs", level="ok", text=f"in the last 24 hours {said}")


def _calls(care: PgCronAdmin) -> Finding:
    """Return the finding on recent calls: a failed call fails the check only while no later one was accepted."""
    calls = care.calls()
    bad = Counter(call.outcome for call in calls if call.outcome != "accepted")
    said = ", ".join(f"{number} {outcome}" for outcome, number in bad.most_common())
    if not calls:
        return Finding(check="calls", level="note", text="none ended in the last hour")
    if not bad:
        return Finding(
            check="calls", level="ok", text=f"{count(len(calls), 'call')} in the last hour, all accepted"
        )
    newest = calls[0]
    fix = "`jobmanager doctor` says what each outcome means."
    if newest.outcome == "accepted":
        return Finding(
            check="calls",
            level="warning",
            text=f"the last was accepted; earlier in this hour others were not ({said})",
            fix=fix,
        )
    detail = f": {newest.detail}" if newest.detail else ""
    return Finding(
        check="calls", level="failing", text=f"the last ended as {newest.outcome}{detail}", fix=fix
    )


def _waiting(here: Session, text: str) -> AbstractContextManager[object]:
    """Show a spinner on a terminal while the test runs."""
    return here.aside.status(text) if here.aside.is_terminal and not here.as_json else nullcontext()
