"""Checks the arguments of `asgi`, `wsgi` and `dashboard` at the call: a wrong one would make each request a 500."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from jobmanager.settings import Settings
from jobmanager.validation.parts import Part, has_methods
from jobmanager.web.hooks import api_keys, api_keys_from_settings, basic_auth_from_settings
from jobmanager.web.limit import Limits
from jobmanager.web.loopback import loopback_only

MAKERS = (api_keys, api_keys_from_settings, basic_auth_from_settings, loopback_only)
"""Functions that return a hook and are no hooks themselves."""


def takes_request(part: Any) -> bool:
    """Return whether the part can be called with a request, as a hook is."""
    if not callable(part) or part in MAKERS:
        return False
    try:
        inspect.signature(part).bind(None)
    except TypeError:
        return False
    except ValueError:  # some callables have no signature
        return True
    return True


PARTS: Mapping[str, Part] = {
    "jobs": (lambda part: has_methods(part, "start", "stop") and hasattr(part, "settings"), "a JobManager"),
    "otherwise": (callable, "the application that serves all other paths"),
    "limits": (lambda part: isinstance(part, Limits), "jobmanager.web.Limits(...)"),
    "authorize": (
        takes_request,
        "a function that takes the request and returns a Principal or None, such as loopback_only() or api_keys(jobs)",
    ),
    "sign_in": (lambda part: has_methods(part, "sign_in"), "jobmanager.web.password_login()"),
    "title": (lambda part: isinstance(part, str), "a text"),
    "login_url": (lambda part: isinstance(part, str), "the address of the page where people sign in"),
    "read_only": (lambda part: isinstance(part, bool), "True or False"),
    "settings": (lambda part: isinstance(part, Settings), "Settings(...)"),
}
