"""The OpenAPI document of a server, and a machine that tries whatever the document allows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import requests
from reward_servers import LIMIT, ServerThread, on_thread
from server_rewards import Everything

from flux_rewards.server.reward_server import RewardServer
from flux_rewards.server.settings import Limits

GET, POST = ("/health", "/v1/rewards", "/metrics"), ("/v1/score", "/compute")
MAX_SAMPLES = 8


@pytest.fixture(scope="module")
def server() -> Iterator[ServerThread]:
    limits = Limits(max_body=2**20, max_samples=MAX_SAMPLES, max_pixels=10_000, body_timeout=5.0, window=0.0)
    with on_thread(RewardServer(Everything(), limits=limits)) as running:
        yield running


@pytest.fixture(scope="module")
def document(server: ServerThread) -> Any:
    return requests.get(f"{server.url}/openapi.json", timeout=LIMIT).json()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        *(("GET", path, "positive") for path in GET),
        *(("POST", path, mode) for path in POST for mode in ("positive", "negative")),
    ],
)
def test_whatever_the_document_allows_is_answered(
    server: ServerThread, document: Any, method: str, path: str, mode: str
) -> None:
    """Requests that fit the document and such that do not: never a 500, and each answer is one that it names.

    What does not fit the document is refused.
    """
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=server.url)
    cases = schema[path][method].as_strategy(generation_mode=schemathesis.GenerationMode(mode))
    conform = [checks.status_code_conformance, checks.content_type_conformance, checks.response_schema_conformance]

    @hypothesis.given(case=cases)
    @hypothesis.settings(
        max_examples=100 if method == "POST" else 3,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    def check(case: Any) -> None:
        response = case.call(timeout=LIMIT)
        case.validate_response(response, checks=[not_a_server_error, *conform])
        if mode == "negative" and response.status_code != 413:  # too many samples are not looked at
            case.validate_response(response, checks=[checks.negative_data_rejection])

    check()


def test_the_document_fits_what_is_served(document: Any) -> None:
    """It is of the version that it says, names both forms of a body, and every field of a sample."""
    from flux_rewards.data import FIELDS
    from flux_rewards.wire.samples import SAMPLES_TYPE

    assert document["openapi"].startswith("3.1")
    bodies = document["paths"]["/v1/score"]["post"]["requestBody"]["content"]
    assert bodies.keys() == {"application/json", SAMPLES_TYPE}
    sample = bodies["application/json"]["schema"]["properties"]["samples"]["items"]
    assert sample["properties"].keys() == set(FIELDS)
    assert sample["additionalProperties"] is False
    for path in POST:
        statuses = document["paths"][path]["post"]["responses"].keys()
        assert {"200", "400", "401", "408", "413", "415", "422", "500", "503", "504"} <= statuses
