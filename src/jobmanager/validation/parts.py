"""Objects that an application gives as parts of something, checked where they are given: later nobody knows who gave them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from jobmanager.errors import ConfigurationError
from jobmanager.validation.texts import locate, shown

Part = tuple[Callable[[Any], bool], str]
"""Whether an object is such a part, and what to use instead of one that is not."""


def check_parts(
    place: str, expected: Mapping[str, Part], *, needed: Collection[str] = (), **parts: Any
) -> None:
    """Raise ConfigurationError for a part that is no such part, with the place, the name and what to use.

    None is a part left out, but for those `needed`.
    """
    for name, part in parts.items():
        fits, use = expected[name]
        if not ((part is None and name not in needed) or fits(part)):
            error = ConfigurationError(f"{name}={shown(part)} cannot be used; use {use}.")
            locate(error, place)
            raise error


def is_list_of(part: Any, fits: Callable[[Any], bool]) -> bool:
    """Return whether the part is a list or tuple in which each fits."""
    return isinstance(part, (list, tuple)) and all(map(fits, part))


def has_methods(part: Any, *names: str) -> bool:
    """Return whether the part is an object, and no class, with these methods."""
    return not isinstance(part, type) and all(callable(getattr(part, name, None)) for name in names)
