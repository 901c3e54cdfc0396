"""The dashboard in a Litestar application."""

from jobs import jobs
from litestar import Litestar, asgi

from jobmanager.web import dashboard, loopback_only

mounted = asgi("/admin/jobs", is_mount=True, copy_scope=True)(dashboard(jobs, authorize=loopback_only()))
app = Litestar(route_handlers=[mounted], lifespan=[jobs.lifespan])
