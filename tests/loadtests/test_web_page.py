"""Locust's own page offers the scenarios, shows how a run ended and why, and leads to its report."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from html import unescape
from pathlib import Path

import httpx
import pytest
from test_load import BASELINE, FILE, scenario, start, started

import browser
from conftest import free_port, until
from loadtests import results
from loadtests import scenario as scenarios
from loadtests.load import stub_server


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def page(out: Path) -> Iterator[str]:
    """Locust's page, from which a stub is driven that fails half of all requests."""
    port = free_port()
    file = scenario(out, phases=BASELINE[1:])
    with stub_server.running("--fail-share", 0.5) as url:
        command = (*FILE, "--host", url, "--out", out / "load", "--web-host", "127.0.0.1", "--web-port", port)
        with started(out, *command, "--scenario", file):
            until(lambda: httpx.get(f"http://127.0.0.1:{port}").status_code == 200)
            yield f"http://127.0.0.1:{port}"


def seen(page: str, out: Path, picture: Path | None = None) -> str:
    """What the page is, once its scripts have run."""
    if picture:
        browser.run(out, "--window-size=1200,900", "--virtual-time-budget=5000", f"--screenshot={picture}", page)
    return browser.run(out, "--window-size=1200,900", "--virtual-time-budget=5000", "--dump-dom", page)


def box(dom: str) -> str:
    """The text of what the load tests add to the page."""
    (found,) = re.findall(r'<aside id="load-test".*?</aside>', dom, re.DOTALL)
    return unescape(re.sub(r"<[^>]*>", " ", found)).strip()


def ended(page: str) -> bool:
    state = httpx.get(f"{page}/load-test/state.json").json()
    return not state["is_on"] and bool(state["line"])


def is_said(page: str, text: str) -> bool:
    return text in httpx.get(f"{page}/load-test/state.json").json()["line"]


def test_scenarios_are_offered_and_a_file_that_was_given(page: str, out: Path) -> None:
    dom = seen(page, out)
    (offered,) = re.findall(r'<select[^>]*name="scenario".*?</select>', dom, re.DOTALL)
    names = re.findall(r'<option value="([^"]*)"', offered)
    assert names == [*scenarios.names(), str(out / "test.yaml")]
    assert re.findall(r'<option value="([^"]*)" selected', offered) == [str(out / "test.yaml")]
    assert box(dom) == ""


def test_it_shows_how_a_run_ended_and_leads_to_its_report(page: str, out: Path) -> None:
    start(page, scenario=str(out / "test.yaml"), rate="", seed="")
    until(lambda: ended(page))
    dom = seen(page, out, out / "page.png")
    (file,) = (out / "load").glob("*/report.html")
    verdict = results.read_summary(file.parent).verdict
    assert box(dom).startswith(f"{verdict.outcome}: test against http://127.0.0.1:")
    assert verdict.reasons
    assert all(reason in box(dom) for reason in verdict.reasons)
    (link,) = re.findall(r'href="\./(load-test/reports/[^"]*)"', dom)
    report = httpx.get(f"{page}/{link}")
    assert (report.status_code, report.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert report.text == file.read_text()
    assert (out / "page.png").stat().st_size > 10_000


def test_it_shows_why_nothing_was_sent(page: str, out: Path) -> None:
    for form, reason in (
        ({"scenario": "bursts", "rate": ""}, "error: --scenario: no scenario 'bursts'; expected burst, chaos"),
        ({"scenario": "smoke", "rate": "fast"}, "error: --rate: fast; expected requests/s"),
        ({"scenario": "smoke", "rate": "", "host": "http://me:secret@h"}, "error: --host: 'http://…@h' has a user"),
    ):
        start(page, seed="", **form)
        until(partial(is_said, page, reason))
        text = box(seen(page, out))
        assert text.startswith(reason)
        assert "secret" not in text


@pytest.mark.parametrize(
    "path", ["..", ".", "%2e%2e", "load", "..%2f..", "other", "other/report.html", "a", "a/summary.json"]
)
def test_only_reports_of_runs_are_served(page: str, out: Path, path: str) -> None:
    (out / "load" / "other").mkdir(parents=True, exist_ok=True)
    (out / "load" / "other" / "report.html").write_text("of no run")
    (out / "load" / "a").mkdir(exist_ok=True)
    (out / "load" / "a" / "summary.json").write_text("{}")
    assert httpx.get(f"{page}/load-test/reports/{path}/").status_code == 404
