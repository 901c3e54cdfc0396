"""Tracebacks in parts."""

from __future__ import annotations

import traceback

from jobmanager.present.frames import parts_of

TRACEBACK = """Traceback (most recent call last):
  File "/srv/shop/billing.py", line 88, in sync
    for page in pages():
  File "/srv/.venv/lib/python3.12/site-packages/stripe/_http.py", line 402, in _request
    raise self._error(error)
            ^^^^^^^^^^^
  File "/srv/.venv/lib/python3.12/site-packages/requests/adapters.py", line 713, in send
    raise ReadTimeout(error)
  File "/usr/lib/python3.12/json/decoder.py", line 1, in decode
    return x
requests.ReadTimeout: File "a.py" timed out
"""


def test_frames_of_libraries_stand_apart_and_are_named_once() -> None:
    ours, theirs = parts_of(TRACEBACK)
    assert not ours.is_library
    assert ours.text == "/srv/shop/billing.py, line 88, in sync\n    for page in pages():"
    assert theirs.is_library
    assert theirs.told == "3 frames of stripe, requests and Python"
    assert "            ^^^^^^^^^^^" in theirs.text
    assert "timed out" not in theirs.text


def test_the_cause_of_an_error_keeps_its_sentence() -> None:
    try:
        try:
            raise ValueError("first")
        except ValueError as error:
            raise RuntimeError("second") from error
    except RuntimeError as error:
        text = "".join(traceback.format_exception(error))
    [part] = parts_of(text)
    assert "ValueError: first\nThe above exception was the direct cause" in part.text
    assert "RuntimeError: second" not in part.text


def test_a_text_that_is_no_traceback_is_one_part() -> None:
    [part] = parts_of("at Shop.sync (billing.js:88)\n    and more")
    assert part.text == "at Shop.sync (billing.js:88)\n    and more"
    assert not part.is_library
    assert parts_of("") == []
