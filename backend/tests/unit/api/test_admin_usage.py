"""Usage and budgets by HTTP."""

from __future__ import annotations

from redis_core.client import Client
from tests.admin_world import asking, bearer, service


async def test_an_admin_sets_a_budget_and_a_viewer_sees_what_was_spent(memory: Client) -> None:
    usage = memory.workspace("acme").usage
    await usage.add(model="gpt-4o", input_tokens=1_000_000)
    async with asking(service(memory)) as http:
        asked = {"workspace": "acme", "day": 5.0}
        url = "/api/v1/admin/usage/budget"
        assert (await http.post(url, json=asked, headers=bearer("operator"))).status_code == 403
        dry = await http.post(url, json={**asked, "dry_run": True}, headers=bearer("admin"))
        assert (dry.json()["matched"], dry.json()["changed"]) == (1, 0)
        assert await usage.budget() is None
        assert (await http.post(url, json=asked, headers=bearer("admin"))).json()["changed"] == 1
        page = await http.get("/api/v1/admin/usage?workspace=acme&days=2", headers=bearer("viewer"))
        log = await http.get("/api/v1/admin/audit?count=1", headers=bearer("viewer"))
    found = page.json()
    assert (found["spent_today"], found["budget"]["day"]) == (2.5, 5.0)
    assert [day["cost"] for day in found["days"]] == [0, 2.5]
    assert found["days"][1]["models"]["gpt-4o"]["input_tokens"] == 1_000_000
    entry = log.json()["entries"][0]
    assert (entry["action"], entry["target"]) == ("usage.budget", "acme")
    assert entry["after"]["day"] == 5.0


async def test_without_limits_a_budget_is_lifted(memory: Client) -> None:
    async with asking(service(memory)) as http:
        for body in ({"workspace": "acme", "month": 9}, {"workspace": "acme"}):
            answer = await http.post("/api/v1/admin/usage/budget", json=body, headers=bearer("admin"))
            assert answer.json()["changed"] == 1
        wrong = await http.post(
            "/api/v1/admin/usage/budget", json={"workspace": "acme", "day": -1}, headers=bearer("admin")
        )
    assert wrong.status_code == 422
    assert await memory.workspace("acme").usage.budget() is None
