"""A queue in PostgreSQL: whoever reaches the database starts runs, and this process executes them."""

from jobmanager import JobManager, Retry, RunContext

jobs = JobManager()


@jobs.job("send-welcome", overlap="allow", retry=Retry(max_attempts=3))
def send_welcome(context: RunContext, to: int) -> str:
    """Nobody is welcomed twice, however often the run is tried or started."""
    return context.once(f"welcome-{to}", lambda: welcome(to))


def welcome(to: int) -> str:
    """Send the letter, which nobody can take back."""
    print(f"welcome, {to}", flush=True)
    return f"letter to {to}"
