"""The form that changes light and dark."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jobmanager.web.pages.rendering import THEME_COOKIE, THEMES, back_to, form_of, local_path, set_cookie


async def theme(request: Request) -> Response:
    """Keep the theme in this browser, and go back to where the form was."""
    form = await form_of(request, changes=False)
    response = back_to(request, local_path(form.get("back")))
    chosen = str(form.get("theme", ""))
    set_cookie(request, response, THEME_COOKIE, chosen if chosen in THEMES else "system")
    return response


ROUTES = [Route("/theme", theme, methods=["POST"])]
