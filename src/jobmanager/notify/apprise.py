"""Apprise: one channel for the services that its URLs name, such as chats and pagers (extra `notify`)."""

from __future__ import annotations

from collections.abc import Sequence

from jobmanager.errors import ConfigurationError, MissingExtraError
from jobmanager.notify.message import Message, Notifier, NotSentError


class Apprise(Notifier):
    """Sends to each URL of JOBMANAGER_ALERTS_URLS by itself; its address is its number. A URL is a secret and appears in no error."""

    name = "apprise"

    def __init__(self, urls: Sequence[str]) -> None:
        try:
            import apprise  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise MissingExtraError(
                "JOBMANAGER_ALERTS_URLS needs the package apprise. Install jobmanager[notify].",
                extra="notify",
            ) from error
        asset = apprise.AppriseAsset(app_id="jobmanager", async_mode=False)
        self._services = {}
        for number, url in enumerate(urls, start=1):
            service = apprise.Apprise(asset=asset)
            if not service.add(url):
                scheme = url.partition("://")[0] if "://" in url else "no scheme"
                raise ConfigurationError(
                    f"JOBMANAGER_ALERTS_URLS: URL number {number} ({scheme}://...) is none that Apprise knows. Look at its list of services."
                )
            self._services[str(number)] = service
        self.addresses = tuple(self._services)

    def send(self, message: Message) -> None:
        """Send to the URL whose number is the address; NotSentError if its service did not take it."""
        service = self._services.get(message.to)
        if service is None:
            raise NotSentError(f"JOBMANAGER_ALERTS_URLS has no URL number {message.to} any more.")
        if not service.notify(body=message.text, title=message.subject):
            raise NotSentError(
                f"URL number {message.to} of JOBMANAGER_ALERTS_URLS did not take the message; see the log of apprise."
            )
