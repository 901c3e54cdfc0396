"""Calendars for `exclude=`: sets of days, read in the zone of the schedule. `~calendar` is every other day."""

from __future__ import annotations

from datetime import date

from jobmanager.schedule.exclusion import Calendar, Exclusion, dates_text

__all__ = ["Calendar", "business_days", "dates", "holidays", "weekdays", "weekends"]


def weekdays() -> Calendar:
    """Return Monday to Friday."""
    return Calendar("weekdays")


def weekends() -> Calendar:
    """Return Saturdays and Sundays."""
    return Calendar("weekends")


def dates(*days: date | str) -> Calendar:
    """Return these dates: `date` values, texts such as "2026-12-24", and ranges "2026-12-24/2027-01-06" with both ends.

    Raises CronError for what is neither, and for none at all.
    """
    return Calendar(dates_text(days))


def holidays(country: str, subdivision: str | None = None) -> Calendar:
    """Return the public holidays of a country ("DE"), or of a part of it ("DE", "BY"), as the package `holidays` knows them.

    Raises CronError for a place that it does not know, and where the extra `holidays` is not installed.
    """
    return _of_place("holidays", country, subdivision)


def business_days(country: str | None = None, subdivision: str | None = None) -> Calendar:
    """Return Monday to Friday without the holidays of a place, if one is given; errors are those of `holidays`."""
    return Calendar("business days") if country is None else _of_place("business days", country, subdivision)


def _of_place(kind: str, country: str, subdivision: str | None) -> Calendar:
    place = country if subdivision is None else f"{country}-{subdivision}"
    (calendar,) = Exclusion.read(f"{kind} {place}").items
    assert isinstance(calendar, Calendar)  # noqa: S101 - the text is that of one
    return calendar
