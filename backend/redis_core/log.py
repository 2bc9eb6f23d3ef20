"""Log lines of the library: structured, through the standard library's logging, silent until an application asks.

A line is an event and fields. Without any set-up it behaves as any library's (warnings show, nothing else); an application
that formats with structlog gets the fields as they are.
"""

from __future__ import annotations

import logging

import structlog

__all__ = ["get_logger"]


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a module.

    Args:
        name: its dotted name, as in `logging.getLogger`.
    """
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
    ).bind()  # once, not at each line
    return logger
