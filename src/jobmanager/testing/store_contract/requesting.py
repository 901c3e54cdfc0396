"""Promises about requests that name a key: one at a time has it, and a repeated one gets the kept response."""

from __future__ import annotations

import threading
from datetime import timedelta

from jobmanager.stores.requests import KeptRequest
from jobmanager.testing.store_contract.ground import HOUR, StoreGround, seconds

LONG = 24 * HOUR


class RequestPromises(StoreGround):
    """The facet `requests`."""

    def begin(
        self, turn: str, *, key: str = "key", keep: timedelta = LONG, cut: timedelta = HOUR
    ) -> KeptRequest | None:
        """Ask for the key with a digest that names the turn."""
        return self.store.requests.begin(key, turn, f"digest of {turn}", keep=keep, cut=cut)

    def test_the_response_is_kept_for_repeated_requests(self) -> None:
        response = {"status": 201, "body": '{"id": "ü"}', "headers": [["location", "/x"]]}

        assert self.begin("first") is None
        assert self.store.requests.finish("key", "first", response)
        again = self.begin("second")

        assert again is not None
        assert (again.digest, again.response) == ("digest of first", response)
        assert timedelta() <= again.age < HOUR
        assert self.begin("second", key="another") is None

    def test_while_a_request_is_under_way_its_key_is_taken(self) -> None:
        self.begin("first")
        again = self.begin("second")
        assert again is not None
        assert (again.digest, again.response) == ("digest of first", None)

        self.store.requests.give_up("key", "second")
        assert self.begin("second") is not None
        self.store.requests.give_up("key", "first")
        self.store.requests.give_up("key", "first")
        assert self.begin("second") is None

    def test_a_request_that_was_cut_loses_its_key(self) -> None:
        self.begin("first")

        assert self.begin("second", cut=seconds(-1)) is None
        assert not self.store.requests.finish("key", "first", {"status": 200})
        self.store.requests.give_up("key", "first")
        assert self.store.requests.finish("key", "second", {"status": 202})
        again = self.begin("third")
        assert again is not None
        assert again.response == {"status": 202}

    def test_a_response_is_forgotten_when_it_is_old(self) -> None:
        self.begin("first")
        self.store.requests.finish("key", "first", {"status": 200})

        assert self.begin("second", cut=seconds(-1)) is not None, "it is not under way"
        assert self.begin("second", keep=seconds(-1)) is None
        assert self.store.requests.purge(HOUR) == 0
        assert self.store.requests.purge(seconds(-1)) == 1
        assert self.begin("third") is None

    def test_of_many_requests_at_once_one_has_the_key(self) -> None:
        gate, found = threading.Barrier(8), list[KeptRequest | None]()

        def begin(number: int) -> None:
            gate.wait()
            found.append(self.begin(f"{number}"))

        threads = [threading.Thread(target=begin, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == len(threads)
        assert found.count(None) == 1
