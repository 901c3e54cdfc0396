"""The implementation of `context.once`: a function is called until it has returned once for its key, and its result is kept."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from jobmanager.beside_loop import beside_loop
from jobmanager.clock import Clock
from jobmanager.errors import ConfigurationError, OnceConflictError, PayloadError, StoreUnavailableError
from jobmanager.ledger.bounding import exact_json
from jobmanager.run import Run
from jobmanager.stores.base import RunStore
from jobmanager.stores.once import Turn
from jobmanager.validation.call_arguments import check_arguments
from jobmanager.validation.printable import get_logger
from jobmanager.validation.texts import shown

logger = get_logger(__name__)

T = TypeVar("T")
PAUSES = (0.1, 0.5, 2.0)  # seconds after each vain attempt to note that it is done: it would be done again


class Once:
    """Calls functions once for each key of a job. Any thread."""

    def __init__(self, store: RunStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def call(self, run: Run, key: str, function: Callable[[], Any]) -> Any:
        """Return the result that is kept for the key, or call the function and keep its; an awaitable of it for a coroutine function."""
        check_arguments(once=key)
        if not callable(function):
            raise ConfigurationError(f"once({key!r}): {shown(function)} cannot be called; pass a function.")
        if inspect.iscoroutinefunction(function):
            return self._call_coroutine(run, key, function)
        turn = self._begin(run, key)
        if turn.state == "done":
            return turn.output
        try:
            returned = function()
            if inspect.isawaitable(returned):
                raise ConfigurationError(
                    f"once({key!r}): {shown(function)} returned an awaitable. Pass the coroutine function itself and await the result."
                )
        except BaseException:
            self._store.once.give_up(run, key)
            raise
        return self._keep(run, key, returned)

    async def _call_coroutine(self, run: Run, key: str, function: Callable[[], Awaitable[T]]) -> T | Any:
        turn = await beside_loop(self._begin, run, key)
        if turn.state == "done":
            return turn.output
        try:
            returned = await function()
        except BaseException:
            await asyncio.shield(beside_loop(self._store.once.give_up, run, key))
            raise
        return await beside_loop(self._keep, run, key, returned)

    def _begin(self, run: Run, key: str) -> Turn:
        turn = self._store.once.begin(run, key)
        if turn.state == "busy":
            who = "this run itself" if turn.run_id == run.id else f"run {turn.run_id}"
            raise OnceConflictError(
                f"once({key!r}) of job {run.job_id!r} is being done by {who}. Let the run try again later, or use another key.",
                run_id=turn.run_id,
                key=key,
            )
        return turn

    def _keep(self, run: Run, key: str, returned: Any) -> Any:
        """Note that it is done, whatever can be kept of its result, and return the result as later calls get it."""
        try:
            kept, fault = exact_json(returned), None
        except (TypeError, ValueError, RecursionError) as error:
            kept, fault = None, error
        if not self._noted(run, key, kept):
            logger.warning("job=%s run_id=%s once(%r) was done by another run, too", run.job_id, run.id, key)
        if fault is not None:
            raise PayloadError(
                f"once({key!r}) is done, but its result cannot be kept: {fault}. Return ids and plain values; later calls get None."
            ) from None
        return kept

    def _noted(self, run: Run, key: str, kept: Any) -> bool:
        for pause in PAUSES:
            try:
                return self._store.once.finish(run, key, kept)
            except StoreUnavailableError:
                self._clock.sleep(pause)
        return self._store.once.finish(run, key, kept)
