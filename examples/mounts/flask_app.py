"""The dashboard in a Flask application, and in any other of WSGI."""

from a2wsgi import ASGIMiddleware
from flask import Flask
from jobs import jobs
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from jobmanager.web import dashboard, loopback_only

app = Flask(__name__)
mounted = ASGIMiddleware(dashboard(jobs, authorize=loopback_only()))
app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/admin/jobs": mounted})
jobs.start()
