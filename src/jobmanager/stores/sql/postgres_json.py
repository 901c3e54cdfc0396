"""JSON as every store keeps it: PostgreSQL's jsonb has neither the character NUL nor half a surrogate pair, Python's text has both.

The stores in SQLite follow, so that a move from one store to the other changes no text.
"""

from __future__ import annotations

import json
from typing import Any

NUL, HALF = "\\u0000", "\\ud"  # as json.dumps writes them; whole pairs (emoji) are looked at too, and stay
_encode = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps would make one for each value


def to_json(value: Any) -> str:
    """Return the value as JSON text that jsonb accepts; what it cannot keep becomes the replacement character."""
    if type(value) is int:
        return repr(value)  # the encoder is not needed
    text = _encode(value)
    return _encode(_sayable(value)) if NUL in text or HALF in text else text


def _sayable(value: Any) -> Any:
    if isinstance(value, str):
        whole = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return whole.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, dict):
        return {_sayable(key): _sayable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_sayable(item) for item in value]
    return value
