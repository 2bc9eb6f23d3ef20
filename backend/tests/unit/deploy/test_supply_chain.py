"""What `make sbom` writes and what `make audit` makes of its answers."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import redis_core

_ROOT = Path(redis_core.__file__).parents[2]


def script(name: str) -> ModuleType:
    """A script of the repository, as a module."""
    spec = importlib.util.spec_from_file_location(f"script_{name}", _ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sbom() -> dict[str, Any]:
    document: dict[str, Any] = script("sbom").document()
    return document


def test_the_sbom_is_cyclonedx(sbom: dict[str, Any]) -> None:
    assert (sbom["bomFormat"], sbom["specVersion"], sbom["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", sbom["serialNumber"])
    assert sbom["metadata"]["component"]["name"] == "raptorflow-redis"
    for component in sbom["components"]:
        assert component["type"] == "library"
        assert component["bom-ref"] == component["purl"]
        assert component["purl"].startswith(("pkg:pypi/", "pkg:npm/"))
        assert component["name"]
        assert component["version"]
        assert component.get("scope", "required") in {"required", "excluded"}
        for place in component.get("externalReferences", ()):
            for one in place["hashes"]:
                assert len(one["content"]) == {"SHA-256": 64, "SHA-512": 128}[one["alg"]]
                assert re.fullmatch(r"[0-9a-f]+", one["content"])


def test_every_locked_package_is_in_it_once(sbom: dict[str, Any]) -> None:
    purls = [component["purl"] for component in sbom["components"]]
    assert len(purls) == len(set(purls))
    pinned = {
        f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version}"
        for file in (_ROOT / "requirements").glob("*.txt")
        for name, version in re.findall(
            r"^([\w.-]+)(?:\[.*\])?==([^\s;\\]+)", file.read_text("utf-8"), re.MULTILINE
        )
    }
    assert pinned <= set(purls)
    assert {"msgspec", "hiredis", "aiohttp", "preact"} <= {
        component["name"] for component in sbom["components"]
    }


def test_it_tells_who_needs_whom(sbom: dict[str, Any]) -> None:
    known = {component["bom-ref"] for component in sbom["components"]} | {"pkg:pypi/raptorflow-redis@0.1.0"}
    needs = {entry["ref"]: entry["dependsOn"] for entry in sbom["dependencies"]}
    assert set(needs) <= known
    assert {ref for each in needs.values() for ref in each} <= known
    own = [ref.partition("@")[0] for ref in needs[sbom["metadata"]["component"]["bom-ref"]]]
    assert {"pkg:pypi/aiohttp", "pkg:pypi/msgspec"} <= set(own)
    (aiohttp,) = (ref for ref in needs if ref.startswith("pkg:pypi/aiohttp@"))
    assert any(ref.startswith("pkg:pypi/multidict@") for ref in needs[aiohttp])


def test_it_is_the_same_for_the_same_files_and_no_secret_place_is_in_it(
    sbom: dict[str, Any], tmp_path: Path
) -> None:
    assert script("sbom").document() == sbom
    target = tmp_path / "folder" / "sbom.json"
    assert script("sbom").main([str(target)]) == 0
    assert json.loads(target.read_text("utf-8")) == sbom
    assert str(_ROOT) not in target.read_text("utf-8")


PACKAGE = {"name": "a", "version": "1", "vulns": []}


@pytest.mark.parametrize(
    ("output", "status"),
    [
        (json.dumps({"dependencies": [PACKAGE]}), "pass"),
        (json.dumps({"dependencies": [PACKAGE, {**PACKAGE, "vulns": [{"id": "PYSEC-1"}]}]}), "vulnerable"),
        (json.dumps({"dependencies": [{"name": "a", "skip_reason": "could not be asked"}]}), "not reachable"),
        ("", "not reachable"),
        ("<html>", "not reachable"),
        ("[]", "not reachable"),
    ],
)
def test_what_pip_audit_could_not_ask_is_neither_well_nor_vulnerable(output: str, status: str) -> None:
    assert script("audit").outcome_of_pip(output, "ConnectionError").status == status


@pytest.mark.parametrize(
    ("output", "status"),
    [
        (json.dumps({"metadata": {"vulnerabilities": {"total": 0}, "dependencies": {"total": 9}}}), "pass"),
        (
            json.dumps(
                {"metadata": {"vulnerabilities": {"high": 1, "total": 1}}, "vulnerabilities": {"b": {}}}
            ),
            "vulnerable",
        ),
        (json.dumps({"message": "405 Method Not Allowed", "error": {"summary": ""}}), "not reachable"),
        (json.dumps({"error": {"code": "ENOTFOUND"}}), "not reachable"),
        ("", "not reachable"),
    ],
)
def test_a_registry_without_advisories_is_told_apart_from_one_that_has_none(output: str, status: str) -> None:
    assert script("audit").outcome_of_npm(output, "").status == status


@pytest.mark.parametrize(
    ("outputs", "code"),
    [(["pass", "pass"], 0), (["pass", "not reachable"], 2), (["not reachable", "vulnerable"], 1)],
)
def test_the_exit_code_tells_the_worst(
    outputs: list[str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = script("audit")
    answers = iter(outputs * 100)
    status = {"pass": 0, "vulnerable": 1}

    def answer(command: list[str], folder: Path) -> tuple[str, str]:
        said = next(answers)
        if said not in status:
            return "", "no route"
        vulns = [{"id": "X"}] * status[said]
        return json.dumps({
            "dependencies": [{**PACKAGE, "vulns": vulns}],
            "metadata": {"vulnerabilities": {"total": status[said]}, "dependencies": {}},
        }), ""  # fmt: skip

    monkeypatch.setattr(audit, "_run", answer)
    assert audit.main() == code
