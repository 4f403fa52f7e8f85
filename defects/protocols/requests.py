"""Make what clients send of rows: their values as JSON has them, and V2's tensors by feature.

Used by all that asks a server as a client does: the replica's own verification, the deploy check, load tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from defects.features import Feature
from defects.kinds import CATEGORY
from defects.protocols import v2
from defects.protocols.tensors import BYTES, DATATYPES
from defects.schema import ModelRows, Rows, Schema

Value = float | bool | str | None


def numbers(rows: Rows | ModelRows) -> list[list[float | None]]:
    """Return rows as lists of numbers, codes among them, with null where one is missing."""
    return [[None if value != value else value for value in row] for row in rows.tolist()]  # noqa: PLR0124 - NaN


def values(schema: Schema, rows: Rows | ModelRows) -> list[list[Value]]:
    """Return rows as lists with the texts of categories; what is no code becomes a text that is no category."""
    found: list[list[Value]] = [[*row] for row in numbers(rows)]
    for column in schema.codes:
        for row in found:
            row[column] = _text(schema.features[column], row[column])
    return found


def _text(feature: Feature, code: Any) -> str | None:
    if code is None:
        return None
    return feature.categories[int(code)] if feature.allows(code) else f"{max(feature.categories)}?"


def by_feature(
    schema: Schema, rows: Sequence[Sequence[Value]], *, binary: bool = False
) -> tuple[list[dict[str, Any]], bytes]:
    """Return a V2 tensor for each feature, of rows as JSON has them; in binary also the bytes that follow the JSON."""
    made = [
        _tensor(feature, v2.datatype(schema), column, binary=binary)
        for feature, column in zip(schema.features, zip(*rows, strict=True), strict=True)
    ]
    return [tensor for tensor, _ in made], b"".join(raw for _, raw in made)


def _tensor(feature: Feature, datatype: str, column: Sequence[Value], *, binary: bool) -> tuple[dict[str, Any], bytes]:
    is_text = feature.kind == CATEGORY
    described = {"name": feature.name, "datatype": BYTES if is_text else datatype, "shape": [len(column)]}
    data: list[Any] = [None if value is None else str(value) if is_text else float(value) for value in column]
    if not binary:
        return described | {"data": data}, b""
    raw = _framed(data) if is_text else np.array(data, np.float64).astype(DATATYPES[datatype]).tobytes()
    return described | {"parameters": {"binary_data_size": len(raw)}}, raw


def _framed(texts: Iterable[str | None]) -> bytes:
    """Return texts as a binary tensor has them, empty where one is missing."""
    encoded = [(text or "").encode() for text in texts]
    return b"".join(len(text).to_bytes(4, "little") + text for text in encoded)
