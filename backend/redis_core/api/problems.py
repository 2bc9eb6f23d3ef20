"""Every error of the HTTP interface as RFC 9457 problem details, and none that tells more than the caller may know."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from msgspec import UNSET, Struct, UnsetType
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from redis_core.api.documents import PROBLEM_JSON, described, json_response
from redis_core.errors import (
    InvalidJob,
    InvalidKey,
    Kind,
    Outcome,
    PermissionDenied,
    QuotaExceeded,
    StoreError,
    VersionConflict,
)
from redis_core.log import get_logger

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = [
    "InvalidValue",
    "Problem",
    "ProblemError",
    "add_problem_details",
    "problem_response",
    "problems",
    "store_problem",
]

_log = get_logger(__name__)


class InvalidValue(Struct, frozen=True, omit_defaults=True):
    """One value of a request that was not accepted."""

    detail: str
    pointer: str | None = None
    """Where in the body, as a JSON pointer of a URI fragment: `#/name`."""
    parameter: str | None = None
    """Which parameter: `query limit`, `path id`, `header x-name`."""


class Problem(Struct, frozen=True, omit_defaults=True):
    """What went wrong with a request."""

    type: str
    """`about:blank` where the status says it all, otherwise `urn:raptorflow:problem:<code>`."""
    title: str
    status: int
    code: str
    """The kind of problem, for programs."""
    detail: str | None = None
    instance: str | None = None
    """This occurrence, as the log names it."""
    outcome: Outcome | UnsetType = UNSET
    """Of a store's failure: whether the request may have been done all the same."""
    errors: list[InvalidValue] | None = None


class ProblemError(HTTPException):
    """Raise it to answer with a problem.

    Args:
        status: the HTTP status.
        code: the kind of problem, for programs: `admin-not-local`.
        detail: what happened and what to do about it, for people.
        headers: the response's own.
    """

    def __init__(
        self, status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, detail, dict(headers) if headers else None)
        self.code = code


_STORE_PROBLEMS: Final[Mapping[Kind, tuple[int, str]]] = {
    Kind.UNREACHABLE: (503, "store-unavailable"),
    Kind.OVERLOADED: (503, "store-overloaded"),
    Kind.READ_ONLY: (503, "store-read-only"),
    Kind.CREDENTIALS: (503, "store-refuses-us"),
    # The service sent what the store does not accept: its own mistake.
    Kind.CALLER: (500, "internal-error"),
}
_DESCRIPTIONS: Final[Mapping[int, str]] = {
    400: "The request cannot be read",
    401: "Nobody is logged in",
    403: "The caller may not do this",
    404: "There is no such thing",
    405: "Not with this method",
    413: "The body is too large",
    415: "The body is not JSON",
    409: "It is not in a state that allows this",
    422: "A value was not accepted",
    429: "A limit is used up; `Retry-After` says for how long",
    500: "A mistake of the service; the log has it under `instance`",
    503: "The store did not answer",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: these statuses, each a problem."""
    return {
        status: described(
            _DESCRIPTIONS[status],
            Problem,
            media_type=PROBLEM_JSON,
            headers={"Retry-After": "Seconds to wait"} if status == HTTPStatus.SERVICE_UNAVAILABLE else None,
        )
        for status in statuses
    }


def problem_response(
    status: int,
    code: str | None = None,
    detail: str | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    instance: str | None = None,
    outcome: Outcome | UnsetType = UNSET,
    errors: list[InvalidValue] | None = None,
) -> Response:
    """A problem as a response.

    Args:
        status: the HTTP status.
        code: the kind of problem; None where the status says it all.
        detail: this occurrence, for people.
        headers: the response's own.
        instance: its name in the log; None makes one.
        outcome: whether a failed request may have been done.
        errors: the values that were not accepted.
    """
    title = HTTPStatus(status).phrase
    problem = Problem(
        type="about:blank" if code is None else f"urn:raptorflow:problem:{code}",
        title=title if code is None else code.replace("-", " ").capitalize(),
        status=status,
        code=code or title.lower().replace(" ", "-"),
        detail=detail,
        instance=instance or uuid.uuid4().urn,
        outcome=outcome,
        errors=errors,
    )
    return json_response(problem, status=status, media_type=PROBLEM_JSON, headers=headers)


def add_problem_details(app: FastAPI) -> None:
    """Let an app answer all its errors with problem details: what is not found, not valid, not available, and its own bugs."""
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(InvalidKey, _invalid_key)
    app.add_exception_handler(InvalidJob, _invalid_key)
    app.add_exception_handler(VersionConflict, _version_conflict)
    app.add_exception_handler(StoreError, _store_error)
    app.add_middleware(_LastResort)


async def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - narrows the type that the handler was registered for
    code = error.code if isinstance(error, ProblemError) else None
    detail = str(error.detail)
    if code is None and detail == HTTPStatus(error.status_code).phrase:
        detail = ""
    return problem_response(error.status_code, code, detail or None, headers=error.headers)


async def _invalid_request(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    errors = [_invalid_value(one) for one in error.errors()]
    return problem_response(
        422, "invalid-request", "; ".join(_sentence(one) for one in errors), errors=errors
    )


async def _invalid_key(_request: Request, error: Exception) -> Response:
    return problem_response(422, "invalid-id", str(error))


async def _version_conflict(_request: Request, error: Exception) -> Response:
    return problem_response(409, "version-conflict", f"The document is another version by now: {error}.")


async def _store_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StoreError)  # noqa: S101 - as above
    return store_problem(error, request.method, request.url.path)


def store_problem(error: StoreError, method: str, path: str) -> Response:
    """A failure of the store as a response, logged in full under the name that the caller gets.

    Args:
        error: the store's.
        method: of the request.
        path: of the request.
    """
    # That our user may not do this is no mistake in the request: the store refuses us, as it does one it does not know.
    kind = Kind.CREDENTIALS if isinstance(error, PermissionDenied) else error.kind
    status, code = _STORE_PROBLEMS[kind]
    instance = uuid.uuid4().urn
    # What the store said may name hosts, users and keys: it goes into the log, and the caller gets its name there.
    _log.error(
        "store error",
        instance=instance,
        method=method,
        path=path,
        error=type(error).__name__,
        reason=str(error),
        outcome=error.outcome,
    )
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return problem_response(status, code, _OUR_MISTAKE, instance=instance, outcome=error.outcome)
    if isinstance(error, QuotaExceeded):
        return problem_response(
            HTTPStatus.TOO_MANY_REQUESTS,
            "quota-exceeded",
            "The workspace takes more than its quota; come again later.",
            headers={"Retry-After": str(max(1, math.ceil(error.retry_after)))},
            instance=instance,
        )
    detail = "The store behind this service cannot serve the request now; the log of the service says why."
    return problem_response(
        status, code, detail, headers={"Retry-After": "1"}, instance=instance, outcome=error.outcome
    )


_OUR_MISTAKE: Final = "A mistake of this service; its log has the details under the name in `instance`."


class _LastResort:
    """Answers what nobody caught, and logs it with its traceback; outermost but for Starlette's own, which would only re-raise."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def note_begin(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, note_begin)
        except ClientDisconnect:
            # It hung up in the middle of its body: there is nobody to answer, and nothing that is wrong with us.
            return
        except Exception as error:
            if begun:
                # Half an answer is out: only a cut connection tells the caller that it is not whole.
                raise
            instance = uuid.uuid4().urn
            _log.exception(
                "request failed",
                instance=instance,
                method=scope["method"],
                path=scope["path"],
                error=type(error).__name__,
            )
            response = problem_response(500, "internal-error", _OUR_MISTAKE, instance=instance)
            await response(scope, receive, send)


def _invalid_value(error: Mapping[str, Any]) -> InvalidValue:
    place, *path = error.get("loc", ("body",))
    detail = str(error.get("msg", "not valid"))
    if place == "body":
        return InvalidValue(detail, pointer="#" + "".join(f"/{part}" for part in path))
    return InvalidValue(detail, parameter=f"{place} {'.'.join(map(str, path))}")


def _sentence(error: InvalidValue) -> str:
    place = error.parameter or (f"body {error.pointer}" if error.pointer != "#" else "body")
    return f"{place}: {error.detail[:1].lower()}{error.detail[1:]}"
