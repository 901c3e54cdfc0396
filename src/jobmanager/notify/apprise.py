"""Apprise: one channel for the services that its URLs name, such as chats and pagers (extra `notify`)."""

from __future__ import annotations

from collections.abc import Sequence

from jobmanager.errors import ConfigurationError, MissingExtraError
from jobmanager.notify.message import Message, Notifier, NotSentError


class Apprise(Notifier):
    """Sends to each URL of JOBMANAGER_ALERTS_URLS. A URL is a secret and appears in no error."""

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
        self._service = apprise.Apprise(asset=asset)
        for number, url in enumerate(urls, start=1):
            if not self._service.add(url):
                scheme = url.partition("://")[0] if "://" in url else "no scheme"
                raise ConfigurationError(
                    f"JOBMANAGER_ALERTS_URLS: URL number {number} ({scheme}://...) is none that Apprise knows. Look at its list of services."
                )

    def send(self, message: Message) -> None:
        """Send to all URLs; NotSentError if any did not take it, and then all get it again."""
        if not self._service.notify(body=message.text, title=message.subject):
            raise NotSentError(
                "a service of JOBMANAGER_ALERTS_URLS did not take the message; its name is in the log of apprise"
            )
