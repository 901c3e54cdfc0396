"""A text is looked for in the JSON of an error before that is taken apart: what it must hold is never more than it does."""

import pytest

from jobmanager.stores.sql.postgres_json import to_json
from jobmanager.stores.sql.rows import longest_plain_part

ERRORS = [
    ("ValueError", "no luck"),
    ("", "no luck with “quotes”"),
    ("KeyError", "'a \"b\" c'\nsecond line\ttabbed\\path/to/it"),
    ("app.Größe", "50 % über\x7f \x00 \ud800 dem: Maß"),
    ("A", " leading and trailing "),
]


@pytest.mark.parametrize(("kind", "message"), ERRORS)
def test_every_part_of_an_error_as_people_read_it_has_its_plain_part_in_the_json(kind, message):
    stored = to_json({"kind": "exception", "type": kind, "message": message}).lower()
    told = f"{kind}: {message}" if kind else message
    for start in range(len(told)):
        for end in range(start + 1, len(told) + 1):
            part = longest_plain_part(told[start:end])
            assert part.lower() in stored, (told[start:end], part)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("nothing-like-it", "nothing-like-it"),
        ("ValueError: no luck", "ValueError"),
        (' "so long" ', "so long"),
        ("Größe 50 %", "e 50 %"),
        ('":\\é', ""),
    ],
)
def test_it_is_the_longest(text, part):
    assert longest_plain_part(text) == part
