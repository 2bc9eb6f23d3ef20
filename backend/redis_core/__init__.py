"""RaptorFlow Redis: what a multi-tenant AI product keeps in Redis, behind one client.

Names are loaded when they are first used, so that importing this costs what is used and no more.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redis_core.client import Client, close_redis, connect, get_redis
    from redis_core.config import Settings, load_settings
    from redis_core.keys import WorkspaceKeys
    from redis_core.pipeline import Pipeline, Transaction
    from redis_core.script import Script, load_script
    from redis_core.secret import Secret
    from redis_core.workspace import Workspace

    __version__: str

__all__ = [
    "Client",
    "Pipeline",
    "Script",
    "Secret",
    "Settings",
    "Transaction",
    "Workspace",
    "WorkspaceKeys",
    "close_redis",
    "connect",
    "get_redis",
    "load_script",
    "load_settings",
]

_HOME = {
    "Client": "client",
    "Pipeline": "pipeline",
    "Script": "script",
    "Secret": "secret",
    "Settings": "config",
    "Transaction": "pipeline",
    "Workspace": "workspace",
    "WorkspaceKeys": "keys",
    "close_redis": "client",
    "connect": "client",
    "get_redis": "client",
    "load_script": "script",
    "load_settings": "config",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 - loads the email package: 40 ms that few of us need

        return version("raptorflow-redis")
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'redis_core' has no attribute {name!r}")
    value = getattr(import_module(f"redis_core.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
