"""Frozen values that are cheap to construct: a burst of ticks constructs thousands within milliseconds."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any, TypeVar

T = TypeVar("T")


def cheap(value: type[T]) -> type[T]:
    """Give a frozen dataclass with slots a faster `__init__`; return the class.

    Constructing takes a third of the time (34 fields) to half of it (seven).

    The standard `__init__` of a frozen class calls `object.__setattr__` for each field. This one turns the new object into an
    instance of a class of the same layout that is not frozen, assigns, and turns it back before it is returned.
    """
    described = fields(value)  # type: ignore[arg-type]  # a dataclass, as said above
    if hasattr(value, "__post_init__") or any(field.default_factory is not MISSING for field in described):
        raise TypeError(f"{value.__name__}: neither __post_init__ nor default_factory would be called.")
    # Both, or a frozen base's would be called for either.
    plain = {"__setattr__": object.__setattr__, "__delattr__": object.__delattr__}
    scope: dict[str, Any] = {
        "become": object.__setattr__,
        "frozen": value,
        "thawed": type(value.__name__, value.__bases__, {"__slots__": value.__slots__, **plain}),  # type: ignore[attr-defined]
    }
    taken = ["*"] if described[0].kw_only else []
    for field in described:
        if field.default is MISSING:
            taken.append(field.name)
        else:
            scope[f"default_{field.name}"] = field.default
            taken.append(f"{field.name}=default_{field.name}")
    lines = [
        f"def __init__(self, {', '.join(taken)}):",
        " become(self, '__class__', thawed)",
        *(f" self.{field.name} = {field.name}" for field in described),
        " become(self, '__class__', frozen)",
    ]
    exec("\n".join(lines), scope)  # noqa: S102 - names of fields only, as dataclasses does it itself
    made = scope["__init__"]
    made.__qualname__, made.__annotations__ = value.__init__.__qualname__, value.__init__.__annotations__
    value.__init__ = made  # type: ignore[method-assign]
    return value
