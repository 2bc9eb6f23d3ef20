"""Every action of the dashboard, clicked in Chromium, and its effect in the store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pytest

from redis_core import Client, connect
from redis_core.audit import AuditLog
from redis_core.keys import rate_key
from redis_core.queueing.inspection import QueueInspection
from redis_core.session import Sessions
from tests.browser.chromium import needs_chromium
from tests.browser.dashboard import PROFILES, Dashboard, running_dashboard, settings_of

pytestmark = [
    pytest.mark.timeout(300),  # Where this comes first, it installs and builds.
    needs_chromium,
    pytest.mark.xdist_group("browser"),
]

T = TypeVar("T")


@pytest.fixture(scope="module")
def dashboard(valkey_socket: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    with running_dashboard(valkey_socket, tmp_path_factory.mktemp("state")) as running:
        yield running


class Store:
    """The service's store, looked into from a test that is not asynchronous."""

    def __init__(self, socket: str) -> None:
        self._settings = settings_of(socket)

    def __call__(self, question: Callable[[Client], Awaitable[T]]) -> T:
        async def ask() -> T:
            async with await connect(self._settings) as client:
                return await question(client)

        return asyncio.run(ask())

    def last_change(self) -> tuple[str, str, str]:
        """Who did what, of what."""
        (entry,) = self(lambda client: AuditLog(client).page(count=1)).entries
        return entry.who, entry.action, entry.target


@pytest.fixture
def store(valkey_socket: str) -> Store:
    return Store(valkey_socket)


def test_flushing_a_cache(dashboard: Dashboard, store: Store) -> None:
    def cached() -> dict[str, int] | None:
        return store(lambda client: client.workspace("acme").cache.get(PROFILES, "42"))

    dashboard.go("cache")
    dashboard.fill("Workspace", "acme")
    dashboard.fill("Region", "profile")
    dashboard.click("Flush …")
    dashboard.dismiss()
    assert cached() == {"n": 1}
    dashboard.click("Flush …")
    dashboard.confirm("Flush", "Flushed region profile of acme.")
    assert cached() is None
    assert store.last_change() == ("admin-1", "cache.flush", "acme:profile")


def test_resetting_a_users_limits(dashboard: Dashboard, store: Store) -> None:
    def counted() -> int:
        return store(lambda client: client.exists(rate_key("u1", "/a"), rate_key("u1", "/b")))

    dashboard.go("limits")
    dashboard.fill("User", "u1")
    dashboard.fill("Endpoint", "/a")
    dashboard.click("Reset …", "form")
    dashboard.confirm("Reset", "1 limits were reset.")
    assert counted() == 1
    dashboard.fill("Endpoint", "")
    dashboard.click("Reset …", "form")
    dashboard.confirm("Reset", "1 limits were reset.")
    assert counted() == 0


def test_revoking_one_session_and_then_all(dashboard: Dashboard, store: Store) -> None:
    async def left(client: Client) -> int:
        sessions = Sessions.from_settings(client, client.settings)
        return len(await sessions.list("ada", "acme"))

    dashboard.go("sessions")
    dashboard.fill("Workspace", "acme")
    dashboard.fill("User", "ada")
    dashboard.click("Show")
    dashboard.wait("() => document.querySelectorAll('tbody .danger').length === 3")
    dashboard.click("Revoke", "tbody")
    dashboard.confirm("Revoke", "1 revoked.")
    assert store(left) == 2
    dashboard.wait("() => document.querySelectorAll('tbody .danger').length === 2")
    dashboard.click("Revoke all")
    dashboard.confirm("Revoke", "2 revoked.")
    assert store(left) == 0
    dashboard.wait_for("ada has no session in acme.")


def test_jobs_one_by_one_and_by_filter_counted_first(dashboard: Dashboard, store: Store) -> None:
    def jobs(state: str) -> int:
        page = store(lambda client: QueueInspection(client).jobs("agents", "acme", state=state))
        return len(page.jobs)

    dashboard.go("queues", "queue=agents&workspace=acme&state=dead")
    dashboard.wait("() => document.querySelectorAll('tbody .actions').length === 4")
    dashboard.click("Retry", "tbody")
    dashboard.confirm("Retry", "Done.")
    assert (jobs("dead"), jobs("waiting")) == (3, 6)
    dashboard.wait("() => document.querySelectorAll('tbody .actions').length === 3")
    dashboard.click("Delete", "tbody")
    dashboard.confirm("Delete", "Done.")
    assert jobs("dead") == 2

    # By filter: first it says how many, and nothing is done.
    dashboard.click("Retry all that match")
    dashboard.wait_for("Retry 2 jobs?", "dialog[open]")
    dashboard.dismiss()
    assert jobs("dead") == 2
    dashboard.click("Delete all that match")
    dashboard.wait_for("Delete 2 jobs?", "dialog[open]")
    dashboard.confirm("Delete all", "2 of 2 were changed.")
    assert jobs("dead") == 0
    assert store.last_change() == ("admin-1", "queue.delete", "agents:acme")

    dashboard.go("queues", "queue=agents&workspace=acme&state=waiting")
    dashboard.wait("() => document.querySelectorAll('tbody .actions').length === 6")
    dashboard.click("Cancel", "tbody")
    dashboard.confirm("Cancel", "Done.")
    assert jobs("waiting") == 5
    dashboard.click("Cancel all that match")
    dashboard.wait_for("Cancel 5 jobs?", "dialog[open]")
    dashboard.confirm("Cancel all", "5 of 5 were changed.")
    assert jobs("waiting") == 0


def test_pausing_and_resuming_a_queue(dashboard: Dashboard, store: Store) -> None:
    def paused() -> bool:
        return store(lambda client: QueueInspection(client).queue("agents")).paused

    dashboard.go("queues")
    dashboard.click("Pause agents", "tbody")
    dashboard.confirm("Pause", "agents is paused.")
    assert paused()
    dashboard.click("Resume agents", "tbody")
    dashboard.confirm("Resume", "agents goes on.")
    assert not paused()


def test_mock_mode_and_back(dashboard: Dashboard, store: Store) -> None:
    dashboard.go("overview")
    dashboard.click("Serve from memory")
    dashboard.confirm("Serve from memory", "Memory serves.")
    dashboard.wait_for("Mock mode")
    dashboard.wait_for("An operator lets memory serve instead of the store")
    dashboard.click("Go back to the store")
    dashboard.confirm("Go back", "The store is coming back")
    dashboard.wait_for("All is well")
    dashboard.wait_for("1, ", ".facts")
    dashboard.go("audit")
    dashboard.wait_for("mock.off")
    assert store.last_change() == ("admin-1", "mock.off", store(_target))


def test_a_change_is_read_whole_in_the_audit_log(dashboard: Dashboard) -> None:
    dashboard.go("audit")
    dashboard.click("Whole", "tbody")
    dashboard.wait_for("Before", "dialog[open]")
    assert dashboard.violations() == []
    dashboard.dismiss()


async def _target(client: Client) -> str:
    return client.transport.target
