"""The guide's table of options is the region's."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from pathlib import Path

import redis_core
from redis_core.caching.region import CacheRegion

GUIDE = Path(redis_core.__file__).parents[2] / "docs" / "cache.md"


def test_every_option_is_in_the_guide_with_its_default() -> None:
    table = GUIDE.read_text("utf-8").partition("## Options of a region")[2].partition("\n## ")[0]
    told = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", table, re.MULTILINE))
    options = {one.name: one.default for one in fields(CacheRegion) if one.kw_only and one.init}
    assert told.pop("ttl").strip() == "`REDIS_DEFAULT_TTL`"
    assert options.pop("ttl") is None
    assert {name: str(default) for name, default in options.items() if default is not MISSING} == {
        name: default.strip() for name, default in told.items()
    }
