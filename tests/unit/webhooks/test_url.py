"""The strict grammar of a webhook's URL."""

from __future__ import annotations

import pytest

from jobmanager.errors import ConfigurationError
from jobmanager.webhooks.url import target_of


@pytest.mark.parametrize(
    ("url", "origin", "path"),
    [
        ("https://example.com", "https://example.com", "/"),
        ("HTTPS://Example.COM:443/a?b=c", "https://example.com", "/a?b=c"),
        ("http://example.com:8080?x", "http://example.com:8080", "/?x"),
        ("https://[2606:4700::0:1111]:8443/x", "https://[2606:4700::1111]:8443", "/x"),
        ("http://8.8.8.8:80/", "http://8.8.8.8", "/"),
    ],
)
def test_a_url_is_taken_apart(url: str, origin: str, path: str) -> None:
    target = target_of(url)

    assert (target.origin, target.path) == (origin, path)


@pytest.mark.parametrize(
    "url", [None, 7, "", "example.com", "https://", "https://a" * 400, "https://a.b/#c", "https://a.b/%2"]
)
def test_what_is_no_url_is_refused_without_being_shown(url: object) -> None:
    with pytest.raises(ConfigurationError) as refused:
        target_of(url)

    assert "a.b" not in str(refused.value)
