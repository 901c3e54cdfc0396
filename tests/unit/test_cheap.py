import copy
import inspect
import pickle
from dataclasses import FrozenInstanceError, dataclass, field, replace

import pytest

from jobmanager.cheap import cheap


@cheap
@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    to: str
    weight: int = 1


@cheap
@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    name: str
    size: int = 0


@cheap
@dataclass(frozen=True, slots=True, kw_only=True)
class Crate(Thing):
    lid: bool


def test_the_fields_of_a_frozen_base_are_set_too() -> None:
    crate = Crate(name="a", lid=True)
    assert (crate.name, crate.size, crate.lid) == ("a", 0, True)
    assert replace(crate, size=2) == Crate(name="a", size=2, lid=True)
    with pytest.raises(FrozenInstanceError):
        crate.name = "b"  # type: ignore[misc]


def test_it_is_an_instance_of_its_class_and_equal_to_its_like() -> None:
    assert type(Parcel(to="a")) is Parcel
    assert Parcel(to="a") == Parcel(to="a", weight=1) != Parcel(to="b")
    assert hash(Parcel(to="a")) == hash(Parcel(to="a"))
    assert repr(Point(1)) == "Point(x=1, y=0)"


def test_nothing_can_be_set_once_it_is_made() -> None:
    parcel = Parcel(to="a")
    with pytest.raises(FrozenInstanceError):
        parcel.to = "b"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del parcel.to


def test_it_is_replaced_copied_and_pickled_as_any_dataclass() -> None:
    point = Point(1, 2)
    assert replace(point, y=3) == Point(1, 3)
    assert copy.copy(point) == pickle.loads(pickle.dumps(point)) == point


def test_what_is_missing_unknown_or_by_position_is_refused_as_before() -> None:
    with pytest.raises(TypeError, match="to"):
        Parcel()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="colour"):
        Parcel(to="a", colour="red")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="positional"):
        Parcel("a")  # type: ignore[misc]


def test_its_signature_is_that_of_the_dataclass() -> None:
    assert list(inspect.signature(Parcel).parameters) == ["to", "weight"]
    assert inspect.signature(Parcel).parameters["to"].kind is inspect.Parameter.KEYWORD_ONLY
    assert list(Parcel.__init__.__annotations__) == ["to", "weight", "return"]


def test_what_it_would_not_do_is_refused() -> None:
    with pytest.raises(TypeError, match="default_factory"):

        @cheap
        @dataclass(frozen=True, slots=True)
        class Box:
            content: list[str] = field(default_factory=list)
