"""Passwords of the dashboard's users: hashed with scrypt, written as words of a setting."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass

COST, BLOCKS, LANES = 14, 8, 5  # 16 MiB and about a fifth of a second, which OWASP asks for
SHORTEST = 12
_one_at_a_time = threading.Lock()  # each takes 16 MiB: many wrong passwords at once must not take all memory


@dataclass(frozen=True, slots=True)
class User:
    """One user of the setting: its role, and the hash of its password, which no repr shows."""

    name: str
    role: str
    hash: str

    def __repr__(self) -> str:
        return f"User({self.name!r}, {self.role!r})"


def hashed(password: str) -> str:
    """Return the hash of a password with a salt of its own, without a character that a shell or a compose file reads."""
    salt = secrets.token_bytes(16)
    return ".".join(
        ("scrypt", str(COST), str(BLOCKS), str(LANES), _text(salt), _text(_scrypt(password, salt)))
    )


def matches(password: str, kept: str) -> bool:
    """Return whether the hash is that of the password; takes the same time for a wrong one."""
    _, cost, blocks, lanes, salt, expected = kept.split(".")
    found = _scrypt(password, _bytes(salt), int(cost), int(blocks), int(lanes))
    return hmac.compare_digest(found, _bytes(expected))


def users_of(words: str) -> Mapping[str, User]:
    """Return the users of a setting that was checked, by name; of one name the last."""
    found = (User(*word.split(":")) for word in words.replace(",", " ").split())
    return {user.name: user for user in found}


def _scrypt(password: str, salt: bytes, cost: int = COST, blocks: int = BLOCKS, lanes: int = LANES) -> bytes:
    with _one_at_a_time:
        return hashlib.scrypt(
            password.encode("utf-8", "surrogatepass"),
            salt=salt,
            n=2**cost,
            r=blocks,
            p=lanes,
            maxmem=64 * 1024 * 1024,
            dklen=32,
        )


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
