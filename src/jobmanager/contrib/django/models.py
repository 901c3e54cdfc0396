"""The permissions of this application, on a model that has no table: our tables are not Django's."""

from __future__ import annotations

from django.db import models


class Jobs(models.Model):
    """Carries permissions, so that groups have them, and the entry in the admin."""

    class Meta:
        managed = False
        app_label = "jobmanager"
        default_permissions = ()
        verbose_name = "jobs"
        verbose_name_plural = "jobs"
        permissions = (
            ("view_jobs", "Can see jobs and runs"),
            ("operate_jobs", "Can start, end, pause and edit"),
            ("administer_jobs", "Can make and delete jobs, webhooks and keys"),
        )
