"""The dashboard's files at `/admin/performance/`: built into the package, held by a strict policy, nothing from elsewhere.

The page itself is no secret and needs no credential; every figure and action behind it is asked of the admin API, which does.
"""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Final

from starlette.responses import PlainTextResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

import redis_core

__all__ = ["PATH", "create_dashboard"]

PATH: Final = "/admin/performance"
"""Where the service mounts it."""

BUILT: Final = Path(redis_core.__file__).parent / "static" / "dashboard"
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def create_dashboard(built: Path = BUILT) -> ASGIApp:
    """The pages, to be mounted under any prefix.

    Args:
        built: the folder that the front end's build has filled.
    """
    pages = _Pages(directory=built, html=True, check_dir=False)
    # A folder that is not there is answered, not raised.
    pages.config_checked = True
    return pages


class _Pages(StaticFiles):
    """The built files with the policy, and a word where they are not built."""

    async def check_config(self) -> None:
        """Nothing: the folder may come later."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        if path == "." and not self._built():
            response: Response = PlainTextResponse(
                "The dashboard is not built. In the repository: make frontend. An installed package has it.\n",
                status_code=HTTPStatus.SERVICE_UNAVAILABLE,
            )
        else:
            response = await super().get_response(path, scope)
        # Names of assets carry a hash of what is in them.
        lasting = path.startswith("assets/") and response.status_code == HTTPStatus.OK
        response.headers.update(_HEADERS)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if lasting else "no-cache"
        return response

    def _built(self) -> bool:
        return Path(str(self.directory), "index.html").is_file()
