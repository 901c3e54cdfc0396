"""The query of a page's address, which holds its filters."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode


def with_query(query: Mapping[str, str], **changes: object) -> str:
    """Return the query with some fields changed, as a link has it; a field of None, and an empty one, is left out."""
    fields = {**query, **changes}
    kept = {name: value for name, value in fields.items() if value not in (None, "")}
    return f"?{urlencode(kept)}" if kept else "?"
