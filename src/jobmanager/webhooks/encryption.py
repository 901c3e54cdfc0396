"""The secrets of stored webhooks, encrypted with JOBMANAGER_ENCRYPTION_KEY: never in clear in a row, a dump or a backup."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jobmanager.errors import ConfigurationError, MissingExtraError, WebhookRefusedError

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

HOW_TO_SET = "Set JOBMANAGER_ENCRYPTION_KEY in every process, to what `openssl rand -base64 32` prints"


class Vault:
    """Encrypts with the newest key, decrypts with any. Any thread may call it.

    An encrypted text also says for which receiver it is. So an attacker who can write to the database, but has no key, cannot have a
    secret sent somewhere else.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = tuple(keys)

    @property
    def has_key(self) -> bool:
        """Whether secrets can be stored at all."""
        return bool(self._keys)

    def encrypted(self, secrets: Mapping[str, str], receiver: str) -> str:
        """Return the secrets as one text; ConfigurationError without a key."""
        if not self._keys:
            raise ConfigurationError(
                f"A secret is stored encrypted only, and there is no key. {HOW_TO_SET}; or declare the webhook in code, with env=."
            )
        whole = {"receiver": receiver, "secrets": dict(secrets)}
        return self._fernet().encrypt(json.dumps(whole).encode()).decode()

    def decrypted(self, text: str, receiver: str) -> Mapping[str, str]:
        """Return the secrets; WebhookRefusedError if no key fits, or if they were stored for another receiver."""
        from cryptography.fernet import InvalidToken  # noqa: PLC0415 - of the extra `webhooks`

        try:
            whole = json.loads(self._fernet().decrypt(text.encode())) if self._keys else None
        except InvalidToken:
            whole = None
        if whole is None:
            missing = "no key fits" if self._keys else "there is no key in this process"
            raise WebhookRefusedError(
                f"The stored secret cannot be decrypted: {missing}. {HOW_TO_SET}, and keep the keys before it behind commas; "
                "if the key is lost, give the secret again with `jobmanager webhooks edit`."
            )
        if whole["receiver"] != receiver:
            raise WebhookRefusedError(
                f"The stored secret was given for {whole['receiver']}, not for {receiver}. Give it again with `jobmanager webhooks edit`."
            )
        secrets: Mapping[str, str] = whole["secrets"]
        return secrets

    def rotated(self, text: str) -> str:
        """Return the same secrets encrypted with the newest key; WebhookRefusedError if no key fits."""
        from cryptography.fernet import InvalidToken  # noqa: PLC0415 - as above

        try:
            return self._fernet().rotate(text.encode()).decode()
        except InvalidToken:
            raise WebhookRefusedError(
                "A stored secret cannot be decrypted: no key fits. Add the key it was stored with behind a comma."
            ) from None

    def _fernet(self) -> MultiFernet:
        try:
            from cryptography.fernet import Fernet, MultiFernet  # noqa: PLC0415 - as above
        except ImportError as error:
            raise MissingExtraError(
                "Stored secrets need a package that is not installed: pip install 'jobmanager-backends[webhooks]'.",
                extra="webhooks",
            ) from error
        return MultiFernet([Fernet(key.replace("+", "-").replace("/", "_")) for key in self._keys])
