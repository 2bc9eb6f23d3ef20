"""Secrets are not seen."""

from __future__ import annotations

import copy
import json
import pickle
import traceback

import pytest

from redis_core.config import load_settings
from redis_core.secret import Secret

TEXT = "-".join(["correct", "horse"])  # noqa: FLY002 - not in one piece: tracebacks show source lines


def test_only_reveal_shows_it() -> None:
    secret = Secret(TEXT)
    assert secret.reveal() == TEXT
    for shown in (
        str(secret),
        repr(secret),
        f"{secret}",
        f"{secret:>20}",
        f"{secret!r}",
        f"{secret}",
        repr([secret]),
    ):
        assert TEXT not in shown
        assert "***" in shown


def test_it_is_not_serialised() -> None:
    for attempt in (lambda: pickle.dumps(Secret(TEXT)), lambda: copy.copy(Secret(TEXT))):
        with pytest.raises(TypeError, match="not serialised"):
            attempt()
    with pytest.raises(TypeError):
        json.dumps(Secret(TEXT))


def test_a_traceback_with_locals_does_not_show_it() -> None:
    secret = Secret(TEXT)
    try:
        raise ValueError(secret)
    except ValueError as error:
        shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert secret.reveal() not in shown


def test_equality_is_of_the_text() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("é") == Secret("é")
    assert Secret("a") != "a"
    assert hash(Secret("a")) == hash(Secret("a"))
    assert Secret("x")
    assert not Secret("")


def test_settings_are_copied_whole_and_dumped_without_what_is_secret() -> None:
    settings = load_settings(mock_redis=True, session_peppers="a:" + "geheim" * 6)
    copied = settings.model_copy(deep=True)
    assert copied.session_peppers == settings.session_peppers
    assert '"session_peppers":"***"' in settings.model_dump_json()
