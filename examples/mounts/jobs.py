"""The jobs of all these applications."""

from jobmanager import JobManager

jobs = JobManager()


@jobs.job("greet", cron="0 9 * * 1-5", timezone="Europe/Berlin")
def greet(name: str = "world") -> str:
    return f"hello {name}"
