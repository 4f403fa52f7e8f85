"""Write a run's summary as Markdown in which no text from outside formats, links or notifies anything."""

from __future__ import annotations

import re

from defects.pages.axes import figure, percent
from defects.pages.html import plain
from defects.pages.tables import Cell, Table, grid
from loadtests.report import cluster_tables, scale_target
from loadtests.report import tables as run_tables
from loadtests.results import Summary
from tools.computer import caption

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|~&$#!])")
_QUIET = "\u2060"  # word joiner: seen by nobody, but keeps @name and #1 from being references
SHOWN = ("phases", "steps", "scaling", "falls", "splits", "budget", "errors")


def escaped(text: object) -> str:
    """Return a text as it is, for a paragraph or a cell of a table."""
    line = _SPECIAL.sub(r"\\\1", plain(text))
    return re.sub(r"@|://|www\.|(?<=#)(?=\d)", lambda found: found[0] + _QUIET, line)


def code(text: object) -> str:
    """Return a text as code, also for a cell of a table, where a bar in code must be escaped."""
    line = plain(text).strip()
    fence = "`" * (1 + max((len(ticks) for ticks in re.findall("`+", line)), default=0))
    space = " " if not line or line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line or ' '}{space}{fence}".replace("|", "\\|")


def report(summary: Summary) -> str:
    """Return the summary of a run for a pull request."""
    parts = [f"# {summary.verdict.outcome}: {escaped(summary.scenario)}", *_reasons(summary), _what(summary)]
    tables = [table for table in run_tables.everything(summary) if table.name in SHOWN]
    parts += (table_of(table) for table in tables)
    parts += (said for said in (run_tables.recovery(summary), escaped(run_tables.capacity(summary))) if said)
    parts += _patch(summary)
    parts += _platform(summary)
    parts += [_generator(summary), _where(summary)]
    return "\n\n".join(parts) + "\n"


def _reasons(summary: Summary) -> list[str]:
    return ["\n".join(f"- {escaped(reason)}" for reason in summary.verdict.reasons)] if summary.verdict.reasons else []


def _what(summary: Summary) -> str:
    return (
        f"{escaped(summary.about)} {figure(summary.duration_s)} s at {figure(summary.base_per_s)} requests/s, times "
        f"the factor of the phase; seed {summary.seed}. Latency counts from the intended time."
    )


def table_of(table: Table) -> str:
    """Return one table with its title."""
    rows = [[_cell(cell) for cell in row] for row in table.rows]
    return grid(table.caption, [escaped(head) for head in table.heads], rows, left=table.left)


def _cell(cell: Cell) -> str:
    text = code(cell.text) if cell.outside else escaped(cell.text)
    return f"**{text}**" if cell.bad and text else text


def _patch(summary: Summary) -> list[str]:
    """Return the patch that scales on a ramp's capacity, or why there is none."""
    heading = scale_target.heading(summary)
    patch = scale_target.patch(summary)
    return [escaped(heading), *([f"```yaml\n{patch}```"] if patch else [])] if heading else []


def _platform(summary: Summary) -> list[str]:
    """Return what was watched, and what of it was not seen."""
    cluster = summary.cluster
    if not cluster:
        return []
    said = [escaped(" ".join((cluster_tables.watched(cluster), cluster_tables.provisioning(cluster))).strip())]
    if cluster.not_seen:
        said.append(
            "\n".join(["Not seen, or not always:", "", *(f"- {escaped(text) or '–'}" for text in cluster.not_seen)])
        )
    return said


def _generator(summary: Summary) -> str:
    g = summary.generator
    workers = f"{g.workers} process{'es' if g.workers > 1 else ''}"
    return (
        f"Generator: {workers}; requests left {figure(g.delay.p50)} ms (p50), {figure(g.delay.p99)} ms (p99) and "
        f"{figure(g.delay.max)} ms (max) late; {percent(g.cpu_share)} of a core."
    )


def _where(summary: Summary) -> str:
    """Return server, model, machine and command, in one line."""
    e = summary.environment
    machine = {key: e.machine.get(key, "?") for key in ("cpu", "cores", "kernel", "python")}
    model = f"{e.model.name} {e.model.version} ({e.model.engine})"
    return f"Against {code(e.host)}, model {code(model)}, from {code(caption(machine))}: {code(e.command)}"
