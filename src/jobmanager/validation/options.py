"""Options as metadata of dataclass fields: what each takes, where it is kept, and what it means.

Reading, refusing, storing, overriding, documenting and showing options iterate over this description; none of them names an option.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from jobmanager.errors import ConfigurationError
from jobmanager.validation.kinds import Duration, Kind, Refused
from jobmanager.validation.texts import shown

_KEY = "jobmanager.option"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option: a field of a dataclass, described.

    `stored` options have a column of their own in the table of jobs, `declared` ones stand in the stored declaration,
    `overridable` ones may be changed by an operator. `column` is the name of both, with its unit. Forms show those of a `group` together.
    """

    name: str
    kind: Kind
    help: str
    default: Any
    column: str
    stored: bool = False
    declared: bool = True
    overridable: bool = False
    optional: bool = False
    shown_as: str = ""
    group: str = ""

    def read(self, value: Any) -> Any:
        """Return the value in the form that is kept; ConfigurationError for what it does not take."""
        if value is self.default or (value is None and self.optional):
            return value
        try:
            return self.kind.read(value)
        except Refused as refused:
            end = "; leave it out for none" if self.optional else ""
            raise ConfigurationError(f"{self.name}={shown(value)} {refused}{end}.") from None

    def plain(self, value: Any) -> Any:
        """Return the value as JSON has it: a duration in seconds."""
        return value.total_seconds() if value is not None and isinstance(self.kind, Duration) else value


def option(
    default: Any,
    kind: Kind,
    meaning: str,
    *,
    key: str = "",
    stored: bool = False,
    declared: bool = True,
    overridable: bool = False,
    shown_as: str = "",
    group: str = "",
) -> Any:
    """Describe a dataclass field as an option. A `default` of None makes the option optional; `key` names its column."""
    described = {
        "kind": kind, "help": meaning, "column": key, "stored": stored, "declared": declared, "overridable": overridable,
        "shown_as": shown_as, "optional": default is None, "group": group,
    }  # fmt: skip
    if isinstance(default, Mapping):
        return field(default_factory=lambda: default, metadata={_KEY: described, "default": default})
    return field(default=default, metadata={_KEY: described})


def options_of(value: type) -> Mapping[str, Option]:
    """Return the options of a dataclass by name, in the order of its fields."""
    found = {}
    for item in fields(value):
        described = item.metadata.get(_KEY)
        if described is not None:
            unit = "_seconds" if isinstance(described["kind"], Duration) else ""
            column = described["column"] or f"{item.name}{unit}"
            default = item.metadata["default"] if item.default is MISSING else item.default
            found[item.name] = Option(name=item.name, default=default, **{**described, "column": column})
    return found


def read_all(options: Iterable[Option], values: Sequence[Any]) -> dict[str, Any]:
    """Return those values that reading changes, by name; ConfigurationError for the first one that an option refuses."""
    changed = {}
    for item, value in zip(options, values, strict=True):
        if value is item.default:
            continue
        read = item.read(value)
        if read is not value:
            changed[item.name] = read
    return changed


def closest_name(name: object, known: Iterable[str]) -> str:
    """Return a sentence that suggests the closest known name, or nothing."""
    found = difflib.get_close_matches(str(name), list(known), n=1)
    return f" Did you mean {found[0]!r}?" if found else ""
