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


def test_every_route_documents_its_answers_and_their_media_types(document: dict[str, Any]) -> None:
    answers = {
        path: {status: sorted(answer["content"]) for status, answer in item["get"]["responses"].items()}
        for path, item in document["paths"].items()
    }
    problem = ["application/problem+json"]
    assert answers == {
        "/api/v1/health/redis": {
            "200": ["application/health+json"],
            "503": ["application/health+json"],
            "422": problem,
        },
        "/api/v1/admin/redis-metrics": {"200": ["application/json"], "403": problem, "500": problem},
        "/api/v1/admin/mock": {"200": ["application/json"], "403": problem, "500": problem},
        "/api/v1/admin/redis-stats": {
            "200": ["application/json"],
            "403": problem,
            "422": problem,
            "500": problem,
            "503": problem,
        },
    }


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
    assert set(app.openapi()["paths"]) == {
        "/ops/health/redis",
        "/ops/admin/redis-metrics",
        "/ops/admin/redis-stats",
        "/ops/admin/mock",
    }
