"""The parts a manager stands on, each made when first needed: settings, backend, store, and what runs between them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property

from jobmanager.backends.base import Backend, Host
from jobmanager.backends.resolver import Resolution, load_backend_class, resolve
from jobmanager.clock import Clock, SystemClock
from jobmanager.ledger.queries import History
from jobmanager.manager.assembly import Assembly
from jobmanager.manager.health import HealthCheck
from jobmanager.observe import Observer
from jobmanager.registry import Registry
from jobmanager.settings import Settings
from jobmanager.stores import store_for
from jobmanager.stores.base import RunStore


class Parts:
    """Who keeps the time, where runs are kept, and which jobs there are. Nothing connects before it is used."""

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        backend: Backend | None = None,
        store: RunStore | None = None,
        clock: Clock | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.settings = settings or Settings.from_env()
        self._clock = clock or SystemClock()
        self._given_backend = backend
        self._given_store = store
        self._observers = observers
        self.registry = Registry()
        self.resolution = (
            resolve(self.settings)
            if backend is None
            else Resolution(backend=backend.name, reason="given to JobManager(backend=...)")
        )
        self._lock = threading.RLock()
        self._started = False
        self._stopped = False
        self._attending = False

    def _as_host(self) -> Host:
        """What a backend may ask of us in processes that somebody else starts."""
        raise NotImplementedError

    @cached_property
    def _backend_class(self) -> type[Backend]:
        return (
            type(self._given_backend) if self._given_backend else load_backend_class(self.resolution.backend)
        )

    @cached_property
    def backend(self) -> Backend:
        """Who keeps the time."""
        backend = self._given_backend or self._backend_class.from_settings(self.settings, clock=self._clock)
        backend.attach(self._as_host())
        return backend

    @cached_property
    def store(self) -> RunStore:
        """Where runs are kept."""
        return self._given_store or store_for(self.settings, self._clock)

    @cached_property
    def _assembly(self) -> Assembly:
        return Assembly(
            registry=self.registry,
            store=self.store,
            backend=self.backend,
            settings=self.settings,
            clock=self._clock,
            observers=self._observers,
        )

    @cached_property
    def _health(self) -> HealthCheck:
        able = self._backend_class.capabilities
        threaded = not self._clock.drive(None, _nothing)
        self._clock.release(_nothing)
        return HealthCheck(
            self.store,
            self.settings,
            keeps_time=able.keeps_time,
            executes_in_process=able.executes_in_process,
            threaded=threaded,
            started=lambda: self.__dict__.get("_assembly") if self._started else None,
        )

    @cached_property
    def _history(self) -> History:
        return History(self.registry, self.store)

    def _ready(self) -> Assembly:
        """The assembly, with the store installed and the declarations in it."""
        self._assembly.install()
        return self._assembly

    @property
    def _executes_here(self) -> bool:
        capabilities = self.backend.capabilities
        return (self._started and capabilities.executes_in_process) or not capabilities.keeps_time


def _nothing() -> None:
    """Asks a clock whether it drives, and no more."""
