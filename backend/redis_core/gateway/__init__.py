"""An Upstash-compatible REST server in front of any store: `create_gateway` makes the ASGI app."""

from __future__ import annotations

from redis_core.gateway.app import Gateway, create_gateway
from redis_core.gateway.limits import GatewayLimits
from redis_core.gateway.tokens import GatewayToken, follow_tokens, tokens_from_settings

__all__ = [
    "Gateway",
    "GatewayLimits",
    "GatewayToken",
    "create_gateway",
    "follow_tokens",
    "tokens_from_settings",
]
