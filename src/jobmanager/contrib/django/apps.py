"""The application `jobmanager.contrib.django`: finds the jobs of the project, and starts nothing."""

from __future__ import annotations

from importlib import import_module

from django.apps import AppConfig
from django.conf import settings
from django.core.signals import setting_changed
from django.db.models.signals import post_migrate
from django.utils.module_loading import autodiscover_modules

from jobmanager.contrib.django import checks, current, migrating, serving
from jobmanager.errors import ConfigurationError


class JobsConfig(AppConfig):
    """Loads `jobs.py` of each application when all are there, and registers checks and receivers."""

    name = "jobmanager.contrib.django"
    label = "jobmanager"
    verbose_name = "Jobs"

    def ready(self) -> None:
        """Find the jobs. What is wrong with the settings is said by `manage.py check`, and raised where the jobs are used."""
        checks.register()
        setting_changed.connect(current.on_setting_changed, dispatch_uid="jobmanager")
        try:
            read = current.configured()
            current.current()
        except ConfigurationError:
            return
        autodiscover_modules(read.module)
        if _has_tasks():
            import_module(f"{self.name}.tasks").declare_all()
        if read.migrate_with_django:
            post_migrate.connect(migrating.on_post_migrate, dispatch_uid="jobmanager")
        if read.autostart and serving.is_serving():
            serving.start_when_ready()


def _has_tasks() -> bool:
    """Return whether one of the backends of Django's tasks is ours."""
    backends = getattr(settings, "TASKS", None) or {}
    return any(str(params.get("BACKEND", "")).startswith("jobmanager.") for params in backends.values())
