"""What is sent: rows that the served model accepts, in requests as they go over the wire.

Rows come from the simulated tunnel where the model has its features, from a file, or else from the ranges that the
model's own schema says training saw. They vary: with a constant one, the processor learns the way through the trees,
and the model looks several times cheaper than it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import numpy as np
from numpy.typing import NDArray

from defects.problems import Constant, InvalidInput
from defects.schema import BOOLEAN, Feature, ModelRows, Schema
from defects.simulator import SCHEMA, Tunnel
from defects.training import tables
from defects.training.columns import inexact, numbers
from tools.raw_http import post

ROWS = 2048  # different ones, unless a file has fewer or more
LEAST, MOST_BYTES = 8, 64_000_000  # different requests of a payload, and their bytes in memory
ASK_SECONDS = 10.0

Values = list[float | bool | None]
Headers = Mapping[str, str]
NO_HEADERS: Headers = MappingProxyType({})


class BadPayload(ValueError):
    """Nothing can be sent; one line says why, and what was expected."""


class NotYet(BadPayload):
    """Nothing answers, or it says that it can't: it may still have to start."""


@dataclass(frozen=True)
class Served:
    """What a server says about its model."""

    name: str
    version: str
    digest: str
    engine: str
    schema: Schema

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Served:
        """Raises `KeyError`, `TypeError` or `ValueError` where that is not what `/model` answers."""
        name, version, digest, engine = (str(said[key]) for key in ("name", "version", "digest", "engine"))
        return cls(name, version, digest, engine, Schema.from_json(said["schema"]))


def ask_model(host: str, seconds: float = ASK_SECONDS, headers: Headers = NO_HEADERS) -> dict[str, Any]:
    """What `/model` answers at the URL `host`, without the card; raises `BadPayload`, `NotYet` if it may come."""
    if urlsplit(host).scheme not in ("http", "https") or not urlsplit(host).hostname:
        raise BadPayload(f"--host: {host!r} is no URL; expected one such as http://127.0.0.1:3000")
    url = f"{host.rstrip('/')}/model"
    try:
        asked = Request(url, headers=dict(headers))  # noqa: S310 - the host that the user named
        with urlopen(asked, timeout=seconds) as answer:  # noqa: S310 - likewise
            said = {key: value for key, value in json.load(answer).items() if key != "card"}
        Served.from_json(said)
    except (OSError, ValueError, HTTPException, KeyError, TypeError, AttributeError) as error:
        wrong = isinstance(error, HTTPError) and error.code < 500
        text = f"no model answers at {url} ({error}); start one with `make serve`"
        raise (BadPayload if wrong else NotYet)(text) from None
    return said


def rows_for(schema: Schema, count: int, seed: int) -> ModelRows:
    """`count` valid rows; the same ones for the same seed."""
    if schema.names == SCHEMA.names:
        return Tunnel(seed=seed).scans(count).features
    low, high = np.array([_usual(feature) for feature in schema.features]).T
    drawn = np.random.default_rng(seed).uniform(low, high, size=(count, len(low)))
    boolean = [feature.kind == BOOLEAN for feature in schema.features]
    drawn[:, boolean] = np.rint(drawn[:, boolean])
    return schema.held(drawn)


def _usual(feature: Feature) -> tuple[float, float]:
    """The range that a feature's values usually lie in."""
    if feature.observed_low is not None and feature.observed_high is not None:
        return feature.observed_low, feature.observed_high
    one = feature.example if feature.example is not None else feature.low or feature.high or 0.0
    return one, one


def rows_from_bytes(schema: Schema, raw: bytes) -> ModelRows:
    """Rows from their `tobytes()`, which workers are sent."""
    shape = (-1, len(schema.names))
    return np.frombuffer(raw).reshape(shape) if schema.wide else np.frombuffer(raw, np.float32).reshape(shape)


def rows_from_file(path: Path, schema: Schema) -> ModelRows:
    """The rows of a JSON file, a list of objects by feature name, or of a table that training would read.

    Of a table's columns, those that are no features are left out. Raises `BadPayload`.
    """
    try:
        rows = _from_json(path, schema) if path.suffix.lower() == ".json" else _from_table(path, schema)
    except tables.BadData as error:
        raise BadPayload(f"--payload: {error}") from None
    except InvalidInput as error:
        raise BadPayload(f"--payload: {path}: {error}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadPayload(f"--payload: {path}: can't be read: {error}; expected JSON") from None
    return schema.held(rows)


def _from_json(path: Path, schema: Schema) -> NDArray[np.float64]:
    text = path.read_text("utf-8-sig")
    objects = json.loads(text, object_pairs_hook=_unique, parse_constant=Constant)
    if type(objects) is not list or not objects:
        raise tables.BadData(f"{path}: has no rows; expected a list of objects")
    rows = schema.rows_from_objects(objects)
    for row, item in enumerate(objects):
        for name, value in item.items():
            if type(value) is int and int(float(value)) != value:
                raise tables.BadData(f"{path}: [{row}].{name}: {inexact(str(value))}; expected one that does")
    return rows


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} appears twice in one object")
        found[key] = value
    return found


def _from_table(path: Path, schema: Schema) -> NDArray[np.float64]:
    if not tables.is_table(path):
        raise tables.BadData(f"{path}: is of no known format, by its name; expected .csv, .parquet or .json")
    columns = tables.read(path, schema.names)
    rows = np.column_stack([_column(columns[feature.name], feature) for feature in schema.features])
    if not len(rows):
        raise tables.BadData(f"{path}: has no rows; expected at least one")
    try:
        return schema.check(rows)
    except InvalidInput as error:
        problem = error.problems[0]
        row, _, name = problem.field[1:].partition("].")
        text = f"{problem.problem}; expected {problem.expected}"
        raise tables.BadData(f"{path}: column {name!r}, row {int(row) + 1}: {text}") from None


def _column(column: tables.Column, feature: Feature) -> NDArray[np.float64]:
    found = numbers(column)
    given = ~np.isnan(found.values)
    if found.boolean and feature.kind != BOOLEAN and given.any():
        raise column.bad(int(given.argmax()), f"is true or false; expected {feature.expected}")
    return found.values


# --- bodies --------------------------------------------------------------------------------------------------------


def dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def values_of(schema: Schema, rows: ModelRows) -> list[Values]:
    """Rows as JSON has them: the fewest digits that mean what the model is given, null where a value is missing."""
    columns = [_shown(feature, rows[:, i]) for i, feature in enumerate(schema.features)]
    return [list(row) for row in zip(*columns, strict=True)]


def _shown(feature: Feature, column: ModelRows) -> Values:
    return [None if math.isnan(value) else feature.shown(value) for value in column.tolist()]


def objects(names: Sequence[str], rows: Sequence[Values]) -> list[dict[str, float | bool | None]]:
    """Rows by feature name."""
    return [dict(zip(names, row, strict=True)) for row in rows]


def v2_json(rows: Sequence[Values], *, wide: bool = False) -> bytes:
    """A V2 request with one tensor, of 64 bits if `wide`; true is 1 in it."""
    data = [None if value is None else float(value) for row in rows for value in row]
    datatype, shape = "FP64" if wide else "FP32", [len(rows), len(rows[0])]
    return dump({"inputs": [{"name": "rows", "datatype": datatype, "shape": shape, "data": data}]})


def v2_binary(values: ModelRows) -> tuple[bytes, bytes]:
    """Header and tensor of a V2 request with `values` `[rows, features]` that asks for binary outputs."""
    datatype, dtype = ("FP64", "<f8") if values.dtype == np.float64 else ("FP32", "<f4")
    raw = values.astype(dtype).tobytes()
    tensor = {
        "name": "rows", "datatype": datatype, "shape": list(values.shape), "parameters": {"binary_data_size": len(raw)},
    }  # fmt: skip
    return dump({"inputs": [tensor], "parameters": {"binary_data_output": True}}), raw


# --- requests ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    """One payload's requests, which have `rows` different rows; a good answer contains `proof`."""

    name: str
    rows: int
    requests: tuple[bytes, ...]
    proof: bytes


def prepare(
    kind: str,
    rows: int,
    host: str,
    model: Served,
    data: ModelRows,
    *,
    deadline_ms: int | None,
    headers: Headers = NO_HEADERS,
) -> Prepared:
    """Requests of `rows` rows each for the server at the URL `host`; every row of `data` is in some, if they fit.

    Beyond `LEAST` of them, no more are made once they have `MOST_BYTES`. They have `headers` too, among which `Host`
    comes before the URL's.
    """
    make = {"json": _json, "v2-json": _v2_json, "v2-binary": _v2_binary}[kind]
    count = max(LEAST, -(-len(data) // rows))
    places = np.arange(count * rows).reshape(count, rows) % len(data)
    parts = urlsplit(host)
    always = {"host": parts.netloc.rpartition("@")[2]}
    always |= {name.lower().replace("-", "_"): value for name, value in headers.items()}
    always |= {"x_request_timeout_ms": str(deadline_ms)} if deadline_ms else {}
    requests: list[bytes] = []
    size = 0
    for chosen in places:
        if size >= MOST_BYTES and len(requests) >= LEAST:
            break
        path, body, more = make(model, data[chosen])
        requests.append(post(parts.path.rstrip("/") + path, body, **always, **more))
        size += len(requests[-1])
    used, proof = min(len(data), len(requests) * rows), b'"defect"' if kind == "json" else b'"outputs"'
    return Prepared(f"{kind} x{rows}", used, tuple(requests), proof)


JSON = {"content_type": "application/json"}
Made = tuple[str, bytes, dict[str, str]]  # path, body, headers


def _json(model: Served, rows: ModelRows) -> Made:
    named = objects(model.schema.names, values_of(model.schema, rows))
    return ("/classify", dump(named[0]), JSON) if len(named) == 1 else ("/classify_batch", dump(named), JSON)


def _infer(model: Served) -> str:
    return f"/v2/models/{model.name}/infer"


def _v2_json(model: Served, rows: ModelRows) -> Made:
    return _infer(model), v2_json(values_of(model.schema, rows), wide=model.schema.wide), JSON


def _v2_binary(model: Served, rows: ModelRows) -> Made:
    head, raw = v2_binary(rows)
    length = {"inference_header_content_length": str(len(head))}
    return _infer(model), head + raw, {"content_type": "application/octet-stream", **length}
