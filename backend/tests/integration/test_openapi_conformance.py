"""Whatever is asked of the service: no 5xx, and no answer that its OpenAPI document does not have; with a token and without."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from redis_core.audit import AuditLog
from redis_core.client import Client
from redis_core.transport.memory import MockRedisClient
from tests.admin_world import bearer, service
from tests.two_tenants import THEIRS, Tenants, belongings

_CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
_WITHOUT_CREDENTIAL = {401, 404, 422}
"""Nothing is done, and nothing told."""
_SHORT = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


async def settle(client: Client) -> dict[str, Any]:
    """A tenant with one of everything, under the names that requests are made with, and all of it."""
    await Tenants(client).settle()
    return await belongings(client, THEIRS)


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.timeout(300)
@pytest.mark.parametrize("role", ["admin", "operator", "viewer", None])
def test_every_answer_is_documented_and_none_is_a_failure_of_ours(
    role: str | None, mode: GenerationMode
) -> None:
    """Requests as the document allows them, and requests as it does not. Who may only look, or nothing, changes no key."""
    client = Client(MockRedisClient())
    before = asyncio.run(settle(client))
    assert len(before) > 12
    api = schemathesis.openapi.from_asgi("/openapi.json", service(client))
    headers = {} if role is None else bearer(role)
    statuses: set[int] = set()
    operations = [found.ok() for found in api.get_all_operations() if isinstance(found, Ok)]
    assert len(operations) > 20

    for operation in operations:

        @_SHORT
        @given(case=operation.as_strategy(mode))
        def ask(case: schemathesis.Case[Any]) -> None:
            response = case.call_and_validate(headers=headers, checks=_CHECKS)
            if role is None and not case.path.endswith("/health/redis"):
                assert response.status_code in _WITHOUT_CREDENTIAL, (case.path, response.status_code)
            statuses.add(response.status_code)

        # Nothing that such an operation is sent can be wrong.
        with contextlib.suppress(Unsatisfiable):
            ask()
    assert mode is GenerationMode.NEGATIVE or 200 in statuses
    if role in {None, "viewer"}:
        assert asyncio.run(belongings(client, THEIRS)) == before
    recorded = bool(asyncio.run(AuditLog(client).page()).entries)
    assert recorded == (role in {"admin", "operator"} and mode is GenerationMode.POSITIVE)
    assert role is None or 422 in statuses
