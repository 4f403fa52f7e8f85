"""Read a card of any version: what is missing, or of another kind, is not there, and the page goes without it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def at(value: Any, *keys: str) -> Any:
    """Return what stands at a path of keys; `None` where there is nothing."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def number(value: Any, *keys: str) -> float | None:
    """Return a finite number, or `None`."""
    found = at(value, *keys)
    is_number = isinstance(found, int | float) and not isinstance(found, bool)
    return found if is_number and math.isfinite(found) else None


def text(value: Any, *keys: str) -> str:
    """Return a text, which is empty where there is none."""
    found = at(value, *keys)
    return found if isinstance(found, str) else ""


def mapping(value: Any, *keys: str) -> dict[str, Any]:
    """Return an object, which is empty where there is none."""
    found = at(value, *keys)
    return {str(key): found[key] for key in found} if isinstance(found, Mapping) else {}


def items(value: Any, *keys: str) -> list[Any]:
    """Return a list, which is empty where there is none."""
    found = at(value, *keys)
    return [*found] if isinstance(found, list | tuple) else []


def numbers(value: Any, *keys: str) -> list[float]:
    """Return a list of numbers, which is empty where there is none, or where one of them is no number."""
    found = [number(item) for item in items(value, *keys)]
    return [item for item in found if item is not None] if None not in found else []


def interval(value: Any, *keys: str) -> tuple[float, float] | None:
    """Return the two ends of an interval, or `None`."""
    found = numbers(value, *keys)
    return (found[0], found[1]) if len(found) == 2 else None
