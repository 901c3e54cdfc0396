"""API keys: shown once, kept as a hash, valid until they are revoked or end, never more than their maker may, on record."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobmanager import JobManager, Principal, Settings, acting
from jobmanager.access.keys import digest_of
from jobmanager.cli import main
from jobmanager.errors import ConfigurationError, KeyNotFoundError, PermissionDeniedError
from jobmanager.testing import FakeClock

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ADMIN = Principal("ana", ["admin"], authenticated_at=NOON)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON)


@pytest.fixture
def jobs(tmp_path: Path, clock: FakeClock) -> Iterator[JobManager]:
    made = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db", backend="noop"), clock=clock)
    made.add_job("work", lambda: 1)
    yield made
    made.store.close()


def test_a_key_stands_for_a_principal_with_its_permissions_and_scopes(jobs: JobManager) -> None:
    secret = jobs.create_key("ci", permissions=["jobs:read"], scopes=["acme"], by="ana")
    assert secret.startswith("jm_")
    assert len(secret) == 46
    principal = jobs.principal_of_key(secret)
    assert principal == Principal("key:ci", ["jobs:read"], scopes=["acme"])
    by_default = jobs.principal_of_key(jobs.create_key("other"))
    assert by_default is not None
    assert (by_default.permissions, by_default.scopes) == ({"jobs:read", "jobs:write"}, None)


@pytest.mark.parametrize(
    "secret", ["", "jm_", "x" * 46, "jm_" + "a" * 43, "jm_" + "é" * 43, None, b"jm_", "jm_" + "a" * 9999]
)
def test_what_is_no_key_stands_for_nobody(jobs: JobManager, secret: Any) -> None:
    jobs.create_key("ci")
    assert jobs.principal_of_key(secret) is None


def test_a_revoked_key_stands_for_nobody_at_once(jobs: JobManager) -> None:
    secret = jobs.create_key("ci")
    assert jobs.revoke_key("ci", by="ana").revoked_by == "ana"
    assert jobs.principal_of_key(secret) is None
    with pytest.raises(KeyNotFoundError, match="No key 'ci'"):
        jobs.revoke_key("ci")
    assert jobs.create_key("ci") != secret


def test_a_key_ends_at_its_end(jobs: JobManager, clock: FakeClock) -> None:
    secret = jobs.create_key("ci", expires=NOON + MINUTE)
    assert jobs.principal_of_key(secret) is not None
    clock.step(MINUTE)
    assert jobs.principal_of_key(secret) is None


def test_a_key_of_another_namespace_stands_for_nobody(jobs: JobManager, clock: FakeClock) -> None:
    secret = jobs.create_key("ci")
    other = JobManager(
        Settings(database_url=jobs.settings.database_url, backend="noop", namespace="shop"), clock=clock
    )
    assert other.principal_of_key(secret) is None
    assert other.keys() == []
    other.store.close()


def test_the_last_use_is_written_no_more_than_once_a_minute(jobs: JobManager, clock: FakeClock) -> None:
    """Fails if each request with a key costs a write."""
    secret = jobs.create_key("ci")
    uses = []
    for _ in range(4):
        jobs.principal_of_key(secret)
        uses.append(jobs.keys()[0].last_used_at)
        clock.step(timedelta(seconds=25))
    assert uses == [NOON, NOON, NOON, NOON + timedelta(seconds=75)]


def test_no_secret_is_kept_shown_or_audited(jobs: JobManager, tmp_path: Path) -> None:
    secret = jobs.create_key("ci", by="ana")
    jobs.principal_of_key(secret)
    jobs.revoke_key("ci", by="ana")
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as connection:
        dump = "\n".join(connection.iterdump())
    assert secret not in dump
    assert digest_of(secret) in dump
    assert secret not in repr(jobs.keys()) + repr(jobs.audit())
    assert digest_of(secret) not in repr(jobs.keys()) + repr(jobs.audit())
    assert [(entry.action, entry.target, entry.target_id) for entry in jobs.audit()] == [
        ("revoke", "key", "ci"),
        ("create", "key", "ci"),
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"permissions": ["jobs:raed"]}, "Did you mean 'jobs:read'"),
        ({"expires": NOON.replace(tzinfo=None)}, "needs a zone"),
        ({"scopes": [3]}, "scopes="),
    ],
)
def test_a_key_that_means_nothing_is_refused(jobs: JobManager, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        jobs.create_key("ci", **given)


def test_of_two_keys_one_has_a_name(jobs: JobManager) -> None:
    jobs.create_key("ci")
    with pytest.raises(ConfigurationError, match="Revoke it first"):
        jobs.create_key("ci")


def test_nobody_gives_a_key_more_than_he_has(jobs: JobManager) -> None:
    """Fails if a key could be made that does or sees more than its maker."""
    with acting(ADMIN):
        jobs.create_key("strong", permissions=["admin", "jobs:dangerous"])
    strong = Principal("key:strong", ["admin"])
    limited = Principal("key:acme", ["admin"], scopes=["acme"])
    with acting(strong):
        jobs.create_key("weak", permissions=["admin"])
        with pytest.raises(PermissionDeniedError, match="jobs:dangerous"):
            jobs.create_key("stronger", permissions=["jobs:dangerous"])
    with acting(limited):
        jobs.create_key("narrow", scopes=["acme"])
        for scopes in (None, ["acme", "beta"]):
            with pytest.raises(PermissionDeniedError, match="wider scope"):
                jobs.create_key("wide", scopes=scopes)
    calls: list[Callable[[], object]] = [
        jobs.keys,
        lambda: jobs.create_key("x"),
        lambda: jobs.revoke_key("weak"),
    ]
    for call in calls:
        with acting(Principal("ben", ["operator"])), pytest.raises(PermissionDeniedError, match="jobs:admin"):
            call()
    found = jobs.keys()
    assert {key.name for key in found if key.revoked_at is None} == {"strong", "weak", "narrow"}


# ---------------------------------------------------------------- the command line


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("USER", "ana")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("JOBMANAGER_DATABASE_URL", f"sqlite:///{tmp_path}/jobs.db")

    def call(*words: str) -> tuple[int, str, str]:
        code = main(list(words))
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_keys_are_made_listed_and_revoked(run: Callable[..., Any]) -> None:
    code, secret, aside = run(
        "keys", "create", "ci", "--permission", "jobs:read", "--scope", "acme", "--expires", "90d"
    )
    assert (code, secret.startswith("jm_"), "shown this once" in aside) == (0, True, True)
    _, listed, _ = run("keys", "list")
    assert secret.strip() not in listed
    for part in ("ci", "valid", f"{secret[:8]}...", "jobs:read", "acme", "never", "ana"):
        assert part in listed
    assert run("keys", "revoke", "ci", "--yes")[0] == 0
    assert "revoked" in run("keys", "list")[1]
    code, _, said = run("keys", "revoke", "ci", "--yes")
    assert code != 0
    assert "No key 'ci'" in said
    made = json.loads(run("keys", "create", "bot", "--json")[1])
    assert made["secret"].startswith("jm_")
    both = json.loads(run("keys", "list", "--json")[1])
    assert [key["name"] for key in both] == ["bot", "ci"]
    assert "digest" not in both[0]
    audited = json.loads(run("audit", "--target", "key", "--json")[1])
    assert [(entry["action"], entry["outcome"]) for entry in audited] == [
        ("create", "done"),
        ("revoke", "refused"),
        ("revoke", "done"),
        ("create", "done"),
    ]
    assert "revoke refused" in run("audit", "--refused")[1]
    assert "revoke refused" not in run("audit", "--since", "-1h", "--action", "create")[1]


def test_no_key_is_said_so(run: Callable[..., Any]) -> None:
    assert "There is no key" in run("keys", "list")[1]


def test_a_dashboard_user_is_printed_as_the_setting(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if the line cannot be used as it is, loses a user, or shows the password."""
    import io

    from jobmanager.access.passwords import matches, users_of

    def add(name: str, role: str, password: str) -> str:
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{password}\n"))
        code, line, _ = run("dashboard-user", name, "--role", role)
        assert code == 0
        assert password not in line
        value = str(line.strip().removeprefix('JOBMANAGER_DASHBOARD_USERS="').removesuffix('"'))
        monkeypatch.setenv("JOBMANAGER_DASHBOARD_USERS", value)
        return value

    add("ana", "admin", "correct horse battery")
    users = users_of(add("ben", "viewer", "staple staple staple"))
    assert {user.name: user.role for user in users.values()} == {"ana": "admin", "ben": "viewer"}
    assert matches("correct horse battery", users["ana"].hash)
    assert not matches("staple staple staple", users["ana"].hash)
    monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
    code, out, err = run("dashboard-user", "eve")
    assert (code != 0, out, "shorter than 12" in err) == (True, "", True)
    code, _, err = run("dashboard-user", "a:b")
    assert code != 0
    assert "no name" in err
