"""The API against its own OpenAPI document: whatever is sent, no server error and no response that the document does not have.

`SCHEMA_EXAMPLES=500` makes so many requests of each operation.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.api import Api, declare

from jobmanager import JobManager, Settings
from jobmanager.web.api.app import ROUTERS

EXAMPLES = int(os.environ.get("SCHEMA_EXAMPLES", "10"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
NAMED = {"x-test-principal": "admin"}
STREAMS = {"/events"}  # without an end to wait for
OPERATIONS = sorted(
    (method, route.path)
    for router in ROUTERS
    for route in router.routes
    for method in route.methods
    if route.path not in STREAMS
)


@pytest.fixture(scope="module")
def schema() -> Iterator[Any]:
    jobs = JobManager(Settings(database_url="memory://", backend="noop"))
    declare(jobs)
    made = schemathesis.openapi.from_asgi("/api/v1/openapi.json", Api(jobs).app, headers=NAMED)
    made.jobs = jobs
    yield made
    jobs.stop()
    jobs.store.close()


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=lambda word: word)
def test_no_request_gets_a_server_error_or_what_is_not_documented(
    schema: Any, method: str, path: str
) -> None:
    """Fails if a value that the document allows, or refuses, makes a route fail or say something new."""
    operation = schema[path][method]
    run = schema.jobs.trigger_job("bad", delay=3600)
    there = {"job_id": "greet", "run_id": run.id, "key": "greet"}

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=EXAMPLES < 100,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        mode = data.draw(st.sampled_from(GenerationMode))
        case = data.draw(operation.as_strategy(generation_mode=mode))
        if data.draw(st.booleans()):  # what a name that is nobody's never comes to
            case.path_parameters.update({name: there.get(name, "greet") for name in case.path_parameters})
            for place in (case.body, case.query):
                if isinstance(place, dict):
                    place.update({name: "greet" for name in ("job_id", "handler", "job") if name in place})
        case.validate_response(case.call(headers=NAMED), checks=CHECKS)

    check()
