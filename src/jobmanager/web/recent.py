"""The recent login that dangerous actions need: a session that was left open may not destroy what cannot be brought back."""

from __future__ import annotations

from starlette.requests import Request

from jobmanager.access.acting import current
from jobmanager.access.principal import DANGEROUS, READ
from jobmanager.present.phrases import length
from jobmanager.web.problems import Problem, ProblemError
from jobmanager.web.site import Site, site_of


def check_recent(request: Request, permission: str = READ) -> None:
    """Return if the principal logged in within JOBMANAGER_RECENT_AUTH_MINUTES, or has `jobs:dangerous`; else raise ProblemError (403).

    The problem is of kind `recent-login`, and says as `reauth` where to log in again, if the dashboard knows. A principal without the
    `permission` is not sent to log in for nothing: what needs that permission refuses it next, and audits that.
    """
    site, principal = site_of(request), current().principal
    if principal is not None and (principal.may(DANGEROUS) or not principal.may(permission)):
        return
    at = None if principal is None else principal.authenticated_at
    allowed = site.jobs.settings.recent_auth
    age = None if at is None else site.clock.now() - at
    if age is not None and abs(age) <= allowed:
        return
    where = login_of(request, site)
    yours = "this way of signing in proves none" if age is None else f"yours is {length(age)} old"
    raise ProblemError(
        Problem(
            status=403,
            kind="recent-login",
            title="Sign in to go on",
            detail=f"This cannot be undone and needs a sign-in of the last {length(allowed)}; {yours}.",
            hint="Nothing was changed. Sign in again, then repeat it."
            if where
            else "Nothing was changed. Use the command line, or an API key that has jobs:dangerous.",
            facts={"reauth": where},
        )
    )


def login_of(request: Request, site: Site) -> str | None:
    """Return where people sign in: the host's page, or the dashboard's own; None if neither is there."""
    own = f"{request.state.mount}/login" if site.sign_in is not None else None
    return site.login_url or own
