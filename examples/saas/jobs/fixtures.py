"""Two jobs for developers. `seed` leaves them out; an operator makes them by hand."""

import time
from typing import Any

from jobmanager import RunContext


def always_succeeds(context: RunContext, steps: int = 20, seconds: float = 2.0) -> dict[str, int]:
    """Take `seconds` in `steps`, to be watched."""
    for step in range(1, steps + 1):
        context.raise_if_cancelled()
        time.sleep(seconds / steps)
        context.progress(step, steps, f"step {step} of {steps}")
    context.log.info("all %s steps done", steps)
    return {"steps": steps}


def always_fails() -> None:
    """Show what a failure looks like."""
    raise RuntimeError("This job always fails; that is its job.")


JOBS: dict[str, dict[str, Any]] = {
    "test-job": {"function": always_succeeds},
    "test-fail-job": {"function": always_fails},
}
