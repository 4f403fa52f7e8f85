"""The report says what the summary says, whoever reads it, and wherever it is opened."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import combinations, pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

import browser
from conftest import run
from defects.pages import axes, layout
from defects.pages import charts as page_charts
from defects.pages import html as markup
from defects.pages.charts import Frame
from loadtests import results
from loadtests.analysis import summary as summaries
from loadtests.load import server_monitor, stub_server
from loadtests.report import charts, markdown, tables
from loadtests.report import page as report
from loadtests.report.time_series import time_series
from loadtests.results import Sample, Summary
from test_measures import ENVIRONMENT, PHASES, answered, frozen, plan, refuse
from test_measures import run as run_of

VOID = {"meta", "br", "col"}
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title></style></script><svg onload=alert(1)>",
    "a|b `c` *d* _e_ [f](http://example.com) ![g](h) <i> #1 @someone &amp; \\ ~~k~~ $x$",
    "two\nlines\r\n| and | more |",
    "null \x00 escape \x1b[31m right-to-left \u202e half \ud800 end",
    "]]> --> ``` ${x} {{y}}",
    "x" * 5000,
    "",
)


# --- runs whose numbers are known ------------------------------------------------------------------------------------


def timeline() -> list[Sample]:
    return [
        Sample(
            at=second + 0.3, ready=second != 9, processes=2, rss_mb=100 + second, cpu_cores=None if second < 1 else 0.5,
            queue_rows=second % 7, in_flight=3,
        )
        for second in range(22)
    ]  # fmt: skip


def summary(**more: Any) -> Summary:
    """A burst with everything in it: slow, refused, failed and unanswered requests, and what the server looked like."""
    p = plan()
    requests = answered(p.times, np.where((p.times >= 8) & (p.times < 11), 90.0, 10.0 + 5 * np.sin(p.times)))
    refuse(requests, slice(1000, 1100))
    requests["status"][1200:1230] = 500
    requests["status"][1300:1305], requests["error"][1300:1305] = 0, results.TIMEOUT
    requests["end"][1300:1305] += 3
    return summaries.summarise(run_of(p, requests, timeline=timeline(), **more), "burst", ENVIRONMENT)


def ramp() -> Summary:
    steps = {"name": "burst", "rate": 1, "steps": {"seconds": 2, "factor": 2, "to": 16}}
    p = plan(phases=[PHASES[0], steps], stop_at_slo=True)
    slow = (p.times - 2) // 2 >= 3
    return summaries.summarise(run_of(p, answered(p.times, np.where(slow, 90.0, 10.0))), "ramp", ENVIRONMENT)


def unanswered() -> Summary:
    p = plan()
    requests = answered(p.times, 5000.0)
    requests["status"], requests["error"] = 0, results.CONNECT
    requests["queue_ms"] = requests["score_ms"] = np.nan
    return summaries.summarise(run_of(p, requests), "nothing", ENVIRONMENT)


def stopped(requests: int, seconds: float) -> Summary:
    p = plan()
    seen = run_of(p, answered(p.times)[:requests], seconds=seconds, stopped="somebody ended it")
    return summaries.summarise(seen, "stopped", ENVIRONMENT)


def without_burst() -> Summary:
    p = plan(phases=PHASES[:2])
    return summaries.summarise(run_of(p, answered(p.times)), "steady", ENVIRONMENT)


def hours() -> Summary:
    """Longer than a bucket a second would do for."""
    p = plan(rate=1, phases=[{"name": "baseline", "seconds": 20_000, "rate": 0.01}])
    samples = [Sample(at=float(at), ready=True, queue_rows=at % 60) for at in range(20_000)]
    return summaries.summarise(run_of(p, answered(p.times), timeline=samples), "hours", ENVIRONMENT)


def patient() -> Summary:
    """With a limit as long as it takes to start from nothing."""
    p = plan(slo={"p95_ms": 60_000}, timeout_seconds=120)
    return summaries.summarise(run_of(p, answered(p.times, 20.0)), "patient", ENVIRONMENT)


def peaks() -> Summary:
    """Three freezes in a burst, and maxima of the queue that samples once a second miss."""
    samples = [
        Sample(at=at + 0.5, ready=True, queue_rows=0, in_flight=1, queue_rows_max=600 if 9 <= at < 46 else 2,
               in_flight_max=40 if 9 <= at < 46 else 3) for at in range(67)
    ]  # fmt: skip
    seen = frozen(9, 20, 30)
    return summaries.summarise(run_of(seen.plan, seen.requests, timeline=samples), "peaks", ENVIRONMENT)


DEGENERATE = {
    "ramp": ramp,
    "unanswered": unanswered,
    "stopped in the warm-up": lambda: stopped(50, 0.5),
    "nothing at all": lambda: stopped(0, 1e-3),
    "without a burst": without_burst,
    "hours": hours,
    "patient": patient,
}


def hostile(text: str) -> Summary:
    """A burst in which everything that comes from outside says `text`. Copies are not validated, as a file is."""
    found = summary()
    model = results.ServedModel.model_construct(name=text, version=text, digest=text, engine=text)
    e = {"host": text, "command": text, "started": text, "machine": {text: text, "cpu": text}, "model": model}
    phases = [phase.model_copy(update={"errors": {text: 3}}) for phase in found.phases]
    changes = {
        "scenario": text, "about": text, "phases": phases, "revisions": {text: 5}, "kinds": {text: 7},
        "verdict": results.Verdict.model_construct(outcome="Invalid", reasons=[text]),
        "environment": ENVIRONMENT.model_copy(update=e),
        "generator": found.generator.model_copy(update={"missing": [text]}),
    }  # fmt: skip
    return found.model_copy(update=changes)


class Page(HTMLParser):
    """The page's elements, attributes, texts, tables (rows of cells' texts) and exact numbers with what is shown."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.numbers: list[tuple[float, str]] = []
        self._table: list[list[str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.elements.append(tag)
        self.attributes += given.items()
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self._table = self.tables[given["id"]] = []
        elif tag == "tr":
            self._table.append([])
        elif tag in {"th", "td"}:
            self._table[-1].append("")
        elif tag == "data":
            self.numbers.append((float(given["value"]), ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in {"style", "script"}:
            return
        self.texts.append(data)
        if {"th", "td"} & set(self.open):
            self._table[-1][-1] += data
        if "data" in self.open:
            value, text = self.numbers[-1]
            self.numbers[-1] = (value, text + data)


def numbers_of(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from numbers_of(item)
    elif isinstance(value, int | float):
        yield float(value)


# --- what it says ----------------------------------------------------------------------------------------------------


def test_every_number_shown_is_the_summarys() -> None:
    found = summary()
    page = Page(report.page(found))
    known = set(numbers_of(found.model_dump(mode="json")))
    known |= {count / sum(group.values()) for group in (found.revisions, found.kinds) for count in group.values()}
    known |= {0.01, 0.95, 0.0}  # of a core and of late requests are allowed, and none not to be sent
    assert {value for value, _ in page.numbers} <= known
    assert len(page.numbers) > 100
    for value, text in page.numbers:
        if text != "nothing is allowed":
            shown, scale = text.replace(",", ""), 0.01 if text.endswith("%") else 1
            assert scale * float(shown.removesuffix(" %")) == pytest.approx(value, rel=6e-3, abs=6e-4)


def test_the_tables_have_the_phases_and_the_course_as_they_were() -> None:
    found, show = summary(), axes.figure
    page = Page(report.page(found))
    for phase, cells in zip(found.phases, page.tables["phases"][1:], strict=True):
        rates = (phase.planned_per_s, phase.achieved_per_s, phase.goodput_per_s)
        counts = (phase.counts.planned, phase.counts.answered, phase.counts.refused, phase.counts.failed)
        latency = (phase.latency.p50, phase.latency.p95, phase.latency.p99, phase.latency.max, phase.p95_limit_ms)
        assert cells[2:] == [show(value) for value in (*rates, *counts, *latency)]
    head, *rows = page.tables["values"]
    for bucket, cells in zip(found.buckets, rows, strict=True):
        shown = dict(zip(head, cells, strict=True))
        assert [shown[f"{key}, ms"] for key in ("p50", "p95", "p99")] == [
            show(bucket.p50),
            show(bucket.p95),
            show(bucket.p99),
        ]
        assert shown["refused/s"] == show(bucket.counts.refused / found.bucket_s)
        assert shown["ready"] == ("no" if bucket.start == 9 else "yes")
        assert shown["queue, rows"] == show(bucket.start % 7)


def test_the_banner_says_the_verdict_and_why() -> None:
    found = summary()
    page = report.page(found)
    assert found.verdict.outcome == "Failed"
    assert '<span class="outcome">Failed</span>: burst</h1>' in page
    assert all(f"<li>{reason}</li>" in page.replace("&#39;", "'") for reason in found.verdict.reasons)
    assert "so the numbers below say little about the server" in report.page(stopped(50, 0.5))


def test_the_moments_that_matter_are_marked() -> None:
    found = summary()
    assert [what for _, what, _ in charts.moments(found)] == ["SLO broken", "holds again"]
    root = ET.fromstring(charts.timeline(found, time_series(found), 1112, "x"))  # noqa: S314 - our own
    marks = [e.get("d", "") for e in root.iter() if (e.get("class") or "").startswith("mark ")]
    frame = Frame.of("x", 1112, found.duration_s)
    at = [float(mark[1:].split(" ")[0]) for mark in marks]
    assert at == pytest.approx([frame.x(found.recovery.breached_at or 0), frame.x(11)], abs=0.6)
    (mark,) = charts.moments(ramp())
    assert mark == (8.0, "capacity: 400/s", "breached")


def test_later_breaches_are_marked_and_the_time_to_recover_is_drawn_from_the_bursts_start() -> None:
    found = summaries.summarise(frozen(9, 20, 30), "burst", ENVIRONMENT)
    root = ET.fromstring(charts.timeline(found, time_series(found), 1112, "x"))  # noqa: S314 - our own
    frame = Frame.of("x", 1112, found.duration_s)
    drawn = {style: [e for e in root.iter() if e.get("class") == style] for style in ("mark breached", "measured")}
    breaches = [float(e.get("d", "")[1:].split(" ")[0]) for e in drawn["mark breached"]]
    assert breaches == pytest.approx([frame.x(at) for at in (9, 20, 30)], abs=0.6)
    (line,) = drawn["measured"]
    ends = [float(point.split(" ")[0]) for point in line.get("d", "")[1:].split("L")]
    assert ends == pytest.approx([frame.x(7), frame.x(31.5)], abs=1.6)
    (label,) = (e for e in root.iter() if e.text == "recovers in 24.5 s")
    assert float(label.get("x", "")) == pytest.approx(frame.x(7), abs=4)
    assert "SLO broken at 9 s; broken again at 20 s; broken again at 30 s" in charts.described(found)


def test_maxima_are_read_and_drawn_beside_the_samples_where_the_server_has_them() -> None:
    """A real HTTP server: with `…_max` gauges, and without, as older ones are."""
    sampled = "defects_queue_rows 0.0\ndefects_requests_in_flight 1.0\n"
    maxima = "defects_queue_rows_max 700.0\ndefects_requests_in_flight_max 40.0\n"
    cases: list[tuple[str, tuple[float | None, ...]]] = [
        (sampled, (0, None, 1, None)),
        (sampled + maxima, (0, 700, 1, 40)),
    ]
    for exposition, found in cases:
        with exporting(exposition) as url:
            sample = server_monitor.ServerMonitor(url, {}).sample()
        assert (sample.queue_rows, sample.queue_rows_max, sample.in_flight, sample.in_flight_max) == found
        seen = summary().model_copy(
            update={"timeline": [sample.model_copy(update={"at": at + 0.5}) for at in range(22)]}
        )
        html = report.page(seen)
        heads = Page(html).tables["values"][0]
        drawing = charts.timeline(seen, time_series(seen), 1112, "x")
        texts = [e.text for e in ET.fromstring(drawing).iter() if e.get("class") == "tag"]  # noqa: S314 - our own
        there = found[1] is not None
        assert [texts.count(text) for text in ("max, 15 s", "sampled")] == ([2, 2] if there else [0, 0])
        assert {"queue max of 15 s, rows", "in flight, max of 15 s"} <= set(heads) or not there
        assert ("a short peak is drawn 15 s wide" in html) == there
        assert ('class="line queue_rows_max"' in drawing, 'class="line queue_rows"' in drawing) == (there, True)


@contextmanager
def exporting(exposition: str) -> Iterator[str]:
    """A server on loopback that is ready and has these metrics; gives its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(exposition.encode() if self.path == "/metrics" else b"ready")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_lines_go_through_the_values() -> None:
    found = summary()
    root = ET.fromstring(charts.timeline(found, time_series(found), 700, "x"))  # noqa: S314 - our own
    (path,) = (e.get("d", "") for e in root.iter() if e.get("class") == "line p95" and "L" in e.get("d", ""))
    drawn = np.array([[float(part) for part in point.split(" ")] for point in re.split("[ML]", path)[1:]])
    levels, frame = np.array([bucket.p95 for bucket in found.buckets], float), Frame.of("x", 700, 22)
    places = [frame.x(bucket.start + 0.5) for bucket in found.buckets]
    order = np.argsort(levels, kind="stable")
    heights = np.interp(places, drawn[:, 0], drawn[:, 1])
    assert (np.diff(heights[order]) <= 0.1).all()
    assert heights[order[0]] - heights[order[-1]] > 60


# --- it stands alone, and is what it seems ---------------------------------------------------------------------------


@pytest.mark.parametrize("make", [summary, *DEGENERATE.values()], ids=["burst", *DEGENERATE])
def test_it_needs_nothing_else_and_is_sound(make: Any) -> None:
    found = make()
    html = report.page(found)
    page = Page(html)
    assert len(html.encode()) < 500_000
    for name, value in page.attributes:
        assert name not in {"src", "href", "srcset", "action", "style"}
        assert "//" not in value or (name, value) == ("xmlns", "http://www.w3.org/2000/svg") or name == "content"
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttp|nan\b|\bNone\b|Infinity", html)
    for drawing in re.findall("<svg.*?</svg>", html):
        root = ET.fromstring(drawing)  # noqa: S314 - our own
        assert [child.tag.rpartition("}")[2] for child in root][:2] == ["title", "desc"]
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    ET.fromstring(charts.picture(found, time_series(found)))  # noqa: S314 - our own
    assert found.verdict.outcome in markdown.report(found)


def test_long_runs_stay_small() -> None:
    found = hours()
    assert len(found.timeline) == 20_000
    assert len(report.page(found).encode()) < 300_000


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_texts_from_outside_stay_texts(text: str) -> None:
    usual, page = Page(report.page(hostile("usual"))), Page(report.page(hostile(text)))
    assert page.elements == usual.elements
    assert [name for name, _ in page.attributes] == [name for name, _ in usual.attributes]
    assert not any(name.startswith("on") for name, _ in page.attributes)
    shown = "".join(page.texts)
    assert markup.plain(text) in shown
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e\ud800]", shown)
    picture = charts.picture(hostile(text), time_series(summary()))
    picture.encode()
    ET.fromstring(picture)  # noqa: S314 - our own


@pytest.mark.parametrize("text", HOSTILE[:-1], ids=range(len(HOSTILE) - 1))
def test_markdown_says_them_without_obeying(text: str) -> None:
    written = markdown.report(hostile(text))
    reader = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    blocks = reader.parse(written)
    assert [block.type for block in blocks] == [block.type for block in reader.parse(markdown.report(hostile("usual")))]
    tokens = [token for block in blocks for token in block.children or []]
    assert not {"html_inline", "link_open", "image", "em_open", "s_open"} & {t.type for t in tokens}
    codes = {token.content for token in tokens if token.type == "code_inline"}
    assert markup.plain(text).strip() in codes
    outside = " ".join(token.content for token in tokens if token.type == "text")
    assert not re.search(r"@\w|#\d|http://\w", outside)


@given(st.text())
def test_no_text_becomes_markup(text: str) -> None:
    made = markup.element("p", text, title=text)
    root = ET.fromstring(made.encode())  # noqa: S314 - our own
    assert len(root) == 0
    assert (root.text or "") == markup.plain(text)


# --- axes ------------------------------------------------------------------------------------------------------------

SIZES = st.floats(1e-6, 1e9)


@given(st.lists(SIZES, max_size=20), st.integers(3, 12))
def test_even_axes_have_round_marks_around_all_values(values: list[float], most: int) -> None:
    scale = axes.even(values, 100, 0, most=most)
    ticks = scale.ticks(most)
    assert 2 <= len(ticks) <= most
    assert ticks[0] == 0
    assert max(values, default=0) < scale.high
    steps = np.diff(ticks)
    assert steps == pytest.approx([steps[0]] * len(steps))
    assert len({axes.mark(tick) for tick in ticks}) == len(ticks)


@given(st.lists(SIZES, min_size=1, max_size=20), st.integers(3, 12))
def test_logarithmic_axes_have_marks_around_all_values(values: list[float], most: int) -> None:
    scale = axes.logarithmic(values, 100, 0)
    ticks = scale.ticks(most)
    assert 2 <= len(ticks) <= most
    assert scale.low <= min(values) * (1 + 1e-9)
    assert max(values) <= scale.high * (1 + 1e-9)
    assert scale.high >= 9.9 * scale.low
    assert all(before < after for before, after in pairwise(ticks))
    assert all(scale.low * (1 - 1e-9) <= tick <= scale.high * (1 + 1e-9) for tick in ticks)


@given(st.tuples(SIZES, SIZES).filter(lambda ends: ends[1] > 1.01 * ends[0]), st.integers(3, 12))
def test_marks_of_any_axis(ends: tuple[float, float], most: int) -> None:
    for log in (False, True):
        ticks = axes.Scale(*ends, 0, 100, log=log).ticks(most)
        assert 2 <= len(ticks) <= most
        assert all(before < after for before, after in pairwise(ticks))


@given(st.lists(SIZES, min_size=2, max_size=20), st.booleans())
def test_scales_keep_the_order_and_the_ends(values: list[float], log: bool) -> None:
    scale = axes.logarithmic(values, 200, 10) if log else axes.even(values, 200, 10, most=4)
    places = [scale(value) for value in sorted(values)]
    assert all(before >= after for before, after in pairwise(places))
    assert (scale(scale.low), scale(scale.high)) == (200, 10)
    assert scale(10 * scale.high) == 10


@given(st.lists(st.floats(0, 100), max_size=7))
def test_labels_keep_apart_in_their_order(places: list[float]) -> None:
    moved = axes.apart(places, 13, 0, 100)
    order = sorted(range(len(places)), key=lambda index: places[index])
    assert all(moved[after] - moved[before] >= 13 - 1e-9 for before, after in pairwise(order))
    assert all(-1e-9 <= place <= 100 + 1e-9 for place in moved)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(1, 50)), max_size=8))
def test_texts_in_a_row_do_not_overlap(found: list[tuple[float, float]]) -> None:
    spans = [(left, left + width) for left, width in found]
    rows = axes.rows_for(spans)
    for (one, row), (other, same) in combinations(zip(spans, rows, strict=True), 2):
        assert row != same or one[1] <= other[0] or other[1] <= one[0]


@given(st.floats(-1e9, 1e9))
def test_numbers_keep_what_matters(value: float) -> None:
    assert float(axes.figure(value).replace(",", "")) == pytest.approx(value, rel=6e-3, abs=6e-4)
    assert float(axes.percent(value).replace(",", "").removesuffix(" %")) == pytest.approx(100 * value, rel=0.051)


# --- the commands ----------------------------------------------------------------------------------------------------


def test_each_run_leaves_its_report(tmp_path: Path) -> None:
    file = tmp_path / "short.yaml"
    phases = [{"name": name, "seconds": 1, "rate": rate} for name, rate in (("baseline", 1), ("burst", 4))]
    payloads = [{"kind": "json"}]
    slo = {"p95_ms": 4000}  # so high that a busy machine's delay does not make the run invalid
    file.write_text(json.dumps({"about": "x", "rate": 20, "payloads": payloads, "phases": phases, "slo": slo}))
    with stub_server.running("--service-ms", 5, "--refuse-share", 0.2) as url:
        command = ("locust", "-f", "loadtests/locustfile.py", "--headless", "--host", url, "--scenario", file)
        done = run(tmp_path, *command, "--out", tmp_path / "load")
    (directory,) = (tmp_path / "load").iterdir()
    found = results.read_summary(directory)
    assert (done.returncode, found.verdict.outcome) == (1, "Failed"), done.stderr
    (reason,) = found.verdict.reasons
    assert reason.endswith("were refused; expected at most 0.00%")
    assert found.phases[1].counts.refused > 0
    assert (directory / report.PAGE).read_text() == report.page(found)
    assert (directory / report.MARKDOWN).read_text() == markdown.report(found)


def test_a_report_is_made_again_and_a_picture_of_it(tmp_path: Path) -> None:
    results.write_summary(tmp_path / results.SUMMARY, summary())
    picture = tmp_path / "x.svg"
    assert run(tmp_path, "python", "-m", "loadtests.report", tmp_path, "--picture", picture).returncode == 0
    assert not (tmp_path / report.PAGE).exists()
    ET.parse(picture)  # noqa: S314 - our own
    assert picture.stat().st_size < 150_000
    assert run(tmp_path, "python", "-m", "loadtests.report", tmp_path).returncode == 0
    assert (tmp_path / report.PAGE).read_text() == report.page(summary())


@pytest.mark.parametrize("content", [None, "{}", "no JSON"])
def test_what_is_no_run_is_one_line(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / results.SUMMARY).write_text(content)
    done = run(tmp_path, "python", "-m", "loadtests.report", tmp_path)
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path}: ")
    assert line.endswith("expected the directory of a run")


# --- how it looks ----------------------------------------------------------------------------------------------------

LOOK = """
  const boxes = (selector) => [...page.querySelectorAll(selector)].map((element) => {
    const box = element.getBoundingClientRect();
    return [element.textContent, box.left, box.top, box.right, box.bottom, box.width];
  }).filter((box) => box[5] > 0);
  const chart = [...page.querySelectorAll(".course .chart")].find((one) => one.getBoundingClientRect().width > 0);
  const area = chart.getBoundingClientRect();
  const { left, right } = chart.dataset;
  const x = area.left + (area.width / chart.viewBox.baseVal.width) * (Number(left) + (10.5 / 22) * (right - left));
  chart.dispatchEvent(new window.PointerEvent("pointermove", { clientX: x, clientY: area.top + 50 }));
  return {
    wide: page.documentElement.scrollWidth, screen: window.innerWidth, tall: page.documentElement.scrollHeight,
    shown: boxes(".chart").length, charts: boxes(".chart"), texts: boxes(".chart text"),
    readout: page.getElementById("readout").textContent, hidden: page.getElementById("readout").hidden,
    cursor: window.getComputedStyle(chart.querySelector(".cursor")).visibility,
  };
"""


def overlapping(texts: list[list[Any]]) -> list[tuple[str, str]]:
    """Pairs of texts on top of each other, by more than the air around letters."""
    return [
        (one[0], other[0])
        for one, other in combinations(texts, 2)
        if min(one[3], other[3]) - max(one[1], other[1]) > 1 and min(one[4], other[4]) - max(one[2], other[2]) > 4
    ]


SCREENS = [
    (summary, 1280),
    (summary, 768),
    (patient, 1280),
    (peaks, 1280),
    (peaks, 390),
    *((make, 390) for make in (summary, *DEGENERATE.values())),
]


@pytest.mark.parametrize(
    ("make", "width"), SCREENS, ids=["desktop", "tablet", "patient", "peaks", "peaks on a phone", "phone", *DEGENERATE]
)
def test_it_fits_every_screen(make: Any, width: int, tmp_path: Path) -> None:
    found = make()
    picture = tmp_path / "page.png" if make is summary else None
    seen = browser.ask(tmp_path, report.page(found), width, LOOK, picture)
    assert seen["wide"] == seen["screen"] == width
    assert seen["shown"] == (2 if any(map(any, (h.counts for h in found.histograms if h.phase != "warm-up"))) else 1)
    assert overlapping(seen["texts"]) == []
    left, right = min(box[1] for box in seen["charts"]), max(box[3] for box in seen["charts"])
    assert [text for text in seen["texts"] if text[1] < left - 0.5 or text[3] > right + 0.5] == []
    assert picture is None or picture.stat().st_size > 20_000
    assert (seen["hidden"], seen["cursor"]) == (False, "visible")


def test_a_moments_values_are_read_out(tmp_path: Path) -> None:
    found = summary()
    page = Page(report.page(found))
    seen = browser.ask(tmp_path, report.page(found), 1280, LOOK)
    head, *rows = page.tables["values"]
    assert seen["readout"] == "".join(
        f"{name} {value}" for name, value in zip(["second", *head[1:]], rows[10], strict=True)
    )


def test_hostile_texts_do_nothing_in_a_browser(tmp_path: Path) -> None:
    script = LOOK.replace("wide:", "title: page.title, images: page.images.length, scripts: page.scripts.length, wide:")
    seen = browser.ask(tmp_path, report.page(hostile(" ".join(HOSTILE[:7]))), 390, script)
    assert (seen["images"], seen["scripts"], seen["wide"]) == (0, 1, 390)
    assert "<script>alert(1)</script>" in seen["title"]


@pytest.mark.parametrize("make", [summary, ramp])
def test_it_prints_on_a_few_pages(make: Any, tmp_path: Path) -> None:
    file, printed = tmp_path / "report.html", tmp_path / "report.pdf"
    file.write_text(report.page(make()), "utf-8")
    browser.run(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={printed}", file.as_uri())
    content = printed.read_bytes()
    assert content.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 5


def contrast(one: str, other: str) -> float:
    """WCAG 2's contrast ratio of two colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


STYLES = [page_charts.style_sheet(), layout.style_sheet().removeprefix(page_charts.style_sheet())]


@pytest.mark.parametrize("style", STYLES, ids=["light", "dark"])
def test_text_and_lines_stand_out(style: str) -> None:
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", style))
    for ground in ("paper", "warm-up", "baseline", "burst", "recovery"):
        for name in (
            "planned",
            "sent",
            "p50",
            "p95",
            "p99",
            "slo",
            "queue",
            "flight",
            "cpu",
            "good",
            "failed",
            "refused",
        ):
            assert contrast(colours[name], colours[ground]) >= 3, (name, ground)
    for name in ("ink", "faint", "p50", "p95", "p99", "slo", "good", "turn"):
        assert contrast(colours[name], colours["paper"]) >= 4.5, name


def test_a_table_for_each_question() -> None:
    names = [table.name for table in tables.everything(summary())]
    assert names == ["phases", "parts", "budget", "errors", "answers", "generator", "environment"]
    assert [table.name for table in tables.everything(ramp())][2] == "steps"
