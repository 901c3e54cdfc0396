"""Promises about processes: who lives, who said good-bye, and what their code declares."""

from __future__ import annotations

from jobmanager.testing.store_contract.ground import StoreGround, seconds


class ProcessPromises(StoreGround):
    """`register`, `beat`, `retire`, `instances` and `declared_by_living`."""

    def test_a_registered_process_lives_and_is_as_it_said(self) -> None:
        self.process(namespace="shop", host="there", pid=7, executes=False, seen_at=self.now + seconds(1))

        [instance] = self.store.instances()
        assert (instance.namespace, instance.host, instance.pid, instance.executes) == (
            "shop",
            "there",
            7,
            False,
        )
        assert (instance.started_at, instance.seen_at) == (self.now, self.now + seconds(1))
        assert (instance.beats, instance.dead_at) == (0, None)

    def test_registering_twice_is_once(self) -> None:
        instance_id = self.process()
        [instance] = self.store.instances()
        self.store.beat(instance_id)

        self.store.register(instance)

        assert [each.beats for each in self.store.instances()] == [1]

    def test_every_beat_moves_the_counter_and_the_last_sign_of_life(self) -> None:
        instance_id = self.process(seen_at=self.now - seconds(100))
        other = self.process()

        assert [self.store.beat(instance_id) for _ in range(3)] == [True] * 3

        beats = {instance.id: instance.beats for instance in self.store.instances()}
        assert beats == {instance_id: 3, other: 0}
        [me] = [instance for instance in self.store.instances() if instance.id == instance_id]
        assert self.now <= me.seen_at <= self.store.now()

    def test_who_said_good_bye_beats_no_more(self) -> None:
        instance_id, other = self.process(), self.process()

        self.store.deregister(instance_id)
        self.store.deregister(instance_id)

        assert not self.store.beat(instance_id)
        assert [instance.id for instance in self.store.instances()] == [other]

    def test_nobody_knows_an_unknown_process(self) -> None:
        assert not self.store.beat("nobody")
        self.store.deregister("nobody")
        assert self.store.instances() == []

    def test_what_the_living_declare_is_what_is_declared(self) -> None:
        first = self.process(declares=["a", "b"])
        self.process(declares={"b", "c"})
        same = self.process(declares=["b", "a"])
        self.process(namespace="shop", declares=["d"])
        self.process()

        assert self.store.declared_by_living("default") == {"a", "b", "c"}
        assert self.store.declared_by_living("shop") == {"d"}
        assert self.store.declared_by_living("nobody") == set()
        self.store.deregister(first)
        assert self.store.declared_by_living("default") == {"a", "b", "c"}
        self.store.deregister(same)
        assert self.store.declared_by_living("default") == {"b", "c"}
