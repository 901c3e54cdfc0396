"""The settings of the bakery."""

import os
from pathlib import Path

BASE_DIR = Path(os.environ.get("BAKERY_DIR", Path(__file__).parents[1]))
SECRET_KEY = "of an example, which guards nothing"  # noqa: S105
DEBUG = True
ALLOWED_HOSTS = ["*"]
USE_TZ = True
TIME_ZONE = "UTC"
ROOT_URLCONF = "bakery.urls"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "jobmanager.contrib.django",
    "bakery.orders",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
STATIC_URL = "static/"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "bakery.db"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

JOBMANAGER = {"AUTOSTART": True, "MIGRATE_WITH_DJANGO": True}
TASKS = {"default": {"BACKEND": "jobmanager.contrib.django.TaskBackend"}}
