"""The project of `examples/django`, set up once in this process, with its databases in a temporary folder."""

from __future__ import annotations

import os
import sys
import tempfile
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "examples" / "django"


@cache
def set_up() -> Path:
    """Set Django up for the project, create its tables, and return its folder."""
    import django
    from django.conf import settings
    from django.core.management import call_command

    folder = Path(tempfile.mkdtemp(prefix="bakery"))
    sys.path.append(str(PROJECT))
    os.environ |= {"BAKERY_DIR": str(folder), "DJANGO_SETTINGS_MODULE": "bakery.settings"}
    try:
        settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "tests.bakery_tasks"]
        django.setup()
    finally:
        del os.environ["BAKERY_DIR"], os.environ["DJANGO_SETTINGS_MODULE"]  # Celery looks at them
    call_command("migrate", verbosity=0)
    return folder
