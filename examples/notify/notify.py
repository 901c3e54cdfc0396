"""A failure, the recovery and a mail for each, with a mail server that prints: python examples/notify/notify.py.

You will see two mails: one when the job fails, one when it works again.
"""

from __future__ import annotations

import itertools
import socketserver
import threading

from jobmanager import JobManager, Settings


class PrintsMail(socketserver.StreamRequestHandler):
    """As much of SMTP as a mail needs; in real life give JOBMANAGER_SMTP_URL."""

    def handle(self) -> None:
        self.wfile.write(b"220 example\r\n")
        while line := self.rfile.readline().strip().upper():
            self.wfile.write(b"354 go on\r\n" if line == b"DATA" else b"250 ok\r\n")
            if line == b"DATA":
                text = iter(self.rfile.readline, b".\r\n")
                print(b"".join(text).decode(), flush=True)
                self.wfile.write(b"250 ok\r\n")


def main() -> None:
    """Run until both mails were printed."""
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), PrintsMail)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    jobs = JobManager(
        Settings(
            database_url="memory://",
            smtp_url=f"smtp://127.0.0.1:{server.server_address[1]}",
            alerts_email="ops@example.org",
        )
    )
    attempts = itertools.count(1)

    @jobs.job("import-prices", every=1, notify_on_failure=True)
    def import_prices() -> None:
        if next(attempts) == 1:
            raise ConnectionError("the price list cannot be read")

    with jobs:
        while len(jobs.notifications("sent")) < 2:
            threading.Event().wait(0.2)


if __name__ == "__main__":
    main()
