"""Delivery: what is taken is sent once, a channel that hangs holds up itself alone, and who lost a message leaves it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta

from jobmanager import Settings
from jobmanager.notify.delivery import Delivery
from jobmanager.notify.message import Message, Notifier, UnsureError
from jobmanager.run import Notice
from jobmanager.stores import store_for
from jobmanager.stores.base import RunStore
from jobmanager.stores.outbox import Letter, NotificationState
from jobmanager.testing import FakeClock

NONE = timedelta(0)


class Channel(Notifier):
    """A channel that does as it is told before it keeps a message."""

    def __init__(self, name: str, before: Callable[[], object] = lambda: None) -> None:
        self.name = name
        self.before = before
        self.got: list[Message] = []

    def send(self, message: Message) -> None:
        self.before()
        self.got.append(message)


def a_store() -> RunStore:
    store = store_for(Settings(database_url="memory://"), FakeClock())
    store.install()
    return store


def written(letter: Letter) -> Message:
    return Message(id=letter.id, event=letter.event, subject=letter.event, text="text")


def delivery_of(store: RunStore, *channels: Notifier, threaded: bool = False) -> Delivery:
    by_name = {channel.name: channel for channel in channels}
    return Delivery(lambda: store.outbox, "default", lambda: by_name, written, quiet=NONE, threaded=threaded)


def noted(store: RunStore, channel: str, subject: str = "run") -> None:
    store.outbox.add([Notice(namespace="default", event="failed", subject=subject, channel=channel)])


def states(store: RunStore) -> dict[str, str]:
    return {item.channel: item.state.value for item in store.outbox.list("default")}


def test_a_message_is_sent_once() -> None:
    store, channel = a_store(), Channel("a")
    delivery = delivery_of(store, channel)
    noted(store, "a")

    assert delivery.deliver() == 1
    assert delivery.deliver() == 0

    assert len(channel.got) == 1
    assert states(store) == {"a": "sent"}


def test_who_lost_a_message_before_it_could_arrive_sends_nothing() -> None:
    store = a_store()

    class Slow(Channel):
        def deliver(self, message: Message, begin: Callable[[], None]) -> None:
            again = store.outbox.list("default")[0]
            store.outbox.change(again.id, NotificationState.WAITING)
            store.outbox.claim("default", ["a"], quiet=NONE, lease=timedelta(minutes=1), limit=1)
            super().deliver(message, begin)

    slow = Slow("a")
    noted(store, "a")
    delivery_of(store, slow).deliver()

    assert slow.got == []
    [item] = store.outbox.list("default")
    assert (item.state, item.unsure, item.error) == ("waiting", 0, None)


def test_what_may_have_arrived_is_counted_and_what_did_not_is_not() -> None:
    store = a_store()

    def lost() -> None:
        raise UnsureError("connection lost")

    def refused() -> None:
        raise RuntimeError("no such room")

    noted(store, "a")
    noted(store, "b")
    delivery_of(store, Channel("a", lost), Channel("b", refused)).deliver()

    assert {item.channel: (item.unsure, item.attempts) for item in store.outbox.list("default")} == {
        "a": (1, 1),
        "b": (0, 1),
    }


def test_a_channel_that_hangs_holds_up_itself_alone() -> None:
    store, release = a_store(), threading.Event()
    hanging, well = Channel("hanging", lambda: release.wait(20)), Channel("well")
    delivery = delivery_of(store, hanging, well, threaded=True)
    for number in range(3):
        noted(store, "hanging", str(number))
        noted(store, "well", str(number))
        began = time.monotonic()
        delivery.deliver()
        assert time.monotonic() - began < 5
        deadline = time.monotonic() + 5
        while len(well.got) <= number:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    assert hanging.got == []
    release.set()


def test_what_a_channel_raises_ends_no_thread() -> None:
    store = a_store()

    def leave() -> None:
        raise SystemExit

    noted(store, "a")
    delivery_of(store, Channel("a", leave)).deliver()

    assert states(store) == {"a": "waiting"}


def test_after_stopping_nothing_is_taken() -> None:
    store, channel = a_store(), Channel("a")
    delivery = delivery_of(store, channel)
    noted(store, "a")
    delivery.stopping = True

    assert delivery.deliver() == 0
    assert channel.got == []
