"""How often an address may call."""

from __future__ import annotations

from jobmanager.web.limit import MOST_ADDRESSES, Limit


class Watch:
    """A monotonic clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_after_a_burst_there_is_room_at_the_rate_and_the_wait_is_told():
    watch = Watch()
    limit = Limit(2, 3, watch)
    assert [limit.take("a") for _ in range(3)] == [0, 0, 0]
    assert limit.take("a") == 0.5

    watch.seconds += 0.5
    assert limit.take("a") == 0
    assert limit.take("a") == 0.5
    watch.seconds += 3600
    assert [limit.take("a") for _ in range(4)] == [0, 0, 0, 0.5]  # no more than the burst is saved up


def test_waiting_is_not_prolonged_by_asking():
    watch = Watch()
    limit = Limit(1, 1, watch)
    limit.take("a")
    for _ in range(10):
        watch.seconds += 0.1
        limit.take("a")
    watch.seconds += 0.01
    assert limit.take("a") == 0


def test_each_address_has_its_own_room():
    limit = Limit(1, 1, Watch())
    assert limit.take("a") == 0
    assert limit.take("b") == 0
    assert limit.take("a") > 0


def test_the_addresses_remembered_are_bounded_and_the_busy_ones_stay():
    limit = Limit(1, 2, Watch())
    for number in range(MOST_ADDRESSES * 2):
        limit.take(str(number))
        limit.take("busy")
    assert len(limit._buckets) == MOST_ADDRESSES
    assert limit.take("busy") > 0
