"""The one file that is not ours: htmx, as its authors released it."""

from __future__ import annotations

import hashlib
from importlib.resources import files

STATIC = files("jobmanager.web.pages") / "static"
SHA256 = "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717"


def test_htmx_is_the_released_file_and_its_licence_lies_beside_it() -> None:
    assert hashlib.sha256((STATIC / "htmx-2.0.11.min.js").read_bytes()).hexdigest() == SHA256
    assert "Permission to use, copy, modify" in (STATIC / "htmx-LICENSE.txt").read_text()
