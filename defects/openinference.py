"""The Open Inference Protocol (V2) and KServe's V1 protocol, as pure functions between bodies and rows.

https://github.com/kserve/open-inference-protocol, with the binary tensor extension as Triton and KServe's clients
speak it: a JSON part whose length `Inference-Header-Content-Length` gives, then the tensors' bytes, little-endian,
one after the other; elements of BYTES tensors carry a 4-byte length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import orjson

from defects.schema import MAX_NAME, Constant, InvalidInput, Problem, Rows, Schema
from defects.scoring import Probabilities

MATRIX = "rows"  # the name of the one `[n, features]` input in the metadata; any name is taken

# Wire types by the protocol's names; all little-endian.
DATATYPES = {
    "FP32": "<f4", "FP64": "<f8", "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
}  # fmt: skip
OUTPUTS = ("label", "class_index", "probabilities")
_ALL_IN_JSON = tuple((name, False) for name in OUTPUTS)

_NUMBERS = frozenset({int, float, type(None)})
_INTEGERS = frozenset({int, type(None)})

ReadJSON = Callable[[bytes], Any]


class Query(NamedTuple):
    """An inference request: validated rows, and what the answer is to hold."""

    rows: Rows
    id: str | None
    outputs: tuple[tuple[str, bool], ...]  # name, and whether as binary


def metadata(schema: Schema, name: str, version: str, engine: str) -> dict[str, Any]:
    """Model metadata: what `decode` takes and `encode` gives. `columns` of the input are ours, beyond the protocol."""
    columns = [
        {"name": f.name, "unit": f.unit, "minimum": f.low, "maximum": f.high, "optional": f.optional}
        for f in schema.features
    ]
    return {
        "name": name,
        "versions": [version],
        "platform": engine,
        "inputs": [
            {
                "name": MATRIX,
                "datatype": "FP32",
                "shape": [-1, len(schema.features)],
                "parameters": {"columns": columns},
            }
        ],
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [-1], "parameters": {"classes": list(schema.class_names)}},
            {"name": "class_index", "datatype": "INT64", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, len(schema.classes)]},
        ],
    }


# --- V2 requests ---------------------------------------------------------------------------------------------------


def decode(schema: Schema, body: bytes, json_length: int | None, read_json: ReadJSON, max_rows: int) -> Query:
    """A V2 infer request; raises `InvalidInput`, or what `read_json` raises."""
    if json_length is not None and json_length > len(body):
        raise _invalid("Inference-Header-Content-Length", f"{json_length} is more than the body has", "its JSON part")
    request = read_json(body if json_length is None else body[:json_length])
    binary = memoryview(b"" if json_length is None else body)[json_length or 0 :]
    if type(request) is not dict:
        raise _invalid("body", "is not an object", "an object with inputs")
    identifier = request.get("id")
    if identifier is not None and type(identifier) is not str:
        raise _invalid("id", "is not text", "text")
    outputs = _requested_outputs(request)
    return Query(schema.check(_rows(schema, request.get("inputs"), binary, max_rows)), identifier, outputs)


def _rows(schema: Schema, inputs: Any, binary: memoryview, max_rows: int) -> Rows:
    width = len(schema.names)
    if type(inputs) is not list or not 1 <= len(inputs) <= width or set(map(type, inputs)) != {dict}:
        raise _invalid("inputs", "is not a list of tensors", f"one [n, {width}] tensor, or one for each feature")
    tensors: dict[str, Rows] = {}
    for index, described in enumerate(inputs):
        name, tensor, binary = _tensor(described, f"inputs[{index}]", binary, max_rows, width)
        if name in tensors:
            raise _invalid(f"inputs[{index}].name", f"{_short(name)} appears twice", "one tensor for each name")
        tensors[name] = tensor
    if len(binary):
        raise _invalid("body", f"has {len(binary)} bytes after the last tensor", "what binary_data_size announces")
    name, tensor = next(iter(tensors.items()))
    if len(tensors) == 1 and (tensor.shape[1:] == (width,) or name not in schema.index):
        rows = _matrix(width, tensor)
    else:
        rows = _columns(schema, tensors)
    if not len(rows):
        raise _invalid("inputs", "have no rows", f"1 to {max_rows}")
    return rows


def _matrix(width: int, tensor: Rows) -> Rows:
    if tensor.shape not in ((len(tensor), width), (width,)) and (tensor.ndim, width) != (1, 1):
        shape = list(tensor.shape)
        raise _invalid("inputs[0].shape", f"is {shape}", f"[n, {width}], or one tensor for each feature by name")
    return tensor if tensor.ndim == 2 else tensor.reshape(-1, width)


def _columns(schema: Schema, tensors: Mapping[str, Rows]) -> Rows:
    for name in tensors:
        if name not in schema.index:
            raise _invalid(name, "unknown input", f"the names of the {len(schema.names)} features")
    length = len(next(iter(tensors.values())))
    rows = np.full((length, len(schema.names)), np.nan)
    for name, tensor in tensors.items():
        if tensor.shape not in ((length,), (length, 1)):
            expected = f"[{length}] or [{length}, 1], as the first tensor"
            raise _invalid(name, f"has shape {list(tensor.shape)}", expected)
        rows[:, schema.index[name]] = tensor.reshape(-1)
    return rows


def _tensor(
    tensor: dict[str, Any], place: str, binary: memoryview, max_rows: int, width: int
) -> tuple[str, Rows, memoryview]:
    """A tensor's name, its values (float64, NaN where missing, of at most two dimensions), and the binary data after
    it. Its size is checked before anything is made of it."""
    name, datatype, shape = tensor.get("name"), tensor.get("datatype"), tensor.get("shape")
    if type(name) is not str:
        raise _invalid(f"{place}.name", "is missing", "text")
    if type(datatype) is not str or datatype not in DATATYPES:
        raise _invalid(f"{place}.datatype", f"is {_short(datatype)}", f"one of {', '.join(DATATYPES)}")
    if type(shape) is not list or len(shape) not in (1, 2) or set(map(type, shape)) != {int} or min(shape) < 0:
        raise _invalid(f"{place}.shape", f"is {_short(shape)}", "one or two sizes")
    if shape[0] > max(max_rows, width if len(shape) == 1 else 0):
        raise _invalid(f"{place}.shape", f"has {_short(shape[0])} rows", f"at most {max_rows}")
    size = _parameters(tensor, place).get("binary_data_size")
    if size is not None:
        values, binary = _binary_values(size, datatype, place, binary)
    else:
        values = _json_values(tensor.get("data"), datatype, f"{place}.data", shape)
    count = shape[0] * (shape[1] if len(shape) == 2 else 1)
    if count != len(values):
        raise _invalid(f"{place}.data", f"has {len(values)} values", f"{_short(count)}, as the shape says")
    return name, values.reshape(shape), binary


def _binary_values(size: Any, datatype: str, place: str, binary: memoryview) -> tuple[Rows, memoryview]:
    dtype = np.dtype(DATATYPES[datatype])
    if type(size) is not int or not 0 <= size <= len(binary) or size % dtype.itemsize:
        expected = f"a multiple of {dtype.itemsize} of at most the {len(binary)} bytes that are left"
        raise _invalid(f"{place}.parameters.binary_data_size", f"is {_short(size)}", expected)
    return np.frombuffer(binary[:size], dtype).astype(np.float64), binary[size:]


def _json_values(data: Any, datatype: str, place: str, shape: list[int]) -> Rows:
    """`data` as a flat float64 array; it may be flat, or nested exactly as the shape says."""
    if type(data) is not list:
        raise _invalid(place, "is missing or not a list", "a list of numbers")
    if len(shape) == 2 and data and type(data[0]) is list:
        if len(data) != shape[0] or not all(type(row) is list and len(row) == shape[1] for row in data):
            raise _invalid(place, "is not nested as the shape says", f"{shape[0]} lists of {_short(shape[1])} numbers")
        data = list(chain.from_iterable(data))
    allowed = _NUMBERS if datatype.startswith("FP") else _INTEGERS
    for kind in set(map(type, data)) - allowed:
        wrong = next(value for value in data if type(value) is kind)
        raise _invalid(place, f"has {_short(wrong)}", f"{'numbers' if allowed is _NUMBERS else 'integers'} or null")
    return np.array(data, dtype=np.float64)


def _requested_outputs(request: dict[str, Any]) -> tuple[tuple[str, bool], ...]:
    if "outputs" not in request and "parameters" not in request:
        return _ALL_IN_JSON
    all_binary = _flag(_parameters(request, "body"), "binary_data_output", "parameters", default=False)
    wanted = request.get("outputs")
    if wanted is None or wanted == []:
        return tuple((name, all_binary) for name in OUTPUTS)
    if type(wanted) is not list or not all(type(o) is dict for o in wanted):
        raise _invalid("outputs", "is not a list of objects", f"a list with names among {', '.join(OUTPUTS)}")
    chosen: list[tuple[str, bool]] = []
    for index, output in enumerate(wanted):
        place = f"outputs[{index}]"
        name = output.get("name")
        if name not in OUTPUTS or name in dict(chosen):
            raise _invalid(f"{place}.name", f"is {_short(name)}", f"each at most once: {', '.join(OUTPUTS)}")
        chosen.append(
            (name, _flag(_parameters(output, place), "binary_data", f"{place}.parameters", default=all_binary))
        )
    return tuple(chosen)


def _parameters(owner: dict[str, Any], place: str) -> dict[str, Any]:
    parameters = owner.get("parameters")
    if parameters is not None and type(parameters) is not dict:
        raise _invalid(f"{place}.parameters", "is not an object", "an object")
    return parameters or {}


def _flag(parameters: dict[str, Any], name: str, place: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if type(value) is not bool:
        raise _invalid(f"{place}.{name}", f"is {_short(value)}", "true or false")
    return value


def _short(value: Any) -> str:
    """The caller's value, as far as it helps and no longer."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    if type(value) is int and value.bit_length() > 64:
        return "a very large number"
    return str(value)[:40] if type(value) in (Constant, int, float) else repr(value)[:40]


def _invalid(field: str, problem: str, expected: str) -> InvalidInput:
    return InvalidInput([Problem(field[:MAX_NAME], problem, expected)])


# --- V2 answers ----------------------------------------------------------------------------------------------------


def encode(
    model: Mapping[str, str], classes: Sequence[str], query: Query, probabilities: Probabilities, best: Sequence[int]
) -> tuple[bytes, int | None]:
    """The body of a V2 answer, and the length of its JSON part where binary tensors follow it.

    `model` is how the answer begins; the rows have `probabilities` `[n, classes]`, the highest of which are at `best`.
    """
    outputs: list[dict[str, Any]] = []
    tensors: list[bytes] = []
    for output, binary in query.outputs:
        described, data = _output(classes, output, probabilities, best)
        if binary:
            tensors.append(_bytes(described["datatype"], data))
            described["parameters"] = {"binary_data_size": len(tensors[-1])}
        else:
            described["data"] = data.ravel() if type(data) is np.ndarray else data
        outputs.append(described)
    answer: dict[str, Any] = {**model}
    if query.id is not None:
        answer["id"] = query.id
    answer["outputs"] = outputs
    head = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join((head, *tensors)), len(head)) if tensors else (head, None)


def _output(
    classes: Sequence[str], name: str, probabilities: Probabilities, best: Sequence[int]
) -> tuple[dict[str, Any], Any]:
    if name == "probabilities":
        return {"name": name, "datatype": "FP32", "shape": list(probabilities.shape)}, probabilities
    if name == "class_index":
        return {"name": name, "datatype": "INT64", "shape": [len(best)]}, best
    labels = [classes[index] for index in best]
    return {"name": name, "datatype": "BYTES", "shape": [len(best)]}, labels


def _bytes(datatype: str, data: Any) -> bytes:
    """The wire form of an output's values."""
    if datatype == "BYTES":
        return b"".join(len(element).to_bytes(4, "little") + element for element in map(str.encode, data))
    return np.asarray(data, DATATYPES[datatype]).tobytes()


# --- V1 ------------------------------------------------------------------------------------------------------------


def decode_v1(schema: Schema, request: Any, max_rows: int) -> Rows:
    """The rows of a V1 request: `instances`, each a list in the order of the features or an object by their names."""
    instances = request.get("instances") if type(request) is dict else None
    if type(instances) is not list or not 1 <= len(instances) <= max_rows:
        raise _invalid("instances", "is not such a list", f"a list of 1 to {max_rows} rows, as lists or objects")
    objects = [_by_name(schema, row, index) if type(row) is list else row for index, row in enumerate(instances)]
    return schema.rows_from_objects(objects)


def _by_name(schema: Schema, row: list[Any], index: int) -> dict[str, Any]:
    if len(row) != len(schema.names):
        expected = f"{len(schema.names)}, in the order of the features"
        raise _invalid(f"[{index}]", f"has {len(row)} values", expected)
    return dict(zip(schema.names, row, strict=True))
