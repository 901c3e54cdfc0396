"""The dashboard in a FastAPI application."""

from fastapi import FastAPI
from jobs import jobs

from jobmanager.web import dashboard, loopback_only

app = FastAPI(lifespan=jobs.lifespan)
app.mount("/admin/jobs", dashboard(jobs, authorize=loopback_only()))
