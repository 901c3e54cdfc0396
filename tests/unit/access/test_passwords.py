"""Hashes of passwords: a salt each, no sign that a shell reads, and right for every password."""

import re

import pytest

from jobmanager.access.passwords import User, hashed, matches, users_of


@pytest.mark.parametrize("password", ["correct horse battery", "", "Größe \ud800", "x" * 5000])
def test_a_hash_is_of_its_password_alone(password: str) -> None:
    kept = hashed(password)
    assert matches(password, kept)
    assert not matches(password + "x", kept)
    assert re.fullmatch(r"scrypt\.14\.8\.5\.[\w-]{22}\.[\w-]{43}", kept)


def test_equal_passwords_have_different_hashes() -> None:
    assert hashed("correct horse battery") != hashed("correct horse battery")


def test_users_are_read_from_words_and_show_no_hash() -> None:
    users = users_of("ana:admin:h1,ben:viewer:h2 ana:viewer:h3")
    assert {name: (user.role, user.hash) for name, user in users.items()} == {
        "ana": ("viewer", "h3"),
        "ben": ("viewer", "h2"),
    }
    assert "h3" not in repr(User("ana", "viewer", "h3"))
    assert users_of("") == {}
