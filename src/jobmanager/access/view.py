"""The part of the record that a principal may see, as values that a store's queries take."""

from __future__ import annotations

from dataclasses import dataclass

from jobmanager.access.acting import current
from jobmanager.access.principal import ADMIN


@dataclass(frozen=True, slots=True)
class View:
    """The part of a store that a principal sees: jobs of one namespace, and of them what their `visibility` lets it see.

    Jobs of visibility `system` only with `system`; of `project` jobs the runs of these `scopes`, of which ticks have none. None for
    `scopes` sees the runs of all.
    """

    namespace: str
    system: bool = False
    scopes: frozenset[str] | None = None

    @property
    def is_whole(self) -> bool:
        """True if nothing of the namespace is hidden."""
        return self.system and self.scopes is None


def current_view(namespace: str) -> View | None:
    """Return what the principal for whom this is called sees of the namespace; None, for all, where there is no principal."""
    principal = current().principal
    if principal is None:
        return None
    scopes = None if principal.scopes is None else frozenset(principal.scopes)
    return View(namespace, system=principal.may(ADMIN), scopes=scopes)
