"""The dashboard in a Django project, under ASGI and under WSGI: these lines belong into its asgi.py and its wsgi.py."""

from secrets import token_urlsafe

from a2wsgi import ASGIMiddleware
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from jobs import jobs
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from jobmanager.web import dashboard, loopback_only

if not settings.configured:
    settings.configure(ROOT_URLCONF=__name__, SECRET_KEY=token_urlsafe(), ALLOWED_HOSTS=["127.0.0.1"])
urlpatterns: list[object] = []
PREFIX = "/admin/jobs"

pages = dashboard(jobs, authorize=loopback_only())
django = get_asgi_application()


async def asgi_application(scope, receive, send):
    """Give requests below the prefix to the dashboard, and all others to Django."""
    if scope["type"] == "http" and f"{scope['path']}/".startswith(f"{PREFIX}/"):
        await pages({**scope, "root_path": PREFIX}, receive, send)
    else:
        await django(scope, receive, send)


wsgi_application = DispatcherMiddleware(get_wsgi_application(), {PREFIX: ASGIMiddleware(pages)})
jobs.start()
