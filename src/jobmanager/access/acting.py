"""For whom a call is made: the principal, where its request came from, and the numbers under which it is found again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

from jobmanager.access.principal import Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class Acting:
    """For whom a call is made, and from where. Without a principal the code of the application itself asks, and may do all."""

    principal: Principal | None = None
    address: str | None = None
    user_agent: str | None = None
    request_id: str | None = None
    batch_id: str | None = None

    @property
    def name(self) -> str | None:
        """The name of the principal, if there is one."""
        return None if self.principal is None else self.principal.name


NOBODY = Acting()
_current: ContextVar[Acting] = ContextVar("jobmanager_acting", default=NOBODY)


@contextmanager
def acting(
    principal: Principal,
    *,
    address: str | None = None,
    user_agent: str | None = None,
    request_id: str | None = None,
) -> Iterator[None]:
    """Have every call inside the block made for this principal: checked, limited to what it may see, and audited.

    Holds for this thread or task and what it awaits, `jobs.aio` included; not for handlers that run meanwhile. Blocks may be nested.
    """
    token = _current.set(
        Acting(principal=principal, address=address, user_agent=user_agent, request_id=request_id)
    )
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def in_batch(batch_id: str) -> Iterator[None]:
    """Have all that is audited inside the block carry this id: it was one request. The outermost batch counts."""
    before = _current.get()
    token = _current.set(replace(before, batch_id=before.batch_id or batch_id))
    try:
        yield
    finally:
        _current.reset(token)


def current() -> Acting:
    """Return for whom the calling thread or task acts; NOBODY outside of every block."""
    return _current.get()


def act_for_nobody() -> None:
    """Leave the principal behind from here on: a handler is code of the application, whichever principal started its run."""
    _current.set(NOBODY)
