"""The webhooks of one manager: those of the code, and the stored ones, which every process takes over within a second."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from jobmanager.clock import Clock
from jobmanager.errors import ConfigurationError, MissingExtraError, WebhookRefusedError
from jobmanager.registry import Handler, Registry
from jobmanager.settings import Secret, Settings
from jobmanager.stores.base import RunStore
from jobmanager.stores.webhooks import WebhookRow
from jobmanager.validation.printable import get_logger
from jobmanager.webhooks.addresses import Reachable
from jobmanager.webhooks.auth import auth_of
from jobmanager.webhooks.encryption import Vault
from jobmanager.webhooks.handler import WebhookHandler
from jobmanager.webhooks.lookup import checked_addresses
from jobmanager.webhooks.sender import check_installed
from jobmanager.webhooks.url import Target, target_of
from jobmanager.webhooks.webhook import Webhook

logger = get_logger(__name__)

EVERYTHING = -1
"""The number of the store's counter before the first change."""


class Webhooks:
    """Makes handlers of webhooks. Any thread may call it."""

    def __init__(
        self,
        registry: Registry,
        settings: Settings,
        clock: Clock,
        switch_off: Callable[[WebhookRow, str], None],
    ) -> None:
        self._switch_off = switch_off
        self._registry = registry
        self._namespace = settings.namespace
        self._clock = clock
        self.vault = Vault(settings.encryption_keys)
        self.reachable = Reachable(settings.allowed_targets)

    def check(self, webhook: Webhook) -> None:
        """Raise ConfigurationError for a receiver that no webhook may reach, as far as its URL tells; MissingExtraError without the extra."""
        check_installed()
        self._check("url", webhook.target)

    def check_ping(self, url: str) -> None:
        """Raise ConfigurationError for a `ping_url` of an operator that may not be reached, as far as the URL tells."""
        try:
            target = target_of(url)
        except ConfigurationError as error:
            raise ConfigurationError(f"ping_{error}") from None
        self._check("ping_url", target)

    def _check(self, word: str, target: Target) -> None:
        try:
            self.reachable.check_target(target)
        except WebhookRefusedError as error:
            raise ConfigurationError(f"{word} cannot be used: {error}") from None

    def addresses_of(self, url: str, seconds: float) -> list[str]:
        """Return the addresses of the URL's host, looked up within so many seconds; WebhookRefusedError if one may not be reached.

        OSError for a name that cannot be looked up, ConfigurationError for what is no clear URL.
        """
        return [str(address) for address in checked_addresses(target_of(url), self.reachable, seconds)]

    def handler_of(self, webhook: Webhook) -> WebhookHandler:
        """Return the handler of a webhook that code declares."""
        return WebhookHandler(webhook, opened=lambda: webhook, reachable=self.reachable, clock=self._clock)

    def take_over(self, store: RunStore, changed_since: int) -> bool:
        """Take over what operators made, changed or deleted since then; True if anything did.

        A process that cannot send webhooks leaves them, and the runs that need them, to others.
        """
        rows = store.webhooks.rows(self._namespace, changed_since=changed_since)
        if not rows:
            return False
        try:
            check_installed()
        except MissingExtraError as error:
            logger.warning("%d stored webhooks are left to other processes: %s", len(rows), error)
            return False
        self._registry.take_stored_handlers({row.key: self._handler(row) for row in rows})
        return True

    def _handler(self, row: WebhookRow) -> Handler | None:
        """Return the handler of a stored webhook; None if it is deleted, or if this version cannot read it."""
        if row.deleted:
            return None
        try:
            target = self.handler_of_row(row)
        except ConfigurationError as error:
            logger.error("webhook=%s cannot be used here: %s", row.key, error)
            return None
        return Handler(row.key, target, kind="webhook", stored=True)

    def handler_of_row(self, row: WebhookRow) -> WebhookHandler:
        """Return the handler of a stored webhook; its secrets are decrypted at each call."""
        return WebhookHandler(
            webhook_of(row.key, row.words, {}),
            opened=partial(self.opened, row),
            reachable=self.reachable,
            clock=self._clock,
            off=row.words.get("off"),
            switch_off=partial(self._switch_off, row),
        )

    def opened(self, row: WebhookRow) -> Webhook:
        """Return the stored webhook with its secrets; WebhookRefusedError if they cannot be decrypted."""
        secrets: Mapping[str, str] = {}
        if row.secrets is not None:
            secrets = self.vault.decrypted(row.secrets, receiver_of(row.key, row.words))
        return webhook_of(row.key, row.words, secrets)


def webhook_of(key: str, words: Mapping[str, Any], secrets: Mapping[str, str]) -> Webhook:
    """Return the webhook that the words tell, with the secrets that are given; without its secret it has no auth."""
    auth = words.get("auth")
    proved = {
        "auth": auth_of(auth, secrets["auth"]) if auth and "auth" in secrets else None,
        "secret": Secret(secrets["secret"]) if "secret" in secrets else None,
    }
    described = {word: value for word, value in words.items() if word not in ("signed", "off")}
    try:
        return Webhook(key=key, **{**described, **proved})
    except TypeError as error:  # words of a later version
        raise ConfigurationError(f"this version does not know one of its words: {error}") from None


def receiver_of(key: str, words: Mapping[str, Any]) -> str:
    """Return for whom the secrets of a stored webhook are: its key and where its URL leads."""
    return f"{key} at {webhook_of(key, words, {}).target.origin}"


def secrets_of(webhook: Webhook) -> dict[str, str]:
    """Return the secrets of a webhook as they are encrypted."""
    found = {}
    if webhook.auth is not None:
        found["auth"] = webhook.auth.read()
    if webhook.secret is not None:
        found["secret"] = webhook.secret.get_secret_value()
    return found
