"""Findings about how the database reaches the application: the transport, the keys, the clocks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta

from jobmanager.backends.base import Found
from jobmanager.backends.pg_cron.diagnostics.context import Examination, counted, some, utc

TOLERANCE, WORTH_A_NOTE = timedelta(seconds=300), timedelta(seconds=2)
ROTATION = timedelta(days=1)
OLDEST_PG_NET = 0, 14
RESTART = "Restart the application: its start carries settings over."


def _transport(exam: Examination) -> Iterator[Found]:
    """Check that the database is able to reach the application by the transport that it has stored."""
    ticker, server = exam.ticker, exam.server
    if ticker is None:
        return
    instead = "or set JOBMANAGER_PG_CRON_TRANSPORT=notify and restart the application"
    if ticker.transport == "http" and not server.has_http:
        yield Found(
            level="failing",
            text="Calls go by the extension http, which the database does not have.",
            fix=f"CREATE EXTENSION http, {instead}.",
        )
    if ticker.transport == "pg_net" and not server.has_pg_net:
        yield Found(
            level="failing",
            text="Calls go by pg_net, which the database does not have.",
            fix=f"Add pg_net to shared_preload_libraries and CREATE EXTENSION pg_net, {instead}.",
        )
    elif ticker.transport == "pg_net":
        yield from _pg_net(exam, instead)
    if ticker.transport == "notify" and not exam.ask.hears_itself():
        yield Found(
            level="warning",
            text="No notification comes back: JOBMANAGER_DATABASE_URL goes through a transaction pooler, and runs start up to 6 s late.",
            fix="Name the database's own port in JOBMANAGER_DATABASE_URL, or the pooler's in session mode.",
        )


def release_of(version: str) -> tuple[int, ...]:
    """Return the numbers of a version: (0, 20, 4) for `0.20.4`."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


def _pg_net(exam: Examination, instead: str) -> Iterator[Found]:
    """Check that pg_net is new enough, that its responses may be read, and that its worker serves this database."""
    server, owner = exam.server, exam.owner
    is_older = server.pg_net is not None and release_of(server.pg_net) < OLDEST_PG_NET
    if owner is not None and owner.reads_responses is False:
        yield Found(
            level="failing",
            text=f"The owner of the functions, {owner.name!r}, may not read pg_net's responses: no call gets its outcome.",
            fix=f'Let a superuser run GRANT USAGE ON SCHEMA net TO "{owner.name}"; GRANT SELECT ON net._http_response, '
            f'net.http_request_queue TO "{owner.name}"; or update pg_net: since 0.12 every role may read them.',
        )
    if is_older:
        yield Found(
            level="warning",
            text=f"pg_net is {server.pg_net}; the oldest that is supported is {'.'.join(map(str, OLDEST_PG_NET))}. Before that its worker has no "
            "name in pg_stat_activity, so whether it runs cannot be seen.",
            fix="Install a newer pg_net, restart the server and run ALTER EXTENSION pg_net UPDATE.",
        )
    if not server.senders and not is_older:
        yield Found(
            level="failing",
            text="pg_net's worker does not run: calls wait in its queue.",
            fix="SELECT net.worker_restart(); if that does not help, see that shared_preload_libraries has pg_net, and restart the server.",
        )
    elif server.senders and server.database not in server.senders:
        yield Found(
            level="failing",
            text=f"pg_net's worker serves database {some(server.senders)}, not {server.database!r}: calls wait for ever.",
            fix=f"Set pg_net.database_name = '{server.database}' and restart the server, {instead}.",
        )


def _drift(exam: Examination) -> Iterator[Found]:
    """Check that what the database has stored is what the settings say."""
    ticker, backend = exam.ticker, exam.backend
    if ticker is None:
        return
    for name, stored, wanted in (
        ("JOBMANAGER_PG_CRON_TRANSPORT", ticker.transport, backend.transport),
        ("JOBMANAGER_PG_CRON_LAYOUT", ticker.layout, backend.layout),
        ("JOBMANAGER_AUTH", ticker.auth, backend.auth),
    ):
        if wanted not in ("auto", stored):
            yield Found(
                level="warning",
                text=f"{name} is {wanted} here, and {stored} in the database.",
                fix=RESTART,
            )


def _keys(exam: Examination) -> Iterator[Found]:
    """Check that the database signs with a secret that the application knows."""
    ticker, backend = exam.ticker, exam.backend
    if ticker is None or ticker.transport == "notify":
        return
    keys, message = exam.keys, "jobmanager doctor"
    if keys is None:
        return
    ours = backend.signatures(message.encode())
    is_signed = "SELECT jobmanager.is_signed(%s, %s, %s)"
    if not keys.live:
        yield Found(
            level="failing",
            text="The database has no signing key: the application refuses every call.",
            fix="Run `jobmanager init`; it makes one, or takes JOBMANAGER_SECRET.",
        )
    elif not ours:
        yield Found(
            level="failing",
            text="JOBMANAGER_SECRET is not set here: this process would refuse every call.",
            fix="Set it to the secret that `jobmanager init` printed; `jobmanager secret rotate` makes another.",
        )
    elif not any(exam.ask.column(is_signed, backend.namespace, message, one)[0] for one in ours):
        yield Found(
            level="failing",
            text="JOBMANAGER_SECRET is not the secret that the database signs with: every call is answered 401.",
            fix="Set JOBMANAGER_SECRET to that secret in every process, or make another with `jobmanager secret rotate`.",
        )
    elif ticker.auth == "bearer" and not keys.bearers:
        yield Found(
            level="failing",
            text="JOBMANAGER_AUTH=bearer, and the database keeps no token that it could send.",
            fix="Run `jobmanager init` once more, or set JOBMANAGER_AUTH=signature and restart the application.",
        )
    if keys.more_since is not None and exam.server.now - keys.more_since > ROTATION:
        yield Found(
            level="warning",
            text=f"{counted(keys.live, 'key')} sign since {utc(keys.more_since)}: a rotation was not finished.",
            fix="When every process has the new secret: `jobmanager secret retire`.",
        )
    if ticker.auth == "bearer" and ticker.transport == "pg_net":
        yield Found(
            level="warning",
            text="With JOBMANAGER_AUTH=bearer the secret lies in net.http_request_queue, which every role can read.",
            fix="Set JOBMANAGER_AUTH=signature and restart the application, then `jobmanager secret rotate`.",
        )


def _clocks(exam: Examination) -> Iterator[Found]:
    """Check the clocks: a call is refused if it is five minutes old."""
    skew = exam.server.now - exam.backend.clock.now()
    said = f"the database's clock is {skew.total_seconds():+,.0f} s off this host's"
    if exam.ticker is not None and exam.ticker.transport != "notify" and abs(skew) > TOLERANCE:
        yield Found(
            level="failing",
            text=f"T{said[1:]}; calls more than 300 s old, or ahead, are answered 401.",
            fix="Let both hosts follow NTP.",
        )
    elif abs(skew) > WORTH_A_NOTE:
        yield Found(level="note", text=said)


CHECKS: dict[str, Callable[[Examination], Iterator[Found]]] = {
    "The transport": _transport,
    "The keys": _keys,
    "The clocks": _clocks,
    "The settings in the database": _drift,
}
