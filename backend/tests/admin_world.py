"""What tests of the admin routes share: a service with tokens, and clients that are far away or on this host."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import httpx
from fastapi import FastAPI

from redis_core.api.admin_token import hash_of
from redis_core.api.app import create_app
from redis_core.client import Client
from redis_core.config import load_settings

__all__ = ["TOKENS", "asking", "bearer", "service"]

TOKENS: Final = {role: f"token-of-{role}-{'x' * 20}" for role in ("viewer", "operator", "admin")}
_ENTRIES: Final = ",".join(f"{role}-1:{role}:{hash_of(token)}" for role, token in TOKENS.items())


def service(client: Client, *, tokens: bool = True, environment: str = "production") -> FastAPI:
    """The service on this client."""
    settings = load_settings(
        mock_redis=True,
        mock_redis_in_production=True,
        raptorflow_env=environment,
        admin_tokens=_ENTRIES if tokens else None,
    )
    return create_app(settings, client=client)


def bearer(role: str) -> dict[str, str]:
    """The header of a role's token."""
    return {"Authorization": f"Bearer {TOKENS[role]}"}


@asynccontextmanager
async def asking(app: FastAPI, peer: str = "10.0.0.9") -> AsyncGenerator[httpx.AsyncClient]:
    """An HTTP client of this app whose address is `peer`."""
    transport = httpx.ASGITransport(app, client=(peer, 5))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
        yield http
