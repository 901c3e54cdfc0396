"""One job, every five seconds, printed. Run it: python examples/quickstart.py - Ctrl-C ends it."""

from jobmanager import JobManager, RunContext

jobs = JobManager()


@jobs.job("hello", every=5)
def hello(context: RunContext) -> None:
    print(f"{context.scheduled_for:%H:%M:%S} UTC: hello", flush=True)


if __name__ == "__main__":
    jobs.run_forever()
