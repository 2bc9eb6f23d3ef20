"""`docs/configuration.md` tells every setting as it is. A failing test prints the lines that the page should have."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Literal, get_args, get_origin

import annotated_types
from pydantic import AliasChoices
from pydantic.fields import FieldInfo

import redis_core
from redis_core import config
from redis_core.config import Settings

_PAGE = Path(redis_core.__file__).parents[2] / "docs" / "configuration.md"
_FROM_THE_SYSTEM = {"raptorflow_state_dir": "`~/.local/state/raptorflow`"}
"""Defaults that differ from one machine to the next, as the page shows them."""


def described() -> dict[str, str]:
    """The first paragraph of the text below each field."""
    (settings,) = (
        node
        for node in ast.parse(inspect.getsource(config)).body
        if isinstance(node, ast.ClassDef) and node.name == "Settings"
    )
    texts: dict[str, str] = {}
    for field, below in zip(settings.body, settings.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
            assert isinstance(field.target, ast.Name)
            texts[field.target.id] = " ".join(ast.literal_eval(below.value).split("\n\n")[0].split())
    return texts


def shown_default(name: str, field: FieldInfo) -> str:
    if name in _FROM_THE_SYSTEM:
        return _FROM_THE_SYSTEM[name]
    assert field.default_factory is None, f"add {name} to _FROM_THE_SYSTEM"
    if field.default is None:
        return "not set"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


def shown_bounds(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(field.annotation))
    if field.annotation is bool:
        return "`true`, `false`"
    bounds: list[str] = []
    for rule in field.metadata:
        if isinstance(rule, annotated_types.Gt):
            bounds.append(f"more than {rule.gt}")
        elif isinstance(rule, annotated_types.Ge):
            bounds.append(f"at least {rule.ge}")
        elif isinstance(rule, annotated_types.Le):
            bounds.append(f"at most {rule.le}")
    return ", ".join(bounds)


def rows() -> dict[str, str]:
    """The line that each setting must have, by its variable."""
    texts = described()
    lines: dict[str, str] = {}
    for name, field in Settings.model_fields.items():
        assert name in texts, f"{name} has no text below it in config.py"
        text = texts[name]
        if isinstance(field.validation_alias, AliasChoices):
            others = (
                f"`{alias.upper()}`" for alias in field.validation_alias.choices[1:] if isinstance(alias, str)
            )
            text += f" Also {', '.join(others)}."
        lines[name.upper()] = (
            f"| `{name.upper()}` | {shown_default(name, field)} | {shown_bounds(field)} | {text} |"
        )
    return lines


def test_every_setting_stands_on_the_page_as_it_is() -> None:
    page = set(_PAGE.read_text("utf-8").splitlines())
    missing = [line for line in rows().values() if line not in page]
    assert not missing, "docs/configuration.md should have:\n" + "\n".join(missing)


def test_the_page_tells_each_setting_once_and_none_that_there_is_not() -> None:
    told = re.findall(r"^\| `([A-Z_]+)` \|", _PAGE.read_text("utf-8"), re.MULTILINE)
    assert sorted(told) == sorted(rows())
