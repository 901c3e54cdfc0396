"""The arguments of a handler as the fields of a form: made from their JSON schema, and read back as a payload."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["number", "text", "choice", "json"]
PREFIX = "arg."
WHOLE = "payload"
"""The field for all arguments as one JSON object, where the schema of the handler is not known."""
_HINTS: Mapping[str, str] = {
    "date-time": "date and time, as 2026-11-25T14:00Z",
    "date": "date, as 2026-11-25",
    "time": "time of day, as 14:00",
    "duration": "length, as PT5M",
    "uuid": "UUID",
    "email": "e-mail address",
    "uri": "URL",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One argument in a form. `value` is its text as it is or was typed, `error` what is wrong with that."""

    name: str
    kind: Kind
    hint: str = ""
    value: str = ""
    required: bool = False
    choices: Sequence[tuple[str, str]] = ()
    error: str = ""

    @property
    def key(self) -> str:
        """The name of the field in a form."""
        return self.name if self.name == WHOLE and self.kind == "json" else PREFIX + self.name


def fields_of(
    schema: Mapping[str, Any] | None,
    given: Mapping[str, Any],
    typed: Mapping[str, str] | None = None,
    errors: Mapping[str, str] | None = None,
) -> list[Field]:
    """Return a field for each argument of the schema with its given value, or what was typed; without a schema one for all as JSON."""
    typed, errors = typed or {}, errors or {}
    if schema is None:
        value = typed.get(WHOLE, _json(dict(given)) if given else "")
        return [
            Field(name=WHOLE, kind="json", hint="a JSON object", value=value, error=errors.get(WHOLE, ""))
        ]
    required = set(schema.get("required", ()))
    found = []
    for name, of_one in schema.get("properties", {}).items():
        one, optional = _without_null(of_one)
        kind, choices = _kind(one)
        is_required = name in required and name not in given and not optional
        found.append(
            Field(
                name=name,
                kind=kind,
                hint=_hint(one, of_one, required=is_required),
                value=typed.get(PREFIX + name, _text(given[name], kind) if name in given else ""),
                required=is_required,
                choices=choices,
                error=errors.get(name, ""),
            )
        )
    return found


def payload_of(
    schema: Mapping[str, Any] | None, typed: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the arguments that were typed, and by name what cannot be read; empty fields are left out."""
    if schema is None:
        return _whole(typed.get(WHOLE, "").strip())
    found: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for name, of_one in schema.get("properties", {}).items():
        text = typed.get(PREFIX + name, "").strip()
        one, _ = _without_null(of_one)
        if not text:
            continue
        try:
            found[name] = _read(text, one)
        except ValueError:
            errors[name] = _REFUSALS.get(str(one.get("type")), "Not JSON. A text stands in quotation marks.")
    return found, errors


_REFUSALS = {"integer": "Not a whole number.", "number": "Not a number.", "boolean": "Neither yes nor no."}


def _whole(text: str) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        found = json.loads(text) if text else {}
    except ValueError as error:
        return {}, {WHOLE: f"Not JSON: {error}."}
    return (found, {}) if isinstance(found, dict) else ({}, {WHOLE: "Not a JSON object."})


def _without_null(schema: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """Return the schema of the values that are not null, and whether null is one."""
    some = schema.get("anyOf")
    if not isinstance(some, list):
        return schema, False
    others = [one for one in some if one.get("type") != "null"]
    optional = len(others) < len(some)
    return (others[0], optional) if len(others) == 1 else ({}, optional)


def _kind(schema: Mapping[str, Any]) -> tuple[Kind, Sequence[tuple[str, str]]]:
    if isinstance(schema.get("enum"), list):
        return "choice", [(_json(value), str(value)) for value in schema["enum"]]
    match schema.get("type"):
        case "boolean":
            return "choice", [("true", "yes"), ("false", "no")]
        case "integer" | "number":
            return "number", ()
        case "string":
            return "text", ()
    return "json", ()


def _hint(schema: Mapping[str, Any], whole: Mapping[str, Any], *, required: bool) -> str:
    kind = {"integer": "whole number", "number": "number", "boolean": "yes or no", "string": "text"}.get(
        str(schema.get("type")), "JSON"
    )
    told = [_HINTS.get(str(schema.get("format")), kind if "enum" not in schema else "")]
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None or high is not None:
        told.append(
            f"{low} to {high}"
            if low is not None and high is not None
            else f"at least {low}"
            if high is None
            else f"at most {high}"
        )
    if whole.get("description"):
        told.append(str(whole["description"]))
    if whole.get("default") is not None:
        told.append(f"default {_json(whole['default'])}")
    elif not required:
        told.append("optional")
    return ", ".join(part for part in told if part)


def _read(text: str, schema: Mapping[str, Any]) -> Any:
    if isinstance(schema.get("enum"), list):
        return json.loads(text)
    match schema.get("type"):
        case "integer":
            return int(text)
        case "number":
            return float(text)
        case "boolean":
            return {"true": True, "false": False}[text] if text in ("true", "false") else _refuse(text)
        case "string":
            return text
    return json.loads(text)


def _refuse(text: str) -> Any:
    raise ValueError(text)


def _text(value: Any, kind: Kind) -> str:
    return value if isinstance(value, str) and kind not in ("json", "choice") else _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
