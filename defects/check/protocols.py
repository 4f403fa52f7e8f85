"""Speak every protocol as a client: make requests of rows, and read probabilities from responses.

The server's own codecs are in `defects/protocols`; these trust nothing that comes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import orjson
from pydantic import BaseModel, Field

from defects.check.client import Client, Failed, Response, json_value, parsed, read_json
from defects.kinds import BOOLEAN
from defects.protocols import requests
from defects.protocols import v2 as openinference
from defects.protocols.requests import Value
from defects.pydantic_models import answer_model
from defects.schema import ModelRows, Schema
from defects.scoring import Probabilities
from defects.serving.model import ServedModel
from defects.settings import MAX_TIMEOUT_MS

SUM_TOLERANCE = 1e-3


class Call(NamedTuple):
    """A POST request."""

    path: str
    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True)
class Codec:
    """One way to ask for predictions. `calls` makes the requests that together have the rows; `read` returns the
    probabilities of so many rows from a response."""

    name: str
    calls: Callable[[ServedModel, ModelRows], Sequence[Call]]
    read: Callable[[ServedModel, Response, int], Probabilities]

    def ask(self, client: Client, model: ServedModel, rows: ModelRows) -> Probabilities:
        """Return the probabilities that are answered for the rows; raises `Failed`."""
        calls = self.calls(model, rows)
        each = len(rows) // len(calls)
        return np.concatenate([self.read(model, post(client, call), each) for call in calls])


def post(client: Client, call: Call) -> Response:
    """Send a request that may take as long as the client waits, unless its headers say otherwise."""
    patience = str(min(max(1, round(client.timeout * 1000)), MAX_TIMEOUT_MS))
    return client.send("POST", call.path, call.body, **{"x_request_timeout_ms": patience} | call.headers)


def v2(model: ServedModel, *, versioned: bool = False) -> str:
    """Return the path of the model in V2."""
    path = f"/v2/models/{quote(model.name, safe='')}"
    return f"{path}/versions/{quote(model.version, safe='')}" if versioned else path


def v1(model: ServedModel) -> str:
    """Return the path of the model in V1."""
    return f"/v1/models/{quote(model.name, safe='')}"


# --- rows to requests ----------------------------------------------------------------------------------------------


def objects(schema: Schema, rows: ModelRows) -> list[dict[str, Value]]:
    """Return rows as objects by feature name, with texts, true and false where those are meant."""
    booleans = [feature.name for feature in schema.features if feature.kind == BOOLEAN]
    scans = [dict(zip(schema.names, row, strict=True)) for row in requests.values(schema, rows)]
    for scan in scans:
        scan.update({name: bool(scan[name]) for name in booleans if scan[name] in (0, 1)})
    return scans


def without_missing(scan: dict[str, Value]) -> dict[str, Value]:
    """Leave out the features whose value is missing."""
    return {name: value for name, value in scan.items() if value is not None}


def json_call(path: str, value: Any) -> Call:
    """Make a request with a JSON body."""
    return Call(path, orjson.dumps(value), {"content_type": "application/json"})


def _classify(model: ServedModel, rows: ModelRows) -> list[Call]:
    return [json_call("/classify", scan) for scan in objects(model.schema, rows)]


def _classify_batch(model: ServedModel, rows: ModelRows) -> list[Call]:
    return [json_call("/classify_batch", list(map(without_missing, objects(model.schema, rows))))]


def _v1(model: ServedModel, rows: ModelRows) -> list[Call]:
    """Send every other row as an object, the rest as lists."""
    pairs = zip(requests.values(model.schema, rows), objects(model.schema, rows), strict=True)
    return [json_call(f"{v1(model)}:predict", {"instances": [pair[i % 2] for i, pair in enumerate(pairs)]})]


def _v2(model: ServedModel, rows: ModelRows) -> list[Call]:
    """Send one tensor: of categories, their codes."""
    tensor = _tensor(model, rows, data=list(chain.from_iterable(requests.numbers(rows))))
    return [json_call(f"{v2(model)}/infer", {"inputs": [tensor]})]


def _v2_by_feature(model: ServedModel, rows: ModelRows) -> list[Call]:
    """Ask for every output by name."""
    inputs, _ = requests.by_feature(model.schema, requests.values(model.schema, rows))
    outputs = [{"name": name} for name in openinference.REQUESTABLE]
    return [json_call(f"{v2(model)}/infer", {"inputs": inputs, "outputs": outputs})]


def _v2_binary(model: ServedModel, rows: ModelRows) -> list[Call]:
    """Send one tensor with all features; where some are categories, one for each feature, with texts."""
    with np.errstate(over="ignore"):  # infinite is out of range too
        if model.schema.codes:
            inputs, raw = requests.by_feature(model.schema, requests.values(model.schema, rows), binary=True)
        else:
            raw = rows.astype(openinference.DATATYPES[openinference.datatype(model.schema)]).tobytes()
            inputs = [_tensor(model, rows, parameters={"binary_data_size": len(raw)})]
    head = orjson.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}})
    headers = {"content_type": "application/octet-stream", "inference_header_content_length": str(len(head))}
    return [Call(f"{v2(model)}/infer", head + raw, headers)]


def _tensor(model: ServedModel, rows: ModelRows, **content: Any) -> dict[str, Any]:
    datatype = openinference.datatype(model.schema)
    return {"name": openinference.MATRIX, "datatype": datatype, "shape": list(rows.shape), **content}


# --- responses to probabilities -------------------------------------------------------------------------------------


class _Tensor(BaseModel):
    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)


class _Inference(BaseModel):
    model_name: str
    model_version: str
    outputs: list[_Tensor]


def _read_one(model: ServedModel, response: Response, _: int) -> Probabilities:
    prediction = read_json(response)
    probabilities = _predictions(model, [prediction], 1)
    _check_prediction_id(response, prediction["prediction_id"])
    return probabilities


def _check_prediction_id(response: Response, prediction_id: str) -> None:
    """Raise `Failed` where the header of an answer with one prediction names another one."""
    if (given := response.headers.get("x-prediction-id", "missing")) != prediction_id:
        raise Failed(f"the header x-prediction-id is {given[:80]}; expected {prediction_id[:80]}, as in the body")


def _read_batch(model: ServedModel, response: Response, rows: int) -> Probabilities:
    return _predictions(model, read_json(response), rows)


def _read_v1(model: ServedModel, response: Response, rows: int) -> Probabilities:
    return _predictions(model, parsed(dict[str, Any], read_json(response)).get("predictions"), rows)


def _predictions(model: ServedModel, answered: Any, rows: int) -> Probabilities:
    """Return the probabilities of predictions in this service's own form."""
    kind: Any = answer_model(model.schema)
    predictions: list[Any] = parsed(list[kind], answered)
    classes = model.schema.class_names
    for row, prediction in enumerate(predictions):
        if prediction.probabilities.keys() != set(classes):
            raise Failed(f"row {row} has the classes {', '.join(prediction.probabilities)[:80]}; expected the model's")
        if prediction.model_version != model.version:
            raise Failed(f"row {row} is of version {prediction.model_version[:80]}; expected {model.version}")
    if len({p.prediction_id for p in predictions}) != len(predictions):
        raise Failed("a prediction_id comes twice; expected one for each row")
    probabilities = np.array([[p.probabilities[name] for name in classes] for p in predictions], np.float64)
    labels = model.schema.labels
    for row, (prediction, likely) in enumerate(zip(predictions, _highest(model, probabilities, rows), strict=True)):
        seen, right = (prediction.defect, prediction.confidence), (labels[likely[0]], probabilities[row, likely[0]])
        if seen not in [(labels[index], probabilities[row, index]) for index in likely]:
            raise Failed(f"row {row} is {seen[0]!s:.80} with {seen[1]:.4g}; expected {right[0]} with {right[1]:.4g}")
    return probabilities


def _highest(model: ServedModel, probabilities: Probabilities, rows: int) -> list[list[int]]:
    """Return each row's most probable classes; raises `Failed` where the numbers are no probabilities.

    There may be several: a server tells them apart in 64 bits, and answers in 32.
    """
    if probabilities.shape != (rows, len(model.schema.classes)):
        raise Failed(f"{len(probabilities)} rows of answers; expected {rows}")
    bad = ~((probabilities >= 0) & (probabilities <= 1)).all(axis=1)
    bad |= ~(np.abs(probabilities.sum(axis=1) - 1) <= SUM_TOLERANCE)
    if bad.any():
        raise Failed(f"row {bad.argmax()} has numbers that are no probabilities; expected 0 to 1, with the sum 1")
    narrow = probabilities.astype(np.float32)
    return [np.flatnonzero(row == row.max()).tolist() for row in narrow]


def _read_v2(model: ServedModel, response: Response, rows: int) -> Probabilities:
    inference = parsed(_Inference, read_json(response))
    return _outputs(model, inference, {o.name: o.data for o in inference.outputs}, rows, openinference.OUTPUTS)


def _read_v2_named(model: ServedModel, response: Response, rows: int) -> Probabilities:
    """Read the response to a request for every output."""
    inference = parsed(_Inference, read_json(response))
    data = {o.name: o.data for o in inference.outputs}
    probabilities = _outputs(model, inference, data, rows, openinference.REQUESTABLE)
    ids = parsed(list[str], data[openinference.PREDICTION_ID])
    if len(set(ids)) != rows:
        raise Failed(f"{openinference.PREDICTION_ID} has {len(set(ids))} different values; expected one for each row")
    if rows == 1:
        _check_prediction_id(response, ids[0])
    return probabilities


def _read_v2_binary(model: ServedModel, response: Response, rows: int) -> Probabilities:
    length = response.headers.get("inference-header-content-length", "")
    if response.status != 200 or response.content_type != "application/octet-stream" or not length.isdecimal():
        raise Failed(f"{response.excerpt}; expected 200 application/octet-stream with inference-header-content-length")
    head, raw = response.body[: int(length[:12])], response.body[int(length[:12]) :]
    inference = parsed(_Inference, json_value(head))
    data: dict[str, Any] = {}
    for output in inference.outputs:
        size = output.parameters.get("binary_data_size")
        if type(size) is not int or not 0 <= size <= len(raw):
            raise Failed(f"{output.name[:80]} has the binary_data_size {size!r}; expected at most {len(raw)} bytes")
        data[output.name], raw = _elements(output, raw[:size]), raw[size:]
    if raw:
        raise Failed(f"{len(raw)} bytes come after the last tensor; expected none")
    return _outputs(model, inference, data, rows, openinference.OUTPUTS)


def _elements(output: _Tensor, raw: bytes) -> list[Any]:
    """Return a binary tensor's values."""
    if output.datatype != "BYTES":
        wire = openinference.DATATYPES.get(output.datatype)
        if wire is None or len(raw) % np.dtype(wire).itemsize:
            raise Failed(
                f"{output.name[:80]} has {len(raw)} bytes of {output.datatype[:80]}; expected whole numbers of it"
            )
        return list(np.frombuffer(raw, wire).tolist())
    texts: list[str] = []
    while raw:
        end = 4 + int.from_bytes(raw[:4], "little")
        if end > len(raw):
            raise Failed(f"{output.name[:80]} is cut off; expected a 4-byte length before each text")
        texts.append(raw[4:end].decode("utf-8", "replace"))
        raw = raw[end:]
    return texts


def _outputs(
    model: ServedModel, inference: _Inference, data: dict[str, Any], rows: int, names: Sequence[str]
) -> Probabilities:
    """Return the probabilities of a V2 response, after checking that it has the outputs of these names, and that they
    agree with one another and with the metadata."""
    answering = (inference.model_name, inference.model_version)
    if answering != (model.name, model.version):
        raise Failed(f"answered by {' '.join(answering)[:160]}; expected {model.name} {model.version}")
    described = openinference.metadata(model.schema, model.name, model.version, model.engine)["outputs"]
    expected = {o["name"]: (o["datatype"], [rows, *o["shape"][1:]]) for o in described if o["name"] in names}
    seen = {o.name: (o.datatype, o.shape) for o in inference.outputs}
    if seen != expected or len(inference.outputs) != len(expected):
        raise Failed(f"the outputs are {str(seen)[:160]}; expected {expected}")
    flat = parsed(list[float], data["probabilities"])
    if len(flat) != rows * len(model.schema.classes):
        raise Failed(f"probabilities has {len(flat)} values; expected {rows * len(model.schema.classes)}")
    probabilities = np.array(flat, np.float64).reshape(rows, -1)
    highest, best = _highest(model, probabilities, rows), parsed(list[int], data["class_index"])
    right = len(best) == rows and all(index in likely for index, likely in zip(best, highest, strict=True))
    if not right or data["label"] != [model.schema.class_names[index] for index in best]:
        raise Failed("label and class_index are not the most probable class of each row")
    return probabilities


CODECS = (
    Codec("/classify", _classify, _read_one),
    Codec("/classify_batch", _classify_batch, _read_batch),
    Codec("V1", _v1, _read_v1),
    Codec("V2 JSON", _v2, _read_v2),
    Codec("V2 JSON by feature", _v2_by_feature, _read_v2_named),
    Codec("V2 binary", _v2_binary, _read_v2_binary),
)
