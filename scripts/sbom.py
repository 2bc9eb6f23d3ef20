"""What this project is made of, as a CycloneDX 1.6 document: from the lock files alone, the same bytes for the same files.

    python scripts/sbom.py dist/sbom.cdx.json

Source of the format: https://cyclonedx.org/docs/1.6/json/. What stands in a lock file for development only is marked `excluded`.
"""

from __future__ import annotations

import base64
import json
import re
import sys
import tomllib
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROOT = Path(__file__).resolve().parent.parent
_PINNED = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_VIA = re.compile(r"#\s+(?:via\s+)?([A-Za-z0-9._-]+)(?:\[[^\]]*\])?(?:\s|$)")
_SPDX = re.compile(r"\(?[A-Za-z0-9.+-]+(?: (?:AND|OR|WITH) [A-Za-z0-9.+-]+)*\)?")
_DEV = "dev.txt"
_SKIPPED = {"node_modules", ".venv", ".run", "dist"}

Component = dict[str, Any]


def python_components(files: list[Path]) -> tuple[list[Component], dict[str, set[str]]]:
    """The packages of pip's lock files, in every version that some platform gets, and who needs whom by name."""
    found: dict[str, Component] = {}
    shipped: set[str] = set()
    needed_by: dict[str, set[str]] = {}
    for file in files:
        name = purl = ""
        for line in file.read_text("utf-8").splitlines():
            if pinned := _PINNED.match(line):
                name = _normal(pinned[1])
                purl = f"pkg:pypi/{name}@{quote(pinned[2])}"
                found.setdefault(purl, _component(name, pinned[2], purl))
                if file.name != _DEV:
                    shipped.add(purl)
            elif name and (digest := _HASH.search(line)):
                _add_hash(found[purl], "SHA-256", digest[1])
            elif name and (via := _VIA.search(line)):
                needed_by.setdefault(name, set()).add(_normal(via[1]))
    if shipped:
        for purl, component in found.items():
            component["scope"] = "required" if purl in shipped else "excluded"
    return list(found.values()), needed_by


def node_components(file: Path) -> list[Component]:
    """The packages of an npm lock file."""
    found: list[Component] = []
    for path, entry in json.loads(file.read_text("utf-8"))["packages"].items():
        name = entry.get("name") or path.rpartition("node_modules/")[2]
        if not path or entry.get("link") or "version" not in entry:
            continue
        space, slash, short = name.rpartition("/")
        purl = f"pkg:npm/{quote(space)}{slash}{short}@{quote(entry['version'])}"
        component = _component(name, entry["version"], purl)
        component["scope"] = "excluded" if entry.get("dev") else "required"
        if entry.get("integrity", "").startswith("sha512-"):
            _add_hash(component, "SHA-512", base64.b64decode(entry["integrity"][7:]).hex())
        if isinstance(said := entry.get("license"), str):
            # An SPDX expression; "SEE LICENSE IN ..." and its kin are none.
            named = _SPDX.fullmatch(said) is None
            component["licenses"] = [{"license": {"name": said}} if named else {"expression": said}]
        found.append(component)
    return found


def document(root: Path = ROOT) -> dict[str, Any]:
    """The whole document."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    own = _component(project["name"], project["version"], f"pkg:pypi/{project['name']}@{project['version']}")
    own["type"] = "application"
    packages, needed_by = python_components(sorted((root / "requirements").glob("*.txt")))
    merged: dict[str, Component] = {each["purl"]: each for each in packages}
    for lock in sorted(root.rglob("package-lock.json")):
        if _SKIPPED.isdisjoint(lock.relative_to(root).parts):
            for each in node_components(lock):
                # The same package of several front ends: shipped with one is shipped.
                known = merged.setdefault(each["purl"], each)
                if each["scope"] == "required":
                    known["scope"] = "required"
    references: dict[str, list[str]] = {_normal(own["name"]): [own["purl"]]}
    for each in packages:
        references.setdefault(each["name"], []).append(each["purl"])
    needs: dict[str, set[str]] = {purl: set() for purls in references.values() for purl in purls}
    for name, parents in needed_by.items():
        for parent in parents & references.keys():
            for purl in references[parent]:
                needs[purl].update(references[name])
    body: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": own, "lifecycles": [{"phase": "build"}]},
        "components": [merged[purl] for purl in sorted(merged)],
        "dependencies": [{"ref": ref, "dependsOn": sorted(needs[ref])} for ref in sorted(needs)],
    }
    # The same document has the same number, and another one another.
    return {**body, "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(body, sort_keys=True)).urn}


def _component(name: str, version: str, purl: str) -> Component:
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _add_hash(component: Component, algorithm: str, digest: str) -> None:
    """One of the files that the package may come as."""
    references = component.setdefault(
        "externalReferences", [{"type": "distribution", "url": component["purl"], "hashes": []}]
    )
    entry = {"alg": algorithm, "content": digest}
    if entry not in references[0]["hashes"]:
        references[0]["hashes"].append(entry)


def _normal(name: str) -> str:
    """A name as PyPI compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main(arguments: list[str]) -> int:
    """Write it to the file that is named, or to standard output."""
    text = json.dumps(document(), indent=1) + "\n"
    if not arguments:
        sys.stdout.write(text)
        return 0
    target = Path(arguments[0])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, "utf-8")
    print(f"{target}: {text.count('bom-ref') - 1} components")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
