"""The outbox: mails wait in `pending_emails`, workers claim them, smtplib hands them over, refused ones wait longer and longer.

A mail belongs to one worker at a time, however many there are. SMTP has no transactions: if a process dies between
the server's "250 OK" and our note of it, that mail goes out again, with the same Message-ID.
"""

import os
import smtplib
from collections.abc import Sequence
from datetime import timedelta
from email.message import EmailMessage
from types import TracebackType
from typing import Any, Literal, Self

from sqlalchemy import Row, and_, func, or_, select, update

from . import data
from .data import pending_emails as mails

SENDER = "Acme Boards <no-reply@example.com>"
BACKOFF = tuple(timedelta(minutes=minutes) for minutes in (1, 3, 9, 15))
MAX_ATTEMPTS = 8
ABANDONED_AFTER = timedelta(
    minutes=15
)  # far more than one mail can take: SMTP answers within its time-out or fails
SMTP_TIMEOUT_SECONDS = 10

Outcome = Literal["sent", "failed", "taken"]


def server() -> smtplib.SMTP:
    """Return a connection to `SAAS_SMTP_HOST`:`SAAS_SMTP_PORT` (localhost:2525), to be used in `with`. OSError if nobody answers."""
    host = os.environ.get("SAAS_SMTP_HOST", "localhost")
    port = int(os.environ.get("SAAS_SMTP_PORT", "2525"))
    return smtplib.SMTP(host, port, timeout=SMTP_TIMEOUT_SECONDS)


class Outbox:
    """One worker's view of `pending_emails`. Leaving `with` gives back what was claimed and not tried."""

    def __init__(self, worker: str, *, backoff: Sequence[timedelta] = BACKOFF) -> None:
        self._worker = worker
        self._backoff = backoff
        # What becomes due later is for a later outbox, so working through this one ends.
        self._opened_at = data.now()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        back = update(mails).where(mails.c.status == "sending", mails.c.claimed_by == self._worker)
        with data.transaction() as db:
            db.execute(back.values(status="pending", claimed_by=None))

    def due(self) -> int:
        """Return how many mails `claim` would find."""
        return self._count(self._due())

    def left(self) -> int:
        """Return how many mails have neither been sent nor given up, whenever they are due."""
        return self._count(mails.c.status.in_(["pending", "sending"]))

    def claim(self, limit: int) -> list[Row[Any]]:
        """Return up to `limit` mails that are due or that a dead worker left behind; now nobody else gets them."""
        with data.transaction() as db:
            taken = {"status": "sending", "claimed_by": self._worker, "claimed_at": data.now()}
            return data.claim(db, mails, self._due(), taken, limit, first=mails.c.next_attempt_at)

    def send(self, mail: Row[Any], smtp: smtplib.SMTP) -> Outcome:
        """Hand `mail` over: "sent", "failed" (and delayed), or "taken" by a worker who thought this one dead.

        Raises OSError when the server is gone, which says nothing about the mails behind this one.
        """
        if not self._change(mail, attempts=mail.attempts + 1, claimed_at=data.now()):
            return "taken"
        try:
            smtp.send_message(_message(mail))
        except (OSError, ValueError) as error:  # smtplib's own are OSErrors; ValueError: not a mail at all
            self._refused(mail, error)
            if _server_is_gone(error):
                raise
            return "failed"
        self._change(mail, status="sent", sent_at=data.now(), last_error=None, claimed_by=None)
        return "sent"

    def _refused(self, mail: Row[Any], error: OSError | ValueError) -> None:
        code, text = _reply(error)
        attempts = mail.attempts + 1
        hopeless = 500 <= code < 600 or attempts >= MAX_ATTEMPTS
        due = data.now() + delay_after(attempts, self._backoff)
        status = "failed" if hopeless else "pending"
        self._change(mail, status=status, last_error=text, next_attempt_at=due, claimed_by=None)

    def _change(self, mail: Row[Any], **values: Any) -> bool:
        """Change the mail if it is still this worker's."""
        mine = (mails.c.id == mail.id, mails.c.status == "sending", mails.c.claimed_by == self._worker)
        with data.transaction() as db:
            return bool(db.execute(update(mails).where(*mine).values(**values)).rowcount)

    def _due(self):
        abandoned = data.now() - ABANDONED_AFTER
        return or_(
            and_(mails.c.status == "pending", mails.c.next_attempt_at <= self._opened_at),
            and_(mails.c.status == "sending", mails.c.claimed_at <= abandoned),
        )

    def _count(self, condition) -> int:
        with data.transaction() as db:
            return db.scalars(select(func.count()).select_from(mails).where(condition)).one()


def delay_after(attempts: int, backoff: Sequence[timedelta] = BACKOFF) -> timedelta:
    """Return how long a mail rests after its `attempts`-th refusal; the last delay goes on and on."""
    return backoff[min(attempts, len(backoff)) - 1]


def _message(mail: Row[Any]) -> EmailMessage:
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
