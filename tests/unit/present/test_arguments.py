"""The arguments of a handler as the fields of a form, and back."""

import pytest

from jobmanager.present.arguments import fields_of, payload_of

SCHEMA = {
    "type": "object",
    "properties": {
        "limit": {"type": "integer", "minimum": 1, "maximum": 500},
        "share": {"type": "number"},
        "name": {"type": "string"},
        "since": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]},
        "full": {"type": "boolean", "default": True},
        "kind": {"enum": ["a", "b"], "type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["limit", "name"],
}


def test_each_argument_has_a_field_of_its_kind_with_what_is_given():
    fields = {field.name: field for field in fields_of(SCHEMA, {"limit": 250, "full": False, "tags": ["x"]})}

    assert {name: field.kind for name, field in fields.items()} == {
        "limit": "number", "share": "number", "name": "text", "since": "text", "full": "choice", "kind": "choice", "tags": "json",
    }  # fmt: skip
    assert (fields["limit"].value, fields["full"].value, fields["tags"].value) == ("250", "false", '["x"]')
    assert fields["limit"].hint == "whole number, 1 to 500, optional"  # its value is given
    assert fields["since"].hint == "date and time, as 2026-11-25T14:00Z, optional"
    assert fields["full"].hint == "yes or no, default true"
    assert [field.name for field in fields.values() if field.required] == ["name"]


def test_what_was_typed_becomes_a_payload_and_empty_fields_are_left_out():
    typed = {
        "arg.limit": " 7 ", "arg.share": "0.5", "arg.name": "ana", "arg.full": "true", "arg.kind": '"b"', "arg.tags": '["x"]',
        "arg.since": "", "other": "x",
    }  # fmt: skip

    assert payload_of(SCHEMA, typed) == (
        {"limit": 7, "share": 0.5, "name": "ana", "full": True, "kind": "b", "tags": ["x"]},
        {},
    )


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("limit", "7.5", "Not a whole number."),
        ("share", "much", "Not a number."),
        ("full", "maybe", "Neither yes nor no."),
        ("tags", "x", "Not JSON. A text stands in quotation marks."),
    ],
)
def test_what_cannot_be_read_is_told_by_its_field_which_keeps_it(name, text, told):
    typed = {f"arg.{name}": text}
    payload, errors = payload_of(SCHEMA, typed)

    assert (payload, errors) == ({}, {name: told})
    field = next(field for field in fields_of(SCHEMA, {}, typed, errors) if field.name == name)
    assert (field.value, field.error) == (text, told)


def test_without_a_schema_all_arguments_are_one_json_object():
    [field] = fields_of(None, {"a": 1})

    assert (field.key, field.kind, field.value) == ("payload", "json", '{"a": 1}')
    assert payload_of(None, {"payload": '{"a": 2}'}) == ({"a": 2}, {})
    assert payload_of(None, {"payload": "[1]"}) == ({}, {"payload": "Not a JSON object."})
    assert "Not JSON" in payload_of(None, {"payload": "{"})[1]["payload"]
