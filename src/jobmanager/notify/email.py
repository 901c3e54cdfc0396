"""E-mail over SMTP: one connection per message, every wait bounded, nothing of a message can become a header."""

from __future__ import annotations

import re
import smtplib
import ssl
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from urllib.parse import unquote, urlsplit

from jobmanager.clock import Clock
from jobmanager.notify.message import Message, Notifier, NotSentError, UnsureError
from jobmanager.notify.texts import one_line
from jobmanager.settings import HIDDEN, is_address

POLICY = SMTP.clone(max_line_length=900)
"""A subject is one line: some readers show a folded one with a gap."""
WITHIN = 10.0
"""Seconds that each step of a conversation may take."""
LOCAL = ("localhost", "127.0.0.1", "::1")


class Email(Notifier):
    """Sends e-mail by the server of a URL: `smtps://` with TLS, `starttls://` with TLS or not at all, `smtp://` with TLS if it is offered."""

    name = "email"

    def __init__(
        self, url: str, *, sender: str, own: Sequence[str], clock: Clock, within: float = WITHIN
    ) -> None:
        parts = urlsplit(url)
        self._scheme = parts.scheme
        self._host = parts.hostname or "localhost"
        self._port = parts.port or {"smtps": 465, "starttls": 587}.get(self._scheme, 25)
        self._user, self._password = unquote(parts.username or ""), unquote(parts.password or "")
        self._sender, self._own = sender, tuple(own)
        self._clock, self._within = clock, within

    def send(self, message: Message) -> None:
        """Send without noting when it begins."""
        self.deliver(message, lambda: None)

    def deliver(self, message: Message, begin: Callable[[], None]) -> None:
        """Send; `begin` is called when the server waits for the text, right before it."""
        receivers = [message.to] if message.to else list(self._own)
        if not receivers or not all(map(is_address, receivers)):
            raise NotSentError("There is no e-mail address to send to. Set JOBMANAGER_ALERTS_EMAIL.")
        content = self.composed(message, receivers).as_bytes(policy=POLICY)
        try:
            with closing(self._connected()) as server:
                self._introduce(server)
                self._address(server, receivers)
                self._announce(server)
                begin()
                self._transmit(server, content)
                with suppress(OSError, smtplib.SMTPException):  # it was accepted, whatever follows
                    server.quit()
        except (OSError, smtplib.SMTPException) as error:
            raise NotSentError(f"{self._host}:{self._port}: {self._told(error)}") from None

    def composed(self, message: Message, receivers: Sequence[str]) -> EmailMessage:
        """Return the e-mail."""
        mail = EmailMessage(policy=POLICY)
        mail["Subject"] = one_line(message.subject, 200)
        mail["From"] = Address("jobmanager", addr_spec=self._sender)
        mail["To"] = [Address(addr_spec=receiver) for receiver in receivers]
        mail["Date"] = format_datetime(self._clock.now())
        mail["Message-ID"] = f"<{message.id}@{self._sender.rpartition('@')[2]}>"
        mail["Auto-Submitted"] = "auto-generated"
        mail["X-Jobmanager-Event"] = message.event
        mail.set_content(message.text)
        return mail

    def _connected(self) -> smtplib.SMTP:
        if self._scheme == "smtps":
            context = ssl.create_default_context()
            return smtplib.SMTP_SSL(self._host, self._port, timeout=self._within, context=context)
        return smtplib.SMTP(self._host, self._port, timeout=self._within)

    def _introduce(self, server: smtplib.SMTP) -> None:
        server.ehlo_or_helo_if_needed()
        encrypted = self._scheme == "smtps"
        if not encrypted and (self._scheme == "starttls" or server.has_extn("starttls")):
            server.starttls(context=ssl.create_default_context())
            server.ehlo()
            encrypted = True
        if not self._user:
            return
        if not encrypted and self._host not in LOCAL:
            raise NotSentError(
                f"{self._host}:{self._port} offers no TLS, and the password is not sent without it. Use smtps://."
            )
        server.login(self._user, self._password)

    def _address(self, server: smtplib.SMTP, receivers: Sequence[str]) -> None:
        code, said = server.mail(self._sender)
        if code >= 400:
            raise smtplib.SMTPSenderRefused(code, said, self._sender)
        refused = {}
        for receiver in receivers:
            code, said = server.rcpt(receiver)
            if code >= 400:
                refused[receiver] = (code, said)
        if len(refused) == len(receivers):
            raise smtplib.SMTPRecipientsRefused(refused)

    def _announce(self, server: smtplib.SMTP) -> None:
        """Have the server wait for the text: up to here nothing can have arrived."""
        code, said = server.docmd("DATA")
        if code != 354:
            raise smtplib.SMTPDataError(code, said)

    def _transmit(self, server: smtplib.SMTP, content: bytes) -> None:
        """Send the text and wait for the reply; without one nobody knows whether it was accepted."""
        stuffed = re.sub(rb"^\.", b"..", content, flags=re.MULTILINE)  # a line of one dot would end the text
        try:
            server.send(stuffed.removesuffix(b"\r\n") + b"\r\n.\r\n")
            code, said = server.getreply()
        except (OSError, smtplib.SMTPException) as error:
            raise UnsureError(
                f"{self._host}:{self._port}: {self._told(error)} after the text was sent"
            ) from None
        if code >= 400:
            raise smtplib.SMTPDataError(code, said)

    def _told(self, error: Exception) -> str:
        text = one_line(f"{type(error).__name__}: {error}", 300)
        return text.replace(self._password, HIDDEN) if self._password else text
