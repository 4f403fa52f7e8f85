"""Write a comparison as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from defects.pages.tables import grid
from loadtests.compare.comparison import FEWEST, Row
from loadtests.compare.intervals import LEVEL, bonferroni
from loadtests.compare.measures import Value
from loadtests.report.markdown import code, escaped
from loadtests.results import Summary


def report(a: Sequence[Summary], b: Sequence[Summary], rows: Sequence[Row], against: Sequence[str]) -> str:
    """Return the comparison as Markdown."""
    heads = [
        "Measure",
        f"A, {len(a)} run{'s' * (len(a) > 1)}",
        f"B, {len(b)} run{'s' * (len(b) > 1)}",
        "From A to B",
        "B is",
    ]
    parts = [f"# {escaped(a[0].scenario)}: {headline(rows)}"]
    if against:
        parts.append("\n".join(["**Compared although:**", "", *(f"- {escaped(line)}" for line in against)]))
    parts += [
        f"- A: {_who(a)}\n- B: {_who(b)}",
        grid("Measures", heads, [_cells(r) for r in rows]),
        footnote(a, b, rows),
    ]
    return "\n\n".join(parts) + "\n"


def headline(rows: Sequence[Row]) -> str:
    """Return how many measures are better, worse or unknown."""
    findings = [r.finding for r in rows]
    counted = [f"{findings.count(f)} {f}" for f in ("better", "worse") if f in findings]
    if unknown := findings.count("can't tell"):
        counted.append(f"{unknown} not known")
    return ", ".join(counted) or "no difference"


def _who(runs: Sequence[Summary]) -> str:
    """Return which models were measured where, each once."""
    seen = dict.fromkeys(
        (run.environment.model.name, run.environment.model.version, run.environment.host) for run in runs
    )
    return "; ".join(f"{code(f'{name} {version}')} at {code(host)}" for name, version, host in seen)


def _cells(found: Row) -> list[str]:
    measure = found.measure
    shown = f"**{found.finding}**" if found.finding in ("better", "worse") else found.finding
    return [measure.name, _group(found, found.a), _group(found, found.b), _change(found), shown]


def _group(found: Row, values: Sequence[Value]) -> str:
    """Return the mean, geometric for ratios, and the range."""
    if not values:
        return "–"
    plain_values = [v.value for v in values]
    ratio = found.is_ratio
    mean = math.exp(float(np.mean(np.log(plain_values)))) if ratio else float(np.mean(plain_values))
    low, high = found.measure.show(min(plain_values)), found.measure.show(max(plain_values))
    least = "≥ " if any(v.more for v in values) else ""
    return f"{least}{found.measure.show(mean)}" + (f" [{low}–{high}]" if len(values) > 1 else "")


def _change(found: Row) -> str:
    changed = found.change
    if changed is None:
        return "not measured in every run"
    ratio = found.is_ratio

    def show(value: float) -> str:
        return f"{value:.2f}×" if ratio else ("+" if value > 0 else "") + found.measure.show(value)

    if changed.low is None or changed.high is None:
        return show(changed.middle)
    return f"{show(changed.middle)} [{show(changed.low)} to {show(changed.high)}]"


def footnote(a: Sequence[Summary], b: Sequence[Summary], rows: Sequence[Row]) -> str:
    """Explain the brackets, and when B is called better or worse."""
    groups = "Means of runs, geometric for latencies and capacities [lowest–highest]."
    if min(len(a), len(b)) < FEWEST:
        return (
            f"{groups} No intervals, so no verdicts: that takes at least {FEWEST} runs on each side. What one run "
            "says about the next can't be known from its own requests."
        )
    each = bonferroni(len(rows))
    return (
        f"{groups} From A to B: {LEVEL:.0%} bootstrap intervals across runs, expanded for few runs, each of its own "
        f"measure alone. B is called better or worse only beyond Welch's t interval at {each:.2%}, which is "
        f"{LEVEL:.0%} for all {len(rows)} measures together."
    )
