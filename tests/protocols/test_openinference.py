"""The Open Inference Protocol and V1, as their clients speak them, against a real server."""

from __future__ import annotations

import gzip
import json
import math
import random
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from conftest import ROOT, RUN_SECONDS, Serve, Server, ask_together
from defects import artifact, scoring, simulator
from defects.features import DefectClass, Feature
from defects.http.messages import Refusal, Request, read_json
from defects.problems import InvalidInput
from defects.protocols import v1 as v1_
from defects.protocols import v2
from defects.schema import Schema

NAME = "defect-classifier"
NAMES = simulator.SCHEMA.names
CLIENTS_PYTHON = ROOT / ".venv-clients" / "bin" / "python"


@pytest.fixture(scope="module")
def client(server: Server) -> Any:
    with httpx.Client(base_url=server.url) as c:
        yield c


@pytest.fixture(scope="module")
def probabilities(model_dir: Path) -> Any:
    scorer = scoring.load(artifact.load(model_dir))
    return lambda rows: scorer(np.asarray(rows, np.float32))


def scans(n: int, seed: int = 7) -> NDArray[np.float32]:
    return simulator.Tunnel(seed=seed).scans(n).features


def as_json(rows: NDArray[Any]) -> list[Any]:
    return [[None if math.isnan(v) else v for v in row] for row in rows.tolist()]


def infer(client: httpx.Client, request: dict[str, Any], **headers: str) -> httpx.Response:
    return client.post(f"/v2/models/{NAME}/infer", json=request, headers=headers)


def matrix(rows: NDArray[Any], **more: Any) -> dict[str, Any]:
    tensor = {"name": "x", "datatype": "FP32", "shape": list(rows.shape), "data": as_json(rows)}
    return {"inputs": [tensor | more]}


def test_json_matrix(client: httpx.Client, probabilities: Any, model_dir: Path) -> None:
    rows = scans(5)
    answer = infer(client, matrix(rows) | {"id": "call-1"}).json()
    assert (answer["model_name"], answer["id"]) == (NAME, "call-1")
    assert answer["model_version"] == artifact.load(model_dir).version
    outputs = {o["name"]: o for o in answer["outputs"]}
    assert list(outputs) == ["label", "class_index", "probabilities"]
    expected = probabilities(rows)
    assert outputs["probabilities"]["shape"] == [5, 6]
    np.testing.assert_allclose(np.reshape(outputs["probabilities"]["data"], (5, 6)), expected, atol=1e-6)
    assert outputs["class_index"]["data"] == expected.argmax(axis=1).tolist()
    assert outputs["label"]["data"] == [simulator.SCHEMA.class_names[i] for i in expected.argmax(axis=1)]


@pytest.mark.parametrize("datatype", v2.DATATYPES)
@pytest.mark.parametrize("binary", [False, True])
def test_every_datatype_both_ways(client: httpx.Client, probabilities: Any, datatype: str, binary: bool) -> None:
    rows = np.nan_to_num(scans(8), nan=1.0)
    if "INT" in datatype:
        rows = np.full_like(rows, 100.0)
        rows[:, [NAMES.index("texture_contrast"), NAMES.index("barcode_decode_rate")]] = 1
        rows[:, NAMES.index("label_skew_deg")] = rows[:, NAMES.index("surface_temperature_c")] = 9
    typed = rows.astype(v2.DATATYPES[datatype])
    tensor: dict[str, Any] = {"name": "x", "datatype": datatype, "shape": list(rows.shape)}
    raw = b""
    if binary:
        raw = typed.tobytes()
        tensor["parameters"] = {"binary_data_size": len(raw)}
    else:
        tensor["data"] = typed.ravel().tolist()
    head = json.dumps({"inputs": [tensor], "outputs": [{"name": "probabilities"}]}).encode()
    answer = client.post(
        f"/v2/models/{NAME}/infer",
        content=head + raw,
        headers={"Inference-Header-Content-Length": str(len(head)), "content-type": "application/octet-stream"},
    )
    assert answer.status_code == 200, answer.text
    got = np.reshape(answer.json()["outputs"][0]["data"], (8, 6))
    np.testing.assert_allclose(got, probabilities(typed.astype(np.float32)), atol=1e-6)


def test_a_tensor_a_column_mixed_binary_and_json(client: httpx.Client, probabilities: Any) -> None:
    rows = scans(3)
    inputs: list[dict[str, Any]] = []
    raw = b""
    for i, name in enumerate(NAMES):
        column = rows[:, i].astype("<f8")
        if np.isnan(column).all() or name == "tape_coverage_pct":
            rows[:, i] = np.nan  # an optional column may be left out
            continue
        shape = [3, 1] if i % 3 else [3]
        tensor: dict[str, Any] = {"name": name, "datatype": "FP64", "shape": shape}
        if i % 2:
            raw += column.tobytes()
            tensor["parameters"] = {"binary_data_size": 24}
        else:
            tensor["data"] = [None if math.isnan(v) else v for v in column]
        inputs.insert(len(inputs) if i % 2 else 0, tensor)
    outputs = [{"name": "probabilities", "parameters": {"binary_data": True}}, {"name": "label"}]
    head = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
    answer = client.post(
        f"/v2/models/{NAME}/infer", content=head + raw, headers={"Inference-Header-Content-Length": str(len(head))}
    )
    length = int(answer.headers["inference-header-content-length"])
    assert answer.headers["content-type"] == "application/octet-stream"
    first, second = json.loads(answer.content[:length])["outputs"]
    got = np.frombuffer(answer.content[length:], "<f4").reshape(3, 6)
    assert first == {
        "name": "probabilities", "datatype": "FP32", "shape": [3, 6], "parameters": {"binary_data_size": 72},
    }  # fmt: skip
    expected = probabilities(rows)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert second["data"] == [simulator.SCHEMA.class_names[i] for i in expected.argmax(axis=1)]


def test_all_outputs_binary(client: httpx.Client, probabilities: Any) -> None:
    rows = scans(2)
    answer = infer(client, matrix(rows) | {"parameters": {"binary_data_output": True}})
    length = int(answer.headers["inference-header-content-length"])
    sizes = [o["parameters"]["binary_data_size"] for o in json.loads(answer.content[:length])["outputs"]]
    raw = answer.content[length:]
    assert sum(sizes) == len(raw)
    best = probabilities(rows).argmax(axis=1)
    labels = [simulator.SCHEMA.class_names[i].encode() for i in best]
    assert raw[: sizes[0]] == b"".join(len(label).to_bytes(4, "little") + label for label in labels)
    assert np.frombuffer(raw[sizes[0] :][: sizes[1]], "<i8").tolist() == best.tolist()


def test_the_most_probable_classes_as_tritons_extension_has_them(client: httpx.Client, probabilities: Any) -> None:
    rows = scans(3)
    told = probabilities(rows)
    order = np.argsort(-told, axis=1, kind="stable")
    for asked, told_of in ((1, 1), (2, 2), (6, 6), (2**63, 6)):
        outputs = [top("probabilities", asked), {"name": "class_index"}]
        first, second = infer(client, matrix(rows) | {"outputs": outputs}).json()["outputs"]
        assert (first["name"], first["datatype"], first["shape"]) == ("probabilities", "BYTES", [3, told_of])
        parts = [text.split(":") for text in first["data"]]
        indices = np.reshape([int(part[1]) for part in parts], (3, told_of))
        assert indices.tolist() == order[:, :told_of].tolist()
        assert indices[:, 0].tolist() == second["data"]
        assert [part[2] for part in parts] == [simulator.SCHEMA.class_names[i] for i in indices.ravel()]
        expected = np.take_along_axis(told, indices, axis=1)
        np.testing.assert_allclose([float(part[0]) for part in parts], expected.ravel(), atol=1e-6)


def test_a_classification_in_binary(client: httpx.Client) -> None:
    asked = {"name": "probabilities", "parameters": {"classification": 2, "binary_data": True}}
    answer = infer(client, matrix(scans(1)) | {"outputs": [asked]})
    raw = answer.content[int(answer.headers["inference-header-content-length"]) :]
    texts: list[str] = []
    while raw:
        size = int.from_bytes(raw[:4], "little")
        texts, raw = [*texts, raw[4 : 4 + size].decode()], raw[4 + size :]
    assert (
        texts == infer(client, matrix(scans(1)) | {"outputs": [top("probabilities", 2)]}).json()["outputs"][0]["data"]
    )


def test_predictions_have_identifiers_where_they_are_asked_for(client: httpx.Client) -> None:
    wanted = {"outputs": [{"name": "prediction_id"}]}
    for n in (1, 3):
        answer = infer(client, matrix(scans(n)) | wanted)
        (output,) = answer.json()["outputs"]
        assert (output["datatype"], output["shape"]) == ("BYTES", [n])
        assert len({*output["data"]}) == n
        assert output["data"] == sorted(output["data"])
        assert answer.headers.get("x-prediction-id") == (output["data"][0] if n == 1 else None)
        without = infer(client, matrix(scans(n)))
        assert [o["name"] for o in without.json()["outputs"]] == ["label", "class_index", "probabilities"]
        assert ("x-prediction-id" in without.headers) is (n == 1)
    binary = infer(client, matrix(scans(1)) | wanted | {"parameters": {"binary_data_output": True}})
    raw = binary.content[int(binary.headers["inference-header-content-length"]) :]
    assert raw == (32).to_bytes(4, "little") + binary.headers["x-prediction-id"].encode()


@pytest.mark.parametrize("shape", [[1, 3, 22], [1, 1, 3, 22]])
def test_leading_ones_of_a_shape_are_dropped(client: httpx.Client, probabilities: Any, shape: list[int]) -> None:
    rows = scans(3)
    nested = json.loads(json.dumps(as_json(rows)))
    for _ in shape[2:]:
        nested = [nested]
    flat = [value for row in as_json(rows) for value in row]
    for data in (flat, nested):
        answer = infer(client, {"inputs": [TENSOR | {"shape": shape, "data": data}]}).json()["outputs"][2]
        assert answer["shape"] == [3, 6]
        np.testing.assert_allclose(np.reshape(answer["data"], (3, 6)), probabilities(rows), atol=1e-6)
    raw = rows.astype("<f4").tobytes()
    tensor = {"name": "x", "datatype": "FP32", "shape": shape, "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    assert client.post(f"/v2/models/{NAME}/infer", content=head + raw, headers=headers).is_success


def test_nan_in_json_is_a_missing_value(client: httpx.Client) -> None:
    """As Triton's own client writes it."""
    rows = scans(2)
    rows[:, NAMES.index("surface_moisture_pct")] = math.nan
    bare = json.dumps(matrix(rows) | {"inputs": [matrix(rows)["inputs"][0] | {"data": rows.ravel().tolist()}]})
    assert "NaN" in bare
    answer = client.post(f"/v2/models/{NAME}/infer", content=bare, headers={"content-type": "application/json"})
    assert answer.json()["outputs"] == infer(client, matrix(rows)).json()["outputs"]
    columns = [column(name, data=[float(value)]) for name, value in zip(NAMES, rows[0], strict=True)]
    answer = client.post(f"/v2/models/{NAME}/infer", content=json.dumps({"inputs": columns}))
    assert answer.json()["outputs"] == infer(client, matrix(rows[:1])).json()["outputs"]
    for instance in (rows[0].tolist(), dict(zip(NAMES, rows[0].tolist(), strict=True))):
        answer = client.post(f"/v1/models/{NAME}:predict", content=json.dumps({"instances": [instance]}))
        assert answer.status_code == 200, answer.text


def test_nan_in_v1_is_refused_where_a_value_is_required_or_nobody_reads_it(client: httpx.Client) -> None:
    row = [*VALID]
    for body, message in (
        ({"instances": [[*row[:4], math.nan, *row[5:]]]}, "[0].weight_g: is NaN"),
        ({"instances": [[*row[:4], -math.inf, *row[5:]]]}, "[0].weight_g: is -Infinity"),
        ({"instances": [row], "signature_name": [math.nan]}, "body has NaN or an infinity"),
    ):
        answer = client.post(f"/v1/models/{NAME}:predict", content=json.dumps(body))
        assert answer.status_code == 400
        assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("number", "found"), [("-1e400", "-Infinity"), ("1e400", "Infinity"), ("-" + "9" * 400, "-Inf")]
)
def test_what_no_float_holds_keeps_its_sign(client: httpx.Client, number: str, found: str) -> None:
    body = json.dumps({"inputs": [TENSOR]}).replace("1.0", number, 1)
    answer = client.post(f"/v2/models/{NAME}/infer", content=body)
    assert f"inputs[0].data: has {found}" in answer.json()["error"]


def test_an_unknown_input_is_named_whatever_it_holds(client: httpx.Client) -> None:
    identifier = {"name": "row_id", "datatype": "BYTES", "shape": [1], "data": ["17"]}
    answer = infer(client, {"inputs": [identifier, *(column(name) for name in NAMES)]})
    assert answer.status_code == 400
    assert [problem["field"] for problem in answer.json()["fields"]] == ["row_id"]
    many = infer(client, {"inputs": [column(f"x{i}") for i in range(200)]})
    assert (many.status_code, len(many.json()["fields"])) == (400, 50)
    assert "(and at least 50 more)" in many.json()["error"]


def test_v1_takes_lists_and_objects(client: httpx.Client, probabilities: Any) -> None:
    first, second = as_json(scans(2))
    instances = [first, dict(zip(NAMES, second, strict=True))]
    predictions = client.post(f"/v1/models/{NAME}:predict", json={"instances": instances}).json()["predictions"]
    got = [list(p["probabilities"].values()) for p in predictions]
    np.testing.assert_allclose(got, probabilities(scans(2)), atol=1e-6)
    assert client.get("/v1/models").json() == {"models": [NAME]}
    assert client.get(f"/v1/models/{NAME}").json() == {"name": NAME, "ready": True}


def test_metadata_and_health(client: httpx.Client, model_dir: Path) -> None:
    version = artifact.load(model_dir).version
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data", "classification"]
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    for path in (f"/v2/models/{NAME}", f"/v2/models/{NAME}/versions/{version}"):
        assert client.get(f"{path}/ready").json() == {"name": NAME, "ready": True}
        told = client.get(path).json()
        assert (told["name"], told["versions"], told["platform"]) == (NAME, [version], "onnxruntime")
        (described,) = told["inputs"]
        assert (described["datatype"], described["shape"]) == ("FP32", [-1, 22])
        assert [c["name"] for c in described["parameters"]["columns"]] == list(NAMES)
        assert {c["kind"] for c in described["parameters"]["columns"]} == {"number"}
        assert [o["name"] for o in told["outputs"]] == ["label", "class_index", "probabilities", "prediction_id"]
        assert client.post(f"{path}/infer", json=matrix(scans(1))).status_code == 200
    for path in ("/v2/models/nobody", f"/v2/models/{NAME}/versions/0", "/v2/models/nobody/ready", "/v1/models/nobody"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert f"expected model {NAME}, version {version}" in answer.json()["error"]


def test_gzip_both_ways(client: httpx.Client, probabilities: Any) -> None:
    rows = scans(200)
    body = gzip.compress(json.dumps(matrix(rows)).encode())
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    answer = client.post(f"/v2/models/{NAME}/infer", content=body, headers=headers)
    assert answer.headers["content-encoding"] == "gzip"
    np.testing.assert_allclose(
        np.reshape(answer.json()["outputs"][2]["data"], (200, 6)), probabilities(rows), atol=1e-6
    )
    for accepted in ("identity", "gzip;q=0, br"):
        plain = client.post(f"/v2/models/{NAME}/infer", content=body, headers=headers | {"accept-encoding": accepted})
        assert "content-encoding" not in plain.headers
        assert plain.json()["outputs"] == answer.json()["outputs"]
    bomb = gzip.compress(b" " * (20 << 20))
    for content, status in ((body[:-9], 400), (b"no gzip", 400), (bomb, 413)):
        refused = client.post("/classify", content=content, headers=headers)
        assert (refused.status_code, list(refused.json())) == (status, ["error"])


TENSOR = {"name": "x", "datatype": "FP32", "shape": [1, 22], "data": [1.0] * 22}
VALID = simulator.SCHEMA.example.values()


def column(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": "FP32", "shape": [1], "data": [9]} | more


def integers(datatype: str, wrong: int) -> dict[str, Any]:
    return TENSOR | {"datatype": datatype, "data": [None, wrong] + [1] * 20}


def top(output: str, classes: Any) -> dict[str, Any]:
    return {"name": output, "parameters": {"classification": classes}}


BAD_REQUESTS: list[tuple[Any, str]] = [
    ([], "body: is not an object"),
    ({}, "inputs: is not a list of tensors"),
    ({"inputs": []}, "inputs: is not a list of tensors"),
    ({"inputs": [TENSOR], "id": 5}, "id: is not text"),
    ({"inputs": [TENSOR], "parameters": []}, "body.parameters: is not an object"),
    ({"inputs": [TENSOR], "parameters": {"binary_data_output": 1}}, "parameters.binary_data_output: is 1"),
    ({"inputs": [TENSOR], "outputs": [{"name": "x"}]}, "outputs[0].name: is 'x'"),
    ({"inputs": [TENSOR], "outputs": [{"name": "label"}] * 2}, "outputs[1].name: is 'label'"),
    ({"inputs": [TENSOR | {"name": None}]}, "inputs[0].name: is missing"),
    ({"inputs": [TENSOR, TENSOR]}, "inputs[1].name: 'x' appears twice"),
    ({"inputs": [TENSOR, TENSOR | {"name": "y"}]}, "x: unknown input"),
    ({"inputs": [TENSOR | {"datatype": "BYTES"}]}, "inputs[0].datatype: is 'BYTES'"),
    ({"inputs": [TENSOR | {"datatype": ["FP32"]}]}, "inputs[0].datatype: is a list"),
    ({"inputs": [TENSOR | {"shape": [22, 1]}]}, "inputs[0].shape: is [22, 1]; expected [n, 22]"),
    ({"inputs": [TENSOR | {"shape": [-1, 22]}]}, "inputs[0].shape: is [-1, 22]; expected one or two sizes"),
    ({"inputs": [TENSOR | {"shape": [2, 22]}]}, "inputs[0].data: has 22 values; expected 44, as the shape says"),
    ({"inputs": [TENSOR | {"shape": [0, 22], "data": []}]}, "inputs: have no rows"),
    ({"inputs": [TENSOR | {"data": None}]}, "inputs[0].data: is missing or not a list"),
    ({"inputs": [TENSOR | {"data": ["1"] * 22}]}, "inputs[0].data: has '1'; expected numbers or null"),
    ({"inputs": [TENSOR | {"data": [[1.0] * 21, 1.0]}]}, "inputs[0].data: is not nested as the shape says"),
    ({"inputs": [TENSOR | {"data": [[True] * 22]}]}, "inputs[0].data: has True"),
    ({"inputs": [TENSOR | {"datatype": "INT32", "data": [1.5] * 22}]}, "has 1.5; expected integers or null"),
    ({"inputs": [TENSOR | {"data": [1.0] * 4 + [math.nan] + [1.0] * 17}]}, "[0].weight_g: is NaN; expected a number"),
    ({"inputs": [TENSOR | {"data": [math.nan] * 22}]}, "[0].length_mm: is NaN; expected a number from 50 to 1500 mm"),
    ({"inputs": [TENSOR | {"data": [1.0] * 21 + [math.inf]}]}, "inputs[0].data: has Infinity; expected numbers"),
    ({"inputs": [TENSOR | {"data": [1.0] * 21 + [-math.inf]}]}, "inputs[0].data: has -Infinity; expected numbers"),
    ({"inputs": [TENSOR | {"datatype": "INT32", "data": [1] * 21 + [math.nan]}]}, "has NaN; expected integers or null"),
    ({"inputs": [TENSOR | {"data": [1.0] * 21 + [True]}]}, "has True for surface_temperature_c; expected a number"),
    ({"inputs": [integers("UINT8", 300)]}, "inputs[0].data: has 300; expected integers from 0 to 255, or null"),
    ({"inputs": [integers("UINT8", -1)]}, "inputs[0].data: has -1; expected integers from 0 to 255, or null"),
    ({"inputs": [integers("INT8", 9000)]}, "inputs[0].data: has 9000; expected integers from -128 to 127, or null"),
    ({"inputs": [integers("UINT16", 65536)]}, "has 65536; expected integers from 0 to 65535, or null"),
    ({"inputs": [integers("INT16", -32769)]}, "has -32769; expected integers from -32768 to 32767, or null"),
    ({"inputs": [column("weight_g", datatype="UINT8", data=[256])]}, "inputs[0].data: has 256; expected integers"),
    ({"inputs": [TENSOR | {"datatype": "FP16", "data": [65505.0] * 22}]}, "has 65505.0; expected numbers from -65504"),
    ({"inputs": [TENSOR | {"datatype": "BOOL", "data": [True] * 22}]}, "length_mm: is BOOL; expected a number from 50"),
    ({"inputs": [column("weight_g", datatype="BOOL", data=[1])]}, "weight_g: is BOOL; expected a number"),
    ({"inputs": [column(name) for name in (*NAMES, "id")]}, "id: unknown input; expected one of the 22 features"),
    ({"inputs": [column("wieght_g"), column("x")]}, "wieght_g: unknown input; expected one of the 22 features; did"),
    ({"inputs": [TENSOR], "outputs": [top("label", 2)]}, "outputs[0].parameters.classification: is of label; expected"),
    ({"inputs": [TENSOR], "outputs": [top("probabilities", 0)]}, "outputs[0].parameters.classification: is 0; exp"),
    ({"inputs": [TENSOR], "outputs": [top("probabilities", True)]}, "classification: is True; expected a number of"),
    ({"inputs": [TENSOR], "outputs": [top("probabilities", 1.0)]}, "classification: is 1.0; expected a number of"),
    ({"inputs": [TENSOR], "outputs": [top("probabilities", None)]}, "classification: is None; expected a number of"),
    ({"inputs": [TENSOR | {"data": list(VALID), "parameters": {"x": [math.inf]}}]}, "body has NaN or an infinity"),
    ({"inputs": [TENSOR | {"data": list(VALID), "x": {"y": math.nan}}]}, "body has NaN or an infinity"),
    ({"inputs": [TENSOR | {"data": list(VALID)}], "x": math.nan}, "body has NaN or an infinity"),
    ({"inputs": [TENSOR | {"data": list(VALID)}], "parameters": 5, "x": [math.nan]}, "body has NaN or an infinity"),
    ({"inputs": [math.nan]}, "body has NaN or an infinity"),
    (math.nan, "body: is not an object"),
    ({"inputs": [TENSOR | {"data": [-1.0] * 22}]}, "[0].length_mm: -1 is out of range"),
    ({"inputs": [TENSOR | {"data": [None] * 22}]}, "[0].length_mm: is missing"),
    ({"inputs": [{"name": "weight_g", "datatype": "FP32", "shape": [1], "data": [9]}]}, "[0].length_mm: is missing"),
    (
        {
            "inputs": [
                {"name": name, "datatype": "FP32", "shape": [size], "data": [9] * size}
                for name, size in (("weight_g", 1), ("width_mm", 2))
            ]
        },
        "width_mm: has shape [2]; expected [1]",
    ),
    ({"inputs": [TENSOR | {"shape": [2147483647] * 500}]}, "…] with 500 sizes; expected one or two sizes"),
    ({"inputs": [TENSOR | {"shape": [2000, 22]}]}, "inputs[0].shape: has 2000 rows; expected at most 1024"),
    ({"inputs": [TENSOR | {"shape": [1, 10**30]}]}, "inputs[0].shape: is [1, 1e+30]; expected one or two sizes"),
    ({"inputs": [TENSOR | {"shape": [0, 10**19], "data": []}]}, "inputs[0].shape: is [0, 10000000000000000000]"),
    ({"inputs": [TENSOR | {"shape": [0, 2**62], "data": []}]}, "inputs[0].shape: is [0, 4611686018427387904]"),
    ({"inputs": [TENSOR | {"shape": [2**62], "data": []}]}, "inputs[0].shape: is [4611686018427387904]"),
    ({"inputs": [TENSOR | {"shape": [2**62, 22], "data": []}]}, "has 4611686018427387904 rows; expected at most 1024"),
    ({"inputs": [TENSOR | {"shape": [2**62, 4]}]}, "inputs[0].shape: is [4611686018427387904, 4]; expected [n, 22]"),
    ({"inputs": [TENSOR | {"shape": [], "data": []}]}, "inputs[0].shape: is []; expected one or two sizes"),
    ({"inputs": [TENSOR | {"shape": None}]}, "inputs[0].shape: is None; expected one or two sizes"),
    ({"inputs": [TENSOR | {"shape": [1, 22.0]}]}, "inputs[0].shape: is [1, 22.0]; expected one or two sizes"),
    ({"inputs": [TENSOR | {"shape": [1, [22]]}]}, "inputs[0].shape: is [1, a list]; expected one or two sizes"),
    ({"inputs": [TENSOR | {"shape": [2, 1, 22]}]}, "is [2, 1, 22]; expected one or two sizes, after any number of 1s"),
    ({"inputs": [TENSOR | {"shape": [1, 1, 21]}]}, "inputs[0].shape: is [1, 21]; expected [n, 22]"),
    ({"inputs": [TENSOR | {"shape": [1, 1, 22], "data": [[1.0] * 22]}]}, "expected 1 lists of 1 lists of 22 numbers"),
    ({"inputs": [column("weight_g", shape=[0, 2**62], data=[])]}, "weight_g: has shape [0, 4611686018427387904]"),
    ({"inputs": [column("weight_g", shape=[2**62], data=[])]}, "inputs[0].shape: has 4611686018427387904 rows"),
    ({"inputs": [TENSOR | {"shape": [2, 22], "data": [[9.0] * 23, [9.0] * 21]}]}, "is not nested as the shape says"),
    ({"inputs": [TENSOR | {"shape": [2, 22], "data": [[9.0] * 2] * 22}]}, "is not nested as the shape says"),
    ({"inputs": [TENSOR], "id": "\ud800", "parameters": {"x": math.nan}}, "body is not valid JSON"),
    ({"inputs": [TENSOR | {"data": list(VALID)}], "parameters": {"x": math.nan}}, "body has NaN or an infinity"),
    ({"inputs": [{"name": "x" * 1000, "datatype": "FP32", "shape": [1], "data": [9]}] * 2}, "appears twice"),
    ({"inputs": [TENSOR | {"parameters": {"binary_data_size": 88}}]}, "inputs[0].parameters.binary_data_size: is 88"),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "message"), BAD_REQUESTS)
def test_a_bad_request_is_400_and_names_the_field(client: httpx.Client, request_: Any, message: str) -> None:
    answer = client.post(
        f"/v2/models/{NAME}/infer", content=json.dumps(request_), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400, answer.text
    assert message in answer.json()["error"]
    assert len(answer.content) < 3000


def test_deep_nesting_is_400(client: httpx.Client) -> None:
    body = json.dumps({"inputs": [TENSOR]}).replace('"FP32"', "[" * 900 + "]" * 900)
    answer = client.post(f"/v2/models/{NAME}/infer", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, "inputs[0].datatype: is a list" in answer.text) == (400, True)


def test_a_feature_may_have_the_name_of_the_matrix() -> None:
    schema = Schema((Feature("rows"), Feature("b")), (DefectClass("x"), DefectClass("y")))

    def decode(*inputs: dict[str, Any]) -> Any:
        body = json.dumps({"inputs": inputs}).encode()
        return v2.decode(schema, body, None, json.loads, 10).rows.tolist()

    assert decode({"name": "rows", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}) == [[1, 2]]
    columns = [{"name": n, "datatype": "FP32", "shape": [1], "data": [v]} for n, v in (("b", 2), ("rows", 1))]
    assert decode(*columns) == [[1, 2]]


SIZELESS = TENSOR | {"parameters": {"binary_data_size": 0}}


@pytest.mark.parametrize(
    ("head", "tail", "length", "message"),
    [
        (TENSOR | {"parameters": {"binary_data_size": 88}}, b"\0" * 87, None, "binary_data_size: is 88"),
        (TENSOR | {"parameters": {"binary_data_size": 86}}, b"\0" * 86, None, "a multiple of 4"),
        (TENSOR | {"parameters": {"binary_data_size": -4}}, b"\0" * 88, None, "binary_data_size: is -4"),
        (TENSOR | {"parameters": {"binary_data_size": True}}, b"\0" * 88, None, "binary_data_size: is True"),
        (SIZELESS | {"shape": [0, 10**19]}, b"", None, "inputs[0].shape: is [0, 10000000000000000000]"),
        (SIZELESS | {"shape": [0, 2**62]}, b"", None, "inputs[0].shape: is [0, 4611686018427387904]"),
        (SIZELESS | {"data": [math.nan]}, b"", None, "body has NaN or an infinity"),
        (SIZELESS, b"", None, "inputs[0].data: has 0 values; expected 22, as the shape says"),
        (TENSOR, b"more", None, "has 4 bytes after the last tensor"),
        (TENSOR, b"", "100000", "100000 is more than the body has"),
        (TENSOR, b"", "-1", "inference-header-content-length is not valid"),
        (TENSOR, b"", "x", "inference-header-content-length is not valid"),
        (TENSOR, b"", "3", "not valid JSON"),
    ],
)
def test_bad_binary_is_400(client: httpx.Client, head: Any, tail: bytes, length: str | None, message: str) -> None:
    encoded = json.dumps({"inputs": [head]}).encode()
    answer = client.post(
        f"/v2/models/{NAME}/infer",
        content=encoded + tail,
        headers={"Inference-Header-Content-Length": length or str(len(encoded))},
    )
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_missing_values_are_nan_in_binary_and_only_where_allowed(client: httpx.Client) -> None:
    for name, status in (("surface_moisture_pct", 200), ("weight_g", 400)):
        rows = np.nan_to_num(scans(1), nan=1.0)
        rows[0, NAMES.index(name)] = math.nan
        head = json.dumps({"inputs": [TENSOR | {"parameters": {"binary_data_size": 88}}]}).encode()
        answer = client.post(
            f"/v2/models/{NAME}/infer",
            content=head + rows.tobytes(),
            headers={"Inference-Header-Content-Length": str(len(head))},
        )
        assert answer.status_code == status
        assert status == 200 or "[0].weight_g: is missing" in answer.json()["error"]


@settings(max_examples=300)
@given(
    body=st.binary(max_size=64)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    ["inputs", "name", "shape", "datatype", "data", "parameters", "outputs", "id", "instances"]
                )
                | st.text(max_size=5),
                inner,
                max_size=6,
            )
        ),
        max_leaves=30,
    ).map(lambda value: json.dumps(value).encode()),
    length=st.none() | st.integers(0, 100),
)
def test_the_codec_refuses_anything_else_properly(body: bytes, length: int | None) -> None:
    request = Request("POST", "/", {}, receive=None)  # type: ignore[arg-type]
    for decode in (
        lambda: v2.decode(simulator.SCHEMA, body, length, partial(read_json, request), 1024),
        lambda: v1_.decode(simulator.SCHEMA, read_json(request, body), 1024),
    ):
        with pytest.raises((InvalidInput, Refusal)):
            decode()


def test_other_peoples_clients_agree(server: Server, probabilities: Any) -> None:
    if not CLIENTS_PYTHON.exists():
        pytest.skip("the clients are not installed; `make test` installs them")
    rows = np.nan_to_num(scans(200), nan=1.0)
    done = subprocess.run(
        [CLIENTS_PYTHON, "-W", "ignore", ROOT / "tests" / "clients.py", server.url, NAME],
        input=json.dumps(rows.tolist()),
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = probabilities(rows)
    answers = json.loads(done.stdout)
    for who, ways in (("kserve", ("v1", "v2 json", "v2 binary")), ("triton", ("json", "binary", "gzip"))):
        assert answers[who]["live"]
        assert answers[who]["ready"]
        assert answers[who]["model ready"]
        for way in ways:
            np.testing.assert_allclose(answers[who][way], expected, atol=1e-6, err_msg=f"{who} {way}")
    assert answers["kserve"]["v1 model ready"]
    for way in ("json", "binary", "gzip"):
        assert answers["triton"][f"{way} indices"] == expected.argmax(axis=1).tolist()
        assert answers["triton"][f"{way} labels"] == [simulator.SCHEMA.class_names[i] for i in expected.argmax(axis=1)]
    assert answers["triton"]["shape"] == [-1, 22]
    assert "no such model" in answers["triton"]["unknown"]


def test_thousands_of_mixed_concurrent_requests_are_all_right(server: Server, probabilities: Any) -> None:
    """Sizes and protocols at random, from many threads: every answer right, in order, to its caller."""
    data = scans(3_000, seed=11)
    expected = probabilities(data)
    chance = random.Random(5)
    calls = [
        (chance.choice(PROTOCOLS), chance.randrange(2_000), chance.choice([1] * 8 + [2, 17, 64, 300]))
        for _ in range(10_000)
    ]

    def call(client: httpx.Client, job: tuple[Any, int, int]) -> None:
        protocol, start, size = job
        if protocol is one_scan:
            size = 1
        got = protocol(client, data[start : start + size])
        np.testing.assert_allclose(got, expected[start : start + size], atol=1e-5)

    ask_together(server.url, call, calls, callers=24, headers={"x-request-timeout-ms": "60000"})


def one_scan(client: httpx.Client, rows: NDArray[Any]) -> Any:
    answer = client.post("/classify", json=dict(zip(NAMES, as_json(rows)[0], strict=True)))
    return [list(answer.json()["probabilities"].values())]


def many_scans(client: httpx.Client, rows: NDArray[Any]) -> Any:
    answer = client.post("/classify_batch", json=[dict(zip(NAMES, row, strict=True)) for row in as_json(rows)])
    return [list(a["probabilities"].values()) for a in answer.json()]


def v1(client: httpx.Client, rows: NDArray[Any]) -> Any:
    answer = client.post(f"/v1/models/{NAME}:predict", json={"instances": as_json(rows)})
    return [list(p["probabilities"].values()) for p in answer.json()["predictions"]]


def v2_json(client: httpx.Client, rows: NDArray[Any]) -> Any:
    answer = infer(client, matrix(rows))
    return np.reshape(answer.json()["outputs"][2]["data"], (len(rows), -1))


def v2_binary(client: httpx.Client, rows: NDArray[Any]) -> Any:
    raw = rows.astype("<f4").tobytes()
    tensor = {"name": "x", "datatype": "FP32", "shape": list(rows.shape), "parameters": {"binary_data_size": len(raw)}}
    outputs = [{"name": "probabilities", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": [tensor], "outputs": outputs}).encode()
    answer = client.post(
        f"/v2/models/{NAME}/infer", content=head + raw, headers={"Inference-Header-Content-Length": str(len(head))}
    )
    return np.frombuffer(answer.content[int(answer.headers["inference-header-content-length"]) :], "<f4").reshape(
        len(rows), -1
    )


PROTOCOLS = (one_scan, many_scans, v1, v2_json, v2_binary)


def test_the_models_name_comes_from_the_platform(serve: Serve, model_dir: Path) -> None:
    with serve(MODEL_DIR=model_dir, INFERENCE_SERVICE_NAME="parcels") as named:
        assert httpx.get(f"{named.url}/v2/models/parcels").json()["name"] == "parcels"
        assert httpx.get(f"{named.url}/v2/models/{NAME}").status_code == 404
