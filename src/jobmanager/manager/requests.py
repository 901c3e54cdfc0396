"""A request that names an idempotency key: its response is kept in the store for those that repeat it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from datetime import timedelta
from hashlib import sha256
from typing import Any

from jobmanager.access.acting import current
from jobmanager.errors import StoreError
from jobmanager.stores.base import RunStore
from jobmanager.stores.requests import REQUESTS_KEPT, KeptRequest
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

CUT = timedelta(minutes=2)
"""A request without a response for so long was cut: its process died."""


class KeyedRequest:
    """One request of the principal for whom the caller acts. A key belongs to a principal and a route. Any thread."""

    def __init__(self, store: RunStore, namespace: str, route: str, key: str, asked: str) -> None:
        """`asked` is everything that makes it another request; it is kept as a hash with the key, so that nobody guesses a secret by it."""
        self._store = store
        self._key = _hash(namespace, current().name or "", route, key)
        self._digest = _hash(key, asked)
        self._turn = secrets.token_hex(16)

    def begin(self) -> KeptRequest | None:
        """Take the key and return None; return the request that has it. The first use installs an empty store."""
        self._store.install()
        return self._store.requests.begin(self._key, self._turn, self._digest, keep=REQUESTS_KEPT, cut=CUT)

    def asks_the_same(self, earlier: KeptRequest) -> bool:
        """Return whether an earlier request with this key asked for the same."""
        return earlier.digest == self._digest

    def end(self, response: Mapping[str, Any] | None) -> None:
        """Keep the response; None frees the key. Where the store is away by now it is free after a while."""
        requests = self._store.requests
        try:
            if response is None:
                requests.give_up(self._key, self._turn)
            else:
                requests.finish(self._key, self._turn, response)
        except StoreError as error:
            logger.warning("the response to a request with a key is not kept: %s", error)


def _hash(*parts: str) -> str:
    return sha256(json.dumps(parts).encode()).hexdigest()
