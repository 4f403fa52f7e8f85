"""What benchmarks send, and how they know that the answer is right.

Bodies vary: with a constant one, the processor learns the way through the trees, and the model looks several times
cheaper than it is. All subjects get the same parcels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defects.protocols.requests import Value
from defects.scoring import Probabilities
from defects.simulator import SCHEMA, Tunnel
from tools.payloads import RowValues, dump, objects, v2_binary, v2_json, values_of
from tools.raw_http import RawResponse, get, post

SINGLES = 256  # different requests with one row
BATCHES = 32  # different requests with BATCH rows
BATCH = 64
MODEL = "defect-classifier"

Body = Callable[[Sequence[RowValues]], bytes]
Reader = Callable[[RawResponse], Probabilities]


@dataclass(frozen=True)
class Workload:
    """Requests as they go over the wire; `rows` in each, `scored` in the first, and how to read an answer.

    A workload without rows asks for something else than a prediction.
    """

    name: str
    rows: int
    requests: tuple[bytes, ...]
    scored: NDArray[np.float32]
    read: Reader

    def problem(self, answer: RawResponse, expected: NDArray[np.floating]) -> str | None:
        """Return what is wrong with the answer to the first request; `expected` are the probabilities of its rows."""
        if answer.status != 200:
            return f"answered {answer.status} ({answer.body[:200]!r}); expected 200"
        try:
            probabilities = self.read(answer)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            return f"answered what can't be read ({error}): {answer.body[:200]!r}"
        if probabilities.shape != expected.shape or not np.allclose(probabilities, expected, atol=1e-3):
            return f"answered other probabilities than the model gives: {answer.body[:200]!r}"
        return None


def workloads(seed: int) -> dict[str, Workload]:
    """Return every workload by name; the parcels come from `seed`."""
    parcels = Tunnel(seed=seed).scans(max(SINGLES, BATCHES * BATCH)).features
    values = values_of(SCHEMA, parcels)
    singles = [[row] for row in values[:SINGLES]]
    batches = [values[i * BATCH : (i + 1) * BATCH] for i in range(BATCHES)]
    infer, predict = f"/v2/models/{MODEL}/infer", f"/v1/models/{MODEL}:predict"
    return {
        w.name: w
        for w in (
            _json("classify", "/classify", singles, lambda rows: dump(_objects(rows)[0]), _read_one),
            _json("V1", predict, singles, lambda rows: dump({"instances": rows}), _read_v1),
            _json("V2", infer, singles, v2_json, _read_v2),
            _json("V2 by ASGI", f"{infer}?by=asgi", singles, v2_json, _read_v2),  # see defects/http/fast_path.py
            _binary("V2 binary", infer, singles),
            _json("classify_batch", "/classify_batch", batches, lambda rows: dump(_objects(rows)), _read_list),
            _json(f"V2 x{BATCH}", infer, batches, v2_json, _read_v2),
            _binary(f"V2 binary x{BATCH}", infer, batches),
            _json("scans", "/classify", singles, lambda rows: dump({"scans": _objects(rows)}), _read_stock),
            _json(f"scans x{BATCH}", "/classify", batches, lambda rows: dump({"scans": _objects(rows)}), _read_stock),
            Workload("GET", 0, (get("/"),), np.empty((0, len(SCHEMA.names)), np.float32), _read_hello),
        )
    }


def _json(name: str, path: str, bodies: Sequence[Sequence[RowValues]], body: Body, read: Reader) -> Workload:
    requests = tuple(post(path, body(rows), content_type="application/json") for rows in bodies)
    return Workload(name, len(bodies[0]), requests, _array(bodies[0]), read)


def _binary(name: str, path: str, bodies: Sequence[Sequence[RowValues]]) -> Workload:
    requests = []
    for rows in bodies:
        head, raw = v2_binary(_array(rows))
        length = {"inference_header_content_length": str(len(head))}
        requests.append(post(path, head + raw, content_type="application/octet-stream", **length))
    return Workload(name, len(bodies[0]), tuple(requests), _array(bodies[0]), _read_v2_binary)


def _array(rows: Sequence[RowValues]) -> NDArray[np.float32]:
    return np.array(rows, dtype=np.float32)


def _objects(rows: Sequence[RowValues]) -> list[dict[str, Value]]:
    return objects(SCHEMA.names, rows)


def _by_class(rows: Sequence[Any]) -> Probabilities:
    return np.array([[row[name] for name in SCHEMA.class_names] for row in rows])


def _read_one(answer: RawResponse) -> Probabilities:
    return _by_class([json.loads(answer.body)["probabilities"]])


def _read_list(answer: RawResponse) -> Probabilities:
    return _by_class([one["probabilities"] for one in json.loads(answer.body)])


def _read_v1(answer: RawResponse) -> Probabilities:
    return _by_class([one["probabilities"] for one in json.loads(answer.body)["predictions"]])


def _read_stock(answer: RawResponse) -> Probabilities:
    return _by_class(json.loads(answer.body))


def _read_v2(answer: RawResponse) -> Probabilities:
    outputs = {o["name"]: o for o in json.loads(answer.body)["outputs"]}
    output = outputs["probabilities"]
    return np.array(output["data"]).reshape(output["shape"])


def _read_v2_binary(answer: RawResponse) -> Probabilities:
    length = int(answer.headers["inference-header-content-length"])
    start, found = length, None
    for output in json.loads(answer.body[:length])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        if output["name"] == "probabilities":
            dtype = {"FP32": "<f4", "FP64": "<f8"}[output["datatype"]]
            found = np.frombuffer(answer.body[start : start + size], dtype).reshape(output["shape"])
        start += size
    if found is None:
        raise KeyError("probabilities")
    return found.astype(np.float64)


def _read_hello(answer: RawResponse) -> Probabilities:
    if answer.body != b"hello":
        raise ValueError("expected hello")
    return np.empty((0, len(SCHEMA.class_names)))
