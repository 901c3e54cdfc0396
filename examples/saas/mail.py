"""The outbox: mails wait in `pending_emails`, workers claim them, smtplib hands them over, refused ones wait longer and longer.

A mail belongs to one worker at a time, however many there are. SMTP has no transactions: if a process dies between
the server's "250 OK" and our note of it, that mail goes out again, with the same Message-ID.
"""

import os
import smtplib
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from types import TracebackType
from typing import Literal, Self

from .database import stamp

SENDER = "Acme Boards <no-reply@example.com>"
BACKOFF = tuple(timedelta(minutes=minutes) for minutes in (1, 3, 9, 15))
MAX_ATTEMPTS = 8
ABANDONED_AFTER = timedelta(
    minutes=15
)  # far more than one mail can take: SMTP answers within its time-out or fails
SMTP_TIMEOUT_SECONDS = 10

DUE = """
SELECT id FROM pending_emails
WHERE (status = 'pending' AND next_attempt_at <= :due) OR (status = 'sending' AND claimed_at <= :abandoned)
"""
CLAIM = f"""
UPDATE pending_emails SET status = 'sending', claimed_by = :worker, claimed_at = :now
WHERE id IN ({DUE} ORDER BY next_attempt_at, id LIMIT :limit)
RETURNING id, recipient, subject, body, attempts
"""  # noqa: S608 - a constant inside a constant
BEGIN_ATTEMPT = """
UPDATE pending_emails SET attempts = attempts + 1, claimed_at = :now
WHERE id = :id AND status = 'sending' AND claimed_by = :worker
"""
END_ATTEMPT = """
UPDATE pending_emails SET status = :status, sent_at = :sent_at, last_error = :error, next_attempt_at = :next, claimed_by = NULL
WHERE id = :id AND status = 'sending' AND claimed_by = :worker
"""
GIVE_BACK = "UPDATE pending_emails SET status = 'pending', claimed_by = NULL WHERE status = 'sending' AND claimed_by = :worker"
COUNT_DUE = f"SELECT count(*) FROM ({DUE})"  # noqa: S608 - a constant inside a constant
COUNT_LEFT = "SELECT count(*) FROM pending_emails WHERE status IN ('pending', 'sending')"

Outcome = Literal["sent", "failed", "taken"]


@dataclass(frozen=True, kw_only=True)
class Mail:
    """A claimed mail; `attempts` were made before."""

    id: int
    recipient: str
    subject: str
    body: str
    attempts: int


def server() -> smtplib.SMTP:
    """Return a connection to `SAAS_SMTP_HOST`:`SAAS_SMTP_PORT` (localhost:2525), to be used in `with`. OSError if nobody answers."""
    host = os.environ.get("SAAS_SMTP_HOST", "localhost")
    port = int(os.environ.get("SAAS_SMTP_PORT", "2525"))
    return smtplib.SMTP(host, port, timeout=SMTP_TIMEOUT_SECONDS)


def utc_now() -> datetime:
    """Return the wall clock."""
    return datetime.now(UTC)


class Outbox:
    """One worker's view of `pending_emails`. Leaving `with` gives back what was claimed and not tried."""

    def __init__(
        self,
        db: sqlite3.Connection,
        worker: str,
        *,
        backoff: Sequence[timedelta] = BACKOFF,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._db = db
        self._worker = worker
        self._backoff = backoff
        self._now = now
        self._opened_at = (
            now()
        )  # what becomes due later is for a later outbox, so working through this one ends

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.execute(GIVE_BACK, {"worker": self._worker})

    def due(self) -> int:
        """How many mails `claim` would find."""
        return self._count(COUNT_DUE, self._judged_by(self._now()))

    def left(self) -> int:
        """How many mails have neither been sent nor given up, whenever they are due."""
        return self._count(COUNT_LEFT, {})

    def claim(self, limit: int) -> list[Mail]:
        """Up to `limit` mails that are due or that a dead worker left behind; now nobody else gets them."""
        now = self._now()
        values = {**self._judged_by(now), "worker": self._worker, "now": stamp(now), "limit": limit}
        return sorted((Mail(**row) for row in self._db.execute(CLAIM, values)), key=lambda mail: mail.id)

    def send(self, mail: Mail, smtp: smtplib.SMTP) -> Outcome:
        """Hand `mail` over: "sent", "failed" (and delayed), or "taken" by a worker who thought this one dead.

        Raises OSError when the server is gone, which says nothing about the mails behind this one.
        """
        mine = {"id": mail.id, "worker": self._worker}
        if not self._db.execute(BEGIN_ATTEMPT, {**mine, "now": stamp(self._now())}).rowcount:
            return "taken"
        try:
            smtp.send_message(_message(mail))
        except (OSError, ValueError) as error:  # smtplib's own are OSErrors; ValueError: not a mail at all
            self._refused(mail, error)
            if _server_is_gone(error):
                raise
            return "failed"
        now = stamp(self._now())
        self._db.execute(END_ATTEMPT, {**mine, "status": "sent", "sent_at": now, "error": None, "next": now})
        return "sent"

    def _refused(self, mail: Mail, error: OSError | ValueError) -> None:
        code, text = _reply(error)
        attempts = mail.attempts + 1
        hopeless = 500 <= code < 600 or attempts >= MAX_ATTEMPTS
        values = {
            "id": mail.id,
            "worker": self._worker,
            "status": "failed" if hopeless else "pending",
            "sent_at": None,
            "error": text,
            "next": stamp(self._now() + delay_after(attempts, self._backoff)),
        }
        self._db.execute(END_ATTEMPT, values)

    def _judged_by(self, now: datetime) -> dict[str, str]:
        return {"due": stamp(self._opened_at), "abandoned": stamp(now - ABANDONED_AFTER)}

    def _count(self, statement: str, values: dict[str, str]) -> int:
        (mails,) = self._db.execute(statement, values).fetchone()
        return int(mails)


def delay_after(attempts: int, backoff: Sequence[timedelta] = BACKOFF) -> timedelta:
    """How long a mail rests after its `attempts`-th refusal; the last delay goes on and on."""
    return backoff[min(attempts, len(backoff)) - 1]


def _message(mail: Mail) -> EmailMessage:
    message = EmailMessage()
    message["From"] = SENDER
    message["To"] = mail.recipient
    message["Subject"] = mail.subject
    message["Message-ID"] = f"<pending-{mail.id}@example.com>"
    message.set_content(mail.body)
    return message


def _server_is_gone(error: Exception) -> bool:
    if isinstance(error, smtplib.SMTPException | ValueError):
        return isinstance(error, smtplib.SMTPServerDisconnected)
    return True


def _reply(error: Exception) -> tuple[int, str]:
    text: bytes | str
    match error:
        case smtplib.SMTPRecipientsRefused(recipients=refused):
            code, text = next(iter(refused.values()))
        case smtplib.SMTPResponseException(smtp_code=code, smtp_error=text):
            pass
        case _:
            return 0, str(error)
    return code, f"{code} {text.decode(errors='replace') if isinstance(text, bytes) else text}"
