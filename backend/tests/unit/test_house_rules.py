"""The rules of this code base that no linter knows. The floors are held by import-linter, see pyproject.toml."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import redis_core

_PACKAGE = Path(redis_core.__file__).parent
_MODULES = sorted(_PACKAGE.rglob("*.py"))
_MOST_LINES = 600
_SAYS_NOTHING = {"common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}
_UNSAFE = {"cPickle", "cloudpickle", "dill", "marshal", "pickle", "shelve"}

_PYPROJECT = _PACKAGE.parent.parent / "pyproject.toml"

each_module = pytest.mark.parametrize("module", _MODULES, ids=lambda path: str(path.relative_to(_PACKAGE)))


def _name(module: Path) -> str:
    return module.relative_to(_PACKAGE).as_posix()


def _tree(module: Path) -> ast.Module:
    return ast.parse(module.read_text(encoding="utf-8"))


def _docstrings(tree: ast.Module) -> set[int]:
    """The ids of the constants that are documentation: strings that stand as statements."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def _tenant_prefixes(tree: ast.Module) -> Iterator[str]:
    documentation = _docstrings(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or id(node) in documentation:
            continue
        text = node.value.decode(errors="replace") if isinstance(node.value, bytes) else node.value
        if isinstance(text, str) and text.lstrip().startswith("ws:"):
            yield f"line {node.lineno}: {text!r}"


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _reads_of_the_environment(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv", "getenvb"}:
            yield f"line {node.lineno}"
    yield from (
        name for name in _imports(tree) if name in {"os.environ", "os.environb", "os.getenv", "os.getenvb"}
    )


def _lower_floors() -> set[str]:
    """The modules of floors 1 to 3, as import-linter's contract names them."""
    (contract,) = tomllib.loads(_PYPROJECT.read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers = contract["layers"]
    return {name for layer in layers[layers.index("client") :] for name in re.findall(r"\w+", layer)}


def _own_imports(tree: ast.Module) -> set[str]:
    names = (name.split(".") for name in _imports(tree))
    return {parts[1] for parts in names if parts[0] == "redis_core" and len(parts) > 1}


def test_there_are_modules_to_judge() -> None:
    assert _PACKAGE / "keys.py" in _MODULES
    assert list(_tenant_prefixes(_tree(_PACKAGE / "key_families.py")))
    assert list(_reads_of_the_environment(_tree(_PACKAGE / "config.py")))


_COMPARED_AS_NAMES = {
    # MACs that tell sessions apart, of tokens that were shown and verified before.
    "member.mac == mac", "member.mac != keep", "member.mac != old.mac", "place.mac != self.token.mac",
    # A dataclass whose secret compares itself.
    "accepted.find(token.token.reveal().encode()) != token", "self._tokens.find(token.token.reveal().encode()) != token",
}  # fmt: skip
_SECRET_NAME = re.compile(r"(^|_)(digest|hash|mac|password|pepper|secret|signature|token)$")


def _comparisons_of_secrets(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and any(isinstance(one, ast.Eq | ast.NotEq) for one in node.ops):
            names = (
                one.id if isinstance(one, ast.Name) else one.attr if isinstance(one, ast.Attribute) else ""
                for one in (node.left, *node.comparators)
            )
            text = ast.unparse(node)
            if any(map(_SECRET_NAME.search, names)) and text not in _COMPARED_AS_NAMES:
                yield f"line {node.lineno}: {text}"


@each_module
def test_only_keys_writes_the_prefix_of_tenant_keys(module: Path) -> None:
    assert _name(module) in {"key_families.py", "keys.py"} or list(_tenant_prefixes(_tree(module))) == []


@each_module
def test_the_lower_floors_know_no_service(module: Path) -> None:
    lower = _lower_floors()
    home = module.relative_to(_PACKAGE).with_suffix("").parts[0]
    assert {"client", "transport", "errors"} <= lower
    if home in lower:
        # The handle of a tenant is the one upward step.
        assert _own_imports(_tree(module)) - lower <= ({"workspace"} if home == "client" else set())


@each_module
def test_only_config_reads_the_environment(module: Path) -> None:
    assert _name(module) == "config.py" or list(_reads_of_the_environment(_tree(module))) == []


@each_module
def test_nothing_is_pickled(module: Path) -> None:
    assert {name.split(".")[0] for name in _imports(_tree(module))} & _UNSAFE == set()


@each_module
def test_a_module_is_named_for_what_it_holds(module: Path) -> None:
    assert set(module.relative_to(_PACKAGE).with_suffix("").parts) & _SAYS_NOTHING == set()
    assert not module.stem.endswith(("_utils", "_util", "_helpers", "_helper", "_manager", "_misc"))


@each_module
def test_a_module_is_short_enough_to_be_read(module: Path) -> None:
    assert len(module.read_text(encoding="utf-8").splitlines()) <= _MOST_LINES


@each_module
def test_secrets_are_compared_in_constant_time_and_in_one_place(module: Path) -> None:
    assert not list(_comparisons_of_secrets(_tree(module))), "compare secrets by redis_core.secret.is_same"
    if _name(module) != "secret.py":
        assert "compare_digest" not in module.read_text("utf-8"), (
            "compare secrets by redis_core.secret.is_same"
        )


@pytest.mark.parametrize(
    "code", ["token == presented", "self._digest != digest", "given == claims.mac", "a == b == password"]
)
def test_a_comparison_of_secrets_is_found(code: str) -> None:
    assert list(_comparisons_of_secrets(ast.parse(code)))


def test_make_bench_runs_every_benchmark_and_no_part_of_one() -> None:
    folder = _PYPROJECT.parent / "backend" / "benchmarks"
    sources = {path.stem: path.read_text("utf-8") for path in folder.glob("*.py")}
    listed = re.search(
        r"^BENCHMARKS \?= (.+)$", (_PYPROJECT.parent / "Makefile").read_text("utf-8"), re.MULTILINE
    )
    assert listed is not None
    programs = set(listed.group(1).split())
    for name in sources.keys() - programs:
        used = any(re.search(rf"\b{name}\b", text) for other, text in sources.items() if other != name)
        assert used, f"{name} is neither a benchmark that is run nor a part of one"
    for name in programs:
        assert re.search(r"^if __name__ ==", sources[name], re.MULTILINE)
        assert "sys.stdin" not in sources[name]
