"""Decode the bodies of KServe's V1 protocol."""

from __future__ import annotations

from typing import Any

from defects.protocols.constants import Place
from defects.protocols.tensors import invalid
from defects.schema import Rows, Schema


def decode(schema: Schema, request: Any, max_rows: int) -> Rows:
    """Read the rows of a V1 request: `instances`, each a list in the order of the features or an object by their names.

    Raises `InvalidInput`.
    """
    instances = request.get("instances") if type(request) is dict else None
    if type(instances) is not list or not 1 <= len(instances) <= max_rows:
        raise invalid("instances", "is not such a list", f"a list of 1 to {max_rows} rows, as lists or objects")
    objects = [_by_name(schema, row, index) if type(row) is list else row for index, row in enumerate(instances)]
    return schema.rows_from_objects(objects)


def constant_places(request: dict[str, Any]) -> list[Place]:
    """Tell where a V1 request may have NaN or an infinity, which `decode` takes or names: in its instances."""
    return [(request, "instances")] if "instances" in request else []


def _by_name(schema: Schema, row: list[Any], index: int) -> dict[str, Any]:
    """Give each value of a row the name of its feature."""
    if len(row) != len(schema.names):
        expected = f"{len(schema.names)}, in the order of the features"
        raise invalid(f"[{index}]", f"has {len(row)} values", expected)
    return dict(zip(schema.names, row, strict=True))
