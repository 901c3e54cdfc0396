"""A mail server for demos and tests: takes mail on loopback, delivers none, keeps what it took.

    python -m examples.saas.smtp_sink 2525 mails.mbox

Addresses at greylist.example.com are refused twice before they are served, as careful servers do with strangers;
full.example.com has never room (452), gone.example.com knows nobody (550). Everybody else's mail is taken.
"""

import mailbox
import socketserver
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

LINE_LIMIT = 64 * 1024
MAIL_LIMIT = 10 * 1024 * 1024

Policy = Callable[[str, int], str | None]


def domain_policy(recipient: str, refusals: int) -> str | None:
    """Return the reply that refuses `recipient`, who was refused `refusals` times before; None takes the mail."""
    match recipient.rpartition("@")[2]:
        case "greylist.example.com" if refusals < 2:
            return "451 4.7.1 greylisted, try again later"
        case "full.example.com":
            return "452 4.2.2 mailbox full"
        case "gone.example.com":
            return "550 5.1.1 no such user"
        case _:
            return None


@dataclass(frozen=True, kw_only=True)
class Received:
    """A mail as it came in."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes


class SmtpSink(socketserver.ThreadingTCPServer):
    """Serves from `with`; port 0 takes a free one, `port` says which. `received` and `refusals` may be read at any time."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(
        self,
        port: int = 0,
        *,
        policy: Policy = domain_policy,
        file: Path | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        super().__init__((host, port), _Conversation)
        self.port: int = self.server_address[1]
        self.received: list[Received] = []
        self.refusals: Counter[str] = Counter()
        self._policy = policy
        self._file = mailbox.mbox(file) if file else None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.05,), name="smtp-sink", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        self.server_close()
        if self._file is not None:
            self._file.close()

    def refusal(self, recipient: str) -> str | None:
        """Return what the policy says to this recipient now; counted if it is a refusal."""
        with self._lock:
            reply = self._policy(recipient, self.refusals[recipient])
            self.refusals[recipient] += reply is not None
            return reply

    def keep(self, mail: Received) -> None:
        """Remember a mail, and append it to the file if there is one."""
        with self._lock:
            self.received.append(mail)
            if self._file is not None:
                self._file.add(mail.content)
                self._file.flush()


class _Conversation(socketserver.StreamRequestHandler):
    """One client, from 220 to 221."""

    server: SmtpSink
    timeout = 60

    def handle(self) -> None:
        self._forget()
        self._say("220 smtp-sink ready")
        try:
            while (line := self.rfile.readline(LINE_LIMIT)).endswith(b"\n"):
                verb, _, rest = line.decode("utf-8", "replace").strip().partition(" ")
                self._say(self._answer(verb.upper(), rest))
                if verb.upper() == "QUIT":
                    return
        except OSError:
            return  # the client left, or said nothing for a minute: nobody is there to be told

    def _answer(self, verb: str, rest: str) -> str:
        match verb:
            case "EHLO" | "HELO":
                self._forget()
                return "250 smtp-sink"
            case "MAIL":
                self._forget()
                self._sender = _address(rest)
                return "250 2.1.0 sender ok"
            case "RCPT" if not self._sender:
                return "503 5.5.1 MAIL first"
            case "RCPT":
                return self._recipient(_address(rest))
            case "DATA" if not self._recipients:
                return "503 5.5.1 RCPT first"
            case "DATA":
                return self._data()
            case "RSET":
                self._forget()
                return "250 2.0.0 forgotten"
            case "NOOP":
                return "250 2.0.0 ok"
            case "QUIT":
                return "221 2.0.0 bye"
            case _:
                return "502 5.5.2 not spoken here"

    def _recipient(self, recipient: str) -> str:
        refusal = self.server.refusal(recipient)
        if refusal is None:
            self._recipients.append(recipient)
        return refusal or "250 2.1.5 recipient ok"

    def _data(self) -> str:
        self._say("354 end with a dot on a line of its own")
        content = b""
        while (line := self.rfile.readline(LINE_LIMIT)) != b".\r\n":
            if not line:
                raise ConnectionError("the client left in the middle of a mail")
            if len(content) <= MAIL_LIMIT:
                content += line.removeprefix(b".")
        if len(content) > MAIL_LIMIT:
            reply = "552 5.3.4 too large"
        else:
            self.server.keep(
                Received(sender=self._sender, recipients=tuple(self._recipients), content=content)
            )
            reply = "250 2.0.0 taken"
        self._forget()
        return reply

    def _forget(self) -> None:
        self._sender = ""
        self._recipients: list[str] = []

    def _say(self, reply: str) -> None:
        self.wfile.write(reply.encode() + b"\r\n")


def _address(rest: str) -> str:
    """`FROM:<ana@example.com> SIZE=90` → `ana@example.com`."""
    return rest.partition("<")[2].partition(">")[0].lower()


if __name__ == "__main__":
    listen_on = int(sys.argv[1]) if len(sys.argv) > 1 else 2525
    with SmtpSink(listen_on, file=Path(sys.argv[2]) if len(sys.argv) > 2 else None) as sink:
        print(f"Taking mail on 127.0.0.1:{sink.port}; Ctrl-C ends it.", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print(f"{len(sink.received)} mails taken, {sink.refusals.total()} refusals.")
