"""The hubs that one client's store feeds, so that whoever ends the process ends their streams first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis_core.api.realtime_signals import before_exit

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis_core.api.realtime_hub import Hub, HubFigures
    from redis_core.client import Client
    from redis_core.sessions.event import SessionEvent

__all__ = ["Hubs"]


class Hubs:
    """A service of a client: `client.service(Hubs)`.

    Args:
        client: the store, with which the hubs are closed.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._hubs: list[Hub] = []
        self._stop_hearing: Callable[[], None] | None = None

    def add(self, hub: Hub) -> None:
        """Count a hub in; from the first one on, a signal to end drains them."""
        self._hubs.append(hub)
        if self._stop_hearing is None:
            self._stop_hearing = before_exit(self.drain)

    @property
    def figures(self) -> list[HubFigures]:
        """What each does just now."""
        return [hub.figures for hub in self._hubs]

    def disconnect(self, workspace: str | None, user: str | None) -> int:
        """End the streams of a workspace, of a user in it, or of a user in all, in this process; how many."""
        return sum(hub.disconnect(workspace, user) for hub in self._hubs)

    def on_session_event(self, event: SessionEvent) -> None:
        """The hook of `Sessions`: the streams of a user whose session was revoked end with it, and not with their token.

        A stream is a user's, not a session's: those of the user's other sessions end too, get a new token, and go on.
        """
        of_nobody = event.user_id is None and event.handle is not None
        if event.kind == "revoked" and not of_nobody:
            self.disconnect(event.workspace, event.user_id)

    def drain(self) -> None:
        """End all streams of this client's hubs."""
        for hub in self._hubs:
            hub.drain()

    async def aclose(self) -> None:
        """Close the hubs. Idempotent."""
        if self._stop_hearing is not None:
            self._stop_hearing()
            self._stop_hearing = None
        hubs, self._hubs = self._hubs, []
        for hub in hubs:
            await hub.aclose()
