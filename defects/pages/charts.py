"""Draw panels of time series on one axis of time, with bands, moments and strips.

Every chart is drawn for a width, with text of one size: a page shows the one that suits it, and shrinks no letters.
Colours and line styles are classes, which `style_sheet` defines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from defects.pages import axes
from defects.pages.axes import Scale
from defects.pages.html import element, join
from defects.pages.svg import AXIS, BOLD, CHARACTER, LINE, box, hatch, rule, svg, text
from defects.pages.time_series import Piece, TimeSeries, connected

GAP = 34  # between panels; has the next one's title
LEFT_OF_AXIS = 7  # its numbers end there
TIMES = (6, 10)  # marks on a narrow and on a wide axis of time, at most
WIDE = 500  # pixels: wider charts have more marks
TALL = 100  # pixels: higher panels have more marks


@dataclass(frozen=True)
class Line:
    """A column, drawn as a line; `bridge` buckets without a value do not interrupt it.

    With `beside`, it has its label only where that other column is drawn too.
    """

    key: str
    label: str
    steps: bool = False
    bridge: int = 0
    beside: str = ""


@dataclass(frozen=True)
class Panel:
    """Lines above a part of the axis of time.

    Columns in `stack` are areas on top of each other. `filled` is the key of a line with an area under it, and
    `hatched` of an area that is told apart by more than its colour. `whole`: only whole numbers beside the panel.
    """

    title: str
    height: int
    lines: tuple[Line, ...]
    stack: tuple[Line, ...] = ()
    filled: str = ""
    hatched: str = ""
    log: bool = False
    whole: bool = False

    @property
    def keys(self) -> list[str]:
        return [line.key for line in (*self.stack, *self.lines)]


class Limit(NamedTuple):
    """A limit that a panel shows, which may change over time; `style` is its class."""

    label: str
    style: str
    pieces: list[Piece]


class Band(NamedTuple):
    """A part of the time with a ground of its own, whose class is `name`, and its name above all panels."""

    name: str
    start: float
    end: float


class Moment(NamedTuple):
    """A moment that is marked through all panels; without a label, only by its line."""

    at: float
    label: str
    style: str


class Duration(NamedTuple):
    """A time that was measured from `start` to `end`; its label stands at its start."""

    start: float
    end: float
    label: str
    style: str


class Frame(NamedTuple):
    """Where charts of one width have their axis of time. Names are of one drawing in the page."""

    name: str
    width: int
    left: int
    right: int
    x: Scale

    @classmethod
    def of(cls, name: str, width: int, seconds: float, characters: int = 0) -> Frame:
        """Return the frame for `seconds`; `characters` has the longest number beside the axis."""
        left, right = (52, width - 88) if width > WIDE else (46, width - 78)
        left = max(left, math.ceil(CHARACTER * characters) + 2 + LEFT_OF_AXIS)
        return cls(name, width, left, right, Scale(0.0, max(seconds, 1e-3), left, right))

    def times(self) -> list[float]:
        """Return the times to mark."""
        return self.x.ticks(TIMES[self.width > WIDE])


class Strip(NamedTuple):
    """Something under the panels that is no number; `draw` gets the frame and the top."""

    height: float
    draw: Callable[[Frame, float], Markup]


class Tag(NamedTuple):
    """A label beside the end of a line."""

    style: str
    text: str
    y: float


def style_sheet() -> str:
    """Return the style sheet of all charts."""
    return Path(__file__).with_name("chart.css").read_text("utf-8")


# --- a whole chart --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TimeChart:
    """Every panel that has something to show, on one axis of time; `limits` are by the titles of panels."""

    series: TimeSeries
    seconds: float
    panels: Sequence[Panel]
    bands: Sequence[Band] = ()
    moments: Sequence[Moment] = ()
    durations: Sequence[Duration] = ()
    strips: Sequence[Strip] = ()
    limits: Mapping[str, Limit] = field(default_factory=dict)

    def draw(self, name: str, width: int, title: str, description: str) -> Markup:
        """Return the chart as SVG, `width` pixels wide."""
        shown = [panel for panel in self.panels if self.series.has(*panel.keys)]
        frame = Frame.of(name, width, self.seconds, self._longest(shown))
        above, height = self._above(frame)
        drawn, top = list[Markup](), height + GAP - 8
        bottom = top
        for panel in shown:
            drawn += bands(self.bands, frame, bottom, bottom + panel.height)
            drawn.append(PanelDrawing(self.series, panel, self.limits.get(panel.title), frame, bottom).draw())
            bottom += panel.height + GAP
        for strip in self.strips:
            drawn.append(strip.draw(frame, bottom))
            bottom += strip.height + GAP
        bottom -= GAP
        marks = [rule(frame.x(m.at), height - 2, frame.x(m.at), bottom, f"mark {m.style}") for m in self.moments]
        cursor = rule(frame.left, top, frame.left, bottom, "cursor")
        return svg(
            name, width, bottom + AXIS, title, description,
            hatch(name), *clock(frame, bottom), *drawn, *marks, *above, cursor,
            data_left=frame.left, data_right=frame.right,
        )  # fmt: skip

    def _longest(self, panels: Sequence[Panel]) -> int:
        """Return how many characters the longest number beside a panel has."""
        scales = [(panel, scale(self.series, panel, self.limits.get(panel.title), 0, panel.height)) for panel in panels]
        return max((len(axes.mark(tick)) for panel, y in scales for tick in marked(y, panel.whole)), default=0)

    def _above(self, frame: Frame) -> tuple[list[Markup], float]:
        """Return what is above the panels, and its height: names of bands, and under them moments and durations."""
        parts, height = labels([(frame.x(band.start), band.name, "phase-name") for band in self.bands], frame, 0)
        found = [(frame.x(d.start), d.label, f"moment {d.style}") for d in self.durations]
        found += [(frame.x(m.at), m.label, f"moment {m.style}") for m in self.moments if m.label]
        more, height = labels(found, frame, height)
        more += (rule(frame.x(d.start), height + 2, frame.x(d.end), height + 2, "measured") for d in self.durations)
        return parts + more, height


def labels(found: Sequence[tuple[float, str, str]], frame: Frame, top: float) -> tuple[list[Markup], float]:
    """Return texts at their places, and where they end, in as many rows as it takes for none to be on another."""
    spans = []
    for x, label, style in found:
        length = CHARACTER * (BOLD if style.startswith("moment") else 1) * len(label) + 14
        left = max(0.0, min(x, frame.width - length))
        spans.append((left, left + length))
    rows = axes.rows_for(spans)
    parts = [
        text(left + 3, top + LINE * (row + 1) - 3, label, style)
        for (left, _), row, (_, label, style) in zip(spans, rows, found, strict=True)
    ]
    return parts, top + LINE * (max(rows) + 1 if rows else 0)


def bands(found: Sequence[Band], frame: Frame, top: float, bottom: float) -> Iterator[Markup]:
    """Yield the bands and marks of time behind a panel."""
    for band in found:
        left, right = frame.x(band.start), frame.x(band.end)
        yield box(left, top, right - left, bottom - top, f"band {band.name}")
    for tick in frame.times():
        yield rule(frame.x(tick), top, frame.x(tick), bottom, "grid")
    yield from (rule(frame.x(band.start), top, frame.x(band.start), bottom, "border") for band in found)


def clock(frame: Frame, bottom: float) -> Iterator[Markup]:
    """Yield the seconds under the last panel."""
    ticks = frame.times()
    for tick in ticks:
        mark = axes.mark(tick) + (" s" if tick == ticks[-1] else "")
        yield text(frame.x(tick), bottom + 16, mark, "tick", "middle")


def tags(found: Sequence[Tag], x: float, top: float, bottom: float) -> Iterator[Markup]:
    """Yield labels with a sample of their line, moved apart."""
    places = axes.apart([tag.y for tag in found], LINE - 1, top + 4, bottom)
    for tag, y in zip(found, places, strict=True):
        yield element("g", rule(x + 5, y, x + 15, y, f"sample {tag.style}"), text(x + 19, y + 4, tag.text, "tag"))


# --- one panel ------------------------------------------------------------------------------------------------------


def scale(series: TimeSeries, panel: Panel, limit: Limit | None, top: float, bottom: float) -> Scale:
    """Return the axis of all values of a panel; areas on top of each other end at their sum."""
    values: list[float | None] = [value for line in panel.lines for value in series.every_value(line.key)]
    values += [piece.value for piece in limit.pieces] if limit else []
    if panel.log:
        return axes.logarithmic(values, bottom, top)
    layers = zip(*(series[line.key] for line in panel.stack), strict=True)
    values += [sum(value or 0.0 for value in layer) for layer in layers]
    return axes.even(values, bottom, top, most=5 if panel.height > TALL else 3, whole=panel.whole)


def marked(y: Scale, whole: bool) -> list[float]:
    """Return the numbers beside a panel."""
    ticks = y.ticks(10 if y.log else 5 if y.start - y.end > TALL else 3)
    return [tick for tick in ticks if not whole or tick == int(tick)]


class PanelDrawing:
    """One panel with its axis, its lines and their labels, from `top` pixels down."""

    def __init__(self, series: TimeSeries, panel: Panel, limit: Limit | None, frame: Frame, top: float):
        self._series, self._panel, self._limit, self._frame, self._top = series, panel, limit, frame, top
        self._bottom = top + panel.height
        self._y = scale(series, panel, limit, top, self._bottom)
        self._lines = [line for line in panel.lines if series.has(line.key)]

    def draw(self) -> Markup:
        panel, frame = self._panel, self._frame
        parts = [text(frame.left, self._top - 8, panel.title, "title"), *self._grid(), *self._areas()]
        parts += under(self._series.pieces.get(panel.filled, []), frame, self._y, panel.filled)
        parts += limit_lines(self._limit, frame, self._y) if self._limit else []
        parts += (self._curve(line) for line in self._lines)
        return join(*parts, *tags([*self._tags()], frame.right, self._top, self._bottom))

    def _grid(self) -> Iterator[Markup]:
        """Yield the lines of the panel's axis, with its numbers."""
        frame = self._frame
        for tick in marked(self._y, self._panel.whole):
            level = self._y(tick)
            yield rule(frame.left, level, frame.right, level, "grid" if tick > self._y.low else "base")
            yield text(frame.left - LEFT_OF_AXIS, level + 4, axes.mark(tick), "tick", "end")

    def _curve(self, line: Line) -> Markup:
        """Return the path of a line; a value without neighbours becomes a dot."""
        series, frame = self._series, self._frame
        if line.key in series.pieces:
            parts = corners(series.pieces[line.key], frame, self._y)
            return element("path", d="".join(f"M{points(part)}" for part in parts), class_=f"line {line.key}")
        values, path = series[line.key], []
        for part in connected(values, line.bridge):
            found: list[tuple[float, float]] = []
            for index in part:
                level = self._y(values[index] or 0.0)
                at = (series.edges[index], series.edges[index + 1]) if line.steps else (series.middle(index),)
                found += [(frame.x(moment), level) for moment in at]
            path.append(f"M{points(_thinned(found))}")
            path += ["h0"] if len(found) == 1 else []
        return element("path", d="".join(path), class_=f"line {line.key}")

    def _areas(self) -> Iterator[Markup]:
        """Yield one stepped area on top of the other, of those that are not 0 throughout."""
        series, below = self._series, [0.0] * (len(self._series.edges) - 1)
        for line in self._panel.stack:
            above = [low + (value or 0.0) for low, value in zip(below, series[line.key], strict=True)]
            if any(series[line.key]):
                there, back = self._stairs(above), self._stairs(below)
                path = points([*_thinned(there), *reversed(list(_thinned(back)))])
                yield element("path", d=f"M{path}Z", class_=f"area {line.key}")
                if line.key == self._panel.hatched:
                    yield element("path", d=f"M{path}Z", fill=f"url(#{self._frame.name}-hatch)")
            below = above

    def _stairs(self, levels: Sequence[float]) -> list[tuple[float, float]]:
        edges = self._series.edges
        return [
            (self._frame.x(edge), self._y(level))
            for index, level in enumerate(levels)
            for edge in (edges[index], edges[index + 1])
        ]

    def _tags(self) -> Iterator[Tag]:
        """Yield a label where each line ends. Areas that are 0 throughout have none."""
        series = self._series
        for line in self._lines:
            if line.label and (not line.beside or series.has(line.beside)):
                last = next(value for value in reversed(series.every_value(line.key)) if value is not None)
                yield Tag(line.key, line.label, self._y(last))
        height, areas = 0.0, list[Tag]()
        for line in self._panel.stack:
            height += series[line.key][-1] or 0.0
            if line.label and any(series[line.key]):
                areas.append(Tag(f"area {line.key}", line.label, self._y(height)))
        yield from reversed(areas)
        if self._limit and self._limit.pieces:
            yield Tag(self._limit.style, self._limit.label, self._y(self._limit.pieces[-1].value))


def limit_lines(limit: Limit, frame: Frame, y: Scale) -> Iterator[Markup]:
    """Yield a line for each piece of a limit."""
    for piece in limit.pieces:
        level = y(piece.value)
        yield rule(frame.x(piece.start), level, frame.x(piece.end), level, f"line {limit.style}")


def points(found: Iterable[tuple[float, float]]) -> str:
    """Return points as a path's data."""
    return "L".join(f"{x:.1f} {level:.1f}" for x, level in found)


def corners(pieces: Sequence[Piece], frame: Frame, y: Scale) -> Iterator[list[tuple[float, float]]]:
    """Yield the corners of a step function, one list for each part without gaps."""
    part: list[tuple[float, float]] = []
    for before, piece in zip([None, *pieces], pieces, strict=False):
        if before and before.end < piece.start:
            yield part
            part = []
        part += [(frame.x(piece.start), y(piece.value)), (frame.x(piece.end), y(piece.value))]
    if part:
        yield part


def under(pieces: Sequence[Piece], frame: Frame, y: Scale, style: str) -> Iterator[Markup]:
    """Yield the area under a step function, one for each part without gaps."""
    for part in corners(pieces, frame, y):
        outline = [(part[0][0], y.start), *part, (part[-1][0], y.start)]
        yield element("path", d=f"M{points(outline)}Z", class_=f"area {style}")


def _thinned(found: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Yield points without those in the middle of a level part."""
    for index, point in enumerate(found):
        around = found[max(0, index - 1) : index + 2]
        if len(around) < 3 or len({level for _, level in around}) > 1:
            yield point
