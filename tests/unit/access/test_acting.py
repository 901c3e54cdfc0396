"""For whom a call is made: the innermost block, in this task and in what it awaits, and nowhere else."""

import asyncio
import threading

from jobmanager.access.acting import NOBODY, acting, current, in_batch
from jobmanager.access.principal import Principal

ANA, BEN = Principal("ana", "admin"), Principal("ben", "viewer")


def test_the_innermost_block_counts_and_ends_with_it() -> None:
    assert current() is NOBODY
    with acting(ANA, address="10.0.0.7", user_agent="curl", request_id="r-1"):
        assert (current().name, current().address, current().request_id) == ("ana", "10.0.0.7", "r-1")
        with acting(BEN):
            assert (current().name, current().address) == ("ben", None)
        assert current().name == "ana"
    assert current() is NOBODY


def test_another_thread_acts_for_nobody_and_an_awaited_one_for_the_same() -> None:
    seen: list[str | None] = []
    with acting(ANA):
        thread = threading.Thread(target=lambda: seen.append(current().name), daemon=True)
        thread.start()
        thread.join()

        async def awaiting() -> str | None:
            return await asyncio.to_thread(lambda: current().name)

        assert asyncio.run(awaiting()) == "ana"
    assert seen in ([None], ["ana"])  # Python without the interpreter's lock hands a thread its context


def test_the_outermost_batch_counts() -> None:
    with acting(ANA), in_batch("one"):
        with in_batch("two"):
            assert (current().batch_id, current().name) == ("one", "ana")
        assert current().batch_id == "one"
    assert current().batch_id is None
