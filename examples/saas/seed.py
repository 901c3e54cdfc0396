"""Realistic rows, the same ones for the same seed and moment. Every address ends in example.com, so none is anybody's.

python -m examples.saas.seed        fills saas.db, or the file that SAAS_DATABASE names
"""

import random
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from . import database
from .database import stamp
from .mail import delay_after

Row = tuple[object, ...]

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
MAILS = {
    "Welcome to Acme Boards": "Hello {name},\n\nyour first board is waiting for you.\n",
    "Your invoice is ready": "Hello {name},\n\nthe invoice for this month is in your account.\n",
    "New sign-in to your account": "Hello {name},\n\nsomebody signed in with a browser we have not seen before.\n",
    "Your weekly summary": "Hello {name},\n\nyour team moved cards this week. See how far you are.\n",
}


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """How many rows of each kind."""

    users: int = 200
    sessions: int = 3_000
    invitations: int = 300
    logs: int = 20_000
    mails: int = 60


def populate(db: sqlite3.Connection, amounts: Amounts, rng: random.Random, now: datetime) -> None:
    """Add `amounts` of rows as four months of use would have left them at `now`; users come from `db` if none are asked for."""
    with database.transaction(db):
        _insert(db, "users (name, email, plan, created_at)", _users(amounts.users, rng, now))
        users = [
            (row["id"], row["name"], row["email"])
            for row in db.execute("SELECT id, name, email FROM users ORDER BY id")
        ]
        _insert(
            db,
            "sessions (user_id, address, browser, created_at, expires_at)",
            _sessions(amounts.sessions, users, rng, now),
        )
        _insert(
            db,
            "invitations (invited_by, email, created_at, expires_at, accepted_at)",
            _invitations(amounts.invitations, users, rng, now),
        )
        _insert(db, "logs (level, source, message, created_at)", _logs(amounts.logs, rng, now))
        _insert(
            db,
            "pending_emails (recipient, subject, body, attempts, last_error, next_attempt_at, created_at)",
            _mails(amounts.mails, users, rng, now),
        )


User = tuple[int, str, str]


def _insert(db: sqlite3.Connection, target: str, rows: Iterator[Row]) -> None:
    marks = ", ".join("?" * (target.count(",") + 1))
    db.executemany(f"INSERT INTO {target} VALUES ({marks})", rows)  # noqa: S608 - targets are the constants above


def _users(count: int, rng: random.Random, now: datetime) -> Iterator[Row]:
    for number in range(1, count + 1):
        first, last = rng.choice(FIRST_NAMES), rng.choice(LAST_NAMES)
        (domain,) = rng.choices(list(DOMAINS), list(DOMAINS.values()))
        plan = rng.choices(["free", "team", "business"], [70, 22, 8])[0]
        yield f"{first} {last}", f"user{number}@{domain}", plan, stamp(_ago(now, rng, days=120))


def _sessions(count: int, users: list[User], rng: random.Random, now: datetime) -> Iterator[Row]:
    for _ in range(count):
        user, _, _ = rng.choice(users)
        started = _ago(now, rng, days=90)
        ends = started + timedelta(days=rng.choice([1, 14, 30]))  # "remember me" lasts longer
        address = f"192.0.2.{rng.randint(1, 254)}"  # a block reserved for examples
        yield user, address, rng.choice(BROWSERS), stamp(started), stamp(ends)


def _invitations(count: int, users: list[User], rng: random.Random, now: datetime) -> Iterator[Row]:
    for _ in range(count):
        user, _, _ = rng.choice(users)
        sent = _ago(now, rng, days=90)
        accepted = sent + timedelta(hours=rng.randint(1, 120))
        answered = stamp(accepted) if accepted < now and rng.random() < 0.6 else None
        yield (
            user,
            f"guest{rng.randint(1, 9_999)}@example.com",
            stamp(sent),
            stamp(sent + timedelta(days=7)),
            answered,
        )


def _logs(count: int, rng: random.Random, now: datetime) -> Iterator[Row]:
    for _ in range(count):
        (level,) = rng.choices(list(LOG_LEVELS), list(LOG_LEVELS.values()))
        message = rng.choice(LOG_LINES[level]).format(n=rng.randint(1, 9_999), ms=rng.randint(2, 180))
        yield level, rng.choice(SOURCES), message, stamp(_ago(now, rng, days=120))


def _mails(count: int, users: list[User], rng: random.Random, now: datetime) -> Iterator[Row]:
    for _ in range(count):
        _, name, recipient = rng.choice(users)
        subject = rng.choice(list(MAILS))
        body = MAILS[subject].format(name=name)
        attempts = rng.choice([0, 0, 0, 0, 1, 2])
        error = "451 4.7.1 greylisted, try again later" if attempts else None
        written = now - timedelta(minutes=rng.randint(1, 12))
        due = now + delay_after(attempts) * rng.random() if attempts else written
        yield recipient, subject, body, attempts, error, stamp(due), stamp(written)


def _ago(now: datetime, rng: random.Random, *, days: int) -> datetime:
    return now - timedelta(seconds=rng.randrange(days * 86_400))


if __name__ == "__main__":
    with database.connect() as connection:
        database.create(connection)
        populate(connection, Amounts(), random.Random(7), datetime.now(UTC))
    print(f"{database.location()} is filled.")
