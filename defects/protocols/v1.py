"""Decode the bodies of KServe's V1 protocol."""

from __future__ import annotations

from typing import Any

from defects.protocols.tensors import invalid
from defects.protocols.v2 import _has_constant
from defects.schema import Rows, Schema

# --- V1 ------------------------------------------------------------------------------------------------------------


def decode_v1(schema: Schema, request: Any, max_rows: int) -> Rows:
    """The rows of a V1 request: `instances`, each a list in the order of the features or an object by their names."""
    instances = request.get("instances") if type(request) is dict else None
    if type(instances) is not list or not 1 <= len(instances) <= max_rows:
        raise invalid("instances", "is not such a list", f"a list of 1 to {max_rows} rows, as lists or objects")
    objects = [_by_name(schema, row, index) if type(row) is list else row for index, row in enumerate(instances)]
    return schema.rows_from_objects(objects)


def stray_constants_v1(request: Any) -> bool:
    """Whether a V1 request has NaN or an infinity outside of its instances, where `decode_v1` doesn't look."""
    return type(request) is dict and _has_constant([value for name, value in request.items() if name != "instances"])


def _by_name(schema: Schema, row: list[Any], index: int) -> dict[str, Any]:
    if len(row) != len(schema.names):
        expected = f"{len(schema.names)}, in the order of the features"
        raise invalid(f"[{index}]", f"has {len(row)} values", expected)
    return dict(zip(schema.names, row, strict=True))
