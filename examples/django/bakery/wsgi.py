"""The bakery for servers of WSGI; with AUTOSTART each of their processes keeps time and executes."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bakery.settings")
application = get_wsgi_application()
