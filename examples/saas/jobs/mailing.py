"""The mails that wait in the outbox."""

from datetime import timedelta
from typing import Any

from examples.saas import outbox

from jobmanager import Retry, RunContext


def process_pending_emails(
    context: RunContext, backoff_seconds: list[int], batch_size: int = 20
) -> dict[str, int]:
    """Send what is due. A refused mail waits for its next turn; a server that is gone fails the attempt, another follows."""
    counts: dict[outbox.Outcome, int] = {"sent": 0, "failed": 0, "taken": 0}
    backoff = [timedelta(seconds=seconds) for seconds in backoff_seconds]
    with outbox.Outbox(f"{context.run_id}/{context.attempt}", backoff=backoff) as box:
        if due := box.due():
            with outbox.server() as smtp:
                while batch := box.claim(batch_size):
                    for letter in batch:
                        context.raise_if_cancelled()
                        counts[box.send(letter, smtp)] += 1
                        context.progress(sum(counts.values()), due, letter.recipient)
        return {"sent": counts["sent"], "failed": counts["failed"], "left": box.left()}


JOBS: dict[str, dict[str, Any]] = {
    "process-pending-emails": {
        "function": process_pending_emails,
        "cron": "*/5 * * * *",
        "config": {"backoff_seconds": [60, 180, 540, 900]},
        "retry": Retry(max_attempts=3),
        "timeout": 240,
    }
}
