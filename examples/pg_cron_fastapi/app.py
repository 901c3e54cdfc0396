"""The shop's web application. The database keeps the time and calls it; it executes what is due beside its requests."""

from datetime import date

from fastapi import FastAPI
from jobs import jobs

from jobmanager.web import asgi

app = FastAPI(lifespan=jobs.lifespan)
app.mount("/jobs", asgi(jobs))  # POST /jobs/run is for the database, and answers nobody who does not sign


@app.get("/")
def index() -> dict[str, str]:
    """Return what became of each job last."""
    return {found.id: found.status for found in jobs.get_all_job_statuses()}


@app.post("/orders", status_code=202)
async def import_orders(since: date, limit: int = 100) -> dict[str, str]:
    """By hand, in the middle of a request: the answer does not wait for the work."""
    run = await jobs.aio.trigger_job("import-orders", {"since": since.isoformat(), "limit": limit})
    return {"run": run.id}
