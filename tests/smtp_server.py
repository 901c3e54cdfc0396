"""A small SMTP server on loopback that misbehaves as it is told: refuses, hangs, or loses the connection."""

from __future__ import annotations

import email
import email.policy
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any


@dataclass
class Received:
    """One transmission: who sent it to whom, and what."""

    sender: str
    receivers: list[str]
    mail: EmailMessage


@dataclass
class SmtpServer:
    """What the server got, and how it is to behave: change `mode` at any time.

    `well`, `refuse` (554 at once), `refuse_text` (552 after the text), `hang` (no greeting), `lose` (closes after the text, which it
    has), `lose_before` (closes at DATA), `busy` (451 for every receiver),
    `rude` (500 at the end of a conversation).
    """

    port: int = 0
    mode: str = "well"
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    release: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    @property
    def subjects(self) -> list[str]:
        return [str(item.mail["Subject"]) for item in self.received]


class _Handler(socketserver.StreamRequestHandler):
    state: SmtpServer

    def handle(self) -> None:
        self.state.connections += 1
        mode = self.state.mode
        if mode == "hang":
            self.state.release.wait(60)
            return
        self.say("554 go away" if mode == "refuse" else "220 test ESMTP")
        sender, receivers = "", []
        while line := self.rfile.readline().decode("latin-1").strip():
            verb, _, rest = line.partition(" ")
            match verb.upper():
                case "EHLO" | "HELO":
                    self.say("250-test\r\n250 8BITMIME")
                case "MAIL":
                    sender = rest.partition(":")[2].strip().split(" ")[0].strip("<>")
                    self.say("250 ok")
                case "RCPT":
                    receivers.append(rest.partition(":")[2].strip().strip("<>"))
                    self.say("451 later" if mode == "busy" else "250 ok")
                case "DATA":
                    if mode == "lose_before":
                        return
                    self.say("354 go on")
                    text = self.text()
                    if mode != "refuse_text":
                        parsed: Any = email.message_from_bytes(text, policy=email.policy.default)
                        self.state.received.append(Received(sender, receivers, parsed))
                    if mode == "lose":
                        return
                    self.say("552 too large" if mode == "refuse_text" else "250 accepted")
                case "QUIT":
                    self.say("500 what?" if mode == "rude" else "221 bye")
                    return
                case _:
                    self.say("250 ok")

    def text(self) -> bytes:
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
        return b"".join(lines)

    def say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is part of the tests."""


@contextmanager
def smtp_server(mode: str = "well") -> Iterator[SmtpServer]:
    """Serve until the block ends."""
    state = SmtpServer(mode=mode)
    handler = type("Handler", (_Handler,), {"state": state})
    with _Server(("127.0.0.1", 0), handler) as server:
        state.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield state
        finally:
            state.release.set()
            server.shutdown()
            thread.join()
