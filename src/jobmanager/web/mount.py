"""Where an application is mounted: the prefix that links begin with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote


def path_and_mount(scope: Mapping[str, Any]) -> tuple[str, str]:
    """Return the path and the mount: Litestar takes the prefix off the path without a word; what came over the wire still has it."""
    path, mount, raw = scope["path"], scope.get("root_path", ""), scope.get("raw_path")
    if not mount and raw:
        whole = unquote(raw.partition(b"?")[0]).removesuffix("/")
        inner = "/" + path.strip("/")
        if whole != path.removesuffix("/") and whole.endswith(inner):
            return whole, whole.removesuffix(inner)
    return path, mount
