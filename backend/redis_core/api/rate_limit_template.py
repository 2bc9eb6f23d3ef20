"""Which endpoint a request is for, as its path template: `/agents/{id}`, never `/agents/7`, which would be a budget of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from starlette.routing import compile_path

if TYPE_CHECKING:
    from starlette.types import Scope

__all__ = ["UNKNOWN_ENDPOINT", "RouteTemplates"]

UNKNOWN_ENDPOINT: Final = "unknown"
"""What paths that no route has are counted under, all together."""
_MOST_PATHS: Final = 4096


class RouteTemplates:
    """Path templates of the Starlette or FastAPI application that a scope belongs to.

    Paths are remembered, so that matching costs once a path. Only the path is looked at: of two routes whose templates both fit,
    the first one counts, whatever their methods.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, str], str] = {}
        self._patterns: dict[int, tuple[int, list[tuple[re.Pattern[str], str]]]] = {}

    def __call__(self, scope: Scope) -> str:
        """The template of the route that will serve this scope."""
        app = scope.get("app")
        path: str = scope["path"]
        root: str = scope.get("root_path", "")
        if root and (path + "/").startswith(root.rstrip("/") + "/"):
            path = path[len(root.rstrip("/")) :] or "/"
        template = self._known.get((id(app), path))
        if template is None:
            template = self._find(app, path)
            if len(self._known) >= _MOST_PATHS:
                self._known.clear()
            self._known[id(app), path] = template
        return template

    def _find(self, app: Any, path: str) -> str:
        routes: Sequence[Any] = getattr(app, "routes", ())
        count, patterns = self._patterns.get(id(app), (-1, []))
        if count != len(routes):
            patterns = [(compile_path(form)[0], template) for form, template in _templates(routes, "")]
            self._patterns[id(app)] = len(routes), patterns
        return next((template for pattern, template in patterns if pattern.match(path)), UNKNOWN_ENDPOINT)


def _templates(routes: Sequence[Any], prefix: str) -> Iterator[tuple[str, str]]:
    """For each route the form its paths have, and the template they are counted under."""
    for route in routes:
        included = getattr(route, "effective_route_contexts", None)
        if included is not None:
            # FastAPI keeps a router that was included apart, and its routes with their whole paths.
            yield from _templates(
                [getattr(one, "starlette_route", None) or one for one in included()], prefix
            )
            continue
        path: str = prefix + (getattr(route, "path", None) or "")
        inner: Sequence[Any] = getattr(route, "routes", None) or ()
        if inner:
            yield from _templates(inner, path)
        if inner or not hasattr(route, "endpoint"):
            # A mounted application: what none of its own routes has, or all of it where it has none.
            yield f"{path}/{{path:path}}", path or "/"
        else:
            yield path, re.sub(r"{(\w+):\w+}", r"{\1}", path)
