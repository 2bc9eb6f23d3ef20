"""The dashboard's pages in Chromium: they load on real data, for everybody, at every width, in light and dark, by keyboard alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.chromium import needs_chromium
from tests.browser.dashboard import PAGES, TOKENS, Dashboard, running_dashboard

pytestmark = [
    pytest.mark.timeout(300),  # Where this comes first, it installs and builds.
    needs_chromium,
    pytest.mark.xdist_group("browser"),
]

_WORDS = {"queues": "queue=agents&workspace=acme&state=dead", "sessions": "workspace=acme&user=ada"}
_LOOKS = [(1280, False), (1280, True), (390, False), (390, True)]
_TOO_WIDE = "() => document.scrollingElement.scrollWidth > innerWidth"
_CHARTS = "() => [...document.querySelectorAll('figure.chart:has(canvas)')].map((one) => one.querySelector('h2').textContent)"
_REACHABLE = """() => [...document.querySelectorAll("a[href], button, input, select, [tabindex='0']")]
    .filter((one) => one.checkVisibility() && !one.disabled).length"""
_MARK = """() => { const one = document.activeElement; if (one === document.body || one.dataset.seen) return "";
    one.dataset.seen = "yes"; const style = getComputedStyle(one);
    return style.outlineStyle !== "none" || one.matches(".skip") ? "seen" : `no outline: ${one.outerHTML.slice(0, 100)}`; }"""

_STREAMS = """(wanted) => fetch("/api/v1/admin/realtime", {
    headers: { authorization: `Bearer ${sessionStorage["raptorflow-admin-token"]}` },
}).then((answer) => answer.json()).then((figures) => figures.streams === wanted)"""
_SWITCH = """(on) => fetch(`/api/v1/admin/mock?on=${on}`, {
    method: "PUT", headers: { authorization: `Bearer ${sessionStorage["raptorflow-admin-token"]}` },
}).then(() => null)"""
_HIDE = """(hidden) => { Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
    document.dispatchEvent(new Event("visibilitychange")); }"""


@pytest.fixture(scope="module")
def dashboard(valkey_socket: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    with running_dashboard(valkey_socket, tmp_path_factory.mktemp("state")) as running:
        yield running


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_for_everybody_at_every_width_in_light_and_dark(dashboard: Dashboard, page: str) -> None:
    dashboard.go(page, _WORDS.get(page, ""))
    for width, dark in _LOOKS:
        dashboard.chromium.do("look", tab=dashboard.tab, width=width, dark=dark)
        assert dashboard.violations() == [], (width, dark)
        assert not dashboard.see(_TOO_WIDE), width
    dashboard.chromium.do("look", tab=dashboard.tab)
    assert dashboard.errors() == []


def test_pages_show_what_the_store_has(dashboard: Dashboard) -> None:
    for page, words, texts in [
        ("overview", "", ["All is well", "tcp", "Services", "this store is not billed by command"]),
        ("queues", _WORDS["queues"], ["agents", "ValueError: no budget for campaign", "acme"]),
        ("sessions", _WORDS["sessions"], ["Revoke all"]),
        ("workspaces", "", ["acme", "globex"]),
        ("cache", "", ["In memory"]),
    ]:
        dashboard.go(page, words)
        for text in texts:
            dashboard.wait_for(text)


def test_each_chart_is_also_a_table(dashboard: Dashboard) -> None:
    for page in ("overview", "cache", "queues"):
        dashboard.go(page)
        dashboard.wait("() => document.querySelector('figure.chart canvas') !== null")
        for title in dashboard.see(_CHARTS):
            dashboard.see(
                "(title) => [...document.querySelectorAll('figure.chart')].find((one) => one.querySelector('h2').textContent === title)"
                ".querySelector('button').click()",
                title,
            )
            dashboard.wait(
                "(title) => document.querySelector(`[aria-label='${title}'] tbody td`) !== null", title
            )
            lines = dashboard.see(
                "(title) => document.querySelectorAll(`[aria-label='${title}'] thead th`).length", title
            )
            assert lines >= 2, title
        assert dashboard.violations() == []


def test_everything_is_reached_by_the_tab_key_and_shows_that_it_is(dashboard: Dashboard) -> None:
    dashboard.go("limits")
    dashboard.see("() => document.activeElement.blur()")
    expected = dashboard.see(_REACHABLE)
    assert expected > 15
    seen = 0
    for _ in range(expected + 20):
        dashboard.press("Tab")
        told = dashboard.see(_MARK)
        if told == "" and seen:
            break
        assert told in {"seen", ""}, told
        seen += told == "seen"
    assert seen >= expected


def test_a_charts_values_are_read_by_arrow_keys(dashboard: Dashboard) -> None:
    dashboard.go("overview")
    dashboard.wait("() => document.querySelector('figure.chart .canvas') !== null")
    dashboard.see("() => document.querySelector('figure.chart .canvas').focus()")
    dashboard.press("ArrowLeft")
    dashboard.wait(
        "() => /: operations /.test(document.querySelector('figure.chart [aria-live]').textContent)"
    )


def test_it_is_live_through_a_stream_of_its_own_and_has_none_while_it_is_hidden_or_paused(
    dashboard: Dashboard,
) -> None:
    dashboard.go("realtime")
    dashboard.wait_for("live", ".tools")
    dashboard.wait(_STREAMS, 1)
    dashboard.see(_HIDE, True)
    dashboard.wait_for("paused while hidden", ".tools")
    dashboard.wait(_STREAMS, 0)
    dashboard.see(_HIDE, False)
    dashboard.wait_for("live", ".tools")
    dashboard.wait(_STREAMS, 1)
    dashboard.click("Pause")
    dashboard.wait(_STREAMS, 0)
    dashboard.click("Go on")
    dashboard.wait_for("live", ".tools")


def test_an_outage_is_shown_because_the_service_tells(dashboard: Dashboard) -> None:
    dashboard.go("overview")
    dashboard.wait_for("live", ".tools")
    dashboard.wait_for("All is well")
    # By somebody else; this page's own clock asks once a minute.
    dashboard.see(_SWITCH, True)
    dashboard.wait_for("An operator lets memory serve")
    dashboard.see(_SWITCH, False)
    dashboard.wait_for("All is well")


def test_the_range_and_the_page_are_in_the_address(dashboard: Dashboard) -> None:
    dashboard.go("cache")
    dashboard.click("24 h")
    dashboard.wait("() => location.hash.includes('range=86400')")
    dashboard.see(
        "() => [...document.querySelectorAll('nav a')].find((one) => one.textContent === 'Limits').click()"
    )
    dashboard.wait("() => document.querySelector('h1').textContent === 'Limits'")
    assert dashboard.see("() => document.querySelector('.range [aria-pressed=true]').textContent") == "24 h"


def test_who_has_no_token_is_asked_for_one_and_it_stays_in_the_tab(dashboard: Dashboard) -> None:
    stranger = Dashboard(dashboard.chromium, dashboard.site, "stranger")
    stranger.open(token="")
    stranger.wait_for("Admin token", ".login")
    assert stranger.violations() == []
    stranger.fill("Admin token", "wrong")
    stranger.click("Go in")
    stranger.wait_for("Admin token", ".login")
    stranger.fill("Admin token", TOKENS["viewer"])
    stranger.click("Go in")
    stranger.wait_for("All is well")
    assert TOKENS["viewer"] not in stranger.see(
        "() => JSON.stringify(localStorage) + document.cookie + location.href"
    )
    # A viewer may look, and is told that it may not change.
    stranger.click("Serve from memory")
    stranger.click("Serve from memory", "dialog[open]")
    stranger.wait("() => document.querySelector('dialog[open] .note.bad') !== null")
    stranger.dismiss()
    stranger.click("Forget the token", "header")
    stranger.wait_for("Admin token", ".login")
    refused = [error for error in stranger.errors() if "401" not in error and "403" not in error]
    assert refused == []
    dashboard.chromium.do("forget", context="stranger")
