"""RunStoreContract: every promise of `jobmanager.stores` as a test. A store that passes is one the runner can trust.

    class TestMyStore(RunStoreContract):
        def make_store(self, clock, tmp_path):
            return MyStore(tmp_path / "mine", clock=clock)

The tests move no clock: they write rows that are due, late or early as seen from `store.now()`, so a store that takes its time
from a server passes them too.
"""

from __future__ import annotations

from jobmanager.testing.store_contract.account import AccountPromises
from jobmanager.testing.store_contract.announcing import AnnouncingPromises
from jobmanager.testing.store_contract.auditing import AuditingPromises
from jobmanager.testing.store_contract.changes import ChangePromises
from jobmanager.testing.store_contract.claiming import ClaimingPromises
from jobmanager.testing.store_contract.dispatching import DispatchingPromises
from jobmanager.testing.store_contract.ending import EndingPromises
from jobmanager.testing.store_contract.giving_back import GivingBackPromises
from jobmanager.testing.store_contract.jobs import JobPromises
from jobmanager.testing.store_contract.keys import KeyPromises
from jobmanager.testing.store_contract.lasting import LastingPromises
from jobmanager.testing.store_contract.line import LinePromises
from jobmanager.testing.store_contract.locking import LockingPromises
from jobmanager.testing.store_contract.looking import LookingPromises
from jobmanager.testing.store_contract.notifying import NotifyingPromises
from jobmanager.testing.store_contract.once import OncePromises
from jobmanager.testing.store_contract.opening import OpeningPromises
from jobmanager.testing.store_contract.processes import ProcessPromises
from jobmanager.testing.store_contract.races import RacePromises
from jobmanager.testing.store_contract.reading import ReadingPromises
from jobmanager.testing.store_contract.requesting import RequestPromises
from jobmanager.testing.store_contract.searching import SearchingPromises
from jobmanager.testing.store_contract.statistics import StatisticsPromises
from jobmanager.testing.store_contract.steps import StepPromises
from jobmanager.testing.store_contract.takeover import TakeoverPromises
from jobmanager.testing.store_contract.visibility import VisibilityPromises
from jobmanager.testing.store_contract.webhooks import WebhookPromises

__all__ = ["RunStoreContract"]


class RunStoreContract(
    JobPromises,
    LockingPromises,
    LinePromises,
    AccountPromises,
    OpeningPromises,
    AnnouncingPromises,
    EndingPromises,
    GivingBackPromises,
    ClaimingPromises,
    DispatchingPromises,
    LastingPromises,
    ProcessPromises,
    TakeoverPromises,
    ReadingPromises,
    SearchingPromises,
    NotifyingPromises,
    LookingPromises,
    OncePromises,
    RequestPromises,
    VisibilityPromises,
    AuditingPromises,
    ChangePromises,
    KeyPromises,
    StatisticsPromises,
    StepPromises,
    RacePromises,
    WebhookPromises,
):
    """Subclass it, name the subclass `Test...` and say in `make_store` how a fresh, empty store is made."""
