"""Slots of a lane, and those that are lent: each place is counted once, whoever gives what back first."""

from __future__ import annotations

import random
import threading

import pytest

from jobmanager.execution.slots import MOST_LENT, Lane, Slot


def lane_of(size: int) -> Lane:
    lock = threading.Lock()
    return Lane(size, ahead=False, lock=lock, emptied=threading.Condition(lock))


@pytest.mark.parametrize("seed", range(20))
def test_held_slots_without_those_that_share_a_place_are_in_flight_after_any_steps(seed: int) -> None:
    """Fails if a slot that is lent, kept, lent on, moved or put back is counted twice or not at all."""
    choose = random.Random(seed)
    lane, other = lane_of(4), lane_of(4)
    slots: list[Slot] = []
    for _ in range(300):
        held = [slot for slot in slots if slot.held]
        slot = choose.choice(held) if held else None
        match choose.randrange(6):
            case 0 | 1:
                with lane.reserve(1) as reservation:
                    taken = reservation.take()
                    slots += [taken] if taken else []
            case 2 | 3 if slot:
                lent = slot.lend()
                slots += [lent] if lent else []
            case 4 if slot:
                slot.keep()
            case 5 if slot:
                slot.moved_to(other).release() if choose.random() < 0.2 else slot.release()
        held = [slot for slot in slots if slot.held]
        assert lane.in_flight == len(held) - lane.lent
        assert 0 <= lane.lent <= len(held)
        assert other.in_flight == 0
    for slot in slots:
        slot.release()
        slot.release()
    assert (lane.in_flight, lane.lent) == (0, 0)


def test_a_slot_is_lent_once_at_a_time_and_only_while_it_is_held() -> None:
    lane = lane_of(1)
    slot = lane.take_unbounded()
    first = slot.lend()
    assert first is not None
    assert slot.lend() is None
    first.release()
    second = slot.lend()
    assert second is not None
    slot.release()
    assert (slot.lend(), lane.in_flight) == (None, 1), "the run in its place goes on, and has the place alone"
    second.release()
    assert lane.in_flight == 0


def test_runs_that_wait_for_one_another_without_end_take_no_more_than_a_bounded_number_of_threads() -> None:
    lane = lane_of(1)
    slot: Slot | None = lane.take_unbounded()
    depth = 0
    while slot is not None:
        slot, depth = slot.lend(), depth + 1
    assert depth == MOST_LENT + 1
