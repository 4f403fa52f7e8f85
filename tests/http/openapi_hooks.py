"""What schemathesis, which runs in an environment of its own, needs to know of V2 bodies besides the document.

JSON Schema can't say that a tensor has as many values as its shape says, nor anything of binary tensors. So a V2
request that is valid by the document is given rows that fit, names that differ, and integers without a fraction.
Nothing else is changed, and no case that is not valid.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import schemathesis

PACKED = {"FP32": "f", "FP64": "d"}


def before_call(context: Any, case: Any, _: Any) -> None:
    """Fit a valid V2 request, before it is sent, and a time of a summary that may be yet to come."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if case.path == "/outcomes/summary" and "T" in (case.query or {}).get("since", "").upper():
        case.query = {**case.query, "since": "2026-01-01T00:00:00Z"}
    if not case.path.endswith("/infer"):
        return
    described = context.operation.schema.raw_schema["paths"][case.path]["post"]["requestBody"]["content"]
    examples = described["application/json"]["examples"]
    columns, row = examples["columns"]["value"]["inputs"], examples["flat"]["value"]["inputs"][0]["data"]
    if case.media_type == "application/json":
        case.body = fitted(case.body, columns, row)
    else:
        size = len(repr(case.body))
        case.body, length = binary(columns, row, 1 + size % 3, sorted(PACKED)[size % 2])
        case.headers = {**(case.headers or {}), "inference-header-content-length": str(length)}


def fitted(request: dict[str, Any], columns: list[dict[str, Any]], row: list[Any]) -> dict[str, Any]:
    """Return the request with tensors whose values fit their shapes, and outputs that are named once.

    `columns` are tensors of one row, one for each feature, and `row` is the same row for one tensor.
    """
    tensors, count = request["inputs"], 1 + len(json.dumps(request)) % 3
    if len(tensors) > 1:
        inputs = [
            {**tensors[index % len(tensors)], "name": one["name"], **column(one["data"][0], count)}
            for index, one in enumerate(columns)
        ]
    else:
        inputs = [{**tensors[0], "name": "rows", **matrix(tensors[0], row, count)}]
    for tensor, one in zip(inputs, columns, strict=False):
        if len(inputs) > 1 and one["datatype"] == "BYTES":
            tensor["datatype"] = "BYTES"
        elif tensor["datatype"] not in ("FP32", "FP64", "BF16"):
            tensor["datatype"] = "FP64"  # which holds the values
    made = {**request, "inputs": inputs}
    if made.get("outputs"):
        made["outputs"] = [*{output["name"]: requested(output) for output in made["outputs"]}.values()]
    return made


def requested(output: dict[str, Any]) -> dict[str, Any]:
    """Return the output with an integer for the number of classes; to JSON Schema, 1.0 is one too."""
    given = output.get("parameters") or {}
    if "classification" not in given:
        return output
    return output | {"parameters": given | {"classification": int(given["classification"])}}


def column(value: Any, count: int) -> dict[str, Any]:
    return {"shape": [count], "data": [value] * count}


def matrix(tensor: dict[str, Any], row: list[Any], count: int) -> dict[str, Any]:
    """Return a shape and values, nested and with sizes of 1 before the others where the tensor has them so."""
    before = max(0, len(tensor["shape"]) - 2)
    data: list[Any] = [row] * count
    if type(tensor["data"][0]) is list:
        for _ in range(before):
            data = [data]
    else:
        data = row * count
    return {"shape": [1] * before + [count, len(row)], "data": data}


def binary(columns: list[dict[str, Any]], row: list[Any], count: int, datatype: str) -> tuple[bytes, int]:
    """Return a request with binary tensors, and the length of its JSON part: one for each feature if some are texts."""
    if any(one["datatype"] == "BYTES" for one in columns):
        packed = [(one["name"], [count], packed_column(one, count, datatype)) for one in columns]
    else:
        packed = [("rows", [count, len(row)], (datatype, packed_numbers(row * count, datatype)))]
    inputs = [
        {"name": name, "datatype": kind, "shape": shape, "parameters": {"binary_data_size": len(values)}}
        for name, shape, (kind, values) in packed
    ]
    head = json.dumps({"inputs": inputs}).encode()
    return head + b"".join(values for _, _, (_, values) in packed), len(head)


def packed_column(one: dict[str, Any], count: int, datatype: str) -> tuple[str, bytes]:
    """Return the datatype and the values of one feature."""
    (value,) = one["data"]
    if one["datatype"] != "BYTES":
        return datatype, packed_numbers([value] * count, datatype)
    text = (value or "").encode()
    return "BYTES", (struct.pack("<I", len(text)) + text) * count


def packed_numbers(values: list[Any], datatype: str) -> bytes:
    numbers = [float("nan") if value is None else float(value) for value in values]
    return struct.pack(f"<{len(numbers)}{PACKED[datatype]}", *numbers)


schemathesis.hook(before_call)
