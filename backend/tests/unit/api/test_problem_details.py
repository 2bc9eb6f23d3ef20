from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from redis_core.api.problems import ProblemError, add_problem_details
from redis_core.errors import (
    CommandError,
    CredentialsRejected,
    DeadlineExceeded,
    InvalidKey,
    Outcome,
    StoreError,
    StoreOverloaded,
    StoreReadOnly,
    VersionConflict,
)


class Draft(BaseModel):
    name: str


def app_that_raises(error: Exception) -> FastAPI:
    app = FastAPI()

    @app.get("/it")
    async def it(number: int = 0) -> None:
        raise error

    @app.post("/draft")
    async def draft(draft: Draft) -> None: ...

    add_problem_details(app)
    return app


async def ask(app: FastAPI, path: str = "/it", method: str = "GET", **body: object) -> httpx.Response:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
        return await http.request(method, path, json=body or None)


def is_problem(response: httpx.Response) -> bool:
    document = response.json()
    return (
        response.headers["content-type"] == "application/problem+json"
        and document["status"] == response.status_code
        and {"type", "title", "code", "instance"} <= document.keys()
    )


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (
            DeadlineExceeded("redis://10.1.1.1 did not answer", outcome=Outcome.UNKNOWN),
            503,
            "store-unavailable",
        ),
        (StoreOverloaded("redis://10.1.1.1 is full"), 503, "store-overloaded"),
        (StoreReadOnly("READONLY 10.1.1.1"), 503, "store-read-only"),
        (CredentialsRejected("WRONGPASS 10.1.1.1"), 503, "store-refuses-us"),
        (CommandError("ERR 10.1.1.1"), 500, "internal-error"),
        (RuntimeError("10.1.1.1"), 500, "internal-error"),
    ],
)
async def test_our_errors_tell_the_log_why_and_the_caller_where_to_look(
    error: Exception, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        response = await ask(app_that_raises(error))
    document = response.json()
    assert is_problem(response)
    assert (response.status_code, document["code"]) == (status, code)
    assert "10.1.1.1" not in response.text
    assert ("retry-after" in response.headers) == (status == 503)
    (record,) = caplog.records
    assert getattr(record, "instance", None) == document["instance"]
    assert "10.1.1.1" in f"{record.__dict__.get('reason')} {record.exc_text}"


async def test_a_store_error_tells_whether_it_may_have_been_done() -> None:
    response = await ask(app_that_raises(DeadlineExceeded("late", outcome=Outcome.UNKNOWN)))
    assert response.json()["outcome"] == "unknown"


async def test_an_id_that_may_not_be_a_key_is_the_callers_mistake() -> None:
    response = await ask(app_that_raises(InvalidKey("a key part is empty")))
    assert is_problem(response)
    assert (response.status_code, response.json()["detail"]) == (422, "a key part is empty")


async def test_a_document_that_another_has_changed_is_a_conflict() -> None:
    response = await ask(app_that_raises(VersionConflict(7)))
    assert is_problem(response)
    assert (response.status_code, response.json()["code"]) == (409, "version-conflict")
    assert "7" in response.json()["detail"]


async def test_a_problem_keeps_its_code_and_headers() -> None:
    error = ProblemError(409, "already-there", "It is there.", headers={"X-Where": "here"})
    response = await ask(app_that_raises(error))
    assert is_problem(response)
    assert response.json()["type"] == "urn:raptorflow:problem:already-there"
    assert response.headers["x-where"] == "here"


async def test_what_is_not_there_and_not_allowed() -> None:
    app = app_that_raises(StoreError(""))
    missing, wrong = await ask(app, "/nothing"), await ask(app, "/it", "DELETE")
    assert is_problem(missing)
    assert missing.json()["type"] == "about:blank"
    assert is_problem(wrong)
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET")


async def test_values_that_are_not_accepted_are_named() -> None:
    app = app_that_raises(StoreError(""))
    query, body = await ask(app, "/it?number=x"), await ask(app, "/draft", "POST", nam="x")
    assert is_problem(query)
    assert query.json()["errors"][0]["parameter"] == "query number"
    assert is_problem(body)
    assert body.json()["errors"] == [{"detail": "Field required", "pointer": "#/name"}]


async def test_half_an_answer_is_cut_and_not_ended_as_if_it_were_whole() -> None:
    app = FastAPI()

    @app.get("/it")
    async def it() -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"half"
            raise RuntimeError("broken")

        return StreamingResponse(body())

    add_problem_details(app)
    with pytest.raises(RuntimeError, match="broken"):
        await ask(app)
