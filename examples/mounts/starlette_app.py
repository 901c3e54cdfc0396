"""The dashboard in a Starlette application."""

from jobs import jobs
from starlette.applications import Starlette
from starlette.routing import Mount

from jobmanager.web import dashboard, loopback_only

app = Starlette(
    routes=[Mount("/admin/jobs", dashboard(jobs, authorize=loopback_only()))], lifespan=jobs.lifespan
)
