"""The endpoint, for `path("jobs/", include("jobmanager.contrib.django.urls"))`: `run`, `tick/JOB`, `work`, `healthz` and `readyz` below it."""

from __future__ import annotations

from django.urls import re_path

from jobmanager.contrib.django.views import endpoint

app_name = "jobmanager"
urlpatterns = [re_path(r"^(?P<inner>.+)$", endpoint, name="endpoint")]
