"""Look up what is known against the locked dependencies: pip-audit for requirements/*.txt, `npm audit` for every package-lock.json.

    python scripts/audit.py

Exit code: 0 nothing is known, 1 something is, 2 nothing is known of what could be asked and a registry could not be asked. A registry that
has no list of advisories is not the same as one that has nothing on it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parent.parent
_SKIPPED = {"node_modules", ".venv", ".run", "dist"}
_LONGEST = 300
_WITHIN = 300


@dataclass(frozen=True)
class Outcome:
    """What came of one lock file."""

    status: Literal["pass", "vulnerable", "not reachable"]
    detail: str


def outcome_of_pip(output: str, errors: str) -> Outcome:
    """What pip-audit's JSON says; it ends with 1 for findings and for failures alike."""
    document = _json(output)
    if not isinstance(document, dict) or "dependencies" not in document:
        return Outcome("not reachable", _last_line(errors))
    dependencies: list[dict[str, Any]] = document["dependencies"]
    found = [
        f"{each['name']} {each.get('version', '')}: {', '.join(one['id'] for one in each['vulns'])}"
        for each in dependencies
        if each.get("vulns")
    ]
    skipped = [f"{each['name']} ({each['skip_reason']})" for each in dependencies if "skip_reason" in each]
    if found:
        return Outcome("vulnerable", "; ".join(found))
    if skipped:
        return Outcome(
            "not reachable", f"{len(skipped)} of {len(dependencies)} packages, first {skipped[0]}"[:_LONGEST]
        )
    return Outcome("pass", f"{len(dependencies)} packages")


def outcome_of_npm(output: str, errors: str) -> Outcome:
    """What `npm audit --json` says."""
    document = _json(output)
    counts = document.get("metadata", {}).get("vulnerabilities") if isinstance(document, dict) else None
    if not isinstance(counts, dict):
        said = document.get("message") or document.get("error") if isinstance(document, dict) else None
        return Outcome("not reachable", str(said)[:_LONGEST] if said else _last_line(errors))
    if counts.get("total"):
        names = ", ".join(sorted(document.get("vulnerabilities", {})))
        return Outcome("vulnerable", names or f"{counts['total']} advisories")
    return Outcome("pass", f"{document['metadata'].get('dependencies', {}).get('total', '?')} packages")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:_LONGEST] if lines else "no answer"


def _run(command: list[str], folder: Path) -> tuple[str, str]:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=_WITHIN
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"{command[0]}: {error}"
    return done.stdout, done.stderr


def main() -> int:
    """Ask for every lock file, and tell."""
    outcomes: list[Outcome] = []
    pip_audit = [
        sys.executable,
        "-m",
        "pip_audit",
        "--disable-pip",
        "--progress-spinner",
        "off",
        "--format",
        "json",
    ]
    files = [
        *((outcome_of_pip, file, [*pip_audit, "--requirement", str(file)]) for file in sorted((ROOT / "requirements").glob("*.txt"))),
        *(
            (outcome_of_npm, file, ["npm", "audit", "--json", "--package-lock-only"])
            for file in sorted(ROOT.rglob("package-lock.json"))
            if _SKIPPED.isdisjoint(file.relative_to(ROOT).parts)
        ),
    ]  # fmt: skip
    for judge, file, command in files:
        outcome = judge(*_run(command, file.parent))
        outcomes.append(outcome)
        print(f"{outcome.status:<14} {file.relative_to(ROOT)}: {outcome.detail}", flush=True)
    statuses = {outcome.status for outcome in outcomes}
    return 1 if "vulnerable" in statuses else 2 if "not reachable" in statuses else 0


if __name__ == "__main__":
    sys.exit(main())
