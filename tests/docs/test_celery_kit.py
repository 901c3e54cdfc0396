"""The operator's kit for Celery: its units, its compose file and the commands of its page are ones that exist."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.docs.test_docs import CHECKS, LINK, commands_of

from jobmanager.settings import KINDS

KIT = Path(__file__).resolve().parents[2] / "backends" / "celery"
UNITS = sorted(KIT.glob("*.service"))
SETTINGS = {f"JOBMANAGER_{name.upper()}" for name in KINDS}


def celery_line(words):
    """A call of `celery`: its verb exists and takes these options."""
    from celery.bin.celery import celery as command

    def options_of(one):
        return {name for parameter in one.params for name in (*parameter.opts, *parameter.secondary_opts)}

    options = options_of(command)
    for word in words:
        if word.startswith("-"):
            name = word.partition("=")[0]
            assert name in options, f"celery takes no {name}"
        elif word in getattr(command, "commands", {}):
            command = command.commands[word]
            options |= options_of(command)


def check(words):
    known = {**CHECKS, "celery": celery_line}
    assert words[0] in known, words
    known[words[0]](words[1:])


def exec_start(unit):
    [command] = re.findall(r"^ExecStart=(.+)$", unit.read_text(), re.MULTILINE)
    program, *words = shlex.split(command)
    return [Path(program).name, *words]


def test_every_command_of_its_page_exists():
    commands = [words for words in commands_of(KIT / "README.md") if words[0] != "export"]

    assert len(commands) > 8
    for words in commands:
        check(words)


def test_every_setting_that_it_names_is_one():
    for path in (*KIT.iterdir(), KIT.parents[1] / "examples" / "celery" / "README.md"):
        assert set(re.findall(r"JOBMANAGER_[A-Z_]+[A-Z]", path.read_text())) <= SETTINGS, path.name


def test_every_file_that_its_page_names_is_there():
    page = (KIT / "README.md").read_text()

    assert not LINK.findall(page)  # files are named in code, from the repository's root or from here
    for name in re.findall(r"`([\w@/.]+\.(?:md|service|yaml))`", page):
        assert (KIT / name).exists() or (KIT.parents[1] / name).exists(), name


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_commands_of_units_exist(unit):
    check(exec_start(unit))


def test_workers_are_told_alone_and_given_time():
    unit = (KIT / "worker@.service").read_text()

    assert "KillMode=mixed" in unit
    assert "TimeoutStopSec=15min" in unit


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_takes_the_units(unit, tmp_path):
    copy = tmp_path / unit.name.replace("@", "@1")
    program = Path(sys.executable)  # one that is there
    copy.write_text(re.sub(r"(?<=^ExecStart=)\S+", str(program), unit.read_text(), flags=re.MULTILINE))

    ended = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, check=False
    )

    ours = [line for line in ended.stderr.splitlines() if copy.name in line]
    assert ours == [], ended.stderr


def test_compose_commands_exist():
    text = (KIT / "compose.yaml").read_text()
    commands = re.findall(r'^    command: \["jobmanager", (.+)\]$', text, re.MULTILINE)
    probes = re.findall(r'"CMD-SHELL", "(?:\w+=\S+ )?(celery .+?)"', text)

    assert len(commands) == len(probes) == 2
    for command in commands:
        check(["jobmanager", *re.findall(r'"(.*?)"', command)])
    for probe in probes:
        check(shlex.split(probe))


def test_compose_file_is_one():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not among our dependencies")
    told = yaml.safe_load((KIT / "compose.yaml").read_text())

    assert told["services"].keys() == {"beat", "worker", "redis", "postgres"}
    assert told["services"]["beat"]["deploy"]["replicas"] == 2
    for name in ("beat", "worker"):
        service = told["services"][name]
        assert service["environment"]["JOBMANAGER_BACKEND"] == "celery"
        # What has the name that the probe asks for is what is started.
        assert service["command"][-1] == f"{name}@%h"
        assert f"-d {name}@$$HOSTNAME" in service["healthcheck"]["test"][1]
