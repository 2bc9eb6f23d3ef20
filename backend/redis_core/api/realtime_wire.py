"""How frames become messages of a transport, and how a write that was begun is brought to its end."""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from starlette.types import Message

    from redis_core.api.realtime_frames import Frame

__all__ = ["EventStreamWire", "Rest", "SocketWire", "Wire"]


class Wire(Protocol):
    """How frames become messages of a transport."""

    @property
    def end(self) -> Sequence[Message]:
        """Messages that end the connection."""
        ...

    def messages(self, frames: Sequence[Frame]) -> Sequence[Message]:
        """The messages that carry frames, in order."""
        ...

    def message(self, frame: Frame) -> Message:
        """The message of one frame."""
        ...


class EventStreamWire:
    """Frames as events of a response."""

    @property
    def end(self) -> Sequence[Message]:
        """The end of the body."""
        return ({"type": "http.response.body", "body": b"", "more_body": False},)

    def message(self, frame: Frame) -> Message:
        """A piece of the body."""
        return {"type": "http.response.body", "body": frame.sse, "more_body": True}

    def messages(self, frames: Sequence[Frame]) -> Sequence[Message]:
        """One piece of the body with all of them."""
        body = b"".join([frame.sse for frame in frames])
        return ({"type": "http.response.body", "body": body, "more_body": True},)


class SocketWire:
    """Frames as text messages.

    Args:
        code: of the close, set before the end.
    """

    __slots__ = ("code",)

    def __init__(self, code: int = 1000) -> None:
        self.code = code

    @property
    def end(self) -> Sequence[Message]:
        """The close."""
        return ({"type": "websocket.close", "code": self.code},)

    def message(self, frame: Frame) -> Message:
        """One message."""
        return {"type": "websocket.send", "text": frame.text}

    def messages(self, frames: Sequence[Frame]) -> Sequence[Message]:
        """A message for each."""
        return [self.message(frame) for frame in frames]


class Rest:
    """What is left of a coroutine that was stepped once.

    Args:
        coroutine: has run as far as its first wait.
        pending: what it waits for.
    """

    __slots__ = ("_coroutine", "_pending")

    def __init__(self, coroutine: Coroutine[Any, Any, object], pending: object) -> None:
        self._coroutine = coroutine
        self._pending = pending

    def __await__(self) -> Generator[Any, Any, object]:
        yield self._pending
        return (yield from self._coroutine.__await__())
