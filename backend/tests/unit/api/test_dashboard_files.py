"""The dashboard's files: held by a strict policy, cached by their names, and nothing outside their folder."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from redis_core.api.dashboard import PATH, create_dashboard


@pytest.fixture
def built(tmp_path: Path) -> Path:
    folder = tmp_path / "dashboard"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>page</title>")
    (folder / "assets" / "index-abc.js").write_text("0")
    (tmp_path / "secret.txt").write_text("geheim")
    return folder


async def get(built: Path, path: str) -> httpx.Response:
    app = Starlette(routes=[Mount(PATH, create_dashboard(built))])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as http:
        return await http.get(path, follow_redirects=True)


async def test_the_page_is_served_with_a_policy_that_allows_only_its_own_files(built: Path) -> None:
    answer = await get(built, PATH)
    assert (answer.status_code, answer.url.path) == (200, f"{PATH}/")
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_assets_are_kept_for_ever_because_their_names_tell_their_content(built: Path) -> None:
    answer = await get(built, f"{PATH}/assets/index-abc.js")
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert "javascript" in answer.headers["content-type"]


@pytest.mark.parametrize(
    "path", ["../secret.txt", "..%2fsecret.txt", "assets/%2e%2e/%2e%2e/secret.txt", "none.js", "%00"]
)
async def test_nothing_else_is_served(built: Path, path: str) -> None:
    answer = await get(built, f"{PATH}/{path}")
    assert answer.status_code in {400, 404}
    assert "geheim" not in answer.text


async def test_a_page_that_is_not_built_says_what_to_do(tmp_path: Path) -> None:
    answer = await get(tmp_path / "none", f"{PATH}/")
    assert (answer.status_code, "make frontend" in answer.text) == (503, True)
