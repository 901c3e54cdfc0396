"""Realistic rows, the same ones for the same seed and moment. Every address ends in example.com, so none is anybody's."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Table, insert, select

from . import data, mails, partitions, plans
from .outbox import delay_after

Values = dict[str, Any]

FIRST_NAMES = [
    "Ada",
    "Amir",
    "Bea",
    "Chloé",
    "Dmitri",
    "Elif",
    "Emeka",
    "Hana",
    "Ines",
    "Jonas",
    "Mei",
    "Priya",
]
LAST_NAMES = ["Adeyemi", "Bauer", "Costa", "García", "Haddad", "Ito", "Kaya", "Müller", "Novak", "Okafor"]
# Where the addresses live decides what the demo's mail server does with them: see smtp_sink.py.
DOMAINS = {"example.com": 88, "greylist.example.com": 7, "full.example.com": 3, "gone.example.com": 2}
BROWSERS = ["Firefox 145 / Linux", "Chrome 142 / Windows", "Chrome 142 / Android", "Safari 26 / macOS"]
LOG_LINES = {
    "debug": ["cache miss for board {n}", "websocket {n} pinged"],
    "info": [
        "GET /api/boards/{n} 200 in {ms} ms",
        "POST /api/cards 201 in {ms} ms",
        "user {n} signed in",
        "export {n} ready",
    ],
    "warning": ["slow query: {ms}0 ms", "rate limit reached by user {n}"],
    "error": ["payment webhook {n}: signature does not match", "GET /api/boards/{n} 500 in {ms} ms"],
}
LOG_LEVELS = {"debug": 20, "info": 70, "warning": 8, "error": 2}
SOURCES = ["web", "api", "worker", "billing"]
LOCALES = {"en": 50, "de": 30, "de-AT": 5, "fr": 5, None: 10}
PROVIDERS = ["openai", "anthropic", "google"]


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """How many rows of each kind."""

    users: int = 200
    sessions: int = 3_000
    invitations: int = 300
    push_subscriptions: int = 120
    logs: int = 20_000
    error_logs: int = 500
    ai_requests: int = 2_000
    activities: int = 2_000
    conversions: int = 40
    mails: int = 60


def populate(db: Connection, amounts: Amounts, rng: random.Random, now: datetime) -> None:
    """Add `amounts` of rows as four months of use would have left them at `now`; users come from `db` if none are asked for."""
    _insert(db, data.users, _users(amounts.users, rng, now))
    users = db.execute(select(data.users).order_by(data.users.c.id)).all()
    for table, rows in (
        (data.sessions, _sessions(amounts.sessions, users, rng, now)),
        (data.invitations, _invitations(amounts.invitations, users, rng, now)),
        (data.push_subscriptions, _push_subscriptions(amounts.push_subscriptions, users, rng, now)),
        (data.logs, _logs(amounts.logs, rng, now)),
        (data.error_logs, _error_logs(amounts.error_logs, rng, now)),
        (data.ai_requests, _ai_requests(amounts.ai_requests, users, rng, now)),
        (data.activities, _activities(amounts.activities, users, rng, now)),
        (data.conversions, _conversions(amounts.conversions, users, rng, now)),
        (data.pending_emails, _mails(amounts.mails, users, rng, now)),
    ):
        _insert(db, table, rows)
    if amounts.users:
        _found(db, users, now)


def _found(db: Connection, users: Sequence[Any], now: datetime) -> None:
    """Add what a company has once: contracts, deletions that are asked for, projects, and months of events."""
    _insert(db, data.subscriptions, (_subscription(user, now) for user in users if _known_here(user.id)))
    _insert(db, data.licences, (_licence(user, now) for user in users if user.id % 7 == 0))
    _insert(db, data.deletion_requests, (_deletion(user, now) for user in users if user.id % 25 == 0))
    names = ["Aurora", "Borealis", "Cirrus", "Delta"]
    _insert(db, data.projects, ({"name": name, "deleted_at": None} for name in names))
    gone = ({"name": f"Old {n}", "deleted_at": now - timedelta(days=n)} for n in (1, 3, 6, 9, 12))
    _insert(db, data.projects, gone)
    for ago in range(6, -1, -1):
        partitions.create(db, now - timedelta(days=30 * ago))
    for name in partitions.names(db):
        partitions.fill(db, name, 200)


def _insert(db: Connection, table: Table, rows: Iterator[Values]) -> None:
    if found := list(rows):
        db.execute(insert(table), found)


def _users(count: int, rng: random.Random, now: datetime) -> Iterator[Values]:
    for number in range(1, count + 1):
        (domain,) = rng.choices(list(DOMAINS), list(DOMAINS.values()))
        yield {
            "name": f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}",
            "email": f"user{number}@{domain}",
            "locale": rng.choices(list(LOCALES), list(LOCALES.values()))[0],
            "plan": plans.plan_of(number),
            "credits": rng.choice([40, 90, 150, 400, 1_000, 5_000]),
            "created_at": _ago(now, rng, days=120),
        }


def _sessions(count: int, users: Sequence[Any], rng: random.Random, now: datetime) -> Iterator[Values]:
    for _ in range(count):
        started = _ago(now, rng, days=90)
        ends = started + timedelta(days=rng.choice([1, 14, 30]))  # "remember me" lasts longer
        user = rng.choice(users).id
        yield {"user_id": user, "browser": rng.choice(BROWSERS), "created_at": started, "expires_at": ends}


def _invitations(count: int, users: Sequence[Any], rng: random.Random, now: datetime) -> Iterator[Values]:
    for _ in range(count):
        sent = _ago(now, rng, days=90)
        accepted = sent + timedelta(hours=rng.randint(1, 120))
        yield {
            "user_id": rng.choice(users).id,
            "email": f"guest{rng.randint(1, 9_999)}@example.com",
            "created_at": sent,
            "expires_at": sent + timedelta(days=7),
            "accepted_at": accepted if accepted < now and rng.random() < 0.6 else None,
        }


def _push_subscriptions(
    count: int, users: Sequence[Any], rng: random.Random, now: datetime
) -> Iterator[Values]:
    for _ in range(count):
        used = _ago(now, rng, days=120)
        ends = rng.choice([None, used + timedelta(days=60)])
        endpoint = f"/push/{rng.randint(1, 9_999)}"
        yield {"user_id": rng.choice(users).id, "endpoint": endpoint, "used_at": used, "expires_at": ends}


def _logs(count: int, rng: random.Random, now: datetime) -> Iterator[Values]:
    for _ in range(count):
        (level,) = rng.choices(list(LOG_LEVELS), list(LOG_LEVELS.values()))
        message = rng.choice(LOG_LINES[level]).format(n=rng.randint(1, 9_999), ms=rng.randint(2, 180))
        created = _ago(now, rng, days=120)
        yield {"level": level, "source": rng.choice(SOURCES), "message": message, "created_at": created}


def _error_logs(count: int, rng: random.Random, now: datetime) -> Iterator[Values]:
    for _ in range(count):
        message = rng.choice(LOG_LINES["error"]).format(n=rng.randint(1, 9_999), ms=rng.randint(2, 180))
        yield {"message": message, "created_at": _ago(now, rng, days=120)}


def _ai_requests(count: int, users: Sequence[Any], rng: random.Random, now: datetime) -> Iterator[Values]:
    for _ in range(count):
        yield {
            "user_id": rng.choice(users).id,
            "provider": rng.choice(PROVIDERS),
            "tokens": rng.randint(50, 4_000),
            "created_at": _ago(now, rng, days=120),
        }


def _activities(count: int, users: Sequence[Any], rng: random.Random, now: datetime) -> Iterator[Values]:
    for _ in range(count):
        yield {
            "user_id": rng.choice(users).id,
            "item": f"board-{int(rng.paretovariate(1)) % 50}",
            "milliseconds": round(rng.lognormvariate(3, 0.6), 1),
            "created_at": _ago(now, rng, days=2),
        }


def _conversions(count: int, users: Sequence[Any], rng: random.Random, now: datetime) -> Iterator[Values]:
    for _ in range(count):
        cents = rng.choice([570, 2_970])
        yield {"user_id": rng.choice(users).id, "cents": cents, "created_at": _ago(now, rng, days=45)}


def _mails(count: int, users: Sequence[Any], rng: random.Random, now: datetime) -> Iterator[Values]:
    for _ in range(count):
        user = rng.choice(users)
        subject, body = mails.text(
            rng.choice(["welcome", "sign_in"]), user.locale or "en", {"name": user.name}
        )
        attempts = rng.choice([0, 0, 0, 0, 1, 2])
        written = now - timedelta(minutes=rng.randint(1, 12))
        yield {
            "key": f"seeded-{rng.getrandbits(64):016x}",
            "recipient": user.email,
            "subject": subject,
            "body": body,
            "attempts": attempts,
            "last_error": "451 4.7.1 greylisted, try again later" if attempts else None,
            "next_attempt_at": now + delay_after(attempts) * rng.random() if attempts else written,
            "created_at": written,
        }


def _known_here(number: int) -> bool:
    """Return whether the webhook of the subscription came: a few were missed, and wait for the reconciliation."""
    return plans.plan_of(number) != "free" and number % 33 != 0


def _subscription(user: Any, now: datetime) -> Values:
    return {
        "user_id": user.id,
        "stripe_id": f"sub_{user.id:04}",
        "status": "active",
        "cents": plans.CENTS[user.plan],
        "period_end": plans.period_end_of(user.id, now, now),
    }


def _licence(user: Any, now: datetime) -> Values:
    return {"user_id": user.id, "expires_at": now + timedelta(days=user.id % 27 - 2, hours=5)}


def _deletion(user: Any, now: datetime) -> Values:
    return {"user_id": user.id, "requested_at": now - timedelta(days=user.id % 40, hours=3)}


def _ago(now: datetime, rng: random.Random, *, days: int) -> datetime:
    return now - timedelta(seconds=rng.randrange(days * 86_400))
