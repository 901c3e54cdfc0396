"""The bakery for servers of ASGI: jobs start and stop with the server."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bakery.settings")

from jobmanager.contrib.django import asgi_application

application = asgi_application()
