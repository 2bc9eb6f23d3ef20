from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest
import structlog

from redis_core.log import get_logger
from redis_core.log_format import configure_logs, redact
from redis_core.secret import Secret


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("redis_core").setLevel(logging.NOTSET)
    structlog.reset_defaults()


def one(stream: io.StringIO) -> dict[str, object]:
    line: dict[str, object] = json.loads(stream.getvalue())
    return line


@pytest.mark.parametrize("logger", [get_logger("redis_core.x"), structlog.stdlib.get_logger("app")])
def test_lines_are_json_where_no_terminal_is(logger: structlog.stdlib.BoundLogger) -> None:
    stream = io.StringIO()
    configure_logs(stream)
    logger.warning("store lost", attempts=3)
    line = one(stream)
    assert (line["event"], line["level"], line["attempts"]) == ("store lost", "warning", 3)
    assert str(line["time"]).endswith("Z")


def test_records_of_other_libraries_have_the_same_form() -> None:
    stream = io.StringIO()
    configure_logs(stream)
    logging.getLogger("another.library").warning("%s of %s", 1, 2)
    assert one(stream)["event"] == "1 of 2"


def test_lines_are_for_people_on_a_terminal() -> None:
    stream = Terminal()
    configure_logs(stream)
    get_logger("redis_core.x").warning("store lost", attempts=3)
    assert "store lost" in stream.getvalue()
    with pytest.raises(json.JSONDecodeError):
        json.loads(stream.getvalue())


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_no_secret_reaches_a_line(stream: type[io.StringIO]) -> None:
    out = stream()
    configure_logs(out)
    log = get_logger("redis_core.x")
    log.warning("a", token="geheim-1", Authorization="Bearer geheim-2", nested={"password": "geheim-3"})
    log.warning("b redis://user:geheim-4@host/0", url="https://x/get/k?_token=geheim-5&a=1")
    log.warning(
        "c", header="authorization: bearer geheim-6", value=Secret("geheim-7"), list=["x://u:geheim-8@h"]
    )
    try:
        secret_of_a_frame = "geheim-9"
        raise ValueError(f"cannot reach redis://u:{secret_of_a_frame}@h")
    except ValueError:
        log.exception("d")
        logging.getLogger("another").exception("e")
    assert "geheim" not in out.getvalue()
    assert out.getvalue().count("ValueError: cannot reach") == 2


def test_what_is_no_secret_stays() -> None:
    assert redact("redis://127.0.0.1:6379/0") == "redis://127.0.0.1:6379/0"
    assert redact({"tokens_left": 5, "workspace": "acme"}) == {"tokens_left": 5, "workspace": "acme"}
    assert redact(("a", 1)) == ["a", 1]


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
@pytest.mark.parametrize(
    "hostile", ["x\nforged", "x\r\nforged", "x\x1b[2Jforged", "x\x9b2Jforged", "x\u2028forged", "x\0forged"]
)
def test_a_text_from_outside_makes_no_line_and_commands_no_terminal(
    stream: io.StringIO, hostile: str
) -> None:
    stream.seek(0)
    stream.truncate()
    configure_logs(stream)
    get_logger("redis_core.x").warning("refused", user=hostile)
    get_logger("redis_core.x").warning(hostile)
    logging.getLogger("library").warning("got %s", hostile)
    written = stream.getvalue()
    # What colours a terminal's lines is ours.
    plain = re.sub("\x1b\\[[0-9;]*m", "", written)
    assert plain.count("\n") == 3
    assert plain.count("forged") == 3
    assert not re.search("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]", plain)


def test_a_traceback_keeps_its_lines_and_loses_what_commands_a_terminal() -> None:
    stream = Terminal()
    configure_logs(stream)
    try:
        raise ValueError("x\x1b[2Jforged")
    except ValueError:
        logging.getLogger("library").exception("failed")
    assert "\nValueError: x\\x1b[2Jforged\n" in stream.getvalue()
