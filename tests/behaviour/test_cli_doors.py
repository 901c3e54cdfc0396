"""Every option and argument of every verb, given what it cannot mean: two lines that say so, and never an unexpected error."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from jobmanager.cli import main
from jobmanager.cli.app import app

pytestmark = pytest.mark.slow

APPLICATION = """
from jobmanager import JobManager, Settings
jobs = JobManager(Settings(database_url="sqlite:///jobs.db", backend="noop"))

@jobs.job("a", cron="0 3 * * *")
def a(**words): pass
"""
JUNK = (
    "", "-1", "99999999999999999999999", "nan", "\x01", "a\udcff", "x" * 3000, "[", "9999-12-31T23:59:59+14:00",
    "0001-01-01T00:00:00-14:00", "*/0 * * * *", "http://[::1", "postgresql://h:99999/x", "..", "a=b", "@x",
)  # fmt: skip
# They run until they are stopped.
RUNNING = {"run", "worker", "dashboard", "demo", "mcp", "logs", "wait", "healthcheck"}


def leaves(
    command: click.Command, place: tuple[str, ...], context: click.Context
) -> Iterator[tuple[str, ...]]:
    if not isinstance(command, click.Group):
        yield place
        return
    for name in command.list_commands(context):
        verb = command.get_command(context, name)
        if verb is not None and not (name in RUNNING and not place):
            yield from leaves(verb, (*place, name), click.Context(verb, parent=context, info_name=name))


VERBS = list(leaves(app, (), click.Context(app)))


def verb_at(place: tuple[str, ...]) -> click.Command:
    found: click.Command | None = app
    for name in place:
        assert isinstance(found, click.Group)
        found = found.get_command(click.Context(found), name)
    assert found is not None
    return found


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name = f"shop_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(APPLICATION)
    monkeypatch.chdir(tmp_path)
    yield f"{name}:jobs"
    sys.modules.pop(name, None)


@pytest.mark.parametrize("place", VERBS, ids=" ".join)
def test_what_an_option_cannot_mean_is_no_unexpected_error(
    place: tuple[str, ...], shop: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fails if the last thing a person reads at 3 a.m. is the name of an exception."""
    verb = verb_at(place)
    arguments = [each for each in verb.params if isinstance(each, click.Argument)]
    given = [each for each in verb.params if not getattr(each, "is_flag", False)]
    for parameter in given:
        for junk in JUNK:
            words = ["--app", shop, *place]
            if isinstance(parameter, click.Option):
                name = parameter.opts[-1]
                words.append(f"{name}={junk}" if name.startswith("--") else f"{name}{junk}")
            rest = [
                junk if each is parameter else "a" for each in arguments if each is parameter or each.required
            ]
            monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
            code = main([*words, "--", *rest])
            said = "".join(capsys.readouterr())
            assert code in range(4), (words, rest, said)
            assert "should not happen" not in said, (words, rest, said)


def test_a_question_that_is_left_changes_nothing(
    shop: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fails if Ctrl-D or No at a question is told as an error that should not happen."""
    monkeypatch.setattr("jobmanager.cli.asking.can_ask", lambda _here: True)
    for typed in ("n\n", ""):
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        assert main(["--app", shop, "keys", "revoke", "ci"]) == 1
        assert capsys.readouterr().err.endswith("error: Nothing was changed.\n")
