"""Templates filled and sent: the frame that all pages share, and the words and pictures that templates may use."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta, tzinfo
from functools import cache
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import quote, urlsplit
from zoneinfo import ZoneInfo

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse

from jobmanager.access.principal import ADMIN, READ, WRITE, Principal
from jobmanager.errors import JobManagerError
from jobmanager.manager.guarding import check_permission
from jobmanager.present.phrases import compact, count, iso, share, tail
from jobmanager.present.preview import in_words
from jobmanager.schedule import zones
from jobmanager.web.origin import COOKIE, FIELD, is_token, new_token
from jobmanager.web.pages.badges import Badge, badges_of
from jobmanager.web.pages.markup import button, icon
from jobmanager.web.pages.navigation import entries_for
from jobmanager.web.pages.pulse import pulse_of
from jobmanager.web.pages.strip import strip
from jobmanager.web.pages.times import Times
from jobmanager.web.problems import Problem, ProblemError
from jobmanager.web.recent import login_of
from jobmanager.web.sessions import COOKIE as SESSION_COOKIE
from jobmanager.web.site import Site, site_of

THEMES = ("system", "light", "dark")
THEME_COOKIE = "jobmanager_theme"
A_YEAR = 365 * 86_400


@cache
def templates() -> Environment:
    """Return the environment of all templates, made once. What they show is escaped, and an unknown name is an error."""
    made = Environment(
        loader=PackageLoader("jobmanager.web.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(
        strip=strip,
        icon=icon,
        button=button,
        count=count,
        share=share,
        in_words=in_words,
        late_after=timedelta(seconds=60),
    )
    made.filters.update(
        tail=tail, iso=iso, compact=compact, pretty=_pretty, ticks=_ticks, number=lambda value: f"{value:,}"
    )
    return made


def _badges(site: Site) -> Mapping[str, Badge]:
    try:
        return badges_of(site)
    except JobManagerError:  # the page says what is wrong; the frame stays
        return {}


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _ticks(text: str) -> Markup:
    """Return a text of ours with what stands between backticks as code."""
    parts = [
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part)
        for place, part in enumerate(text.split("`"))
    ]
    return Markup("").join(parts)


def page(request: Request, template: str, status: int = 200, **context: Any) -> HTMLResponse:
    """Return a page inside the frame. A request of htmx for one region gets the whole page as well, and takes the region out of it."""
    site = site_of(request)
    principal: Principal | None = getattr(request.state, "principal", None)
    token = request.cookies.get(COOKIE) or new_token()
    theme = request.cookies.get(THEME_COOKIE, "system")
    frame = {
        "at": request.scope.get("root_path", ""),
        "path": inner_path(request),
        "query": request.query_params,
        "principal": principal,
        "may_write": principal is not None and principal.may(WRITE) and not site.read_only,
        "may_admin": principal is not None and principal.may(ADMIN) and not site.read_only,
        "site": site,
        "theme": theme if theme in THEMES else "system",
        "token": token,
        "notice": request.query_params.get("done"),
        "signed_in": principal is not None and site.sign_in is not None and SESSION_COOKIE in request.cookies,
        "pages": () if principal is None else entries_for(principal),
        "badges": {} if principal is None else _badges(site),
        "pulse": None if principal is None else pulse_of(site),
        "t": Times(site.now(), site.zone),
    }
    response = HTMLResponse(templates().get_template(template).render({**frame, **context}), status)
    if request.cookies.get(COOKIE) != token:
        set_cookie(request, response, COOKIE, token)
    return response


def confirmation(
    request: Request,
    *,
    question: str,
    told: str,
    apply: str,
    verb: str,
    keep: str,
    back: str,
    danger: bool = True,
    lines: Sequence[str] = (),
    fields: Mapping[str, str] | None = None,
    remark: str = "",
    template: str = "confirm.html",
    **more: Any,
) -> HTMLResponse:
    """Return the page that asks before something dangerous happens: the form of its button goes to `apply`, `keep` back to `back`.

    `lines` name what is chosen, one each; a `template` that extends confirm.html may show it as a table. Without a `verb` there is
    nothing to do, and only the way back.
    """
    return page(
        request,
        template,
        question=question,
        told=told,
        apply=apply,
        verb=verb,
        keep=keep,
        back=back,
        danger=danger,
        lines=lines,
        fields=fields or {},
        remark=remark,
        **more,
    )


def problem_page(request: Request, problem: Problem) -> HTMLResponse:
    """Return a problem as a page that says what to do next."""
    site = site_of(request)
    sign_in = login_of(request, site) if problem.status == 401 or problem.kind == "recent-login" else None
    if sign_in and not site.login_url:
        sign_in += f"?next={quote(came_from(request))}"
    phrase = HTTPStatus(problem.status).phrase
    response = page(request, "problem.html", problem.status, problem=problem, phrase=phrase, sign_in=sign_in)
    response.headers.update(problem.headers)
    return response


async def form_of(request: Request, *, changes: bool = True) -> Mapping[str, Any]:
    """Return the fields of a form that this browser was given; ProblemError (403) without the token of its cookie.

    A form that changes jobs or runs is refused by a read-only dashboard, too.
    """
    if changes and site_of(request).read_only:
        raise ProblemError(
            Problem(status=403, kind="read-only", title="Read only", detail="This dashboard changes nothing.")
        )
    form = await request.form()
    if not is_token(form.get(FIELD), request.cookies.get(COOKIE)):
        raise ProblemError(
            Problem(
                status=403,
                kind="stale-form",
                title="The form is too old",
                hint="Load the page again, then send it once more.",
            )
        )
    return form


def may(request: Request, permission: str) -> bool:
    """Return whether the visitor has a permission here; on a read-only dashboard it has none but to read."""
    principal: Principal = request.state.principal
    return principal.may(permission) and (permission == READ or not site_of(request).read_only)


def check_page(request: Request, permission: str) -> None:
    """Raise PermissionDeniedError, which becomes a page, for a visitor whose roles do not include the page."""
    principal: Principal = request.state.principal
    check_permission(principal, f"the page {inner_path(request)}", permission)


def back_to(request: Request, path: str) -> RedirectResponse:
    """Return the redirect after a form: to a path of the dashboard."""
    site_of(request).cached.forget()  # the visitor sees what the form changed
    return RedirectResponse(request.scope.get("root_path", "") + path, status_code=303)


def local_path(given: object) -> str:
    """Return a path of the dashboard that a form or a query names; `/` for what could lead elsewhere."""
    path = str(given or "/")
    is_local = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return path if is_local else "/"


def came_from(request: Request) -> str:
    """Return the path of the dashboard's page on which the visitor was: this one, or the one whose form was sent."""
    if request.method == "GET":
        return inner_path(request)
    came = urlsplit(request.headers.get("referer", ""))
    mount = request.state.mount
    is_ours = came.netloc == request.headers.get("host") and came.path.startswith(f"{mount}/")
    return local_path(came.path.removeprefix(mount)) if is_ours else "/"


def set_cookie(
    request: Request,
    response: Any,
    name: str,
    value: str,
    *,
    lasts: int = A_YEAR,
    same_site: Literal["lax", "strict"] = "strict",
) -> None:
    """Keep a value in this browser: for the dashboard alone, out of reach of scripts, and over TLS if the page came so."""
    response.set_cookie(
        name,
        value,
        max_age=lasts,
        path=request.scope.get("root_path", "") or "/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite=same_site,
    )


def inner_path(request: Request) -> str:
    """Return the path below the mount, beginning with a slash."""
    path, root = request.scope["path"], request.scope.get("root_path", "")
    return str(path[len(root) :] if root and path.startswith(root) else path) or "/"


def zone_named(name: str) -> tzinfo:
    """Return the zone in which pages tell times; CronError for a name that no zone has."""
    zones.check(name)
    return ZoneInfo(name)
