"""The dashboard's files at `/admin/performance/`: built into the package, held by a strict policy, nothing from elsewhere.

The page itself is no secret and needs no credential; every figure and action behind it is asked of the admin API, which does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

import redis_core

__all__ = ["PATH", "create_dashboard"]

PATH: Final = "/admin/performance"
"""Where the service mounts it."""

BUILT: Final = Path(redis_core.__file__).parent / "static" / "dashboard"
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def create_dashboard(built: Path = BUILT) -> Starlette:
    """The pages, to be mounted under any prefix.

    Args:
        built: the folder that the front end's build has filled.
    """

    async def index(_request: Request) -> Response:
        page = built / "index.html"
        if not page.is_file():
            return PlainTextResponse(
                "The dashboard is not built. In the repository: make frontend. An installed package has it.\n",
                status_code=503,
                headers=_HEADERS,
            )
        return FileResponse(page, headers={**_HEADERS, "Cache-Control": "no-cache"})

    async def file(request: Request) -> Response:
        wanted = (built / request.path_params["path"]).resolve()
        if not wanted.is_relative_to(built.resolve()) or not wanted.is_file():
            raise HTTPException(404)
        # Names of assets carry a hash of what is in them.
        lasting = wanted.parent.name == "assets"
        caching = "public, max-age=31536000, immutable" if lasting else "no-cache"
        return FileResponse(wanted, headers={**_HEADERS, "Cache-Control": caching})

    return Starlette(routes=[Route("/", index), Route("/{path:path}", file)])
