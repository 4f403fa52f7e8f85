"""Write numbers for people."""

from __future__ import annotations

from collections.abc import Sequence

DASH = "–"  # where there is no number


def metric(value: float | None) -> str:
    """Return a metric with three digits; more where it is close to 0 or to 1, so that it never seems perfect."""
    if value is None:
        return DASH
    if 0 < abs(value) < 0.0095:
        return f"{value:.2g}".replace("-", "−", value < 0)
    if 0.9995 <= value < 1:
        return f"{min(value, 0.9999):.4f}"
    return f"{value:,.3f}".replace("-", "−")


def signed(value: float | None) -> str:
    """Return a difference with its sign."""
    return DASH if value is None else f"{'+' if value > 0 else ''}{metric(value)}"


def span(ends: tuple[float, float] | None) -> str:
    """Return an interval; empty where there is none."""
    return "" if ends is None else f"{metric(ends[0])} to {metric(ends[1])}"


def signed_span(ends: tuple[float, float] | None) -> str:
    """Return an interval of differences; empty where there is none."""
    return "" if ends is None else f"{signed(ends[0])} to {signed(ends[1])}"


def count(value: float | None) -> str:
    """Return a whole number."""
    return DASH if value is None else f"{value:,.0f}"


def compact(value: int, most: int) -> str:
    """Return a whole number with at most `most` characters, where it takes units for that: 12k, 3M."""
    for size, unit in ((1, ""), (1_000, "k"), (1_000_000, "M"), (1_000_000_000, "G")):
        shown = f"{value / size:,.0f}{unit}"
        if len(shown) <= most or unit == "G":
            return shown
    return shown


def quantity(value: float | None) -> str:
    """Return a value of a column with about four digits: 1,234 and 0.5678 and 1.235e+12."""
    if value is None:
        return DASH
    shown = f"{value:,.0f}" if value == int(value) and abs(value) < 1e7 else _digits(value)
    return f"−{shown[1:]}" if shown.startswith("-") else shown


def _digits(value: float) -> str:
    size = abs(value)
    return f"{value:,.0f}" if 1e4 <= size < 1e7 else f"{value:,.4g}" if 1e-4 <= size < 1e4 else f"{value:.4g}"


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence has them."""
    return " and ".join([*([", ".join(names[:-1])] if names[:-1] else []), *names[-1:]])


def plural(number: float, word: str) -> str:
    """Return a count with its word."""
    return f"{number:,.0f} {word}{'' if number == 1 else 's' if not word.endswith('s') else 'es'}"
