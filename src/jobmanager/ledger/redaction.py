"""Keeps secrets out of what is recorded and shown: by key in values, by pattern and by known secret in text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

HIDDEN = "[redacted]"
_WORDS = r"passw(?:or)?d|passphrase|secret|token|api[_-]?key|authorization|credential|private[_-]?key"
_KEY = re.compile(_WORDS, re.IGNORECASE)
# The value reaches to its closing quote, or to the next blank, comma or bracket: base64 with + / = ~ : must not leave a tail.
# A key is tried at its first character only, and what was matched is not given back: the time grows with the text, not with its square.
_PAIR = re.compile(
    rf"""(?P<key>(?<![\w-])(?=[\w-]*?(?:{_WORDS}))[\w-]++["']?+\s*+[:=]\s*+)(?:(?:Bearer|Basic)\s+)?(?P<value>"[^"]*"|'[^']*'|[^\s,;&)\]}}"']+)""",
    re.IGNORECASE,
)
_URL_PASSWORD = re.compile(r"(?P<user>(?<!\w)\w++://[^\s:/@]*+):[^\s/@]++@")


class Redactor:
    """Hides secrets; `secrets` are literal values (of the settings) that must never show."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        literal = sorted((re.escape(secret) for secret in secrets if len(secret) >= 4), key=len, reverse=True)
        self._literal = re.compile("|".join(literal)) if literal else None

    def text(self, text: str) -> str:
        """Return the text without secret values."""
        if self._literal is not None:
            text = self._literal.sub(HIDDEN, text)
        if _KEY.search(text):
            text = _PAIR.sub(rf"\g<key>{HIDDEN}", text)
        return _URL_PASSWORD.sub(rf"\g<user>:{HIDDEN}@", text) if "://" in text else text

    def is_secret(self, key: str) -> bool:
        """Return whether the value of this key must not show."""
        return _KEY.search(key) is not None

    def value(self, value: Any) -> Any:
        """Return the same JSON value, with every secret key's value hidden."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {key: HIDDEN if _KEY.search(str(key)) else self.value(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        return value
