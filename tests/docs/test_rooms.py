"""src/jobmanager/README.md is the tree on the disk: a room a heading, a module a line, and nothing else."""

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "jobmanager"
PAGE = PACKAGE / "README.md"

ROOM = re.compile(r"^## (?:`(?P<room>[\w/]+)/`|The package itself)$")
MODULE = re.compile(r"^- `(?P<module>[\w.]+)`: \S.*$")


def rooms_on_disk() -> dict[str, set[str]]:
    """The modules of each room; a room's own `__init__.py` is told by the sentence under its heading."""
    rooms: dict[str, set[str]] = {}
    for file in sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.sql")]):
        room = file.parent.relative_to(PACKAGE).as_posix()
        modules = rooms.setdefault("" if room == "." else room, set())
        if file.name != "__init__.py" or room == ".":
            modules.add(file.name)
    return rooms


def rooms_on_page(text: str) -> dict[str, list[str]]:
    rooms: dict[str, list[str]] = {}
    modules: list[str] | None = None
    for line in text.splitlines():
        if line.startswith("## "):
            heading = ROOM.match(line)
            assert heading, f"README.md: {line!r} names no room; write ## `room/`"
            modules = rooms.setdefault(heading["room"] or "", [])
        elif line.startswith("- "):
            module = MODULE.match(line)
            assert module, f"README.md: {line!r} is no line of a module; write - `name.py`: a sentence"
            assert modules is not None, f"README.md: {line!r} stands in no room"
            modules.append(module["module"])
    return rooms


def differences(page: dict[str, list[str]], disk: dict[str, set[str]]) -> list[str]:
    """What to write into the page or to take out of it, a line each."""
    found = []
    for room in sorted(page.keys() | disk.keys()):
        heading = f"## `{room}/`" if room else "## The package itself"
        if room not in page:
            found.append(
                f"add the room: {heading} with a sentence, and a line for each of {sorted(disk[room])}"
            )
        elif room not in disk:
            found.append(f"take the room out: {heading}; there is no such folder")
        else:
            found += [
                f"add below {heading}: - `{name}`: what it is for" for name in disk[room] - {*page[room]}
            ]
            found += [f"take out below {heading}: - `{name}`: ..." for name in {*page[room]} - disk[room]]
            twice = {name for name in page[room] if page[room].count(name) > 1}
            found += [f"name it once below {heading}: `{name}`" for name in twice]
    return sorted(found)


def test_every_room_and_every_module_has_its_line():
    found = differences(rooms_on_page(PAGE.read_text(encoding="utf-8")), rooms_on_disk())

    assert not found, "src/jobmanager/README.md:\n" + "\n".join(found)


def test_every_room_has_a_sentence():
    sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]

    assert [text.splitlines()[0] for text in sections if not re.match(r".+\n\n[A-Z`][^\n]+\.\n", text)] == []


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("- `gone.py`: was here", "take out below ## `doctor/`: - `gone.py`: ..."),
        ("- `ledger.py`: the store", "name it once below ## `doctor/`: `ledger.py`"),
    ],
)
def test_a_line_too_many_is_named(line, told):
    text = PAGE.read_text(encoding="utf-8").replace("- `finding.py`", f"{line}\n- `finding.py`")

    assert differences(rooms_on_page(text), rooms_on_disk()) == [told]


def test_a_missing_line_and_a_missing_room_are_named():
    text = re.sub(r"^- `finding.py`.*\n", "", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    disk = {**rooms_on_disk(), "attic": {"trunk.py"}}

    assert differences(rooms_on_page(text), disk) == [
        "add below ## `doctor/`: - `finding.py`: what it is for",
        "add the room: ## `attic/` with a sentence, and a line for each of ['trunk.py']",
    ]
