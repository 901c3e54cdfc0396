"""An application on a host where no process lives: calls open what is due, and work off what is pending."""

from wsgiref.simple_server import make_server

from jobmanager import JobManager, Settings
from jobmanager.web import wsgi

jobs = JobManager(
    Settings(
        backend="external",
        wait=True,
        secret="dGhlLXNlY3JldC1vZi1hbi1leGFtcGxlLWlzLW5vbmU=",  # noqa: S106
        database_url="sqlite:///jobs.db",
    )
)


@jobs.job("resize", overlap="allow")
def resize(picture: str) -> str:
    """Make a picture small. Started by hand, in Python, over HTTP or in SQL, it is executed by the call that comes next."""
    return f"small {picture}"


@jobs.job("digest", cron="0 7 * * *")
def digest() -> None:
    """Write to everybody, at seven. The first call to /jobs/tick from then on opens it."""


app = wsgi(jobs)

if __name__ == "__main__":
    for picture in ("a.png", "b.png", "c.png"):
        jobs.trigger_job("resize", {"picture": picture})
    with make_server("127.0.0.1", 8765, app) as server:
        server.serve_forever()
