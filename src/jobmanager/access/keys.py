"""API keys as values: the secret that is shown once, and what is kept of it."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime

from jobmanager.access.principal import Principal

PREFIX = "jm_"
"""The prefix of every secret, by which a leaked one is found."""
_SECRET = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}")
SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key on record, without its secret: `hint` is how that begins. `last_used_at` is right to the minute.

    `scopes` are those of the principal that it stands for; None: all.
    """

    id: str
    namespace: str
    name: str
    permissions: tuple[str, ...]
    scopes: tuple[str, ...] | None
    hint: str
    created_at: datetime
    created_by: str | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    revoked_by: str | None = None
    last_used_at: datetime | None = None

    def is_valid(self, now: datetime) -> bool:
        """Return whether the key is neither revoked nor past its end."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    @property
    def principal(self) -> Principal:
        """The principal for which a request with this key is made."""
        return Principal(f"key:{self.name}", self.permissions, scopes=self.scopes)


def new_secret() -> str:
    """Return a new secret of 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def is_secret(text: object) -> bool:
    """Return whether the text has the form of a secret."""
    return isinstance(text, str) and _SECRET.fullmatch(text) is not None


def digest_of(secret: str) -> str:
    """Return what is kept of a secret: of so many random bits a fast hash cannot be tried out."""
    return hashlib.sha256(secret.encode()).hexdigest()
