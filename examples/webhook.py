"""Send a run to another system, which verifies and does it. Run it: python examples/webhook.py - it ends by itself.

You will see the receiver print the run and what it was asked to do, and the run's record with the receiver's answer.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from standardwebhooks import Webhook

from jobmanager import JobManager, Settings

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYq="  # noqa: S105 - both sides have it; yours stands in the environment


class Receiver(BaseHTTPRequestHandler):
    """The other system."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        asked = Webhook(SECRET).verify(body, dict(self.headers))
        print(f"received: {asked['job']} {asked['payload']}, attempt {asked['attempt']}", flush=True)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"invoices": 12}).encode())

    def log_message(self, *_: object) -> None: ...


with HTTPServer(("127.0.0.1", 0), Receiver) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    jobs = JobManager(
        Settings(backend="noop", database_url="memory://", webhook_allow=f"127.0.0.1:{server.server_port}")
    )
    jobs.webhook("billing", f"http://127.0.0.1:{server.server_port}/hook", secret=SECRET)
    jobs.add_job("invoices", "billing", cron="0 5 1 * *")
    run = jobs.trigger_job("invoices", {"month": "2026-11"})
    print(f"recorded: {run.status} {run.output}")
    server.shutdown()
