"""The report of a run whose cluster was watched: what happened there is drawn and said, whatever its names say."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markdown_it import MarkdownIt
from test_cluster import NEW, OLD, cluster_of, pod
from test_report import HOSTILE, LOOK, Page, numbers_of, overlapping
from test_report import summary as without_cluster

import browser
from defects.pages import axes, layout, strips
from defects.pages import html as markup
from defects.pages.charts import Frame
from loadtests import results
from loadtests.analysis import scaling
from loadtests.analysis.measures import Watched
from loadtests.analysis.summary import summarise
from loadtests.cluster import observations
from loadtests.cluster.observations import AnyObservation
from loadtests.compare import comparison
from loadtests.compare import measures as compared
from loadtests.compare.objections import objections
from loadtests.compare.report import report as comparison_report
from loadtests.report import charts, cluster_tables, markdown, pod_starts
from loadtests.report import page as report
from loadtests.report.tiles import tiles
from loadtests.report.time_series import seconds, time_series
from loadtests.results import Summary
from test_measures import ENVIRONMENT, answered, plan
from test_measures import run as run_of

STARTUP = {"interpreter": 0.1, "imports": 0.5, "model": 0.2, "warm-up": 0.05, "ready": 0.85}
# Seconds at which pods were created, scheduled, initialised, had their image, were started and ready.
STARTS: dict[str, tuple[float, ...]] = {
    f"{OLD}-deployment-7d4b9c6f5-abcde": (-100, -99.9, -99.8, -99, -98.9, -98),
    f"{OLD}-deployment-7d4b9c6f5-fghij": (8.3, 8.4, 8.5, 9.4, 9.6, 10.6),
    f"{OLD}-deployment-7d4b9c6f5-klmno": (8.3, 8.5, 8.6, 10.9, 11.1, 12.1),
    f"{OLD}-deployment-7d4b9c6f5-pqrst": (8.3, 8.4),
    f"{NEW}-deployment-5f6b7d8c9-uvwxy": (13.5, 13.6, 13.7, 14.0, 14.1, 15.0),
}
STUCK = list(STARTS)[3]
DESIRED = ((-5, OLD, 1), (8.2, OLD, 4), (13.4, NEW, 1), (20, OLD, 1), (25.2, OLD, 0), (26, NEW, 0))
ENDS = dict(zip([name for name in STARTS if name != STUCK], (25.3, 20.5, 20.5, 26.1), strict=True))
STAMPS = ("created_stamp", "scheduled_stamp", "initialised_stamp", "", "started_stamp", "ready_stamp")
WATCHED_UNTIL = 27.4


def revision(pod: str) -> str:
    return NEW if pod.startswith(NEW) else OLD


def life(name: str, moments: tuple[float, ...]) -> Iterator[AnyObservation]:
    """A pod's facts; its image is known to be there by an event."""
    so_far: dict[str, Any] = {"revision": revision(name)}
    for number, at in enumerate(moments):
        if not STAMPS[number]:
            about = {"kind": "Pod", "name": name, "part": "spec.containers{kserve-container}"}
            yield observations.KubernetesEvent(
                at=at, stamp=None, reason="Pulled", message="Successfully pulled image", **about
            )
            continue
        so_far |= {STAMPS[number]: 1000.0 + at, "ready": STAMPS[number] == "ready_stamp"}
        yield pod(at, name, **so_far)
    if len(moments) < len(STAMPS):
        yield pod(9.9, name, **so_far, waiting="ImagePullBackOff: registry.example.com/defects: not found")
    else:
        yield observations.Inside(at=moments[-1] + 0.4, name=name, startup=STARTUP, queue_rows=3, in_flight=2)


def platform() -> list[AnyObservation]:
    """Three more replicas are wanted for a burst, of which two come; then a canary gets a fifth of the traffic."""
    found: list[AnyObservation] = [fact for name, moments in STARTS.items() for fact in life(name, moments)]
    found += (
        observations.ReplicaCount(at=at, kind="PodAutoscaler", name=name, desired=desired)
        for at, name, desired in DESIRED
    )
    conditions = {"Ready": "True"}
    found += (
        observations.Service(at=at, mode="Knative", conditions=conditions, traffic=shares, live=at > 0)
        for at, shares in ((-5, {OLD: 1.0}), (15.2, {OLD: 0.8, NEW: 0.2}))
    )
    found += (
        observations.KubernetesEvent(
            at=at, stamp=None, kind="Pod", name=STUCK, reason=reason, message=said, warning=reason == "Failed"
        )
        for at, reason, said in ((8.4, "Scheduled", "assigned to node-1"), (9.9, "Failed", "image not found"))
    )
    found += (
        observations.Autoscaler(at=at, revision=OLD, stable=5 + at / 4, panic=9 + 30 * (8 < at < 14))
        for at in range(1, 24, 2)
    )
    for name, told in ENDS.items():
        stamps: dict[str, Any] = {"created_stamp": 1000 + STARTS[name][0], "deleted_stamp": 1000 + told}
        stamps["revision"] = revision(name)
        found += [pod(told, name, **stamps), pod(told + 1, name, **stamps, gone=True)]
    found.append(observations.ClockReading(at=-5, offset=1000.0, error=0.25, skew=3600.25, answers=9))
    found.append(observations.Unseen(at=-5, text="horizontalpodautoscalers: forbidden (403); expected list and watch"))
    found.append(observations.Gap(at=17, resource="pods", seconds=1.4, why="the connection was dropped"))
    return sorted(found, key=lambda fact: fact.at)


def watched(found: list[AnyObservation] | None = None, **more: Any) -> Summary:
    """A burst that the platform follows; a part of the requests that fail are near a pod's end."""
    slo = {
        "p95_ms": 50, "recover_seconds": 30, "detect_seconds": 5, "scale_seconds": 4, "cold_start_seconds": 3,
        "zero_seconds": 10,
    }  # fmt: skip
    given: dict[str, Any] = {"rate": "replica", "cluster": {"to_zero_seconds": 60}, "slo": slo}
    p = plan(**given)
    requests = answered(p.times, np.where((p.times >= 8) & (p.times < 9.5), 90.0, 10.0 + 5 * np.sin(p.times)))
    requests["status"][(p.times > 20.5) & (p.times < 20.6)] = 500
    requests["revision"] = (p.times >= 16) & (np.arange(len(p.times)) % 5 == 0)
    seen = Watched("defect-classifier", platform() if found is None else found, WATCHED_UNTIL)
    return summarise(run_of(p, requests, revisions=[OLD, NEW], watched=seen, **more), "scale-up", ENVIRONMENT)


def hostile(text: str) -> Summary:
    """Everything that the cluster says of itself says `text`."""
    found = watched()
    cluster = cluster_of(found)
    pods = [
        p.model_copy(update={"name": text, "revision": text, "problem": text, "startup": {text: 0.4}, "slowest": text})
        for p in cluster.pods
    ]
    changes = {
        "service": text, "pods": pods, "not_seen": [text],
        "times": [time.model_copy(update={"of": text, "why": text}) for time in cluster.times],
        "traffic": [change.model_copy(update={"shares": {text: 1.0, "x": 0.0}}) for change in cluster.traffic],
        "splits": [split.model_copy(update={"revision": text}) for split in cluster.splits],
        "events": [e.model_copy(update={"kind": text, "name": text, "reason": text, "message": text})
                   for e in cluster.events],
        "disruption": results.Disruption.model_construct(at=9.0, what=text),
    }  # fmt: skip
    return found.model_copy(update={"cluster": cluster.model_copy(update=changes)})


def nothing_seen() -> Summary:
    return watched([observations.Unseen(at=-5, text="pods: forbidden (403)")])


def stuck() -> Summary:
    """Pods that never started, and no others."""
    return watched(
        [*life(STUCK, STARTS[STUCK]), observations.ReplicaCount(at=8, kind="Deployment", name=OLD, desired=1)]
    )


def stopped() -> Summary:
    return watched(seconds=0.5, stopped="somebody ended it")


def crowd() -> Summary:
    """More pods than a chart has rows for."""
    starts = [tuple(8 + 0.01 * number + at for at in (0, 0.1, 0.2, 0.3, 0.4, 1 + number / 50)) for number in range(90)]
    return watched([fact for number, moments in enumerate(starts) for fact in life(f"{OLD}-{number}", moments)])


DEGENERATE = {"nothing seen": nothing_seen, "stuck": stuck, "stopped": stopped, "crowd": crowd}
ALL = {"scale-up": watched, **DEGENERATE}


# --- what it says ----------------------------------------------------------------------------------------------------


def test_every_number_shown_is_the_summarys() -> None:
    found = watched()
    page = Page(report.page(found))
    known = set(numbers_of(found.model_dump(mode="json"))) | {0.01, 0.95, 0.0}
    known |= {count / sum(group.values()) for group in (found.revisions, found.kinds) for count in group.values()}
    assert {value for value, _ in page.numbers} <= known
    cluster = cluster_of(found)
    assert [cells[2] for cells in page.tables["scaling"][1:]] == [axes.figure(time.seconds) for time in cluster.times]
    assert [cells[0] for cells in page.tables["starts"][1:]] == [p.name for p in cluster.pods] == list(STARTS)
    (slow,) = (cells for cells in page.tables["starts"] if cells[0].endswith("klmno"))
    assert slow[1:9] == ["8.30", "0.200", "0.100", "2.30", "0.200", "1", "3.80", "pulling"]
    assert [cells[4] for cells in page.tables["splits"][1:]] == ["100 %", "80 %", "20 %"]
    ended = {cells[0]: cells[5:7] for cells in page.tables["pods"][1:]}
    assert ended[list(STARTS)[1]] == ["0", "9"], "requests that failed while it ended"
    assert sum(int(cells[2]) for cells in page.tables["events"][1:]) == len(cluster.events) == 5
    assert [cells[2] for cells in page.tables["events"][1:]] == ["1", "3", "1"], "three images were pulled"


def test_what_is_too_long_or_not_as_wanted_stands_out() -> None:
    cluster = cluster_of(watched())
    assert [row[0].text for row in cluster_tables.scaling(cluster).rows if row[2].bad] == ["scale", "cold start"]
    off = cluster.model_copy(update={"splits": [cluster.splits[0].model_copy(update={"within": False})]})
    assert cluster_tables.splits(off).rows[0][-1].bad
    assert [row[0].text for row in cluster_tables.pods(cluster).rows if row[-1].bad] == [STUCK]


@pytest.mark.parametrize("make", [watched, stuck], ids=["all", "stuck"])
def test_what_was_not_seen_is_said_plainly(make: Any) -> None:
    found = make()
    for said in (report.page(found), markdown.report(found)):
        for text in cluster_of(found).not_seen:
            assert markdown.escaped(text) in said or text in said
        assert ("Everything was seen." in said) == (make is stuck and said.startswith("<!doctype"))
    assert "3,600 s ahead of" in report.page(watched())
    assert "The API server&#39;s clock is not known" in report.page(stuck())


def test_without_a_cluster_there_is_nothing_of_it() -> None:
    found = without_cluster()
    page = report.page(found)
    assert not {"scaling", "splits", "starts", "pods", "events"} & Page(page).tables.keys()
    for word in ("replicas", "Replicas", "waterfall", "How pods", "API server", 'class="watch"', "Wanted traffic"):
        assert word not in page.replace("#", ".").partition("<body>")[2], word
        assert word not in markdown.report(found)
    assert pod_starts.waterfall(found, 700, "x") == ""
    assert seconds(found) == found.duration_s


# --- what it draws ---------------------------------------------------------------------------------------------------


def elements(drawing: str, styles: str) -> list[ET.Element]:
    root = ET.fromstring(drawing)  # noqa: S314 - our own
    return [e for e in root.iter() if set(styles.split()) <= set((e.get("class") or "").split())]


def lines(drawing: str, style: str) -> list[list[tuple[float, float]]]:
    """The points of each part of a line."""
    parts = [part for e in elements(drawing, f"line {style}") for part in e.get("d", "").split("M")[1:]]
    pairs = [[point.split(" ") for point in part.split("L")] for part in parts]
    return [[(float(x), float(y)) for x, y in part] for part in pairs]


def test_replicas_are_on_the_axis_of_latency_until_the_watch_ended() -> None:
    found = watched()
    columns = time_series(found)
    assert columns.edges[-1] == seconds(found) == WATCHED_UNTIL
    assert all(start < end for start, end in pairwise(columns.edges))
    assert {len(column.values) for column in columns.columns.values()} == {len(columns.edges) - 1}
    by_second = dict(zip(columns.edges, columns["replicas_ready"], strict=False))
    assert [by_second[at] for at in (0, 9, 10, 12, 15, 22, 26, 27)] == [1, 1, 1, 2, 4, 2, 0, 0]
    desired = dict(zip(columns.edges, columns["replicas_desired"], strict=False))
    assert [desired[at] for at in (7, 8, 13, 19, 20, 25, 26)] == [1, 4, 5, 5, 2, 2, 0]
    assert columns["p95"][-1] is columns["sent"][-1] is None
    drawing = charts.timeline(found, columns, 1112, "x")
    frame = Frame.of("x", 1112, WATCHED_UNTIL)
    (line,) = lines(drawing, "replicas_ready")
    assert (line[0][0], line[-1][0]) == pytest.approx((frame.left, frame.right), abs=0.6)


def test_replicas_change_when_they_did_however_long_buckets_are() -> None:
    """Ready 3 → 2 → 3 within a bucket, and enough of them at a moment that is no bucket's."""
    found = watched()
    changes = [(-5, 1, 1), (8.2, 4, 1), (10.63, 4, 2), (14.21, 4, 3), (16.4, 4, 2), (16.7, 4, 3), (20.05, 0, 0)]
    records = [results.Replicas(at=at, desired=desired, existing=ready, ready=ready, needed=None)
               for at, desired, ready in changes]  # fmt: skip
    seen = found.model_copy(update={"cluster": cluster_of(found).model_copy(update={"replicas": records})})
    run = time_series(seen)
    drawing, frame = charts.timeline(seen, run, 1112, "x"), Frame.of("x", 1112, WATCHED_UNTIL)
    for style, number in (("replicas_desired", 1), ("replicas_ready", 2)):
        (line,) = lines(drawing, style)
        ups = [at for (at, level), (_, then) in pairwise(line) if level != then]
        steps = [after[0] for before, after in pairwise(changes) if before[number] != after[number]]
        assert ups == pytest.approx([frame.x(at) for at in steps], abs=0.06), style
    (area,) = elements(drawing, "area replicas_ready")
    assert f"{frame.x(16.7):.1f} " in area.get("d", "")
    assert lines(drawing, "replicas_needed") == []
    (up,), (down,) = elements(drawing, "ready"), elements(drawing, "unready")
    assert float(up.get("width", "")) == pytest.approx(frame.x(20.05) - frame.left, abs=0.06)
    assert float(down.get("x", "")) == pytest.approx(frame.x(20.05), abs=0.06)
    assert dict(zip(run.edges, run["replicas_ready"], strict=False))[16] == 2


def test_numbers_of_replicas_that_are_not_known_are_not_drawn() -> None:
    found = watched()
    known = cluster_of(found).replicas
    for records, parts in (
        ([change.model_copy(update={"ready": None, "existing": None}) for change in known], 0),
        ([change.model_copy(update={"ready": None} if 11 < change.at < 13 else {}) for change in known], 2),
    ):
        seen = found.model_copy(update={"cluster": cluster_of(found).model_copy(update={"replicas": records})})
        page = report.page(seen)
        assert len(lines(charts.timeline(seen, time_series(seen), 1112, "x"), "replicas_ready")) == parts
        assert ("replicas ready" in Page(page).tables["values"][0]) == (parts > 0)
        assert "replicas desired" in Page(page).tables["values"][0]


def test_a_warning_stays_one() -> None:
    said = {"involvedObject": {"kind": "Pod", "name": "p"}, "reason": "Failed", "message": "no such image"}
    found = [observations.event(said | {"type": type_}, 1.0, True) for type_ in ("Warning", "Normal")]
    seen = scaling.events_of([event for event in found if event], None)
    assert [event.warning for event in seen] == [True, False]


def test_traffic_events_and_what_matters_are_marked() -> None:
    found = watched()
    drawing = charts.timeline(found, time_series(found), 1112, "x")
    said = [what for _, what, _ in charts.moments(found)]
    assert "enough replicas 8 s after burst" in said
    assert any(re.fullmatch("traffic: 80 % .*01, 20 % .*02", what) for what in said)
    boxes = [e for e in elements(drawing, "share") if e.tag.endswith("rect")]
    heights = [round(float(e.get("height", "")) / strips.SHARES_HEIGHT, 3) for e in boxes]
    assert [height for height in heights if height] == [1.0, 0.8, 0.2]
    assert [at for at, what, _ in charts.moments(found) if re.fullmatch("revision .*00002 ready", what)] == [15.0]
    chaos = found.model_copy(update={"cluster": cluster_of(found).model_copy(
        update={"disruption": results.Disruption(at=7.5, what="deleted p")})})  # fmt: skip
    assert (7.5, "deleted p", "disrupted") in list(charts.moments(chaos))


def changed(found: Summary, **changes: Any) -> Summary:
    return found.model_copy(update={"cluster": cluster_of(found).model_copy(update=changes)})


def test_events_say_what_they_are_and_warnings_stand_out() -> None:
    found = watched()
    drawing = charts.timeline(found, time_series(found), 1112, "x")
    normal, (warning,) = elements(drawing, "event"), elements(drawing, "warning")
    assert len(normal) + 1 == len({round(e.at, 3) for e in cluster_of(found).events})
    said = ["".join(mark.itertext()) for mark in (*normal, warning)]
    assert re.fullmatch(r"9\.90 s: .*pqrst Failed: image not found", said[-1])
    assert "Events; tall: 1 warning" in drawing
    (event, *_) = cluster_of(found).events
    many = [event.model_copy(update={"message": str(n), "warning": n == 7}) for n in range(9)]
    seen = changed(found, events=many)
    (mark,) = elements(charts.timeline(seen, time_series(seen), 1112, "x"), "warning")
    assert re.search(": 7; .*: 0; .*: 1; and 6 more$", "".join(mark.itertext()))


def test_a_revision_arrives_with_its_first_ready_pod_unless_it_was_there() -> None:
    standard = changed(watched(), traffic=[])
    assert charts.first_ready(cluster_of(standard)) == charts.first_ready(cluster_of(watched())) == [(15.0, NEW)]
    cluster = cluster_of(watched())
    from_zero = [p for p in cluster.pods if p.revision == OLD and (p.created or 0) > 0]
    for traffic in (cluster.traffic, []):
        assert charts.first_ready(cluster_of(changed(watched(), pods=from_zero, traffic=traffic))) == []


def test_of_many_changes_of_the_traffic_all_are_marked_and_the_last_is_said() -> None:
    found = watched()
    shifts = [results.Traffic(at=at, shares={OLD: 1 - at / 30, NEW: at / 30}) for at in range(1, 20)]
    seen = changed(found, traffic=shifts, pods=[])
    drawing = charts.timeline(seen, time_series(seen), 1112, "x")
    frame = Frame.of("x", 1112, WATCHED_UNTIL)
    places = [float(e.get("d", "").split("L")[0][1:].split(" ")[0]) for e in elements(drawing, "mark shifted")]
    assert places == pytest.approx([frame.x(shift.at) for shift in shifts], abs=0.06)
    labels = [e.text or "" for e in elements(drawing, "moment shifted")]
    assert len(labels) == charts.MAX_SHIFTS
    assert [label.split(" ")[1] for label in labels] == ["96.7", "93.3", "90", "86.7", "83.3", "36.7"]
    assert "traffic" in charts.described(seen)


def test_what_the_lines_of_a_cluster_are_is_said_where_they_are() -> None:
    said = report.page(watched())
    for what in ("Needed: the replicas that", "stable and panic: the autoscaler", "pointed at, the mark of an event"):
        assert what in said
    assert "of several revisions the highest" not in said
    two = [results.AutoscalerSample(at=3, revision=name, stable=1, panic=1, panicking=None) for name in (OLD, NEW)]
    assert "of several revisions the highest" in report.page(changed(watched(), autoscaler=two))
    blank = report.page(changed(watched(), replicas=[], autoscaler=[], events=[]))
    assert not re.search("Needed:|stable and panic|pointed at", blank)


def test_a_slo_that_always_held_is_said_alike_everywhere() -> None:
    found = watched()
    calm = found.model_copy(update={"recovery": results.Recovery(
        breached_at=None, recovered_at=None, seconds=0.0, after_burst_seconds=0.0)})  # fmt: skip
    (tile,) = (tile for tile in tiles(calm) if tile[0] == "time to recover")
    assert (tile[1].text, tile[2]) == ("–", "the SLO always held")
    p = plan(rate="replica", cluster={})
    seen = Watched("defect-classifier", platform(), WATCHED_UNTIL)
    held = summarise(run_of(p, answered(p.times), watched=seen), "x", ENVIRONMENT)
    (row,) = (row for row in cluster_tables.scaling(cluster_of(held)).rows if row[0].text == "recover")
    assert (row[2].text, row[-1].text) == (tile[1].text, tile[2])


def test_where_nothing_was_seen_no_number_of_replicas_is_shown() -> None:
    found = nothing_seen()
    unknown = [change.model_copy(update={"ready": None, "existing": None, "desired": None})
               for change in cluster_of(found).replicas]  # fmt: skip
    seen = changed(found, replicas=unknown, times=[], over_replica_seconds=None, under_replica_seconds=None)
    seen = seen.model_copy(update={"timeline": [s.model_copy(update={"ready": None}) for s in seen.timeline]})
    page = Page(report.page(seen))
    assert not {"replicas ready", "replicas desired", "ready"} & set(page.tables["values"][0])
    assert not [text for text in page.texts if re.search("replica-seconds|^Ready$|^ready$|^never$", text)]


def test_the_waterfall_has_each_pods_phases_in_order() -> None:
    found = watched()
    drawing = pod_starts.waterfall(found, 1112, "x")
    bars = [(e.get("class", "").removeprefix("start "), float(e.get("width", ""))) for e in elements(drawing, "start")
            if e.get("height") == str(pod_starts.BAR)]  # fmt: skip
    names = [name for name, _ in bars]
    whole = ["scheduling", "initialising", "pulling", "starting", "getting-ready"]
    assert names == ["scheduling", "unready", *whole, *whole, *whole], "none of what was there before"
    slow = [width for _, width in bars[2:7]]
    assert np.array(slow) / sum(slow) == pytest.approx(np.array([0.2, 0.1, 2.3, 0.2, 1.0]) / 3.8, abs=0.002)
    assert "slowest: pulling" in drawing
    assert "not ready after 19.1 s, created at 8.30 s: ImagePullBackOff" in drawing
    inside = [e for e in elements(drawing, "inside") if e.get("height") == str(pod_starts.INSIDE)]
    assert len(inside) == 3 * (len(STARTUP) - 1)
    assert [e.get("class") for e in inside][:4] == ["inside", "inside slowest", "inside", "inside"]


def test_of_many_pods_those_that_took_longest_are_drawn() -> None:
    found = crowd()
    cluster = cluster_of(found)
    shown = pod_starts.shown(cluster)
    assert len(cluster.pods) == 90
    assert len(shown) == pod_starts.MAX_PODS
    slowest = sorted(p.cold_start_seconds or 0 for p in cluster.pods)[-pod_starts.MAX_PODS :]
    assert sorted(p.cold_start_seconds or 0 for p in shown) == slowest
    assert len(report.page(found).encode()) < 500_000


# --- it is sound -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_it_needs_nothing_else_and_is_sound(make: Any) -> None:
    found = make()
    html = report.page(found)
    page = Page(html)
    assert not re.search(r"@import|url\((?!#)|nan\b|\bNone\b|Infinity", html)
    for drawing in re.findall("<svg.*?</svg>", html):
        ET.fromstring(drawing)  # noqa: S314 - our own
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    ET.fromstring(charts.picture(found, time_series(found)))  # noqa: S314 - our own
    assert found.verdict.outcome in markdown.report(found)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_texts_from_outside_stay_texts(text: str) -> None:
    usual, page = Page(report.page(hostile("usual"))), Page(report.page(hostile(text)))
    names = [name for name in page.elements if name != "rect"]  # an empty name leaves boxes out, no other does
    expected = [name for name in usual.elements if name != "rect"]
    if text:
        assert names == expected
    else:  # the disruption's label is left out of the drawing of each width
        assert Counter(expected) - Counter(names) == {"text": len(layout.WIDTHS)}
        assert not Counter(names) - Counter(expected)
    assert not any(name.startswith("on") for name, _ in page.attributes)
    shown = "".join(page.texts)
    assert markup.plain(text) in shown
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e\ud800]", shown)
    ET.fromstring(charts.picture(hostile(text), time_series(watched())))  # noqa: S314 - our own


@pytest.mark.parametrize("text", HOSTILE[:-1], ids=range(len(HOSTILE) - 1))
def test_markdown_says_them_without_obeying(text: str) -> None:
    reader = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    blocks = reader.parse(markdown.report(hostile(text)))
    assert [block.type for block in blocks] == [block.type for block in reader.parse(markdown.report(hostile("usual")))]
    tokens = [token for block in blocks for token in block.children or []]
    assert not {"html_inline", "link_open", "image", "em_open", "s_open"} & {t.type for t in tokens}
    outside = " ".join(token.content for token in tokens if token.type == "text")
    assert not re.search(r"@\w|#\d|http://\w", outside)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("make", [*ALL.values(), lambda: hostile(HOSTILE[3] * 9)], ids=[*ALL, "hostile"])
def test_it_fits_every_screen(make: Any, width: int, tmp_path: Path) -> None:
    seen = browser.ask(tmp_path, report.page(make()), width, LOOK)
    assert seen["wide"] == seen["screen"] == width
    assert overlapping(seen["texts"]) == []
    left, right = min(box[1] for box in seen["charts"]), max(box[3] for box in seen["charts"])
    assert [text for text in seen["texts"] if text[1] < left - 0.5 or text[3] > right + 0.5] == []


def test_it_prints_on_a_few_pages(tmp_path: Path) -> None:
    file, printed = tmp_path / "report.html", tmp_path / "report.pdf"
    file.write_text(report.page(watched()), "utf-8")
    browser.run(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={printed}", file.as_uri())
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", printed.read_bytes())) <= 8


# --- runs are compared by it -----------------------------------------------------------------------------------------


def slower(found: Summary, factor: float, seed: int) -> Summary:
    """The same where the platform took that many times as long."""
    cluster = cluster_of(found)
    taken = [time.seconds and time.seconds * factor + seed / 100 for time in cluster.times]
    times = [time.model_copy(update={"seconds": s}) for time, s in zip(cluster.times, taken, strict=True)]
    over = (cluster.over_replica_seconds or 0) * factor + seed / 10
    changed = cluster.model_copy(update={"times": times, "over_replica_seconds": over})
    return found.model_copy(update={"cluster": changed, "seed": seed})


def test_times_of_the_platform_are_compared() -> None:
    """Without the pod that is stuck: its cold start has no end."""
    (stuck,) = (name for name, moments in STARTS.items() if len(moments) < len(STAMPS))
    found = watched([fact for fact in platform() if getattr(fact, "name", "") != stuck])
    a, b = ([slower(found, factor, seed) for seed in range(1, 6)] for factor in (1.0, 2.0))
    rows = {row.measure.name: row for row in comparison.compare(a, b)}
    for name in ("time to detect (burst), s", "time to scale (burst), s", "slowest cold start, s",
                 "time to zero (last request), s", "over-provisioning, replica-seconds"):  # fmt: skip
        assert rows[name].finding == "worse", name
    assert rows["under-provisioning, replica-seconds"].finding == "no difference"
    assert [name for name in rows if name.startswith("time to recover")] == ["time to recover, s"]
    change = rows["time to detect (burst), s"].change
    assert change
    assert change.middle == pytest.approx(1.2)


def test_what_never_happened_counts_with_the_time_that_it_had() -> None:
    found = watched()
    cluster = cluster_of(found)
    times = [time.model_copy(update={"seconds": None, "to_at": None}) for time in cluster.times]
    never = found.model_copy(update={"cluster": cluster.model_copy(update={"times": times})})
    value = compared.of_time("scale", "burst")(never)
    assert value == compared.Value(WATCHED_UNTIL - 7, more=True)
    assert compared.of_time("scale", "first request")(never) is None
    assert compared.of_time("scale", "burst")(without_cluster()) is None


def test_what_only_some_runs_have_is_not_left_out() -> None:
    """On both sides one may be the first that has it; it stands where it does there."""
    usual = watched()
    times = [time.model_copy(update={"seconds": None, "from_at": None}) for time in cluster_of(usual).times]
    still = usual.model_copy(update={"cluster": cluster_of(usual).model_copy(update={"times": times})})
    expected = [measure.name for measure in compared.measures(usual)]
    for a, b in (([still, usual], [usual, usual]), ([still, still], [usual, still])):
        rows = {row.measure.name: row for row in comparison.compare(a, b)}
        assert list(rows) == expected
        detect = rows["time to detect (burst), s"]
        assert (detect.finding, detect.change) == ("can't tell", None)
        assert "| not measured in every run | can't tell |" in comparison_report(a, b, [detect], [])


def test_a_failed_request_counts_once_however_many_pods_it_was_near() -> None:
    found = watched()
    cluster, failed = cluster_of(found), sum(phase.counts.failed for phase in found.phases)
    ends = [pod.lost_at_end for pod in cluster.pods if pod.lost_at_end]
    assert ends == [failed, failed], "two pods ended at once"
    assert compared.lost_near(found) == compared.Value(failed - cluster.lost_elsewhere) == compared.Value(failed)
    assert compared.lost_near(nothing_seen()) is compared.lost_near(without_cluster()) is None


def test_a_run_without_its_cluster_is_not_comparable() -> None:
    found = watched()
    (objection,) = objections([found], [found.model_copy(update={"cluster": None})])
    assert objection.startswith("cluster: Knative and none")
