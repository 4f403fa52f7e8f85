"""Draw what is no number under the panels of a time chart: flags, shares of a whole, and events."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup

from defects.pages.charts import Frame, Strip, Tag, tags
from defects.pages.html import element, join
from defects.pages.svg import BOLD, CHARACTER, box, shortened, text
from defects.pages.time_series import TimeSeries

HEIGHT = 12  # of strips of flags and events
SHARES_HEIGHT = 26
MAX_COLOURS = 4  # names with a colour of their own
MAX_LABELS = 3  # of shares, beside their strip
MAX_TEXTS, MAX_CHARACTERS = 3, 140  # that a mark of events says, and characters of each


class Flag(NamedTuple):
    """A column that is 1 or 0: the title of its strip, and its classes where it is 0 and where it is 1."""

    key: str
    title: str
    styles: tuple[str, str]


class Shares(NamedTuple):
    """From `at` seconds on, until the next ones, the share of the whole that each name has."""

    at: float
    by_name: dict[str, float]


class Event(NamedTuple):
    """Something that happened; warnings stand out."""

    at: float
    text: str
    warning: bool


def flag_strip(series: TimeSeries, flag: Flag) -> Strip:
    """Return a strip of when a flag was 1. Colour is not all: the strip is lower where it was 0."""

    def draw(frame: Frame, top: float) -> Markup:
        parts = [text(frame.left, top - 8, flag.title, "title")]
        pieces = series.pieces_of(flag.key)
        for piece in pieces:
            left, right = frame.x(piece.start), frame.x(piece.end)
            is_set = piece.value == 1.0
            lowered = 0.0 if is_set else HEIGHT / 2
            parts.append(box(left, top + lowered, right - left, HEIGHT - lowered, flag.styles[is_set]))
        values = {piece.value for piece in pieces}
        said = "always" if values == {1.0} else "never" if values == {0.0} else "not always"
        return join(*parts, text(frame.right + 5, top + HEIGHT - 2, said, "tag"))

    return Strip(HEIGHT, draw)


def shares_strip(changes: Sequence[Shares], title: str) -> Strip:
    """Return a strip of the shares that names had over time; the newest name on top."""
    names = list(dict.fromkeys(name for change in changes for name in change.by_name))
    styles = {name: f"revision-{number % MAX_COLOURS}" for number, name in enumerate(names)}

    def draw(frame: Frame, top: float) -> Markup:
        starts, parts = [max(0.0, change.at) for change in changes], [text(frame.left, top - 8, title, "title")]
        for change, (start, end) in zip(changes, pairwise([*starts, frame.x.high]), strict=True):
            level, left = top + SHARES_HEIGHT, frame.x(start)
            for name in names:
                height = SHARES_HEIGHT * change.by_name.get(name, 0.0)
                level -= height
                parts.append(box(left, level, frame.x(end) - left, height, f"share {styles[name]}"))
        length = int((frame.width - frame.right - 20) / (BOLD * CHARACTER))
        last = [name for name in names if changes[-1].by_name.get(name)] or names
        found = [Tag(f"share {styles[name]}", shortened(name, length), top) for name in reversed(last[-MAX_LABELS:])]
        return join(*parts, *tags(found, frame.right, top - 4, top + SHARES_HEIGHT + 6))

    return Strip(SHARES_HEIGHT, draw)


def event_strip(events: Sequence[Event]) -> Strip:
    """Return a strip with a mark for each moment with events, which says what they are; warnings are drawn last."""

    def draw(frame: Frame, top: float) -> Markup:
        places: dict[int, list[Event]] = {}
        for event in events:
            places.setdefault(round(frame.x(max(0.0, event.at))), []).append(event)
        warnings = sum(event.warning for event in events)
        title = f"Events; tall: {warnings} warning{'s' * (warnings > 1)}" if warnings else "Events"
        order = sorted(places, key=lambda x: any(event.warning for event in places[x]))
        return join(
            text(frame.left, top - 8, title, "title"),
            *(_event_mark(x, places[x], top) for x in order),
            text(frame.right + 5, top + HEIGHT - 2, f"{len(events)} in all", "tag"),
        )

    return Strip(HEIGHT, draw)


def _event_mark(x: int, events: Sequence[Event], top: float) -> Markup:
    """Return a low stroke, or a wedge where one of them is a warning; warnings are said first."""
    said = [shortened(event.text, MAX_CHARACTERS) for event in sorted(events, key=lambda event: not event.warning)]
    more = [f"and {len(said) - MAX_TEXTS} more"] if len(said) > MAX_TEXTS else []
    title = element("title", "; ".join([*said[:MAX_TEXTS], *more]))
    if any(event.warning for event in events):
        return element("path", title, d=f"M{x - 4} {top:.1f}h8l-4 {HEIGHT}Z", class_="warning")
    return element("path", title, d=f"M{x} {top + HEIGHT / 2:.1f}v{HEIGHT / 2:.0f}", class_="event")
