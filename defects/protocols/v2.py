"""The Open Inference Protocol (V2), as pure functions between bodies and rows.

https://github.com/kserve/open-inference-protocol, with the binary tensor extension as Triton and KServe's clients
speak it: a JSON part whose length `Inference-Header-Content-Length` gives, then the tensors' bytes, little-endian,
one after the other; elements of BYTES tensors carry a 4-byte length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from defects.features import Feature
from defects.kinds import CATEGORY
from defects.problems import MAX_NAME, MAX_PROBLEMS, InvalidInput, Problem
from defects.protocols import tensors, texts
from defects.protocols.constants import Place
from defects.protocols.tensors import invalid, parameters, quoted
from defects.schema import Rows, Schema

MATRIX = "rows"  # the name of the one `[n, features]` input in the metadata; any name is taken

DATATYPES = tensors.DATATYPES
PREDICTION_ID = "prediction_id"
OUTPUTS = ("label", "class_index", "probabilities")  # where a request names none
REQUESTABLE = (*OUTPUTS, PREDICTION_ID)
EXTENSIONS = ("binary_tensor_data", "classification")

ReadJSON = Callable[[bytes], Any]
RoundedProbabilities = NDArray[np.float32]  # [n, classes], as answers have them


class Output(NamedTuple):
    """A requested output. `binary`: not as JSON; `top`: so many of the highest probabilities, or all if it is 0."""

    name: str
    binary: bool = False
    top: int = 0


_ALL_IN_JSON = tuple(map(Output, OUTPUTS))


class Query(NamedTuple):
    """An inference request: validated rows, and what the answer is to hold."""

    rows: Rows
    id: str | None
    outputs: tuple[Output, ...]

    @property
    def wants_ids(self) -> bool:
        """Tell whether an output names the predictions."""
        return self.outputs is not _ALL_IN_JSON and any(output.name == PREDICTION_ID for output in self.outputs)


def metadata(schema: Schema, name: str, version: str, engine: str) -> dict[str, Any]:
    """Describe what `decode` takes and `encode` gives. `columns` of the input are ours, beyond the protocol."""
    return {
        "name": name,
        "versions": [version],
        "platform": engine,
        "inputs": [
            {
                "name": MATRIX,
                "datatype": datatype(schema),
                "shape": [-1, len(schema.features)],
                "parameters": {"columns": [*map(_column, schema.features)]},
            }
        ],
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [-1], "parameters": {"classes": list(schema.class_names)}},
            {"name": "class_index", "datatype": "INT64", "shape": [-1]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, len(schema.classes)]},
            {"name": PREDICTION_ID, "datatype": "BYTES", "shape": [-1]},
        ],
    }


def _column(feature: Feature) -> dict[str, Any]:
    """Describe a feature. A category's texts are in the order of its codes; its `datatype` is that of a tensor by name.

    A number's is the one of all rows.
    """
    described = {
        "name": feature.name,
        "kind": feature.kind,
        "unit": feature.unit,
        "minimum": feature.low,
        "maximum": feature.high,
        "optional": feature.optional,
    }
    if feature.kind != CATEGORY:
        return described
    categories = {"datatype": tensors.BYTES, "categories": list(feature.categories), "unknown": feature.unknown}
    return described | categories


def datatype(schema: Schema) -> str:
    """Return the datatype that holds every row: 64 bits where a feature is wide."""
    return "FP64" if schema.wide else "FP32"


# --- V2 requests ---------------------------------------------------------------------------------------------------


def decode(schema: Schema, body: bytes, json_length: int | None, read_json: ReadJSON, max_rows: int) -> Query:
    """Read a V2 infer request; raises `InvalidInput`, or what `read_json` raises."""
    if json_length is not None and json_length > len(body):
        raise invalid("Inference-Header-Content-Length", f"{json_length} is more than the body has", "its JSON part")
    request = read_json(body if json_length is None else body[:json_length])
    binary = memoryview(b"" if json_length is None else body)[json_length or 0 :]
    if type(request) is not dict:
        raise invalid("body", "is not an object", "an object with inputs")
    identifier = request.get("id")
    if identifier is not None and type(identifier) is not str:
        raise invalid("id", "is not text", "text")
    outputs = _requested_outputs(request)
    return Query(schema.check(_rows(schema, request.get("inputs"), binary, max_rows)), identifier, outputs)


def _rows(schema: Schema, inputs: Any, binary: memoryview, max_rows: int) -> Rows:
    width = len(schema.names)
    if type(inputs) is not list or set(map(type, inputs)) != {dict}:
        raise invalid("inputs", "is not a list of tensors", f"one [n, {width}] tensor, or one for each feature")
    names = _names(schema, inputs)
    known = tensors.WITH_TEXTS if schema.codes else tensors.NUMERIC
    given = [tensors.described(tensor, f"inputs[{index}]", known) for index, tensor in enumerate(inputs)]
    if len(names) == 1 and (names[0] not in schema.index or (width > 1 and given[0].shape[1:] == [width])):
        rows, binary = _matrix(schema, given[0], binary, max_rows)
    else:
        rows, binary = _columns(schema, names, given, binary, max_rows)
    if len(binary):
        raise invalid("body", f"has {len(binary)} bytes after the last tensor", "what binary_data_size announces")
    if not len(rows):
        raise invalid("inputs", "have no rows", f"1 to {max_rows}")
    return rows


def _names(schema: Schema, inputs: list[dict[str, Any]]) -> list[str]:
    """Read the names of the inputs: any where there is one, else different ones of features."""
    names: dict[str, None] = {}
    for index, tensor in enumerate(inputs):
        name = tensor.get("name")
        if type(name) is not str:
            raise invalid(f"inputs[{index}].name", "is missing", "text")
        if name in names:
            raise invalid(f"inputs[{index}].name", f"{quoted(name)} appears twice", "one tensor for each name")
        names[name] = None
    unknown = [] if len(names) == 1 else [name for name in names if name not in schema.index]
    if unknown:
        raise InvalidInput(
            [
                Problem(name[:MAX_NAME], "unknown input", schema.known_features(name, suggest=not count))
                for count, name in enumerate(unknown[: MAX_PROBLEMS + 1])
            ]
        )
    return [*names]


def _matrix(schema: Schema, tensor: tensors.Tensor, binary: memoryview, max_rows: int) -> tuple[Rows, memoryview]:
    """Read the rows of one tensor; return the binary data after it too. One size makes a row, or a column."""
    width, shape = len(schema.names), tensor.shape
    if shape[-1] != width and (len(shape), width) != (1, 1):
        expected = f"[n, {width}], or one tensor for each feature by name"
        raise invalid(f"{tensor.place}.shape", f"is {tensors.shown(shape)}", expected)
    if len(shape) == 2 or width == 1:
        _check_rows(tensor, max_rows)
    if tensor.datatype == tensors.BYTES:
        texts.check_all_categories(tensor, schema.features)
        values, binary = texts.codes(tensor, schema.features, [*schema.codes.values()], binary)
    else:
        values, binary = tensors.values(tensor, schema.features, schema.reach, binary)
    return values.reshape(-1, width), binary


def _columns(
    schema: Schema, names: list[str], given: list[tensors.Tensor], binary: memoryview, max_rows: int
) -> tuple[Rows, memoryview]:
    """Read the rows of one tensor for each feature, NaN where there is none; return the binary data after them too."""
    _check_rows(given[0], max_rows)
    length = given[0].shape[0]
    rows = np.full((length, len(schema.names)), np.nan)
    for name, tensor in zip(names, given, strict=True):
        if tensor.shape not in ([length], [length, 1]):
            expected = f"[{length}] or [{length}, 1], as the first tensor"
            raise invalid(name, f"has shape {tensors.shown(tensor.shape)}", expected)
        column = schema.index[name]
        feature = schema.features[column]
        if column in schema.codes:
            texts.refuse_number(tensor, feature)
            rows[:, column], binary = texts.codes(tensor, (feature,), (schema.codes[column],), binary)
        else:
            rows[:, column], binary = tensors.values(tensor, (feature,), schema.reach, binary)
    return rows, binary


def _check_rows(tensor: tensors.Tensor, max_rows: int) -> None:
    if tensor.shape[0] > max_rows:
        raise invalid(f"{tensor.place}.shape", f"has {quoted(tensor.shape[0])} rows", f"at most {max_rows}")


def _requested_outputs(request: dict[str, Any]) -> tuple[Output, ...]:
    if "outputs" not in request and "parameters" not in request:
        return _ALL_IN_JSON
    all_binary = _flag(parameters(request, "body"), "binary_data_output", "", default=False)
    wanted = request.get("outputs")
    if wanted is None or wanted == []:
        return tuple(Output(name, all_binary) for name in OUTPUTS)
    if type(wanted) is not list or not all(type(o) is dict for o in wanted):
        raise invalid("outputs", "is not a list of objects", f"a list with names among {', '.join(REQUESTABLE)}")
    chosen: dict[str, Output] = {}
    for index, output in enumerate(wanted):
        place, name = f"outputs[{index}]", output.get("name")
        if name not in REQUESTABLE or name in chosen:
            raise invalid(f"{place}.name", f"is {quoted(name)}", f"each at most once: {', '.join(REQUESTABLE)}")
        given = parameters(output, place)
        binary = _flag(given, "binary_data", place, default=all_binary)
        chosen[name] = Output(name, binary, _top(given, name, place) if "classification" in given else 0)
    return tuple(chosen.values())


def _top(given: dict[str, Any], name: str, place: str) -> int:
    """Read how many classes the classification extension is asked for."""
    place, top = f"{place}.parameters.classification", given["classification"]
    if name != "probabilities":
        raise invalid(place, f"is of {name}", "it of probabilities only")
    if type(top) is not int or top < 1:
        raise invalid(place, f"is {quoted(top)}", "a number of classes, as an integer from 1")
    return top


def _flag(given: dict[str, Any], name: str, place: str, *, default: bool) -> bool:
    value = given.get(name, default)
    if type(value) is not bool:
        raise invalid(f"{place}.parameters.{name}".lstrip("."), f"is {quoted(value)}", "true or false")
    return value


def constant_places(request: dict[str, Any]) -> list[Place]:
    """Tell where a V2 request may have NaN or an infinity, which `decode` takes or names: in the data of tensors."""
    inputs = request.get("inputs")
    if type(inputs) is not list:
        return [(request, "inputs")] if "inputs" in request else []
    return [(tensor, "data") for tensor in inputs if type(tensor) is dict and "data" in tensor and _in_json(tensor)]


def _in_json(tensor: dict[str, Any]) -> bool:
    """Tell whether a tensor's values are its data, not binary."""
    given = tensor.get("parameters")
    return type(given) is not dict or "binary_data_size" not in given


# --- V2 answers ----------------------------------------------------------------------------------------------------


def encode(
    model: Mapping[str, str],
    classes: Sequence[str],
    query: Query,
    probabilities: RoundedProbabilities,
    best: Sequence[int],
    *,
    ids: Sequence[str] = (),
) -> tuple[bytes, int | None]:
    """Make the body of a V2 answer; return the length of its JSON part too, where binary tensors follow it.

    `model` is how the answer begins; the rows have `probabilities` `[n, classes]`, the highest of which are at `best`,
    and `ids`, where an output asks for them.
    """
    outputs: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for output in query.outputs:
        described, data = _output(classes, output, probabilities, best, ids)
        if output.binary:
            parts.append(_bytes(described["datatype"], data))
            described["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            described["data"] = data.ravel() if type(data) is np.ndarray else data
        outputs.append(described)
    answer: dict[str, Any] = {**model}
    if query.id is not None:
        answer["id"] = query.id
    answer["outputs"] = outputs
    head = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join((head, *parts)), len(head)) if parts else (head, None)


def _output(
    classes: Sequence[str], output: Output, probabilities: RoundedProbabilities, best: Sequence[int], ids: Sequence[str]
) -> tuple[dict[str, Any], Any]:
    """Return an output's description and its values, in the order of the rows."""
    name = output.name
    if output.top:
        top = min(output.top, len(classes))
        return {"name": name, "datatype": "BYTES", "shape": [len(best), top]}, _ranked(
            classes, top, probabilities, best
        )
    if name == "probabilities":
        return {"name": name, "datatype": "FP32", "shape": list(probabilities.shape)}, probabilities
    if name == "class_index":
        return {"name": name, "datatype": "INT64", "shape": [len(best)]}, best
    texts = ids if name == PREDICTION_ID else [classes[index] for index in best]
    return {"name": name, "datatype": "BYTES", "shape": [len(best)]}, texts


def _ranked(classes: Sequence[str], top: int, probabilities: RoundedProbabilities, best: Sequence[int]) -> list[str]:
    """Rank the classes as Triton does: `value:index:label` of each row's `top` most probable ones, equal ones in order.

    The one at `best`, which was found before the probabilities were rounded, is always the first.
    https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_classification.md
    """
    order = np.argsort(-probabilities, axis=1, kind="stable").tolist()
    return [
        f"{probabilities[row, index]!s}:{index}:{classes[index]}"
        for row, (first, ranked) in enumerate(zip(best, order, strict=True))
        for index in [first, *(index for index in ranked if index != first)][:top]
    ]


def _bytes(datatype: str, data: Any) -> bytes:
    """Return the wire form of an output's values."""
    if datatype == "BYTES":
        return b"".join(len(element).to_bytes(4, "little") + element for element in map(str.encode, data))
    return np.asarray(data, DATATYPES[datatype]).tobytes()
