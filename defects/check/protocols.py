"""The deploy check's view of every protocol: rows to requests, answers to probabilities, and rows to send.

A server's own codecs are in `openinference.py` and `routes.py`; these are a client's, and trust nothing that comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from defects.artifact import Golden
from defects.check.client import Answer, Client, Wrong, json_value, parsed, read_json
from defects.protocols import v2 as openinference
from defects.pydantic_models import answer_model
from defects.schema import BOOLEAN, Schema
from defects.serving.model import Model
from defects.settings import MAX_TIMEOUT_MS

ROWS = 64  # of the golden inputs that are sent at most, by every protocol
GENERATED = 8  # rows where there are no golden inputs
SEED = 1
TOLERANCE = 1e-7  # between protocols, which write the same 32-bit number with more or with fewer digits
SUM_TOLERANCE = 1e-3

Rows = NDArray[np.floating[Any]]  # [n, features], NaN where a value is missing
Probabilities = NDArray[np.float64]  # [n, classes]


class Call(NamedTuple):
    """A POST request."""

    path: str
    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True)
class Way:
    """One way to ask for predictions. `calls` has the requests that together ask for the rows, `read` gives the
    probabilities of so many rows from an answer."""

    name: str
    calls: Callable[[Model, Rows], Sequence[Call]]
    read: Callable[[Model, Answer, int], Probabilities]

    def ask(self, client: Client, model: Model, rows: Rows) -> Probabilities:
        """What is answered for the rows; raises `Wrong`."""
        calls = self.calls(model, rows)
        each = len(rows) // len(calls)
        return np.concatenate([self.read(model, post(client, call), each) for call in calls])


def post(client: Client, call: Call) -> Answer:
    """The answer to a request that may take as long as the client waits, unless it says otherwise."""
    patience = str(min(max(1, round(client.timeout * 1000)), MAX_TIMEOUT_MS))
    return client.ask("POST", call.path, call.body, **{"x_request_timeout_ms": patience} | call.headers)


def v2(model: Model, *, versioned: bool = False) -> str:
    """The path of the model in V2."""
    path = f"/v2/models/{quote(model.name, safe='')}"
    return f"{path}/versions/{quote(model.version, safe='')}" if versioned else path


def v1(model: Model) -> str:
    return f"/v1/models/{quote(model.name, safe='')}"


# --- rows to requests ----------------------------------------------------------------------------------------------


def values(rows: Rows) -> list[list[float | None]]:
    """Rows as JSON has them."""
    return [[None if value != value else value for value in row] for row in rows.tolist()]  # noqa: PLR0124 - NaN


def objects(schema: Schema, rows: Rows) -> list[dict[str, float | None]]:
    """Rows by feature name, with true and false where those are meant."""
    booleans = [feature.name for feature in schema.features if feature.kind == BOOLEAN]
    scans = [dict(zip(schema.names, row, strict=True)) for row in values(rows)]
    for scan in scans:
        scan.update({name: bool(scan[name]) for name in booleans if scan[name] in (0, 1)})
    return scans


def without_missing(scan: dict[str, float | None]) -> dict[str, float | None]:
    return {name: value for name, value in scan.items() if value is not None}


def json_call(path: str, value: Any) -> Call:
    return Call(path, orjson.dumps(value), {"content_type": "application/json"})


def _classify(model: Model, rows: Rows) -> list[Call]:
    return [json_call("/classify", scan) for scan in objects(model.schema, rows)]


def _classify_batch(model: Model, rows: Rows) -> list[Call]:
    return [json_call("/classify_batch", list(map(without_missing, objects(model.schema, rows))))]


def _v1(model: Model, rows: Rows) -> list[Call]:
    """Every other row as an object, the rest as lists."""
    pairs = zip(values(rows), objects(model.schema, rows), strict=True)
    return [json_call(f"{v1(model)}:predict", {"instances": [pair[i % 2] for i, pair in enumerate(pairs)]})]


def _v2(model: Model, rows: Rows) -> list[Call]:
    tensor = _tensor(model, openinference.MATRIX, rows.shape, data=list(chain.from_iterable(values(rows))))
    return [json_call(f"{v2(model)}/infer", {"inputs": [tensor]})]


def _v2_by_feature(model: Model, rows: Rows) -> list[Call]:
    """Every output is asked for by name."""
    columns = zip(model.schema.names, zip(*values(rows), strict=True), strict=True)
    inputs = [_tensor(model, name, (len(rows),), data=column) for name, column in columns]
    outputs = [{"name": name} for name in openinference.REQUESTABLE]
    return [json_call(f"{v2(model)}/infer", {"inputs": inputs, "outputs": outputs})]


def _v2_binary(model: Model, rows: Rows) -> list[Call]:
    with np.errstate(over="ignore"):  # infinite is out of range too
        raw = rows.astype(openinference.DATATYPES[openinference.datatype(model.schema)]).tobytes()
    tensor = _tensor(model, openinference.MATRIX, rows.shape, parameters={"binary_data_size": len(raw)})
    head = orjson.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    headers = {"content_type": "application/octet-stream", "inference_header_content_length": str(len(head))}
    return [Call(f"{v2(model)}/infer", head + raw, headers)]


def _tensor(model: Model, name: str, shape: Iterable[int], **content: Any) -> dict[str, Any]:
    return {"name": name, "datatype": openinference.datatype(model.schema), "shape": list(shape), **content}


# --- answers to probabilities --------------------------------------------------------------------------------------


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


def _read_one(model: Model, answer: Answer, _: int) -> Probabilities:
    prediction = read_json(answer)
    probabilities = _predictions(model, [prediction], 1)
    _named(answer, prediction["prediction_id"])
    return probabilities


def _named(answer: Answer, prediction_id: str) -> None:
    """Raise `Wrong` where the header of an answer with one prediction names another one."""
    if (told := answer.headers.get("x-prediction-id", "missing")) != prediction_id:
        raise Wrong(f"the header x-prediction-id is {told[:80]}; expected {prediction_id[:80]}, as in the body")


def _read_batch(model: Model, answer: Answer, rows: int) -> Probabilities:
    return _predictions(model, read_json(answer), rows)


def _read_v1(model: Model, answer: Answer, rows: int) -> Probabilities:
    return _predictions(model, parsed(dict[str, Any], read_json(answer)).get("predictions"), rows)


def _predictions(model: Model, answered: Any, rows: int) -> Probabilities:
    """The probabilities of answers in this service's own form."""
    kind: Any = answer_model(model.schema)
    predictions: list[Any] = parsed(list[kind], answered)
    classes = model.schema.class_names
    for row, prediction in enumerate(predictions):
        if prediction.probabilities.keys() != set(classes):
            raise Wrong(f"row {row} has the classes {', '.join(prediction.probabilities)[:80]}; expected the model's")
        if prediction.model_version != model.version:
            raise Wrong(f"row {row} is of version {prediction.model_version[:80]}; expected {model.version}")
    if len({p.prediction_id for p in predictions}) != len(predictions):
        raise Wrong("a prediction_id comes twice; expected one for each row")
    probabilities = np.array([[p.probabilities[name] for name in classes] for p in predictions], np.float64)
    labels = model.schema.labels
    for row, (prediction, likely) in enumerate(zip(predictions, _highest(model, probabilities, rows), strict=True)):
        told, right = (prediction.defect, prediction.confidence), (labels[likely[0]], probabilities[row, likely[0]])
        if told not in [(labels[index], probabilities[row, index]) for index in likely]:
            raise Wrong(f"row {row} is {told[0]!s:.80} with {told[1]:.4g}; expected {right[0]} with {right[1]:.4g}")
    return probabilities


def _highest(model: Model, probabilities: Probabilities, rows: int) -> list[list[int]]:
    """Each row's most probable classes, once the probabilities are probabilities.

    There may be several: a server tells them apart in 64 bits, and answers in 32.
    """
    if probabilities.shape != (rows, len(model.schema.classes)):
        raise Wrong(f"{len(probabilities)} rows of answers; expected {rows}")
    bad = ~((probabilities >= 0) & (probabilities <= 1)).all(axis=1)
    bad |= ~(np.abs(probabilities.sum(axis=1) - 1) <= SUM_TOLERANCE)
    if bad.any():
        raise Wrong(f"row {bad.argmax()} has numbers that are no probabilities; expected 0 to 1, with the sum 1")
    narrow = probabilities.astype(np.float32)
    return [np.flatnonzero(row == row.max()).tolist() for row in narrow]


def _read_v2(model: Model, answer: Answer, rows: int) -> Probabilities:
    inference = parsed(_Inference, read_json(answer))
    return _outputs(model, inference, {o.name: o.data for o in inference.outputs}, rows, openinference.OUTPUTS)


def _read_v2_named(model: Model, answer: Answer, rows: int) -> Probabilities:
    """The answer to a request for every output."""
    inference = parsed(_Inference, read_json(answer))
    data = {o.name: o.data for o in inference.outputs}
    probabilities = _outputs(model, inference, data, rows, openinference.REQUESTABLE)
    ids = parsed(list[str], data[openinference.PREDICTION_ID])
    if len(set(ids)) != rows:
        raise Wrong(f"{openinference.PREDICTION_ID} has {len(set(ids))} different values; expected one for each row")
    if rows == 1:
        _named(answer, ids[0])
    return probabilities


def _read_v2_binary(model: Model, answer: Answer, rows: int) -> Probabilities:
    length = answer.headers.get("inference-header-content-length", "")
    if answer.status != 200 or answer.content_type != "application/octet-stream" or not length.isdecimal():
        raise Wrong(f"{answer.excerpt}; expected 200 application/octet-stream with inference-header-content-length")
    head, raw = answer.body[: int(length[:12])], answer.body[int(length[:12]) :]
    inference = parsed(_Inference, json_value(head))
    data: dict[str, Any] = {}
    for output in inference.outputs:
        size = output.parameters.get("binary_data_size")
        if type(size) is not int or not 0 <= size <= len(raw):
            raise Wrong(f"{output.name[:80]} has the binary_data_size {size!r}; expected at most {len(raw)} bytes")
        data[output.name], raw = _elements(output, raw[:size]), raw[size:]
    if raw:
        raise Wrong(f"{len(raw)} bytes come after the last tensor; expected none")
    return _outputs(model, inference, data, rows, openinference.OUTPUTS)


def _elements(output: _Tensor, raw: bytes) -> list[Any]:
    """A binary tensor's values."""
    if output.datatype != "BYTES":
        wire = openinference.DATATYPES.get(output.datatype)
        if wire is None or len(raw) % np.dtype(wire).itemsize:
            raise Wrong(
                f"{output.name[:80]} has {len(raw)} bytes of {output.datatype[:80]}; expected whole numbers of it"
            )
        return list(np.frombuffer(raw, wire).tolist())
    texts: list[str] = []
    while raw:
        end = 4 + int.from_bytes(raw[:4], "little")
        if end > len(raw):
            raise Wrong(f"{output.name[:80]} is cut off; expected a 4-byte length before each text")
        texts.append(raw[4:end].decode("utf-8", "replace"))
        raw = raw[end:]
    return texts


def _outputs(
    model: Model, inference: _Inference, data: dict[str, Any], rows: int, names: Sequence[str]
) -> Probabilities:
    """The probabilities of a V2 answer, once it has the outputs of these names, which agree with one another and with
    the metadata."""
    told = (inference.model_name, inference.model_version)
    if told != (model.name, model.version):
        raise Wrong(f"answered by {' '.join(told)[:160]}; expected {model.name} {model.version}")
    described = openinference.metadata(model.schema, model.name, model.version, model.engine)["outputs"]
    expected = {o["name"]: (o["datatype"], [rows, *o["shape"][1:]]) for o in described if o["name"] in names}
    seen = {o.name: (o.datatype, o.shape) for o in inference.outputs}
    if seen != expected or len(inference.outputs) != len(expected):
        raise Wrong(f"the outputs are {str(seen)[:160]}; expected {expected}")
    flat = parsed(list[float], data["probabilities"])
    if len(flat) != rows * len(model.schema.classes):
        raise Wrong(f"probabilities has {len(flat)} values; expected {rows * len(model.schema.classes)}")
    probabilities = np.array(flat, np.float64).reshape(rows, -1)
    highest, best = _highest(model, probabilities, rows), parsed(list[int], data["class_index"])
    right = len(best) == rows and all(index in likely for index, likely in zip(best, highest, strict=True))
    if not right or data["label"] != [model.schema.class_names[index] for index in best]:
        raise Wrong("label and class_index are not the most probable class of each row")
    return probabilities


WAYS = (
    Way("/classify", _classify, _read_one),
    Way("/classify_batch", _classify_batch, _read_batch),
    Way("V1", _v1, _read_v1),
    Way("V2 JSON", _v2, _read_v2),
    Way("V2 JSON by feature", _v2_by_feature, _read_v2_named),
    Way("V2 binary", _v2_binary, _read_v2_binary),
)


# --- rows to send --------------------------------------------------------------------------------------------------


class Sample(NamedTuple):
    """Rows, and their golden probabilities where there are any."""

    rows: Rows
    golden: Probabilities | None = None


def samples(schema: Schema, golden: Golden | None) -> tuple[Sample, Sample]:
    """Rows where nothing is missing, and rows where something is; the latter may be none at all."""
    complete, missing = map(Sample, generated(schema))
    if golden is None:
        return complete, missing
    rows, probabilities = golden.rows[:ROWS], golden.probabilities[:ROWS]
    gaps = np.isnan(rows).any(axis=1)
    if not gaps.all():
        complete = Sample(rows[~gaps], probabilities[~gaps])
    if gaps.any():
        missing = Sample(rows[gaps], probabilities[gaps])
    return complete, missing


def generated(schema: Schema) -> tuple[Rows, Rows]:
    """Random rows within what training saw, the first one the schema's example; and the same with missing values."""
    features = schema.features
    low, high = (
        np.array([_first(getattr(f, f"observed_{end}"), getattr(f, end), f.example, 0.0) for f in features])
        for end in ("low", "high")
    )
    random = np.random.default_rng(SEED)
    rows = low + (high - low) * random.random((GENERATED, len(features)))
    example = np.array([np.nan if f.example is None else f.example for f in features], np.float64)
    rows[0] = np.where(np.isnan(example), rows[0], example)
    with np.errstate(over="ignore"):
        rows = schema.held(np.clip(rows, *schema.limits[:2]))
    booleans = [feature.kind == BOOLEAN for feature in features]
    rows[:, booleans] = rows[:, booleans].round()
    optional = ~schema.limits[2]
    gaps = optional & (random.random(rows.shape) < 0.5)
    gaps[0] = optional  # at least one row misses all that it may
    return rows, np.where(gaps, rows.dtype.type(np.nan), rows)[gaps.any(axis=1)]


def _first(*numbers: float | None) -> float:
    return next(float(number) for number in numbers if number is not None)


class Asked:
    """What every protocol answers for the same rows. `agreed` is the median `[n, classes]`: one that is wrong stands
    out, without anything to compare with; `None` where none answered."""

    def __init__(self, client: Client, model: Model, sample: Sample):
        self.sample = sample
        self._model = model
        self._answers = {way.name: _asked(way, client, model, sample.rows) for way in WAYS if len(sample.rows)}
        answered = [answer for answer in self._answers.values() if not isinstance(answer, Wrong)]
        self.agreed: Probabilities | None = np.median(answered, axis=0) if answered else None

    def judge(self, way: str) -> None:
        """Raise `Wrong` where this protocol did not answer, or other than the rest."""
        answer = self._answers[way]
        if isinstance(answer, Wrong):
            raise answer
        assert self.agreed is not None  # noqa: S101 - there is this answer
        if problem := unlike(self._model, answer, self.agreed):
            raise Wrong(problem)

    def right(self, way: str) -> bool:
        try:
            self.judge(way)
        except Wrong:
            return False
        return True


def _asked(way: Way, client: Client, model: Model, rows: Rows) -> Probabilities | Wrong:
    try:
        return way.ask(client, model, rows)
    except Wrong as problem:
        return problem


def unlike(model: Model, seen: Probabilities, expected: Probabilities) -> str | None:
    """Where two answers for the same rows differ most, if by more than the tolerance."""
    apart = np.abs(seen - expected)
    if apart.max() <= TOLERANCE:
        return None
    row, column = np.unravel_index(apart.argmax(), apart.shape)
    name = model.schema.class_names[int(column)]
    return f"row {row} is {name} with {seen[row, column]:.6g}; most protocols say {expected[row, column]:.6g}"
