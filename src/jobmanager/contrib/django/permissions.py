"""Django's permissions as roles of the dashboard, and the admin's log of what was done there."""

from __future__ import annotations

from typing import Any

from jobmanager.access.principal import Principal

ROLES = {"administer_jobs": "admin", "operate_jobs": "operator", "view_jobs": "viewer"}


def principal_of(user: Any) -> Principal | None:
    """Return the principal of a user; None unless that is active, staff, and has one of the permissions of this application."""
    if not (user.is_authenticated and user.is_active and user.is_staff):
        return None
    roles = [role for name, role in ROLES.items() if user.has_perm(f"jobmanager.{name}")]
    if not roles:
        return None
    email = getattr(user, "email", None) or None
    return Principal(user.get_username(), roles, email=email, authenticated_at=user.last_login)


def note_in_admin(user: Any, method: str, path: str) -> None:
    """Write a line into the log of Django's admin, where that is installed; the audit of jobmanager has what was changed."""
    from django.apps import apps

    if not apps.is_installed("django.contrib.admin"):
        return
    from django.contrib.admin.models import CHANGE, LogEntry
    from django.contrib.contenttypes.models import ContentType

    from jobmanager.contrib.django.models import Jobs

    LogEntry.objects.create(
        user_id=user.pk,
        content_type=ContentType.objects.get_for_model(Jobs, for_concrete_model=False),
        object_repr=f"{method} {path}"[:200],
        action_flag=CHANGE,
        change_message="By the dashboard of jobs; its audit says what was changed.",
    )
