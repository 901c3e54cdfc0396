"""Handlers over the API: what may be scheduled, with the JSON schema of its arguments."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import Request
from pydantic import Field

from jobmanager.access.principal import READ
from jobmanager.errors import HandlerNotFoundError
from jobmanager.registry import HandlerInfo
from jobmanager.web.api.models import JsonObject, Page, Shown
from jobmanager.web.api.routing import Routes
from jobmanager.web.site import site_of

router = Routes(tags=["handlers"])


class HandlerModel(Shown):
    """A handler of this process. Operators make jobs of those that are `creatable`."""

    key: str = Field(examples=["export-orders"])
    kind: Literal["code", "webhook"]
    description: str
    arguments: JsonObject = Field(description="The JSON schema of its arguments.")
    creatable: bool


def list_handlers(request: Request) -> dict[str, Any]:
    """List the handlers of this process by key, webhooks included."""
    return {"items": [_record(info) for info in site_of(request).jobs.handlers()], "next": None}


def get_handler(request: Request, key: str) -> dict[str, Any]:
    """Get one handler."""
    for info in site_of(request).jobs.handlers():
        if info.key == key:
            return _record(info)
    raise HandlerNotFoundError("No handler of this process has that key.")


def _record(info: HandlerInfo) -> dict[str, Any]:
    return {
        "key": info.key,
        "kind": info.kind,
        "description": info.description,
        "arguments": dict(info.arguments),
        "creatable": info.creatable,
    }


router.add("GET", "/handlers", READ, list_handlers, response_model=Page[HandlerModel])
router.add("GET", "/handlers/{key}", READ, get_handler, response_model=HandlerModel)
