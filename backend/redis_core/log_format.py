"""How log lines look: made for people on a terminal, JSON elsewhere, and without secrets in either.

A library leaves this to its application; the command line calls `configure_logs` once. This library's records (`log.py`),
other libraries' (uvicorn, asyncio) and those of structlog's own loggers take the same way, so that all lines have one form.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, TextIO

import structlog

__all__ = ["configure_logs", "redact"]

_SECRET_WORDS: Final = "token|password|passwd|secret|authorization|cookie|pepper|api[_-]?key|credential"  # noqa: S105 - names, no secret
_SECRET_NAME: Final = re.compile(f"(?i){_SECRET_WORDS}")
# Each takes a run of text as a whole, so that a long line costs no more than its length.
_URL_TEXT: Final = re.compile(r"://\S+")
_SECRET_TEXT: Final = (
    # An Authorization header's value, with whatever scheme; a cookie's, which has several
    (re.compile(r"(?i)\b(bearer|basic)\s+\S+"), r"\1 ***"),
    (
        re.compile(r"(?i)\b(authorization[ \t]*[:=][ \t]*)(?!(?:bearer|basic) \*)\S+(?:[ \t]+\S+)?"),
        r"\1***",
    ),
    (re.compile(r"(?i)\b((?:set-)?cookie[ \t]*[:=][ \t]*)[^\r\n]+"), r"\1***"),
    # A mapping that was made a text, perhaps twice: where the value ends is lost among the escapes, so all that follows goes.
    (
        re.compile(rf"""(?i)(['"][\w-]{{0,40}}(?:{_SECRET_WORDS})[\w-]{{0,40}}\\*['"]\s{{0,4}}:).*"""),
        r"\1 ***",
    ),
    # An assignment, as in an environment; another header
    (re.compile(rf"(?i)\b(?<![?&;])([\w-]{{0,40}}(?:{_SECRET_WORDS})[\w-]{{0,40}}=)\S+"), r"\1***"),
    (re.compile(rf"(?i)\b([\w-]{{0,40}}-(?:{_SECRET_WORDS})[\w-]{{0,40}}:[ \t]*)[^\s]+"), r"\1***"),
    # What makes a user of the store
    (re.compile(r"(?i)\b(acl\s+setuser\s+\S+\s).*"), r"\1***"),
    # A secret of a query, as Upstash's REST interface takes its token
    (
        re.compile(
            r"(?i)([?&;][\w-]{0,40}(?:token|password|passwd|secret|credential|signature|api[_-]?key)=)[^&\s]+"
        ),
        r"\1***",
    ),
)
# C0 but for the tab, DEL, C1, and the line ends that only Unicode knows.
_CONTROL: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_DEEPEST: Final = 8
_PAIR: Final = 2
_QUIET: Final = ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio")


def redact(value: object, *, depth: int = 0) -> object:
    """A value as a log line may carry it: secrets in texts, bytes, mappings, lists and in what other objects show of themselves are `***`.

    Args:
        value: what is to be logged.
        depth: how deep in another one it is; what is too deep is left out.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _redact_text(value)
    if isinstance(value, bytes | bytearray):
        text = value.decode("utf-8", "backslashreplace")
        return value if (shown := _redact_text(text)) == text else shown
    if depth >= _DEEPEST:
        return "..."
    if isinstance(value, Mapping):
        return {
            _redact_text(_text_of(name)): _redact_named(_text_of(name), inner, depth + 1)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        items = list(value)
        if len(items) == _PAIR and isinstance(items[0], str | bytes):
            # A header as ASGI has it: a name and its value.
            return [redact(items[0]), _redact_named(_text_of(items[0]), items[1], depth + 1)]
        return [redact(inner, depth=depth + 1) for inner in items]
    # An exception, a path, a dataclass: a renderer would show its repr.
    text = repr(value)
    return value if (shown := _redact_text(text)) == text else shown


def _redact_text(text: str) -> str:
    text = _URL_TEXT.sub(_without_user, text)
    for pattern, replacement in _SECRET_TEXT:
        text = pattern.sub(replacement, text)
    return text


def _without_user(match: re.Match[str]) -> str:
    # The last @, wherever it is: a password with an unescaped / ? or @ must not show either.
    user, _, place = match.group().rpartition("@")
    if "?" in user:
        # A password with a ?, or a query with an @: what comes after the @ may be a host or half a secret.
        return "://***"
    return f"://***@{place}" if user else match.group()


def _text_of(name: object) -> str:
    return name.decode("latin-1") if isinstance(name, bytes) else str(name)


def _redact_named(name: str, value: object, depth: int = 0) -> object:
    return _hidden(value, depth) if _SECRET_NAME.search(name) else redact(value, depth=depth)


def _hidden(value: object, depth: int) -> object:
    """What stands under a secret's name, without any text of it; how many there are may show."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping) and depth < _DEEPEST:
        return {_redact_text(_text_of(name)): _hidden(inner, depth + 1) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset) and depth < _DEEPEST:
        return [_hidden(inner, depth + 1) for inner in value]
    return "***"


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
