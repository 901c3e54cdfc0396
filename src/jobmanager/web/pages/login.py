"""The page on which people sign in with a password, and the form that signs them out."""

from __future__ import annotations

from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from jobmanager.present.phrases import length
from jobmanager.web.pages.rendering import back_to, form_of, inner_path, local_path, page, set_cookie
from jobmanager.web.sessions import COOKIE, LASTS, Sessions
from jobmanager.web.site import site_of

LOGIN = "/login"
OPEN_PATHS = (LOGIN,)


def login(request: Request) -> Response:
    """Show the form, and why it is asked again where a session has become too old for an action."""
    return _form(request, next_=local_path(request.query_params.get("next")))


async def sign_in(request: Request) -> Response:
    """Begin a session and go where the visitor wanted to go, or show the form again."""
    sessions, form = _sessions(request), await form_of(request, changes=False)
    name, next_ = str(form.get("name", "")), local_path(form.get("next"))
    wait = sessions.wait_of(request.client.host if request.client else "")
    if wait:
        told = f"Too many tries. Wait {int(wait) + 1} s, then try again."
        response = await run_in_threadpool(_form, request, next_=next_, name=name, error=told, status=429)
        response.headers["retry-after"] = str(int(wait) + 1)
        return response
    cookie = await run_in_threadpool(sessions.sign_in, name, str(form.get("password", "")))
    if cookie is None:
        told = "Name and password do not fit."
        return await run_in_threadpool(_form, request, next_=next_, name=name, error=told, status=403)
    response = back_to(request, next_)
    # Lax: a link in a message opens a page of the dashboard, and finds the session.
    set_cookie(request, response, COOKIE, cookie, lasts=int(LASTS.total_seconds()), same_site="lax")
    return response


async def sign_out(request: Request) -> Response:
    """End the session of this browser."""
    _sessions(request)
    await form_of(request, changes=False)
    response = back_to(request, LOGIN)
    response.delete_cookie(COOKIE, path=request.state.mount or "/", httponly=True, samesite="lax")
    return response


def to_login(request: Request) -> Response:
    """Send a visitor without a session to the form, and afterwards back to the page it wanted."""
    query = f"?{request.url.query}" if request.url.query else ""
    wanted = inner_path(request) + query if request.method == "GET" else "/"
    target = f"{request.state.mount}{LOGIN}" + ("" if wanted == "/" else f"?next={quote(wanted)}")
    return RedirectResponse(target, status_code=303)


def _form(request: Request, *, next_: str, name: str = "", error: str = "", status: int = 200) -> Response:
    sessions, site = _sessions(request), site_of(request)
    known = sessions(request)
    at = None if known is None else known.authenticated_at
    return page(
        request,
        "login.html",
        status,
        next=next_,
        name=name or (known.name if known else ""),
        error=error,
        age=None if at is None else length(site.clock.now() - at),
        allowed=length(site.jobs.settings.recent_auth),
    )


def _sessions(request: Request) -> Sessions:
    found = site_of(request).sign_in
    if found is None:
        raise HTTPException(404)
    return found


ROUTES = [
    Route(LOGIN, login),
    Route(LOGIN, sign_in, methods=["POST"]),
    Route("/logout", sign_out, methods=["POST"]),
]
