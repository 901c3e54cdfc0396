"""The encryption of stored secrets."""

from __future__ import annotations

import base64

import pytest

from jobmanager.errors import ConfigurationError, WebhookRefusedError
from jobmanager.webhooks.encryption import Vault

OLD, NEW = (base64.b64encode(bytes([number]) * 32).decode() for number in (250, 251))


def test_what_was_encrypted_is_read_for_its_receiver_alone() -> None:
    text = Vault([OLD]).encrypted({"auth": "t0ken"}, "crm at https://a")

    assert "t0ken" not in text
    assert Vault([NEW, OLD]).decrypted(text, "crm at https://a") == {"auth": "t0ken"}
    with pytest.raises(WebhookRefusedError, match="was given for crm at https://a, not for crm at https://b"):
        Vault([OLD]).decrypted(text, "crm at https://b")


@pytest.mark.parametrize("keys", [[], [NEW]])
def test_without_the_key_nothing_is_read(keys: list[str]) -> None:
    text = Vault([OLD]).encrypted({"auth": "t0ken"}, "crm")

    with pytest.raises(WebhookRefusedError, match="cannot be decrypted") as refused:
        Vault(keys).decrypted(text, "crm")
    assert "t0ken" not in str(refused.value)


def test_rotation_leaves_what_was_encrypted() -> None:
    text = Vault([OLD]).encrypted({"auth": "t0ken"}, "crm")
    rotated = Vault([NEW, OLD]).rotated(text)

    assert Vault([NEW]).decrypted(rotated, "crm") == {"auth": "t0ken"}
    with pytest.raises(WebhookRefusedError):
        Vault([NEW]).rotated(text)


def test_without_a_key_nothing_is_encrypted() -> None:
    with pytest.raises(ConfigurationError, match="Set JOBMANAGER_ENCRYPTION_KEY"):
        Vault([]).encrypted({"auth": "t0ken"}, "crm")
