"""The dashboard, for `path("admin/jobs/", include("jobmanager.contrib.django.dashboard_urls"))`, before the admin's own path."""

from __future__ import annotations

from django.urls import re_path

from jobmanager.contrib.django.views import dashboard

app_name = "jobmanager_dashboard"
urlpatterns = [re_path(r"^(?P<inner>.*)$", dashboard, name="dashboard")]
