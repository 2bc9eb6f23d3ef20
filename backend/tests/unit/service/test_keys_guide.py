"""docs/keys.md tells the families and faults that there are."""

from __future__ import annotations

from pathlib import Path

import redis_core
from redis_core.key_grammar import Fault
from redis_core.keys import FAMILIES

_PAGE = (Path(redis_core.__file__).parents[2] / "docs" / "keys.md").read_text("utf-8").splitlines()


def test_every_family_stands_in_the_guide_as_it_is_declared() -> None:
    rows = [
        "| {} | `{}` | {} | {} | {} |".format(
            family.name,
            family.pattern.replace("|", "\\|"),
            family.type,
            family.ttl.replace("|", "\\|"),
            family.owner,
        )
        for family in FAMILIES
    ]
    begin = _PAGE.index(rows[0])
    assert _PAGE[begin:] == rows


def test_every_fault_stands_in_the_guide() -> None:
    told = [line.split("`")[1] for line in _PAGE if line.startswith("| `")]
    assert told == [fault.value for fault in Fault]
