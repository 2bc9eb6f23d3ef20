"""How log lines look: made for people on a terminal, JSON elsewhere, and without secrets in either.

A library leaves this to its application; the command line calls `configure_logs` once. This library's records (`log.py`),
other libraries' (uvicorn, asyncio) and those of structlog's own loggers take the same way, so that all lines have one form.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog

from redis_core.secret import Secret

__all__ = ["configure_logs", "redact"]

_SECRET_NAME: Final = re.compile(
    r"(?i)token|password|passwd|secret|authorization|cookie|pepper|api[_-]?key|credential"
)
_SECRET_TEXT: Final = (
    # user:password@ of a URL
    (re.compile(r"(?<=://)[^/\s@'\"]*:[^/\s@'\"]*@"), "***@"),
    # An Authorization header's value
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]+"), r"\1 ***"),
    # A token of a query, as Upstash's REST interface takes it
    (re.compile(r"(?i)([?&]_?(?:access_)?token=)[^&\s'\"]+"), r"\1***"),
)
# C0 but for the tab, DEL, C1, and the line ends that only Unicode knows.
_CONTROL: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_QUIET: Final = ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio")


def redact(value: object) -> object:
    """A value as a log line may carry it: secrets in texts, mappings and lists are `***`."""
    if isinstance(value, Secret):
        return str(value)
    if isinstance(value, str):
        for pattern, replacement in _SECRET_TEXT:
            value = pattern.sub(replacement, value)
        return value
    if isinstance(value, dict):
        return {name: _redact_named(str(name), inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redact(inner) for inner in value]
    return value


def _redact_named(name: str, value: object) -> object:
    return "***" if _SECRET_NAME.search(name) and isinstance(value, str | bytes | Secret) else redact(value)


def _redact_event(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        event[name] = _redact_named(name, value)
    return event


def _escape_event(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Texts from outside begin no line of their own and command no terminal. JSON needs no such care."""
    for name, value in event.items():
        if isinstance(value, str):
            # A traceback's lines are its own.
            lines = value.split("\n") if name == "exception" else [value]
            event[name] = "\n".join(
                _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), line) for line in lines
            )
    return event


def configure_logs(stream: TextIO | None = None, *, json: bool | None = None, level: str = "info") -> None:
    """Set up logging for this process.

    Args:
        stream: where lines go; None is stderr.
        json: whether they are JSON; None decides by whether the stream is a terminal.
        level: the least that is shown of this library.
    """
    out: TextIO = sys.stderr if stream is None else stream
    as_json = not out.isatty() if json is None else json
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(
            fmt="iso" if as_json else "%H:%M:%S", utc=as_json, key="time" if as_json else "timestamp"
        ),
        # Before redaction, so that what a traceback quotes is redacted too; never with the frames' locals.
        structlog.processors.format_exc_info,
        _redact_event,
    ]
    escaping: list[structlog.types.Processor] = [] if as_json else [_escape_event]
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *escaping, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # Only this library's: what others tell of their inside helps nobody here.
    logging.getLogger("redis_core").setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
