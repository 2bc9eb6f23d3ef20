"""The demo's live page in Chromium: two people edit one campaign, an agent answers, a job tells how far it is."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.chromium import Chromium, Running, needs_chromium, running_chromium
from tests.frontend import CLIENT, DEMO, built

pytestmark = [
    pytest.mark.timeout(300),  # Where this comes first, it installs and builds.
    needs_chromium,
    pytest.mark.xdist_group("browser"),
]

_UPSTASH = {"UPSTASH", "upstash"}
_LIVE = "() => document.querySelector('.status.live') !== null"
_VALUE = "([field, value]) => document.querySelector(field)?.value === value"
_TEXT = "([place, text]) => document.querySelector(place)?.textContent.includes(text)"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    with running_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def demo() -> Iterator[Running]:
    command = ["-m", "redis_core", "up", "--no-traffic", "--demo", "--gateway-port", "0"]
    with Running(command, {"MOCK_REDIS": "true", "RAPTORFLOW_ENV": "development"}, "/demo/live/") as running:
        yield running


@pytest.fixture
def people(chromium: Chromium, demo: Running) -> Iterator[Chromium]:
    """Ada in one browser, Grace in another, both on the live page."""
    for tab in ("ada", "grace"):
        chromium.do("open", tab=tab, url=f"{demo.url}/demo/", context=tab)
        chromium.do("fill", tab=tab, selector="input[name=user]", text=tab)
        chromium.do("click", tab=tab, selector="main button")
        chromium.do("goto", tab=tab, url=f"{demo.url}/demo/live/")
        chromium.wait(tab, _LIVE)
    yield chromium
    for tab in ("ada", "grace"):
        # Also what the content policy forbids is told here.
        assert chromium.do("errors", tab=tab) == []
        chromium.do("forget", context=tab)


def test_two_people_edit_one_campaign_and_see_each_other(people: Chromium) -> None:
    people.do("type", tab="ada", selector="#title", text="Spring launch")
    people.do("type", tab="grace", selector="#audience", text="Gardeners")
    for tab in ("ada", "grace"):
        people.wait(tab, _VALUE, ["#title", "Spring launch"])
        people.wait(tab, _VALUE, ["#audience", "Gardeners"])
        people.wait(tab, "() => document.querySelectorAll('.people li').length === 2")
    people.wait("ada", _TEXT, [".taken .editing", "grace"])


def test_an_answer_and_what_is_said_come_to_both(people: Chromium) -> None:
    people.do("click", tab="ada", selector=".agent button")
    people.do("fill", tab="grace", selector=".talk input", text="Shall we begin?")
    people.do("click", tab="grace", selector=".talk button")
    people.wait("ada", _TEXT, [".talk ol", "Shall we begin?"])
    # In the middle of the answer, Grace loads the page again.
    people.wait("grace", _TEXT, [".answer", "I have read"])
    people.do("reload", tab="grace")
    for tab in ("ada", "grace"):
        people.wait(tab, _TEXT, [".answer", "the first line what it does for them. "])
    answers = [
        people.evaluate(tab, "() => document.querySelector('.answer').textContent")
        for tab in ("ada", "grace")
    ]
    assert answers[0] == answers[1]


def test_a_job_tells_how_far_it_is_and_what_it_made(people: Chromium) -> None:
    people.do("fill", tab="ada", selector="#budget", text="400")
    people.do("click", tab="ada", selector=".job button")
    people.wait("ada", _TEXT, [".logs", "social gets 100"])
    people.wait("ada", _TEXT, [".job dl", "video100"])
    assert people.evaluate("ada", "() => document.querySelector('progress').value") == 1


@pytest.mark.parametrize("folder", [CLIENT, DEMO], ids=lambda folder: folder.name)
def test_no_bundle_knows_of_the_store(folder: Path) -> None:
    built()
    files = [file for file in (folder / "dist").rglob("*") if file.is_file()]
    assert files
    for file in files:
        text = file.read_text("utf-8")
        assert not any(word in text for word in _UPSTASH), file


def test_the_worker_stays_small() -> None:
    (worker,) = (DEMO / "dist" / "assets").glob("worker-*.js")
    assert len(gzip.compress(worker.read_bytes())) < 6_000
