"""Findings about the target of calls, their outcomes, and the plans that cause them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from ipaddress import ip_address
from urllib.parse import urlsplit

from jobmanager.backends.base import Found
from jobmanager.backends.pg_cron.database import is_here
from jobmanager.backends.pg_cron.diagnostics.context import Examination, counted, some, utc
from jobmanager.backends.pg_cron.diagnostics.http_probe import ProbeResult, probe_url
from jobmanager.backends.pg_cron.diagnostics.queries import (
    CALLS,
    OLDEST_CALL,
    UNPLANNED,
    Calls,
    TickerRow,
    Unplanned,
)
from jobmanager.backends.pg_cron.diagnostics.transport import RESTART
from jobmanager.settings import shown_url

# What became of a call, and what helps.
OUTCOMES = {
    "refused": "Nobody listens there: start the application, or correct JOBMANAGER_PUBLIC_URL. The database must reach it, not only you.",
    "dns": "The database cannot resolve that name: correct JOBMANAGER_PUBLIC_URL, or the server's DNS.",
    "network": "See whether the database's host may connect to it at all: firewalls, certificates, proxies.",
    "unauthorized": "The application has another JOBMANAGER_SECRET than the database, or something before it wants a login: give its "
    "processes the same secret, and let that path through.",
    "wrong_path": "Nothing answers there: mount jobmanager.web in the application, and let JOBMANAGER_PUBLIC_URL and JOBMANAGER_RUN_PATH name that place.",
    "wrong_method": "Something else answers there, and takes no POST: correct JOBMANAGER_RUN_PATH, or a redirect that makes a GET of it.",
    "not_ours": "The answer was not the endpoint's: a redirect, a login page or a proxy. Name the final URL in JOBMANAGER_PUBLIC_URL, and let that path through.",
    "too_large": "Something before the application takes no body of 4 KiB: let it pass 64 KiB on that path.",
    "rate_limited": "Something limits the calls: exempt the database's address, or raise `limits` of jobmanager.web.",
    "server_error": "The application failed to take the call: read its log. 503 means its store, or that JOBMANAGER_SECRET is not set there.",
    "timeout": "The application answers too slowly: give it more threads or processes. With JOBMANAGER_WAIT handlers must end within 25 s.",
    "lost": "pg_net has no answer for it: its queue was truncated, or pg_net.ttl is shorter than a minute.",
    "lost_crash": "The server or pg_net's worker crashed with the call under way: read the server's log. Its runs are called for again.",
    "worker_stalled": "pg_net's worker does not empty its queue, or did so more than 5 minutes late: SELECT net.worker_restart(), or restart the server.",
    "no_listener": "No process listened: start the application, with jobs.start().",
}


def _url(exam: Examination) -> Iterator[Found]:
    """Check that the database has a URL that it can reach and that holds no secret."""
    ticker, wanted = exam.ticker, exam.backend.run_url
    if ticker is None or ticker.transport == "notify" or ticker.url is None:
        return
    shown, host = shown_url(ticker.url), urlsplit(ticker.url).hostname or ""
    if shown != ticker.url:
        yield Found(
            level="warning",
            text=f"The URL that is called has a secret in its query, which access logs keep: {shown}",
            fix="Take it out of the URL (every call is signed), and replace that secret wherever it is used.",
        )
    if is_here(host) and not is_here(exam.ask.host):
        yield Found(
            level="failing",
            text=f"The database is on {exam.ask.host}, and calls {shown}: that is its own machine, not this one.",
            fix="Set JOBMANAGER_PUBLIC_URL to a URL that the database's host reaches; a tunnel's, while developing.",
        )
    elif wanted is not None and wanted != ticker.url:
        kept = is_here(urlsplit(wanted).hostname or "") and not is_here(host)
        yield Found(
            level="note" if kept else "warning",
            text=f"the database calls {shown}, and goes on doing so: a developer's machine does not overwrite it"
            if kept
            else f"The database calls {shown}, and JOBMANAGER_PUBLIC_URL makes that {shown_url(wanted)}.",
            fix="" if kept else RESTART,
        )
    if urlsplit(ticker.url).scheme == "http" and not _is_near(host):
        yield Found(
            level="warning",
            text=f"Calls go to {shown} in the clear.",
            fix="Name https:// in JOBMANAGER_PUBLIC_URL, and not by a redirect: a POST would arrive as a GET.",
        )


def _is_near(host: str) -> bool:
    """Return whether the host is this machine or of a private network, as far as its name shows: one of a cluster has no dots, or a known ending."""
    try:
        return ip_address(host).is_private
    except ValueError:
        return (
            is_here(host) or "." not in host or host.endswith((".internal", ".svc", ".cluster.local", ".lan"))
        )


def _answers(exam: Examination) -> Iterator[Found]:
    """Judge the outcomes of calls, and what an unsigned one from here gets: 401, if it reaches the endpoint."""
    ticker = exam.ticker
    if ticker is None:
        return
    calls = exam.ask.one(Calls, CALLS, namespace=exam.backend.namespace)
    answer = probe_url(ticker.url) if ticker.url is not None and ticker.transport != "notify" else None
    if answer is not None and answer.status is not None:
        yield from _answer(ticker, answer)
    if calls is not None and calls.outcome != "accepted":
        detail = f": {calls.detail.strip()}" if calls.detail else ""
        where = f" to {shown_url(ticker.url)}" if ticker.url and ticker.transport != "notify" else ""
        yield Found(
            level="failing",
            text=f"The last call{where}, at {utc(calls.sent_at)}, ended as {calls.outcome}{detail.rstrip('.')}.",
            fix=OUTCOMES.get(calls.outcome, "Read the application's log of that moment."),
        )
    elif calls is not None and calls.failed:
        yield Found(
            level="note",
            text=f"{calls.failed} of {counted(calls.recent, 'call')} in the last hour did not get through; the newest did",
        )
    oldest = next(iter(exam.ask.column(OLDEST_CALL, exam.backend.namespace)), None)
    late = timedelta(milliseconds=ticker.timeout_ms) + timedelta(seconds=120)
    if oldest is not None and exam.server.now - oldest > late:
        yield Found(
            level="warning",
            text=f"A call sent at {utc(oldest)} is still open: the sweep does not look after calls.",
            fix="See whether entry jm_sweep runs and how it ends (cron.job_run_details), and that no session holds locks in jobmanager.calls.",
        )
    if answer is not None and answer.status is None:
        good = calls is not None and calls.outcome == "accepted"
        yield Found(
            level="note" if good else "warning",
            text=f"{shown_url(ticker.url or '')} does not answer from here: {answer.error}",
            fix="" if good else "Start the application, or correct JOBMANAGER_PUBLIC_URL.",
        )


def _answer(ticker: TickerRow, answer: ProbeResult) -> Iterator[Found]:
    shown, status = shown_url(ticker.url or ""), answer.status or 0
    said = f"{shown} answers an unsigned POST with {status}"
    if status == 401 and answer.is_ours:
        yield Found(level="ok", text=f"{shown} refuses an unsigned call, as it should")
    elif status == 401:
        yield Found(
            level="warning",
            text=f"{said}, but not as the endpoint does: something before it wants a login.",
            fix=OUTCOMES["unauthorized"],
        )
    elif 300 <= status < 400:
        yield Found(
            level="failing",
            text=f"{shown} redirects to {shown_url(answer.location)}; a POST that is redirected arrives as a GET.",
            fix="Name the final URL in JOBMANAGER_PUBLIC_URL, scheme and slashes included, and restart the application.",
        )
    elif status == 429:
        yield Found(level="note", text=f"{said}: it limits who calls too often")
    else:
        word = {404: "wrong_path", 410: "wrong_path", 405: "wrong_method", 413: "too_large"}.get(status)
        word = word or ("server_error" if status >= 500 else "not_ours" if status < 300 else "unauthorized")
        yield Found(level="failing", text=f"{said}, where the endpoint says 401.", fix=OUTCOMES[word])


def _plans(exam: Examination) -> Iterator[Found]:
    """Every job of ours knows when it is due."""
    if exam.ticker is None:
        return
    found = exam.ask.all(Unplanned, UNPLANNED, exam.backend.namespace)
    for job in [job for job in found if job.error is not None][:5]:
        yield Found(
            level="failing",
            text=f"Job {job.id!r} is parked: its schedule cannot be worked with in SQL: {job.error}.",
            fix="Start a process that declares it: that plans it anew.",
        )
    edited = [job for job in found if job.error is None and job.planned_until is None]
    for job in edited[:5]:
        yield Found(
            level="failing",
            text=f"Job {job.id!r} has no plan for its schedule {job.schedule!r}, which was edited in SQL: it is never due.",
            fix="Start a process that declares it: that plans the new schedule.",
        )
    over = [job for job in found if job.error is None and job.planned_until is not None and job.is_over]
    if over:
        yield Found(
            level="failing",
            text=f"The plan is exhausted of {some([job.id for job in over])}: no process has started for long, and they are due no more.",
            fix="Start a process that declares them: it plans, and what was due meanwhile is made up by their catch-up rules.",
        )
    soon = [job for job in found if job.error is None and job.planned_until is not None and not job.is_over]
    if soon:
        yield Found(
            level="warning",
            text=f"The plan ends at {soon[0].planned_until} of {some([job.id for job in soon])}.",
            fix="Start a process that declares them before then: every start plans ahead.",
        )


def _company(exam: Examination) -> Iterator[Found]:
    """Other entries that call us, and handlers that hold pg_net up."""
    if exam.ticker is None:
        return
    scheduled = [job for job in exam.jobs if job.schedule is not None]
    if exam.backend.wait and len(scheduled) > 1 and exam.ticker.transport == "pg_net":
        yield Found(
            level="warning",
            text=f"JOBMANAGER_WAIT is set and there are {len(scheduled)} jobs: pg_net waits for the slowest handler before it sends the next calls.",
            fix="Unset JOBMANAGER_WAIT where the host lets a process work on after its answer.",
        )
    for caller in exam.pg_cron.callers if exam.server.extension else ():
        name = f"{caller.name!r} ({caller.id})" if caller.name else str(caller.id)
        secret = ", with a secret in its text that everybody sees who sees the entry" if caller.secret else ""
        rotate = " Then `jobmanager secret rotate`: that secret is known." if caller.secret else ""
        yield Found(
            level="warning",
            text=f"Entry {name} of pg_cron is not ours and calls {exam.backend.run_path} itself{secret}.",
            fix=f"SELECT cron.unschedule({caller.id}).{rotate}",
        )


CHECKS: dict[str, Callable[[Examination], Iterator[Found]]] = {
    "The URL": _url,
    "The calls": _answers,
    "The plans": _plans,
    "Other entries": _company,
}
