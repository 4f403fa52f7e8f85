"""Show what was measured as Markdown and as a picture. Ratios are taken within a round; tables show their medians."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from defects.pages.tables import grid
from tools.computer import caption

Raw = dict[str, Any]  # bench.json
Key = tuple[str, str, int]  # subject, workload, connections

BATCH = 64
DISTURBED = 0.1  # share of the cores' time
HELLO: Key = ("hello", "GET", 64)
BY_ASGI = "V2 by ASGI"
PRICED = (
    ("validation-only", "V2", "validation only"),
    ("metrics", "V2", "+ metrics"),
    ("ours", "V2", "+ access log of every 100th answer: everything, the default"),
    ("every-line", "V2", "everything, with a log line for each answer"),
    ("ours", BY_ASGI, "everything, the way of ASGI"),
    ("no-gc-freeze", BY_ASGI, "everything, the way of ASGI, without the GC freeze"),
)


class RatioTarget(NamedTuple):
    """`measure` of one cell over that of another: at least, or at most, `bound`."""

    text: str
    ours: Key
    control: Key
    bound: float
    measure: str = "requests_per_second"
    control_measure: str = ""  # where it is another one
    most: bool = False
    percent: bool = False


def _all_targets() -> list[RatioTarget]:
    found = []
    for workload, part in (("V2", 1.0), ("V1", 1.0), ("classify", 0.5)):
        name, one, many = _name(workload), ("ours", workload, 1), ("ours", workload, 64)
        found += [
            RatioTarget(f"{name}, 64 connections / FastAPI", many, ("fastapi", "classify", 64), 40 * part),
            RatioTarget(f"{name}, 64 connections / stock BentoML, ONNX", many, ("stock-onnx", "scans", 64), 15 * part),
            RatioTarget(
                f"{name}, 64 connections / stock BentoML, sklearn", many, ("stock-sklearn", "scans", 64), 15 * part
            ),
            RatioTarget(f"{name}, 64 connections / hello", many, HELLO, 0.3 * part, percent=True),
            RatioTarget(f"{name}, 1 connection / FastAPI", one, ("fastapi", "classify", 1), 20 * part),
            RatioTarget(f"{name}, 1 connection: p99 / p50", one, one, 5, "p99_ms", "p50_ms", most=True),
        ]
    validation = RatioTarget(
        "V2 JSON, 64 connections, validation only / hello", ("validation-only", "V2", 64), HELLO, 0.35, percent=True
    )
    found.insert(4, validation)
    binary = ("ours", f"V2 binary x{BATCH}", 64)
    label = f"V2 binary, {BATCH} rows, 64 connections / ONNX Runtime in-process, rows/s"
    found.append(RatioTarget(label, binary, ("in-process", str(BATCH), 0), 0.8, "rows_per_second", percent=True))
    memory = RatioTarget("resident memory / FastAPI", ("ours", "V2", 64), ("fastapi", "classify", 64), 1.5, "rss_mb")
    return [*found, memory._replace(most=True)]


def _name(workload: str) -> str:
    names = {"V1": "V1 JSON", "V2": "V2 JSON", "V2 binary": "V2 binary", BY_ASGI: "V2 JSON, by ASGI"}
    names |= {"classify": "/classify", "scans": "/classify", "GET": "GET /"}
    names |= {"classify_batch": f"/classify_batch, {BATCH} rows", "1": "1 row", str(BATCH): f"{BATCH} rows"}
    plain = workload.removesuffix(f" x{BATCH}")
    return names.get(workload) or f"{names.get(plain, plain)}, {BATCH} rows"


def _by_key(raw: Raw) -> dict[Key, Raw]:
    """Return every cell that was measured without a failure."""
    return {
        (row["subject"], row["workload"], row["connections"]): row
        for row in raw["cells"]
        if row["rounds"] and not row["problem"]
    }


def ratios(cells: dict[Key, Raw], target: RatioTarget) -> list[float]:
    """Return the target's ratio in each round; none where a cell is missing."""
    if target.ours not in cells or target.control not in cells:
        return []
    control = target.control_measure or target.measure
    pairs = zip(cells[target.ours]["rounds"], cells[target.control]["rounds"], strict=True)
    return [ours[target.measure] / other[control] for ours, other in pairs if other[control]]


def targets(raw: Raw) -> list[Raw]:
    """Return targets whose cells were measured, with the ratio in each round and whether their median meets it."""
    cells = _by_key(raw)
    found = []
    for target in _all_targets():
        values = ratios(cells, target)
        if values:
            middle = statistics.median(values)
            met = middle <= target.bound if target.most else middle >= target.bound
            found.append({**target._asdict(), "rounds": values, "met": met})
    return found


# --- Markdown -------------------------------------------------------------------------------------------------------


def markdown(raw: Raw) -> str:
    """Return the whole report."""
    parts = [
        _head(raw),
        _table("A. One row in a request", raw, lambda rows: rows < 2),
        _ratios(raw),
        _prices(raw),
        _table(f"D. {BATCH} rows in a request", raw, lambda rows: rows > 1),
        _overload(raw),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(raw: Raw) -> str:
    skipped = ("cpu", "cores", "kernel", "python")
    versions = ", ".join(f"{name} {value}" for name, value in raw["machine"].items() if name not in skipped)
    start, end = (", ".join(f"{value:.2f}" for value in raw["load_average"][at]) for at in ("start", "end"))
    estimator, source = raw["model"]["estimator"]["name"], raw["model"]["data"]
    return "\n".join(
        [
            f"# `{raw['command']}`",
            "",
            f"{caption(raw['machine'])}; {versions}.",
            f"{raw['date']}, seed {raw['seed']}, {raw['rounds']} rounds, {raw['seconds']} s a cell; {raw['pinning']}; "
            f"load average {start} at the start, {end} at the end. "
            f"Model: {estimator}, {source['source']}, {source.get('rows', '?')} rows.",
            "",
            "Medians of the rounds [lowest–highest]; latencies as wrk measured them, the maximum of all rounds.",
            *_disturbance(raw),
        ]
    )


def _disturbance(raw: Raw) -> list[str]:
    """Return what else the machine did meanwhile, with a warning where that was too much to rely on the figures."""
    shares = [measured["others"] for row in raw["cells"] if row["connections"] for measured in row["rounds"]]
    if not shares:
        return []
    middle, most, many = statistics.median(shares), max(shares), sum(share > DISTURBED for share in shares)
    lines = [
        "",
        f"Something else used {middle:.1%} of the cores' time (median of the measurements; at most {most:.0%}).",
    ]
    if many:
        lines[-1] += f" **Disturbed: more than {DISTURBED:.0%} in {many} of {len(shares)} measurements; repeat them.**"
    return lines


def over(ours: Sequence[float], control: Sequence[float]) -> list[float]:
    """Return the ratio of each round; both have measured the same ones."""
    return [a / b for a, b in zip(ours, control, strict=True)]


def spread(values: Sequence[float], form: str = ",.0f", scale: float = 1.0, unit: str = "") -> str:
    low, middle, high = (format(scale * v, form) for v in (min(values), statistics.median(values), max(values)))
    return f"{middle}{unit} [{low}–{high}]"


def _table(title: str, raw: Raw, wanted: Any) -> str:
    head = [
        "Subject",
        "Request",
        "Connections",
        "requests/s",
        "rows/s",
        "p50 ms",
        "p99 ms",
        "max ms",
        "CPU µs",
        "RSS MB",
    ]
    rows = [_line(raw, row) for row in raw["cells"] if wanted(row["rows"])]
    return grid(title, head, rows, left=2)


def _line(raw: Raw, row: Raw) -> list[str]:
    label = raw["subjects"].get(row["subject"], "ONNX Runtime in-process")
    start = [label, _name(row["workload"]), str(row["connections"] or "–")]
    if row["problem"]:
        return [*start, f"**failed**: {row['problem']}", *[""] * 6]

    def middle(measure: str, form: str) -> str:
        return format(statistics.median(r[measure] for r in row["rounds"]), form)

    rates = [spread([r["requests_per_second"] for r in row["rounds"]])]
    rates.append(middle("rows_per_second", ",.0f") if row["rows"] else "–")
    if row["subject"] == "in-process":
        return [*start, *rates, *["–"] * 5]
    worst = max(r["max_ms"] for r in row["rounds"])
    latencies = [middle("p50_ms", ",.2f"), middle("p99_ms", ",.2f"), f"{worst:,.1f}"]
    return [*start, *rates, *latencies, middle("cpu_us", ",.0f"), middle("rss_mb", ",.0f")]


def _ratios(raw: Raw) -> str:
    rows = []
    for target in raw["targets"]:
        form, scale, unit = (
            (".1f", 100, " %") if target["percent"] else (".2f", 1, "") if target["most"] else (".1f", 1, "×")
        )
        bound = f"{'≤' if target['most'] else '≥'} {scale * target['bound']:g}{unit or '×'}"
        rows.append(
            [
                target["text"],
                spread(target["rounds"], form, scale, unit),
                bound,
                "met" if target["met"] else "**missed**",
            ]
        )
    return grid("B. Ratios within a round", ["Ours / control", "Ratio", "RatioTarget", ""], rows)


def _prices(raw: Raw) -> str:
    """Return a table of what each feature adds to a V2 JSON request with one row."""
    cells, rows = _by_key(raw), []
    for connections in (64, 1):
        base = cells.get(("validation-only", "V2", connections))
        for subject, workload, label in PRICED:
            row = cells.get((subject, workload, connections))
            if base is None or row is None:
                continue
            pairs = list(zip(row["rounds"], base["rounds"], strict=True))
            rows.append(
                [
                    label,
                    str(connections),
                    f"{statistics.median(r['cpu_us'] for r in row['rounds']):.0f}",
                    spread([r["cpu_us"] - b["cpu_us"] for r, b in pairs], "+.0f"),
                    spread([r["requests_per_second"] / b["requests_per_second"] for r, b in pairs], ".0f", 100, " %"),
                    f"{statistics.median(r['p999_ms'] for r in row['rounds']):.1f}",
                ]
            )
    head = [
        "V2 JSON, one row",
        "Connections",
        "CPU µs/request",
        "more than validation only",
        "throughput of validation only",
        "p99.9 ms",
    ]
    return grid("C. What features cost", head, rows)


def _overload(raw: Raw) -> str:
    pressed = raw["overload"]
    if not pressed:
        return ""
    rows = [
        [
            f"{run['multiple']:g}×",
            f"{run['capacity/s']:,.0f}",
            f"{run['offered/s']:,.0f}",
            f"{100 * run['goodput share']:.0f} %",
            f"{run['in time']:.1%}",
            f"{_number(run['p50'])} / {_number(run['p99'])}",
            f"{run['refused']:,}",
            f"{_number(run['refusal p50'])} / {_number(run['refusal p99'])}",
            str(run["failed"]),
            f"{run['sent late']:.1%}" if run["valid"] else f"**{run['sent late']:.1%}**",
            _number(run["recovered after s"], "longer than measured"),
        ]
        for run in pressed["runs"]
    ]
    head = ["Offered", "capacity/s", "requests/s", "goodput of capacity", "answers in time", "p50 / p99 ms", "refused",
            "refusal p50 / p99 ms", "failed", "sent late", "recovered after s"]  # fmt: skip
    title = (
        f"E. Overload, open loop: {pressed['rows']} rows in a request, deadline {pressed['deadline_ms']} ms; "
        f"recovered: p95 back under {pressed['slo_p95_ms']} ms"
    )
    invalid = [run for run in pressed["runs"] if not run["valid"]]
    notes = [f"At {run['multiple']:g}× the run was invalid: {'; '.join(run['reasons'])}." for run in invalid]
    return "\n\n".join([grid(title, head, rows), *notes])


def _number(value: float | None, missing: str = "–") -> str:
    return missing if value is None else f"{value:.2f}"


# --- picture --------------------------------------------------------------------------------------------------------

BARS: tuple[tuple[str, str, str], ...] = (
    ("hello", "GET", "bare hello (no model)"),
    ("ours", "V2", "this service, V2 JSON"),
    ("ours", "V1", "this service, V1 JSON"),
    ("ours", "classify", "this service, /classify"),
    ("stock-onnx", "scans", "stock BentoML, ONNX"),
    ("stock-sklearn", "scans", "stock BentoML, scikit-learn"),
    ("fastapi", "classify", "FastAPI, scikit-learn"),
)
COLOURS = {"ours": "#0f766e", "hello": "#cbd5e1"}
OTHERS, INK, FAINT = "#f59e0b", "#1e293b", "#64748b"


def draw(raw: Raw, path: Path) -> None:
    """Draw requests per second of every subject, one row each, as an SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    cells = _by_key(raw)
    settings: dict[Any, Any] = {
        "svg.hashsalt": "bench", "svg.fonttype": "path", "font.family": "DejaVu Sans", "text.color": INK,
    }  # fmt: skip
    with mpl.rc_context(settings):
        panels = [(count, _bars(cells, count)) for count in (64, 1)]
        panels = [(count, bars) for count, bars in panels if bars]
        heights = [len(bars) + 1.0 for _, bars in panels] or [1.0]
        layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
        figure = Figure(figsize=(9, 0.34 * sum(heights) + 1.3), facecolor="white", layout=layout)
        figure.suptitle("Requests per second, one row in each", x=0.012, ha="left", fontsize=13, fontweight="bold")
        for axes, (count, bars) in zip(_axes(figure, heights), panels, strict=False):
            _panel(axes, bars, f"{count} connection{'s' if count > 1 else ''}")
        figure.supxlabel(
            f"{caption(raw['machine'])}\n{raw['pinning']}; {raw['date']}",
            x=0.012,
            ha="left",
            fontsize=7.5,
            color=FAINT,
        )
        figure.savefig(path, format="svg", metadata={"Date": None})


def _axes(figure: Any, heights: Sequence[float]) -> Sequence[Any]:
    axes: Sequence[Any] = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    return axes


def _bars(cells: dict[Key, Raw], connections: int) -> list[tuple[str, str, float]]:
    """Return colour, label and requests/s of each bar, from the top."""
    return [
        (COLOURS.get(subject, OTHERS), label, statistics.median(r["requests_per_second"] for r in row["rounds"]))
        for subject, workload, label in BARS
        if (row := cells.get((subject, workload, connections)))
    ]


def _panel(axes: Any, bars: Sequence[tuple[str, str, float]], title: str) -> None:
    colours, labels, rates = zip(*bars, strict=True)
    axes.barh(labels, rates, color=colours, height=0.72)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1 * max(rates))
    axes.set_title(title, loc="left", fontsize=10, color=FAINT)
    axes.tick_params(axis="y", length=0, labelsize=9.5, labelcolor=INK)
    axes.xaxis.set_visible(False)
    axes.spines[:].set_visible(False)
    for place, (rate, label) in enumerate(zip(rates, labels, strict=True)):
        weight = "bold" if label.startswith("this") else "normal"
        axes.text(rate + 0.012 * max(rates), place, f"{rate:,.0f}", va="center", fontsize=9.5, fontweight=weight)
