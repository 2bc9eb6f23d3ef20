from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI

from redis_core.api.app import create_app
from redis_core.api.router import create_router
from redis_core.client import Client
from redis_core.config import load_settings


@pytest.fixture
def document() -> dict[str, Any]:
    found: dict[str, Any] = create_app(load_settings(mock_redis=True)).openapi()
    return found


def test_every_answer_is_documented_with_its_media_type(document: dict[str, Any]) -> None:
    for path, item in document["paths"].items():
        for operation in item.values():
            answers = {status: sorted(answer["content"]) for status, answer in operation["responses"].items()}
            for status, media_types in answers.items():
                if int(status) >= 400 and not (path.endswith("/health/redis") and status == "503"):
                    assert media_types == ["application/problem+json"], (path, status)
            if "/admin/" in path or path == "/metrics":
                assert {"401", "403", "500", "503"} <= answers.keys(), path
            if "requestBody" in operation:
                assert {"413", "415", "422"} <= answers.keys(), path


def test_every_schema_stands_in_its_place(document: dict[str, Any]) -> None:
    def references(node: object) -> list[str]:
        if isinstance(node, dict):
            found = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return found + [ref for value in node.values() for ref in references(value)]
        return [ref for item in node for ref in references(item)] if isinstance(node, list) else []

    assert references(document["paths"]) == []


async def test_routers_stand_in_an_app_of_ones_own_under_ones_own_prefix(memory: Client) -> None:
    async def client() -> Client:
        return memory

    app = FastAPI()
    app.include_router(create_router(client, prefix="/ops"))
    paths = set(app.openapi()["paths"])
    assert {
        "/ops/health/redis",
        "/ops/admin/redis-metrics",
        "/ops/admin/mock",
        "/ops/admin/queues/{queue}/retry",
        "/metrics",
    } <= paths
    assert all(path.startswith("/ops/") for path in paths - {"/metrics"})
