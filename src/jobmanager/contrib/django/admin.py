"""The entry "Jobs" in Django's admin: it opens the dashboard."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpResponse, HttpResponseRedirect
from django.urls import NoReverseMatch, reverse

from jobmanager.contrib.django.models import Jobs
from jobmanager.contrib.django.permissions import principal_of


@admin.register(Jobs)
class JobsAdmin(admin.ModelAdmin):
    """Leads to the dashboard those who may see it."""

    def has_module_permission(self, request: Any) -> bool:
        return principal_of(request.user) is not None

    def has_view_permission(self, request: Any, obj: object = None) -> bool:
        return self.has_module_permission(request)

    def has_add_permission(self, request: Any) -> bool:
        return False

    def has_change_permission(self, request: Any, obj: object = None) -> bool:
        return False

    def has_delete_permission(self, request: Any, obj: object = None) -> bool:
        return False

    def changelist_view(self, request: Any, extra_context: object = None) -> Any:
        """Open the dashboard; say how it is mounted where it is not."""
        try:
            return HttpResponseRedirect(reverse("jobmanager_dashboard:dashboard", args=[""]))
        except NoReverseMatch:
            told = 'Mount it: path("admin/jobs/", include("jobmanager.contrib.django.dashboard_urls")), before the path of the admin.'
            return HttpResponse(
                f"The dashboard of jobs is not mounted. {told}", status=404, content_type="text/plain"
            )
