"""The dashboard's TypeScript knows the answers as the Structs have them, field by field; and its files are as small as promised."""

from __future__ import annotations

import dataclasses
import gzip
import re
from pathlib import Path

import msgspec
import pytest

import redis_core
from redis_core import latency, store_info
from redis_core.api import mock
from redis_core.api.dashboard import BUILT
from redis_core.measuring import documents
from redis_core.resilience import outage

_SOURCE = Path(redis_core.__file__).parents[2] / "frontend" / "dashboard" / "src" / "documents.ts"
_INTERFACE = re.compile(r"^export interface (\w+) \{\n(.*?)^\}$", re.MULTILINE | re.DOTALL)
_PYTHON = (documents, latency, store_info, outage, mock)
_MOST_BYTES = 60_000


def interfaces() -> dict[str, dict[str, str]]:
    """Each interface's fields and their types."""
    return {
        name: dict(re.findall(r"^  (\w+): (.+);$", body, re.MULTILINE))
        for name, body in _INTERFACE.findall(_SOURCE.read_text("utf-8"))
    }


def fields_of(name: str) -> dict[str, bool]:
    """The fields of the Struct or dataclass of this name, and whether None is among its values."""
    (kind,) = {getattr(module, name) for module in _PYTHON if hasattr(module, name)}
    if dataclasses.is_dataclass(kind):
        return {field.name: "None" in str(field.type) for field in dataclasses.fields(kind)}
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    return {field.encode_name: _may_be_none(field.type) for field in info.fields}


def _may_be_none(kind: msgspec.inspect.Type) -> bool:
    return isinstance(kind, msgspec.inspect.UnionType) and kind.includes_none


def test_there_is_something_to_compare() -> None:
    assert len(interfaces()) >= 30


@pytest.mark.parametrize("name", sorted(interfaces()))
def test_an_interface_is_the_struct_of_its_name(name: str) -> None:
    shown = interfaces()[name]
    assert {field: kind.endswith("| null") for field, kind in shown.items()} == fields_of(name)


def test_every_part_of_the_report_is_known_to_the_dashboard() -> None:
    left_out = {"MetricInfo", "MetricList"}  # the dashboard knows which metrics it shows
    assert set(documents.__all__) - left_out <= set(interfaces())


@pytest.mark.skipif(not (BUILT / "index.html").is_file(), reason="the dashboard is not built: make frontend")
def test_the_built_files_are_small_and_name_nothing_elsewhere() -> None:
    files = [path for path in BUILT.rglob("*") if path.is_file()]
    packed = {path.name: len(gzip.compress(path.read_bytes(), 9)) for path in files}
    assert sum(packed.values()) <= _MOST_BYTES, packed
    page = (BUILT / "index.html").read_text("utf-8")
    assert re.findall(r'(?:src|href)="(?!\./)[^"]*"', page) == []
    for path in files:
        elsewhere = set(re.findall(r"https?://[\w.-]+", path.read_text("utf-8")))
        # Names of XML, and the base that fragments are read against; nothing is loaded from them.
        assert elsewhere <= {"http://www.w3.org", "http://page"}, (path.name, elsewhere)
