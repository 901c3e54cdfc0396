"""`jobmanager import`: a program to paste, the same as data, exit codes, and one clear line when nothing is found."""

import importlib
import io
import json
import subprocess
import sys
from datetime import datetime
from itertools import count

import pytest

from jobmanager import JobManager, Settings
from jobmanager.cli.app import run

pytest.importorskip("celery")

_numbers = count()


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module of a new name into the working directory, and answers the name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(text: str) -> str:
        name = f"brought_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


CELERY = """
from celery import Celery
from celery.schedules import crontab
app = Celery(__name__, broker="redis://nowhere.invalid:1", set_as_current=False)

@app.task(shared=False)
def tidy(days: int = 1): ...

app.conf.beat_schedule = {
    "noon": {"task": f"{__name__}.tidy", "schedule": crontab(minute=0, hour=12), "kwargs": {"days": 3}},
}
"""
CHANGED = (
    CELERY
    + 'app.conf.timezone = "Europe/Berlin"\napp.conf.beat_schedule["night"] = {"task": "x.y", "schedule": 30}\n'
)
SCHEDULER = """
from apscheduler.schedulers.background import BackgroundScheduler
scheduler = BackgroundScheduler(timezone="UTC")
def tidy(): ...
scheduler.add_job(tidy, "cron", hour=12, id="noon")
scheduler.start()
"""


def pasted(program):
    """The jobs that the printed program declares."""
    jobs = JobManager(Settings(database_url="memory://"))
    exec(program, {"jobs": jobs})  # noqa: S102 - what we printed is what is pasted
    return jobs.registry.jobs


def error_of(capsys):
    return capsys.readouterr().err


def test_what_carries_over_unchanged_is_a_program_and_exit_0(module, capsys):
    name = module(CELERY)

    assert run(["import", "celery-beat", name]) == 0
    printed = capsys.readouterr().out
    assert list(pasted(printed)) == ["noon"]
    assert pasted(printed)["noon"].schedule.text == "cron 0 12 * * * in UTC"
    assert "#   same     it fires at the same instants" in printed
    assert "# 1 job from 1 entry: 1 carried over unchanged, 0 to look at." in printed


def test_the_pasted_job_runs_the_plain_function_of_the_task_without_celery(module, capsys):
    name = module(CELERY.replace("days: int = 1): ...", "days: int = 1): return {'days': days}"))
    run(["import", "celery-beat", f"{name}:app"])
    jobs = JobManager(Settings(database_url="memory://", backend="noop"))
    exec(capsys.readouterr().out, {"jobs": jobs})  # noqa: S102 - what we printed is what is pasted

    with jobs:
        ended = jobs.trigger_job("noon")

    assert (ended.status.value, ended.output) == ("succeeded", {"days": 3})


def test_what_a_person_has_to_look_at_is_exit_1(module, capsys):
    assert run(["import", "celery-beat", module(CHANGED)]) == 1
    printed = capsys.readouterr().out
    assert list(pasted(printed)) == ["noon", "night"]
    assert "#   changed  Celery counts from the last run" in printed
    assert "#   by hand  no task 'x.y' was found" in printed
    assert "1 carried over unchanged, 1 to look at." in printed


def test_json_is_the_same_as_data(module, capsys):
    assert run(["import", "celery-beat", module(CHANGED), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)

    assert told["unchanged"] is False
    assert told["imports"] == []
    noon, night = told["entries"]
    assert (noon["entry"], noon["job"], noon["unchanged"]) == ("noon", "noon", True)
    assert noon["source"].startswith("jobs.add_job(")
    assert [remark["mark"] for remark in noon["remarks"]] == ["same"]
    assert [remark["mark"] for remark in night["remarks"]] == ["changed", "by hand"]


def test_a_scheduler_is_read_and_stays_stopped(module, capsys):
    name = module(SCHEDULER)

    assert run(["import", "apscheduler", f"{name}:scheduler"]) == 0
    assert list(pasted(capsys.readouterr().out)) == ["noon"]
    assert not sys.modules[name].scheduler.running


STORED = """
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
scheduler = BackgroundScheduler(timezone="UTC", jobstores={"default": SQLAlchemyJobStore(url="sqlite:///theirs.db")})
def tidy(days=1): ...
def gone(): ...
"""


def test_the_jobs_of_a_sqlalchemy_job_store_are_read_and_stay_as_they_are(module, capsys, tmp_path):
    """Fails if a stored job is left out or changed: APScheduler's own reading deletes those whose function it does not find."""
    sys.path.insert(0, str(tmp_path))
    theirs = importlib.import_module(module(STORED))
    theirs.scheduler.start(paused=True)
    theirs.scheduler.add_job(theirs.tidy, "cron", hour=12, id="noon", kwargs={"days": 3})
    theirs.scheduler.add_job(theirs.tidy, "cron", hour=13, id="off", next_run_time=None)
    theirs.scheduler.add_job(theirs.gone, "cron", hour=14, id="gone")
    theirs.scheduler.shutdown()
    del theirs.gone, theirs.scheduler
    fresh = module(
        STORED.replace("def gone(): ...", "") + 'scheduler.add_job(tidy, "cron", hour=15, id="added")'
    )

    before = (tmp_path / "theirs.db").read_bytes()
    assert run(["import", "apscheduler", fresh]) == 1
    printed = capsys.readouterr().out
    assert list(pasted(printed)) == ["added", "noon", "off"]
    assert "gone" in printed
    assert "cannot be loaded" in printed
    assert "next_run_time" not in printed
    assert "it is paused there" in printed
    assert (tmp_path / "theirs.db").read_bytes() == before


def test_a_job_store_that_is_not_there_is_not_made(module, capsys, tmp_path):
    name = module(STORED + 'scheduler.add_job(tidy, "cron", hour=12, id="noon")')

    assert run(["import", "apscheduler", name]) == 0
    assert list(pasted(capsys.readouterr().out)) == ["noon"]
    assert not (tmp_path / "theirs.db").exists()


def test_a_moment_comes_with_its_import(module, capsys):
    name = module(SCHEDULER + 'scheduler.add_job(tidy, "date", run_date="2100-01-01", id="once")\n')

    assert run(["import", "apscheduler", name]) == 0
    moment = pasted(capsys.readouterr().out)["once"].schedule.moment
    assert moment == datetime.fromisoformat("2100-01-01T00:00:00+00:00")


def test_a_crontab_is_read_from_a_file_and_from_standard_input(tmp_path, monkeypatch, capsys):
    text = "0 1 * * * /bin/one\n@reboot /bin/two\n"
    (tmp_path / "tab").write_text(text)
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))

    assert run(["import", "crontab", str(tmp_path / "tab"), "--timezone", "Asia/Tokyo"]) == 1
    from_file = capsys.readouterr().out
    assert run(["import", "crontab", "-", "--timezone", "Asia/Tokyo"]) == 1
    from_input = capsys.readouterr().out

    assert pasted(from_file)["one"].schedule.text == "cron 0 1 * * * in Asia/Tokyo"
    # The first lines name the file, and are as many as its path is long.
    assert from_file.partition("import subprocess")[2] == from_input.partition("import subprocess")[2] != ""
    assert "# line 2: @reboot /bin/two" in from_file


def test_a_system_crontab_has_a_user(tmp_path, capsys):
    (tmp_path / "tab").write_text("0 1 * * * root /bin/one\n")

    assert run(["import", "crontab", "--system", str(tmp_path / "tab")]) == 1
    assert "it ran as root" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "verb", "name", "says"),
    [
        ("", "celery-beat", "", "There is no Celery app in"),
        ("", "apscheduler", "", "There is no APScheduler scheduler in"),
        ("app = 3", "celery-beat", ":app", "is an object of type int"),
        ("s = 3", "apscheduler", ":s", "is an object of type int"),
        ("app = 3", "celery-beat", ":ap", "is nothing"),
        ("beat_schedule = {}", "celery-beat", "", "There is nothing to bring over"),
        (SCHEDULER + "other = BackgroundScheduler()", "apscheduler", "", "has 2 of the kind APScheduler scheduler"),
    ],
)  # fmt: skip
def test_nothing_there_is_a_usage_error_with_a_hint(module, capsys, text, verb, name, says):
    assert run(["import", verb, module(text) + name]) == 2
    error = error_of(capsys)
    assert says in error
    assert "do: " in error


def test_the_only_dict_of_its_name_is_found(module, capsys):
    name = module('CELERY_BEAT_SCHEDULE = {"a": {"task": "x.y", "schedule": 30}}\n')

    assert run(["import", "celery-beat", name]) == 1
    assert "UTC was taken" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("target", "code", "says"),
    [
        ("not_there_at_all", 2, "There is no module 'not_there_at_all'"),
        ("shop/celery.py", 2, "From this folder it is shop.celery"),
        ("a b", 2, "For example: shop.jobs:jobs"),
    ],
)
def test_a_module_that_is_not_there_is_a_usage_error(module, capsys, target, code, says):
    assert run(["import", "celery-beat", target]) == code
    error = error_of(capsys)
    assert says in error
    assert "--app" not in error


def test_a_module_that_fails_names_its_line(module, capsys):
    name = module("1 / 0\n")

    assert run(["import", "apscheduler", name]) == 1
    assert f"Importing {name} failed in {name}.py, line 1: ZeroDivisionError" in error_of(capsys)


def test_tasks_that_cannot_be_imported_are_told(module, capsys):
    name = module(CELERY + 'app.conf.include = ["no_tasks_here"]\n')

    assert run(["import", "celery-beat", name]) == 1
    assert "No module named 'no_tasks_here'" in error_of(capsys)


@pytest.mark.parametrize("file", ["no-such-file", "."])
def test_a_file_that_cannot_be_read_is_a_usage_error(tmp_path, monkeypatch, capsys, file):
    monkeypatch.chdir(tmp_path)

    assert run(["import", "crontab", file]) == 2
    assert f"{file} cannot be read" in error_of(capsys)


def test_a_crontab_without_commands_is_a_usage_error(tmp_path, capsys):
    (tmp_path / "tab").write_text("# nothing\n")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")

    assert run(["import", "crontab", str(tmp_path / "tab")]) == 2
    assert run(["import", "crontab", str(tmp_path / "bytes")]) == 2
    assert "it is no text in UTF-8" in error_of(capsys)


def test_a_wrong_zone_is_a_usage_error(tmp_path, capsys):
    (tmp_path / "tab").write_text("0 1 * * * one\n")

    assert run(["import", "crontab", str(tmp_path / "tab"), "--timezone", "Berlin"]) == 2
    assert "Did you mean Europe/Berlin?" in error_of(capsys)


@pytest.mark.parametrize("verb", ["celery-beat", "apscheduler", "crontab"])
def test_help_names_the_exit_codes(verb, capsys):
    assert run(["import", verb, "--help"]) == 0
    assert "1: something needs a human's eye" in " ".join(capsys.readouterr().out.split())


def test_importing_from_one_source_loads_none_of_the_others(module):
    name = module(SCHEDULER)
    code = (
        "import sys; from jobmanager.cli.app import run\n"
        f"run(['import', 'apscheduler', '{name}'])\n"
        "print('celery' in sys.modules, 'jobmanager.bridge.crontab' in sys.modules, file=sys.stderr)\n"
        "import jobmanager.bridge.celery_beat\n"
        "print('celery' in sys.modules, file=sys.stderr)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ended.stderr.split() == ["False", "False", "False"]
