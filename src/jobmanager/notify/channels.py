"""The channels that this process can send through: e-mail by the settings, others by the name of an entry point."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from jobmanager.clock import Clock
from jobmanager.errors import ConfigurationError
from jobmanager.notify.alerts import Route, route_of
from jobmanager.notify.message import Notifier
from jobmanager.settings import Settings
from jobmanager.validation.options import closest_name

GROUP = "jobmanager.notifiers"
"""The group of entry points: each names a class of Notifier that takes no arguments, or a function that returns one."""


class Channels:
    """The channels by name. Making it opens no connection; ConfigurationError says what cannot work."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        notifiers: Sequence[Notifier] = (),
        made_when_named: Mapping[str, Callable[[], Notifier]] = MappingProxyType({}),
    ) -> None:
        self._made_when_named = made_when_named
        self.by_name: Mapping[str, Notifier] = {}
        found: dict[str, Notifier] = {notifier.name: notifier for notifier in notifiers}
        email = _email(settings, clock)
        if email is not None:
            found.setdefault(email.name, email)
        if settings.alerts_urls is not None:
            found.setdefault("apprise", _apprise(settings.alerts_urls.get_secret_value().split()))
        self.by_name = found

    def admins(self, settings: Settings) -> list[Route]:
        """Return who is told of what concerns no single job."""
        given = {"email": settings.alerts_email, "apprise": settings.alerts_urls}
        return [Route(channel) for channel, where in given.items() if where]

    def check(self, routes: Iterable[str]) -> None:
        """Load the channels that these addresses name; ConfigurationError for one that there is none of."""
        for text in routes:
            self.check_route(route_of(text), text)

    def expanded(self, route: Route) -> Sequence[Route]:
        """Return the route, or one for each address of its channel where an empty address stands for several."""
        channel = self.by_name.get(route.channel)
        if route.address or channel is None or not channel.addresses:
            return (route,)
        return [Route(route.channel, address) for address in channel.addresses]

    def serves(self, address: str) -> bool:
        """Return whether the channel of this address is loaded."""
        return route_of(address).channel in self.by_name

    def check_route(self, route: Route, text: str) -> None:
        """Load the channel of one route."""
        if route.channel in self.by_name:
            return
        if route.channel == "email":
            raise ConfigurationError(f"{text}: no e-mail can be sent. Set JOBMANAGER_SMTP_URL.")
        self.by_name = {**self.by_name, route.channel: self._loaded(route.channel, text)}

    def _loaded(self, name: str, text: str) -> Notifier:
        if name in self._made_when_named:
            return self._made_when_named[name]()
        from importlib.metadata import entry_points  # noqa: PLC0415 - most applications have no further channel

        for point in entry_points(group=GROUP, name=name):
            notifier = point.load()()
            if isinstance(notifier, Notifier):
                return notifier
            raise ConfigurationError(f"The entry point {name!r} of {GROUP} returns no Notifier.")
        known = sorted(
            {
                *self.by_name,
                "email",
                *self._made_when_named,
                *(point.name for point in entry_points(group=GROUP)),
            }
        )
        raise ConfigurationError(
            f"{text!r} is neither an e-mail address nor a channel.{closest_name(name, known)} Channels are {', '.join(known)}."
        )


def _apprise(urls: Sequence[str]) -> Notifier:
    from jobmanager.notify.apprise import Apprise  # noqa: PLC0415 - an extra

    return Apprise(urls)


def _email(settings: Settings, clock: Clock) -> Notifier | None:
    if settings.smtp_url is None:
        if settings.alerts_email:
            raise ConfigurationError(
                "JOBMANAGER_ALERTS_EMAIL is set, and no e-mail can be sent. Set JOBMANAGER_SMTP_URL too."
            )
        return None
    from jobmanager.notify.email import Email  # noqa: PLC0415 - smtplib and ssl, which most processes do not need

    sender = settings.alerts_from or "jobmanager@localhost"
    return Email(settings.smtp_url, sender=sender, own=settings.alerts_email or (), clock=clock)
