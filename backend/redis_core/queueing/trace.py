"""OpenTelemetry's context, carried from who enqueues to who runs; nothing at all where OpenTelemetry is not in use."""

from __future__ import annotations

import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Final

__all__ = ["carried", "continued"]

_FIELD: Final = "traceparent"


def carried() -> str | None:
    """The present trace context, by W3C's format; None where there is none."""
    if "opentelemetry.trace" not in sys.modules:
        return None
    carrier: dict[str, str] = {}
    import_module("opentelemetry.propagate").inject(carrier)
    return carrier.get(_FIELD)


@contextmanager
def continued(meta: Mapping[str, str | int] | None, job: str) -> Generator[None]:
    """Run a block in a span of the job, a child of the one that enqueued it.

    Args:
        meta: of the job's envelope.
        job: the span's name.
    """
    parent = meta.get(_FIELD) if meta else None
    if parent is None or "opentelemetry.trace" not in sys.modules:
        yield
        return
    context = import_module("opentelemetry.propagate").extract({_FIELD: str(parent)})
    tracer = import_module("opentelemetry.trace").get_tracer("redis_core.queue")
    with tracer.start_as_current_span(job, context=context):
        yield
