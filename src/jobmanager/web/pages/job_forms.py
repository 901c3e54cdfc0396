"""The forms that make a job and edit one, with a preview of what the schedule will do. Nothing fires by them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jobmanager.access.principal import ADMIN, WRITE
from jobmanager.errors import (
    ConfigurationError,
    CronError,
    DuplicateJobError,
    EditConflictError,
    HandlerNotFoundError,
    JobManagerError,
    PayloadError,
    UnsupportedError,
)
from jobmanager.job import MOST, OF_REPEATED
from jobmanager.ledger.job_view import JobView
from jobmanager.present.arguments import PREFIX, WHOLE, fields_of, payload_of
from jobmanager.present.definition import told_change
from jobmanager.present.policy_fields import (
    PolicyField,
    number_or_text,
    offered,
    policy_groups,
    policy_values,
    read_policies,
)
from jobmanager.present.preview import other_readings, preview_of, schedule_of
from jobmanager.registry import HandlerInfo
from jobmanager.schedule import At, Cron, Every, Schedule
from jobmanager.schedule.dst import DEBIAN
from jobmanager.schedule.instants import SECOND
from jobmanager.web.pages.job import config_of, schema_of
from jobmanager.web.pages.job_actions import path_of
from jobmanager.web.pages.rendering import back_to, check_page, form_of, page
from jobmanager.web.site import Site, site_of

SCHEDULES = ("cron", "timezone", "dst", "every", "at", "until", "exclude")
TIMING = ("kind", "cron", "timezone", "gap", "fold", "every", "at", "until", "exclude")
KINDS = (("cron", "Cron"), ("every", "Every"), ("at", "Once"), ("hand", "By hand"))
CLOCK_CHANGES = (
    (
        "gap",
        "A time that the clocks skip",
        "in spring; no matter to a line with * in minute or hour",
        (
            ("end", "run at the end of the gap"),
            ("shift", "run later by the gap"),
            ("skip", "leave it out that day"),
        ),
    ),
    (
        "fold",
        "A time that comes twice",
        "in autumn",
        (("first", "run the first time"), ("second", "run the second time"), ("both", "run both times")),
    ),
)
_NAMED = re.compile(r"(?:^|: )([a-z_]+)(?:=| needs )")  # as the sentences name the option that they are about
REFUSALS = (
    ConfigurationError,
    CronError,
    DuplicateJobError,
    HandlerNotFoundError,
    PayloadError,
    UnsupportedError,
)


@dataclass
class Draft:
    """A job in a form: `values` as they are shown, `was` as they were when the form was made, and what is wrong by field."""

    values: dict[str, str]
    was: dict[str, str]
    handler: str
    schema: Mapping[str, Any] | None
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def changed(self) -> set[str]:
        """The names of the fields that were changed by hand."""
        return {name for name, value in self.values.items() if value != self.was.get(name, "")}

    def schedule_words(self) -> dict[str, Any]:
        """Return the words of the chosen kind of schedule."""
        match self.values.get("kind"):
            case "cron":
                zone = self.values.get("timezone", "").strip()
                return {
                    "cron": self.values.get("cron", "").strip(),
                    **({"timezone": zone} if zone else {}),
                    **self._dst_words(),
                    **self._end(),
                }
            case "every":
                return {"every": number_or_text(self.values.get("every", "")), **self._end()}
            case "at":
                return {"at": self.values.get("at", "").strip()}
        return {}

    def _end(self) -> dict[str, str | None]:
        """Return the end of the schedule, and what it excludes; None takes the end back, '' the exclusion."""
        until, exclude = (self.values.get(name, "").strip() for name in OF_REPEATED)
        end = {"until": until or None} if until or "until" in self.changed else {}
        return end | ({"exclude": exclude} if exclude or "exclude" in self.changed else {})

    def _dst_words(self) -> dict[str, str]:
        """Return the policy for clock changes, if it is not the default or was another one."""
        policy = ",".join(self.values[name] for name in ("gap", "fold") if self.values.get(name))
        is_back = bool(self.was) and bool(self.changed & {"gap", "fold"})
        return {"dst": policy} if policy and (policy != DEBIAN.text or is_back) else {}


# ---------------------------------------------------------------- making one


def new(request: Request) -> Response:
    """Show the form of a new job."""
    check_page(request, ADMIN)
    site = site_of(request)
    handlers = _creatable(site)
    values = {
        "id": "",
        "name": "",
        "kind": "cron",
        "cron": "",
        "timezone": str(site.zone),
        **asdict(DEBIAN),
        **policy_values(None),
    }
    handler = request.query_params.get("handler") or (handlers[0].key if handlers else "")
    return _new_page(request, Draft(values, {}, handler, schema_of(site, handler)), handlers)


async def create(request: Request) -> Response:
    """Make the job of the form and show it; the form again with its preview, or with what is wrong."""
    form = await form_of(request)
    return await run_in_threadpool(_create, request, {name: str(form[name]) for name in form})


def _create(request: Request, typed: dict[str, str]) -> Response:
    site = site_of(request)
    handler = typed.get("handler", "").strip()
    schema = schema_of(site, handler)
    draft = Draft(typed, policy_values(None), handler, schema)
    config, policies = _read(draft, None)
    handlers = _creatable(site)
    if typed.get("preview"):
        return _new_page(request, draft, handlers)
    job_id = typed.get("id", "").strip()
    if not draft.errors:
        try:
            words: dict[str, Any] = {**draft.schedule_words(), **policies}
            title = typed.get("name", "").strip()
            if title:
                words["name"] = title
            if config:
                words["config"] = config
            site.jobs.create_job(job_id, handler=handler, **words)
        except REFUSALS as error:
            _place(draft, error)
        else:
            return back_to(request, path_of(job_id))
    return _new_page(request, draft, handlers, 422)


def _creatable(site: Site) -> list[HandlerInfo]:
    return [info for info in site.jobs.handlers() if info.creatable]


def _new_page(request: Request, draft: Draft, handlers: list[HandlerInfo], status: int = 200) -> Response:
    check_page(request, ADMIN)
    return page(
        request,
        "job_form.html",
        status,
        view=None,
        handlers=handlers,
        kinds=KINDS,
        conflict=[],
        secrets=[],
        rev=None,
        **_common(request, draft, {}, None),
    )


# ---------------------------------------------------------------- editing one


def edit(request: Request) -> Response:
    """Show the form of a job as it is."""
    check_page(request, WRITE)
    site = site_of(request)
    view = site.jobs.get_job(request.path_params["job_id"])
    values = _values(view)
    return _edit_page(request, view, Draft(values, dict(values), view.handler, schema_of(site, view.handler)))


async def save(request: Request) -> Response:
    """Save what the form changes and show the job; the form again with its preview, with what is wrong, or with who came first."""
    form = await form_of(request)
    return await run_in_threadpool(_save, request, {name: str(form[name]) for name in form})


def _save(request: Request, typed: dict[str, str]) -> Response:
    site = site_of(request)
    view = site.jobs.get_job(request.path_params["job_id"])
    schema = schema_of(site, view.handler)
    draft = Draft(typed, _was(typed), view.handler, schema)
    config, policies = _read(draft, view)
    if typed.get("preview"):
        return _edit_page(request, view, draft)
    if not draft.errors:
        rev = typed.get("rev", "")
        try:
            words = {**policies, **_edits(draft, view, config, site)}
            if words:
                site.jobs.update_job(view.id, if_rev=int(rev) if rev.isdecimal() else None, **words)
        except EditConflictError as error:
            return _conflict(request, site, draft, error, int(rev))
        except REFUSALS as error:
            _place(draft, error)
        else:
            return back_to(request, path_of(view.id))
    return _edit_page(request, view, draft, 422)


def _edits(draft: Draft, view: JobView, config: dict[str, Any], site: Site) -> dict[str, Any]:
    """Return the words that the form changes, but for policies."""
    changed = draft.changed
    words: dict[str, Any] = {}
    if "name" in changed and view.source == "stored":
        words["name"] = draft.values["name"].strip() or None
    if changed & set(TIMING):
        schedule = draft.schedule_words()
        if view.source == "stored":
            schedule = {**dict.fromkeys(SCHEDULES), **schedule}
        words |= schedule
    if any(name.startswith(PREFIX) or name == WHOLE for name in changed):
        _, secret = config_of(site, view)
        words["config"] = {**secret, **config}
    return words


def _conflict(request: Request, site: Site, draft: Draft, error: EditConflictError, rev: int) -> Response:
    """Show the form with what was typed, beside what another operator changed meanwhile."""
    view = site.jobs.get_job(error.job_id)
    current = _values(view)
    typed = {name: draft.values.get(name, "") for name in draft.changed}
    entries = [entry for entry in site.jobs.history(view.id) if entry.rev is not None and entry.rev > rev]
    merged = Draft(
        {**draft.values, **current, **typed},
        draft.was | {k: v for k, v in current.items() if k not in typed},
        view.handler,
        draft.schema,
    )
    return _edit_page(request, view, merged, 412, conflict=entries)


def _edit_page(
    request: Request, view: JobView, draft: Draft, status: int = 200, conflict: Any = ()
) -> Response:
    check_page(request, WRITE)
    given, secret = config_of(site_of(request), view)
    kinds = KINDS if view.source == "stored" else [kind for kind in KINDS if kind[0] in ("cron", "every")]
    if draft.values.get("kind") == "hand" and view.source != "stored":
        kinds = [("hand", "As the code says"), *kinds]
    return page(
        request,
        "job_form.html",
        status,
        view=view,
        handlers=[],
        kinds=kinds,
        conflict=[(entry, told_change(entry)) for entry in conflict],
        secrets=sorted(secret),
        rev=view.row.definition_rev if view.row else None,
        **_common(request, draft, given, view),
    )


def _values(view: JobView) -> dict[str, str]:
    """Return the fields of a job as they are."""
    schedule = view.schedule
    values = {"kind": "hand", **dict.fromkeys(TIMING[1:], ""), **asdict(DEBIAN), **policy_values(view)}
    if view.source == "stored":
        values["name"] = "" if view.name == view.id else view.name
    match schedule:
        case Cron():
            values |= {"kind": "cron", "cron": schedule.expression, "timezone": schedule.timezone}
            values |= asdict(schedule.dst)
        case Every():
            values |= {"kind": "every", "every": str(schedule.interval // SECOND)}
        case At():
            values |= {"kind": "at", "at": schedule.moment.isoformat()}
    if isinstance(schedule, (Cron, Every)):
        is_counted = bool(values.get("max_runs"))  # its end is no option: with a change it is counted anew
        values["until"] = schedule.until.isoformat() if schedule.until and not is_counted else ""
        values["exclude"] = schedule.exclude.text
    return values


# ---------------------------------------------------------------- parts


def _read(draft: Draft, view: JobView | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments and the policies that were typed; what is wrong is put beside its field."""
    config, unread = payload_of(draft.schema, draft.values)
    draft.errors |= {PREFIX + name if name != WHOLE else name: told for name, told in unread.items()}
    is_stored = view is None or view.source == "stored"
    policies, wrong = read_policies(offered(view), draft.values, draft.changed, stored=is_stored)
    draft.errors |= wrong
    return config, policies


def _common(request: Request, draft: Draft, given: Mapping[str, Any], view: JobView | None) -> dict[str, Any]:
    site = site_of(request)
    errors = {name.removeprefix(PREFIX): told for name, told in draft.errors.items()}
    typed = {name: value for name, value in draft.values.items() if name.startswith(PREFIX) or name == WHOLE}
    fields = fields_of(draft.schema, given, typed, errors)
    arguments = {one.key: one.value for one in fields_of(draft.schema, given)}
    was = draft.was | {name: value for name, value in arguments.items() if name not in draft.was}
    preview, schedule = None, None
    try:
        schedule = schedule_of("job", **draft.schedule_words())
        schedule = _counted(draft, schedule, view, site.now())
        preview = preview_of(schedule, site.now())
    except JobManagerError as error:
        if draft.values.get("cron") or draft.values.get("every") or draft.values.get("at"):
            _place(draft, error)
    return {
        "draft": draft,
        "values": draft.values,
        "errors": draft.errors,
        "fields": fields,
        "was": json.dumps(was),
        "preview": preview,
        "zone_of": lambda shown: ZoneInfo(shown.timezone) if shown.timezone else site.zone,
        "local": lambda moment, zone, written: f"{moment.astimezone(zone or UTC):{written}}",
        "readings": other_readings(schedule) if isinstance(schedule, Cron) else [],
        "clock_changes": [
            PolicyField(
                key=key,
                label=label,
                kind="choice",
                hint=hint,
                value=draft.values.get(key, ""),
                choices=choices,
                error=draft.errors.get(key, ""),
            )
            for key, label, hint, choices in CLOCK_CHANGES
        ],
        "groups": policy_groups(offered(view), draft.values, draft.errors),
    }


def _counted(draft: Draft, schedule: Schedule | None, view: JobView | None, now: datetime) -> Schedule | None:
    """Return the schedule with the end that a number of runs gives it: counted anew by a change of either, and else as it is kept."""
    number = draft.values.get("max_runs", "").strip()
    if not isinstance(schedule, (Cron, Every)) or schedule.until or not re.fullmatch("[0-9]{1,5}", number):
        return schedule
    if view is not None and not draft.changed & {*TIMING, "max_runs"}:
        kept = view.schedule
        return replace(schedule, until=kept.until) if isinstance(kept, (Cron, Every)) else schedule
    return (
        replace(schedule, until=schedule.end_after(now, int(number))) if 0 < int(number) <= MOST else schedule
    )


def _was(typed: Mapping[str, str]) -> dict[str, str]:
    """Return the fields as they were when the form was made, which the form brought back."""
    try:
        found = json.loads(typed.get("was", "{}"))
    except ValueError:
        return {}
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def _place(draft: Draft, error: JobManagerError) -> None:
    """Put what is wrong beside the field that it is about."""
    match error:
        case CronError():
            kind = draft.values.get("kind", "cron")
            place = "timezone" if error.kind == "bad_timezone" else kind if kind in SCHEDULES else "cron"
            place = {"dst": "gap", "until": "until", "exclude": "exclude"}.get(error.field or "", place)
        case DuplicateJobError():
            place = "id"
        case HandlerNotFoundError():
            place = "handler"
        case PayloadError():
            place = "arguments"
        case _:
            named = _NAMED.search(str(error))
            place = named[1] if named else "id" if "slug" in str(error) else "form"
            if place not in draft.values:
                place = "form"
    draft.errors.setdefault(place, str(error))


ROUTES = [
    Route("/jobs/new", new),
    Route("/jobs/new", create, methods=["POST"]),
    Route("/jobs/{job_id}/edit", edit),
    Route("/jobs/{job_id}/edit", save, methods=["POST"]),
]
