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
    """Fit a valid V2 request, before it is sent."""
    if case.meta is None or not case.meta.generation.mode.is_positive or not case.path.endswith("/infer"):
        return
    scan = context.operation.schema.raw_schema["components"]["schemas"]["Scan"]["example"]
    if case.media_type == "application/json":
        case.body = fitted(case.body, scan)
    else:
        size = len(repr(case.body))
        case.body, length = binary(scan, 1 + size % 3, sorted(PACKED)[size % 2])
        case.headers = {**(case.headers or {}), "inference-header-content-length": str(length)}


def fitted(request: dict[str, Any], scan: dict[str, Any]) -> dict[str, Any]:
    """Return the request with tensors whose values fit their shapes, and outputs that are named once."""
    tensors, count = request["inputs"], 1 + len(json.dumps(request)) % 3
    if len(tensors) > 1:
        inputs = [
            {**tensors[index % len(tensors)], "name": name, **column(value, count)}
            for index, (name, value) in enumerate(scan.items())
        ]
    else:
        inputs = [{**tensors[0], "name": "rows", **matrix(tensors[0], [*scan.values()], count)}]
    for tensor in inputs:
        if tensor["datatype"] not in ("FP32", "FP64", "BF16"):
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


def binary(scan: dict[str, Any], count: int, datatype: str) -> tuple[bytes, int]:
    """Return a request with a binary tensor, and the length of its JSON part."""
    row = [float("nan") if value is None else float(value) for value in scan.values()]
    values = struct.pack(f"<{len(row) * count}{PACKED[datatype]}", *row * count)
    shape, size = [count, len(row)], {"binary_data_size": len(values)}
    tensor = {"name": "rows", "datatype": datatype, "shape": shape, "parameters": size}
    head = json.dumps({"inputs": [tensor]}).encode()
    return head + values, len(head)


schemathesis.hook(before_call)
