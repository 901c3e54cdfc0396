"""Promises about processes: who lives, who said good-bye, and what their code declares."""

from __future__ import annotations

from datetime import timedelta

from jobmanager.testing.store_contract.ground import StoreGround, seconds


class ProcessPromises(StoreGround):
    """`store.processes`: who lives and declares what, and which backend keeps the time."""

    def test_a_registered_process_lives_and_is_as_it_said(self) -> None:
        self.process(namespace="shop", host="there", pid=7, executes=False, seen_at=self.now + seconds(1))

        [instance] = self.store.processes.living()
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
        [instance] = self.store.processes.living()
        self.store.processes.beat(instance_id)

        self.store.processes.register(instance)

        assert [each.beats for each in self.store.processes.living()] == [1]

    def test_a_beat_may_say_since_when_the_process_lives(self) -> None:
        instance_id = self.process()
        since = self.now + timedelta(hours=1)

        assert self.store.processes.beat(instance_id, lives_since=since)
        assert self.store.processes.beat(instance_id)
        assert [instance.started_at for instance in self.store.processes.living()] == [since]

    def test_every_beat_moves_the_counter_and_the_last_sign_of_life(self) -> None:
        instance_id = self.process(seen_at=self.now - seconds(100))
        other = self.process()

        assert [self.store.processes.beat(instance_id) for _ in range(3)] == [True] * 3

        beats = {instance.id: instance.beats for instance in self.store.processes.living()}
        assert beats == {instance_id: 3, other: 0}
        [me] = [instance for instance in self.store.processes.living() if instance.id == instance_id]
        assert self.now <= me.seen_at <= self.store.now()

    def test_who_said_good_bye_beats_no_more(self) -> None:
        instance_id, other = self.process(), self.process()

        self.store.processes.deregister(instance_id)
        self.store.processes.deregister(instance_id)

        assert not self.store.processes.beat(instance_id)
        assert [instance.id for instance in self.store.processes.living()] == [other]

    def test_nobody_knows_an_unknown_process(self) -> None:
        assert not self.store.processes.beat("nobody")
        self.store.processes.deregister("nobody")
        assert self.store.processes.living() == []

    def test_what_the_living_declare_is_what_is_declared(self) -> None:
        first = self.process(declares=["a", "b"])
        self.process(declares={"b", "c"})
        same = self.process(declares=["b", "a"])
        self.process(namespace="shop", declares=["d"])
        self.process()

        assert self.store.processes.declared_by_living("default") == {"a", "b", "c"}
        assert self.store.processes.declared_by_living("shop") == {"d"}
        assert self.store.processes.declared_by_living("nobody") == set()
        self.store.processes.deregister(first)
        assert self.store.processes.declared_by_living("default") == {"a", "b", "c"}
        self.store.processes.deregister(same)
        assert self.store.processes.declared_by_living("default") == {"b", "c"}

    def test_the_handlers_of_the_living_are_known_by_namespace(self) -> None:
        """Fails if two processes with the same jobs and other handlers are taken for one."""
        first = self.process(declares=["a"], handlers=["send"])
        self.process(declares=["a"], handlers=["send", "sync"])
        self.process(namespace="shop", handlers=["pack"])

        assert self.store.processes.handlers_of_living("default") == {"send", "sync"}
        assert self.store.processes.handlers_of_living("shop") == {"pack"}
        self.store.processes.deregister(first)
        assert self.store.processes.handlers_of_living("default") == {"send", "sync"}
        assert self.store.processes.declared_by_living("shop") == set()

    # ---------------------------------------------------------------- who keeps the time

    def test_the_backend_that_keeps_the_time_is_known_by_namespace(self) -> None:
        processes = self.store.processes
        assert processes.keeper("default") is None

        assert processes.keep_time("default", "local", even_if_alive=True) is None
        assert processes.keep_time("shop", "celery", even_if_alive=False) is None
        assert processes.keep_time("default", "pg_cron", even_if_alive=True) == "local"
        assert processes.keep_time("default", "pg_cron", even_if_alive=True) == "pg_cron"
        assert (processes.keeper("default"), processes.keeper("shop")) == ("pg_cron", "celery")

    def test_a_backend_takes_the_time_over_from_one_that_no_living_process_has(self) -> None:
        processes = self.store.processes
        processes.keep_time("default", "local", even_if_alive=True)
        last = self.process(backend="local")
        self.process(backend="celery")
        self.process(backend="local", namespace="shop")

        assert processes.keep_time("default", "celery", even_if_alive=False) == "local"
        assert processes.keeper("default") == "local"
        processes.deregister(last)
        assert processes.keep_time("default", "celery", even_if_alive=False) == "local"
        assert processes.keeper("default") == "celery"
