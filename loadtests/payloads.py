"""What is sent: rows that the served model accepts, in requests as they go over the wire.

Rows come from the simulated tunnel where the model has its features, from a file, or else from the ranges that the
model's own schema says training saw. They vary: with a constant one, the processor learns the way through the trees,
and the model looks several times cheaper than it is.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
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

from defects.schema import Feature, InvalidInput, Schema
from defects.tunnel import SCHEMA, Tunnel
from loadtests.subjects import post

ROWS = 2048  # different ones, unless a file has fewer or more
LEAST, MOST_BYTES = 8, 64_000_000  # different requests of a payload, and their bytes in memory
ASK_SECONDS = 10.0

Values = list[float | None]
Headers = Mapping[str, str]
NO_HEADERS: Headers = MappingProxyType({})
Rows = NDArray[np.float32]  # [rows, features]; NaN where a value is missing


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


def rows_for(schema: Schema, count: int, seed: int) -> Rows:
    """`count` valid rows; the same ones for the same seed."""
    if schema.names == SCHEMA.names:
        return Tunnel(seed=seed).scans(count).features
    low, high = np.array([_usual(feature) for feature in schema.features]).T
    return np.random.default_rng(seed).uniform(low, high, size=(count, len(low))).astype(np.float32)


def _usual(feature: Feature) -> tuple[float, float]:
    """The range that a feature's values usually lie in."""
    if feature.observed_low is not None and feature.observed_high is not None:
        return feature.observed_low, feature.observed_high
    one = feature.example if feature.example is not None else feature.low or feature.high or 0.0
    return one, one


def rows_from_file(path: Path, schema: Schema) -> Rows:
    """The rows of a JSON file, a list of objects by feature name, or of a CSV file, of whose columns others are left.

    Raises `BadPayload`.
    """
    try:
        text = path.read_text("utf-8")
        objects = json.loads(text) if path.suffix == ".json" else list(_from_csv(text, schema))
        if type(objects) is not list or not objects:
            raise BadPayload(f"--payload: {path}: no rows; expected a list of objects, or a CSV file with a header")
        return schema.rows_from_objects(objects).astype(np.float32)
    except InvalidInput as error:
        raise BadPayload(f"--payload: {path}: {error}") from None
    except (OSError, ValueError, csv.Error) as error:
        if isinstance(error, BadPayload):
            raise
        raise BadPayload(f"--payload: {path}: {error}; expected JSON or CSV that can be read") from None


def _from_csv(text: str, schema: Schema) -> Sequence[dict[str, Any]]:
    reader = csv.DictReader(text.splitlines())
    if absent := set(schema.names) - set(reader.fieldnames or ()):
        raise BadPayload(
            f"--payload: column {min(absent)} is missing; expected the model's {len(schema.names)} features"
        )
    return [{name: float(line[name]) if line[name] else None for name in schema.names} for line in reader]


# --- bodies --------------------------------------------------------------------------------------------------------


def dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def values_of(rows: Rows) -> list[Values]:
    """Rows as JSON has them: short numbers, null where a value is missing."""
    return [[None if math.isnan(v) else float(f"{v:.6g}") for v in row] for row in rows.tolist()]


def objects(names: Sequence[str], rows: Sequence[Values]) -> list[dict[str, float | None]]:
    """Rows by feature name."""
    return [dict(zip(names, row, strict=True)) for row in rows]


def v2_json(rows: Sequence[Values]) -> bytes:
    """A V2 request."""
    data = [value for row in rows for value in row]
    return dump({"inputs": [{"name": "rows", "datatype": "FP32", "shape": [len(rows), len(rows[0])], "data": data}]})


def v2_binary(values: Rows) -> tuple[bytes, bytes]:
    """Header and tensor of a V2 request with `values` `[rows, features]` that asks for binary outputs."""
    raw = values.astype("<f4").tobytes()
    tensor = {
        "name": "rows", "datatype": "FP32", "shape": list(values.shape), "parameters": {"binary_data_size": len(raw)},
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
    data: Rows,
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


def _json(model: Served, rows: Rows) -> Made:
    named = objects(model.schema.names, values_of(rows))
    return ("/classify", dump(named[0]), JSON) if len(named) == 1 else ("/classify_batch", dump(named), JSON)


def _infer(model: Served) -> str:
    return f"/v2/models/{model.name}/infer"


def _v2_json(model: Served, rows: Rows) -> Made:
    return _infer(model), v2_json(values_of(rows)), JSON


def _v2_binary(model: Served, rows: Rows) -> Made:
    head, raw = v2_binary(rows)
    length = {"inference_header_content_length": str(len(head))}
    return _infer(model), head + raw, {"content_type": "application/octet-stream", **length}
