"""What is sent: rows that the served model accepts, in requests as they go over the wire.

Rows come from the simulated tunnel where the model has its features, from a file, or else from the ranges that the
model's own schema says training saw. They vary: with a constant one, the processor learns the way through the trees,
and the model looks several times cheaper than it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

import numpy as np
import orjson
from numpy.typing import NDArray

from defects.features import Feature
from defects.kinds import BOOLEAN, CATEGORY
from defects.problems import Constant, InvalidInput
from defects.protocols import requests
from defects.protocols.requests import Value
from defects.schema import ModelRows, Schema
from defects.simulator import SCHEMA, Tunnel
from defects.training import tables
from defects.training.categories import known_codes
from defects.training.columns import inexact, numbers
from tools import urls
from tools.answers import IsRight, checker, most_bytes
from tools.fetching import UNREADABLE, TooLarge, fetch, shown
from tools.raw_http import post
from tools.served import KEYS, Served
from tools.urls import NO_HEADERS, RequestHeaders

ROWS = 2048  # different ones, unless a file has fewer or more
LEAST, MOST_BYTES = 8, 64_000_000  # different requests of a payload, and their bytes in memory
MOST_REQUEST_BYTES, NUMBER_BYTES = 32_000_000, 25  # of one request, and of a value in it
ASK_SECONDS = 10.0

RowValues = list[Value]


class BadPayload(ValueError):
    """Nothing can be sent; one line says why, and what was expected."""


class NotYet(BadPayload):
    """Nothing answers, or it says that it can't: it may still have to start."""


def ask_model(host: str, seconds: float = ASK_SECONDS, headers: RequestHeaders = NO_HEADERS) -> dict[str, Any]:
    """Return what `/model` answers at the URL `host`, as far as `Served` needs it, in so many seconds.

    Raises `BadPayload`; `NotYet` where the answer may still come.
    """
    check_host(host)
    url = f"{host.rstrip('/')}/model"
    try:
        said = orjson.loads(fetch(url, seconds, headers))
    except UNREADABLE as error:
        wrong = isinstance(error, TooLarge) or (isinstance(error, HTTPError) and error.code < 500)
        text = f"no model answers at {url} ({shown(error)}); start one with `make serve`{_beside_proxy(host)}"
        raise (BadPayload if wrong else NotYet)(text) from None
    try:
        Served.from_json(said)
    except ValueError as error:
        raise BadPayload(f"what {url} says is no model that requests can be made for: {shown(error)}") from None
    return {key: said[key] for key in KEYS}


def check_host(host: str) -> None:
    """Raise `BadPayload` where `host` is no URL that requests can be sent to."""
    try:
        parts = urlsplit(host)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # such as a port that is no number
        whole = False
    shown = urls.without_secrets(host)
    if not whole:
        raise BadPayload(f"--host: {shown!r} is no URL; expected one such as http://127.0.0.1:3000")
    if shown != host:
        what = "has a user, a password, a query or a fragment; expected none: credentials go into --header"
        raise BadPayload(f"--host: {shown!r} {what}")


def _beside_proxy(host: str) -> str:
    """Say that no proxy is used, where the environment names one for this host."""
    proxy = urls.proxy_for(host)
    return f"; requests go directly to it, not through the proxy {proxy} of this environment" if proxy else ""


def rows_for(schema: Schema, count: int, seed: int) -> ModelRows:
    """Return `count` valid rows `[count, features]`; the same ones for the same seed."""
    if schema.names == SCHEMA.names:
        return schema.held(Tunnel(seed=seed).scans(count).features.astype(np.float64))
    low, high = np.array([_usual(feature) for feature in schema.features]).T
    drawn = np.random.default_rng(seed).uniform(low, high, size=(count, len(low)))
    discrete = [feature.discrete for feature in schema.features]
    drawn[:, discrete] = np.rint(drawn[:, discrete])
    return schema.held(drawn)


def _usual(feature: Feature) -> tuple[float, float]:
    """Return the range that a feature's values usually lie in; of categories, the one whose rounded numbers all are."""
    if feature.kind == CATEGORY:
        return -0.499, len(feature.categories) - 0.501
    if feature.observed_low is not None and feature.observed_high is not None:
        return feature.observed_low, feature.observed_high
    one = feature.example if feature.example is not None else feature.low or feature.high or 0.0
    return one, one


def rows_from_bytes(schema: Schema, raw: bytes) -> ModelRows:
    """Return rows from their `tobytes()`, as workers are sent them."""
    shape = (-1, len(schema.names))
    return np.frombuffer(raw).reshape(shape) if schema.wide else np.frombuffer(raw, np.float32).reshape(shape)


def rows_from_file(path: Path, schema: Schema) -> ModelRows:
    """Return the rows of a JSON file, a list of objects by feature name, or of a table that training would read.

    Of a table's columns, those that are no features are left out. Raises `BadPayload`.
    """
    check_format(path)
    try:
        rows = _from_table(path, schema) if tables.is_table(path) else _from_json(path, schema)
    except tables.BadData as error:
        raise BadPayload(f"--payload: {error}") from None
    except InvalidInput as error:
        raise BadPayload(f"--payload: {path}: {error}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadPayload(f"--payload: {path}: can't be read: {error}; expected JSON") from None
    return schema.held(rows)


def check_format(path: Path) -> Path:
    """Return the path; raise `BadPayload` where the name is of no format that is read."""
    if path.suffix.lower() != ".json" and not tables.is_table(path):
        formats = ".csv, .parquet or .json (a list of objects)"
        raise BadPayload(f"--payload: {path}: is of no known format, by its name; expected {formats}")
    return path


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
    if feature.kind == CATEGORY:
        return known_codes(column, feature)
    found = numbers(column)
    given = ~np.isnan(found.values)
    if found.boolean and feature.kind != BOOLEAN and given.any():
        raise column.bad(int(given.argmax()), f"is true or false; expected {feature.expected}")
    return found.values


# --- bodies --------------------------------------------------------------------------------------------------------


def dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def values_of(schema: Schema, rows: ModelRows) -> list[RowValues]:
    """Return rows as JSON has them: the fewest digits that mean the same float, null where a value is missing."""
    columns = [_shown(feature, rows[:, i]) for i, feature in enumerate(schema.features)]
    return [list(row) for row in zip(*columns, strict=True)]


def _shown(feature: Feature, column: ModelRows) -> RowValues:
    return [None if math.isnan(value) else feature.shown(value) for value in column.tolist()]


def objects(names: Sequence[str], rows: Sequence[RowValues]) -> list[dict[str, Value]]:
    """Return rows as objects by feature name."""
    return [dict(zip(names, row, strict=True)) for row in rows]


def v2_json(rows: Sequence[RowValues], *, wide: bool = False) -> bytes:
    """Return the body of a V2 request with one tensor of numbers, of 64 bits if `wide`; true is 1 in it."""
    data = [None if value is None else float(value) for row in rows for value in row]
    datatype, shape = "FP64" if wide else "FP32", [len(rows), len(rows[0])]
    return dump({"inputs": [{"name": "rows", "datatype": datatype, "shape": shape, "data": data}]})


def v2_binary(values: ModelRows) -> tuple[bytes, bytes]:
    """Return header and tensor of a V2 request with `values` `[rows, features]` that asks for binary outputs."""
    datatype, dtype = ("FP64", "<f8") if values.dtype == np.float64 else ("FP32", "<f4")
    raw = values.astype(dtype).tobytes()
    tensor = {
        "name": "rows", "datatype": datatype, "shape": list(values.shape), "parameters": {"binary_data_size": len(raw)},
    }  # fmt: skip
    return dump({"inputs": [tensor], "parameters": {"binary_data_output": True}}), raw


# --- requests ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    """One payload's requests, which have `rows` different rows; its answers have less than `most_bytes`."""

    name: str
    rows: int
    requests: tuple[bytes, ...]
    is_right: IsRight
    most_bytes: int


def prepare(
    kind: str,
    rows: int,
    host: str,
    model: Served,
    data: ModelRows,
    *,
    deadline_ms: int | None,
    headers: RequestHeaders = NO_HEADERS,
) -> Prepared:
    """Return requests of `rows` rows each for the server at the URL `host`; every row of `data` is in one, if all fit.

    Beyond `LEAST` of them, no more are made once they have `MOST_BYTES`. They have `headers` too, among which `Host`
    comes before the URL's. Raises `BadPayload`.
    """
    make = {"json": _json, "v2-json": _v2_json, "v2-binary": _v2_binary}[kind]
    _check_size(rows, model.schema)
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
    used, is_right = min(len(data), len(requests) * rows), checker(kind, rows, model.schema)
    return Prepared(f"{kind} x{rows}", used, tuple(requests), is_right, most_bytes(rows, model.schema))


def _check_size(rows: int, schema: Schema) -> None:
    """Raise `BadPayload` where requests would need too much memory, before any is made."""
    texts = sum(max(map(len, feature.categories), default=0) for feature in schema.features)
    size = rows * (sum(len(name) + NUMBER_BYTES for name in schema.names) + texts)
    if size > MOST_REQUEST_BYTES:
        what = f"expected at most {MOST_REQUEST_BYTES / 1e6:g} MB"
        raise BadPayload(f"{rows} rows of this model's features in one request take about {size / 1e6:.0f} MB; {what}")


JSON = {"content_type": "application/json"}
Made = tuple[str, bytes, dict[str, str]]  # path, body, headers


def _json(model: Served, rows: ModelRows) -> Made:
    named = objects(model.schema.names, values_of(model.schema, rows))
    return ("/classify", dump(named[0]), JSON) if len(named) == 1 else ("/classify_batch", dump(named), JSON)


def _infer(model: Served) -> str:
    return f"/v2/models/{model.name}/infer"


def _v2_json(model: Served, rows: ModelRows) -> Made:
    values = values_of(model.schema, rows)
    if model.schema.codes:
        return _infer(model), dump({"inputs": requests.by_feature(model.schema, values)[0]}), JSON
    return _infer(model), v2_json(values, wide=model.schema.wide), JSON


def _v2_binary(model: Served, rows: ModelRows) -> Made:
    if model.schema.codes:
        inputs, raw = requests.by_feature(model.schema, values_of(model.schema, rows), binary=True)
        head = dump({"inputs": inputs, "parameters": {"binary_data_output": True}})
    else:
        head, raw = v2_binary(rows)
    length = {"inference_header_content_length": str(len(head))}
    return _infer(model), head + raw, {"content_type": "application/octet-stream", **length}
