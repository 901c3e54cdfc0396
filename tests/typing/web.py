"""The manager is what the endpoint asks for, and the applications are what servers and frameworks take."""

from wsgiref.types import WSGIApplication

from starlette.types import ASGIApp

from jobmanager import JobManager
from jobmanager.web import Limits, asgi, wsgi

jobs = JobManager()
behind_asgi: ASGIApp = asgi(jobs)
behind_wsgi: WSGIApplication = wsgi(jobs)
app: ASGIApp = asgi(jobs, otherwise=behind_asgi, limits=Limits(calls_per_second=100))
wsgi_app: WSGIApplication = wsgi(jobs, otherwise=behind_wsgi)
