"""A real server process, over HTTP."""

from __future__ import annotations

import asyncio
import json
import math
import time
import uuid
from pathlib import Path
from typing import Any

import bentoml
import httpx
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import BENTOML, MODULE, STEEL_PLATES, Command, Serve, Server, ask_together, quiet, run, until
from defects import artifact, scoring, simulator
from defects.training import dataset, pipeline
from defects.training.options import Recipe

EXAMPLE = simulator.SCHEMA.example


@pytest.fixture(scope="module")
def client(server: Server) -> Any:
    with httpx.Client(base_url=server.url) as c:
        yield c


def scans(n: int, seed: int = 5) -> list[dict[str, float | None]]:
    rows = simulator.Tunnel(seed=seed).scans(n).features.tolist()
    return [{k: None if math.isnan(v) else v for k, v in zip(simulator.SCHEMA.names, row, strict=True)} for row in rows]


def expected(model_dir: Path, rows: list[dict[str, float | None]]) -> Any:
    loaded = artifact.load(model_dir)
    return scoring.load(loaded)(loaded.schema.rows_from_objects(rows).astype(np.float32))


def test_a_prediction_is_the_models(client: httpx.Client, model_dir: Path, trained: pipeline.Trained) -> None:
    for scan, probabilities in zip(rows := scans(20), expected(model_dir, rows), strict=True):
        answer = client.post("/classify", json=scan).json()
        assert list(answer["probabilities"]) == list(simulator.SCHEMA.class_names)
        np.testing.assert_allclose(list(answer["probabilities"].values()), probabilities, atol=1e-6)
        assert answer["defect"] == simulator.SCHEMA.class_names[probabilities.argmax()]
        assert answer["confidence"] == max(answer["probabilities"].values())
        assert answer["model_version"] == trained.card["version"]
        assert len(answer["prediction_id"]) == 32


def test_a_batch_is_its_rows_in_order(client: httpx.Client, model_dir: Path) -> None:
    rows = scans(1024)
    answers = client.post("/classify_batch", json=rows).json()
    got = [list(a["probabilities"].values()) for a in answers]
    np.testing.assert_allclose(got, expected(model_dir, rows), atol=1e-6)
    assert len({a["prediction_id"] for a in answers}) == 1024


def test_an_optional_value_may_be_null_or_left_out(client: httpx.Client) -> None:
    without = {k: v for k, v in EXAMPLE.items() if k != "surface_moisture_pct"}
    one, two = (client.post("/classify", json=s) for s in (without, EXAMPLE | {"surface_moisture_pct": None}))
    assert (one.status_code, two.status_code) == (200, 200)
    assert one.json()["probabilities"] == two.json()["probabilities"]


@pytest.mark.parametrize(
    ("change", "field", "problem"),
    [
        ('"weight_g": "heavy"', "weight_g", "is text"),
        ('"weight_g": null', "weight_g", "is missing"),
        ('"weight_g": -1', "weight_g", "-1 is out of range"),
        ('"weight_g": NaN', "weight_g", "is NaN"),
        ('"weight_g": -Infinity', "weight_g", "is -Infinity"),
        ('"weight_g": 1e999', "weight_g", "is Infinity"),
        ('"weight_g": 1' + "0" * 400, "weight_g", "is Infinity"),
        ('"weight_g": -1e400', "weight_g", "is -Infinity"),
        ('"weight_g": -1' + "0" * 400, "weight_g", "is -Infinity"),
        ('"surface_moisture_pct": Infinity', "surface_moisture_pct", "is Infinity"),
        ('"wieght_g": 1', "wieght_g", "unknown field"),
    ],
)
def test_a_wrong_field_is_named(client: httpx.Client, change: str, field: str, problem: str) -> None:
    for path, opening, closing, place in (("/classify", "", "", field), ("/classify_batch", "[", "]", f"[0].{field}")):
        others = {name: value for name, value in EXAMPLE.items() if f'"{name}":' not in change}
        body = f"{opening}{json.dumps(others)[:-1]}, {change}}}{closing}"
        answer = client.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400, answer.text
        (found,) = answer.json()["fields"]
        assert (found["field"], found["problem"]) == (place, problem)
        assert "expected" in found
        assert answer.json()["error"].startswith(f"invalid input: {place}: {problem}; expected")


def test_nan_is_a_missing_value_where_that_is_allowed(client: httpx.Client) -> None:
    body = json.dumps(EXAMPLE | {"surface_moisture_pct": math.nan})
    headers = {"content-type": "application/json"}
    wanted = client.post("/classify", json=EXAMPLE | {"surface_moisture_pct": None}).json()["probabilities"]
    assert client.post("/classify", content=body, headers=headers).json()["probabilities"] == wanted
    (prediction,) = client.post("/classify_batch", content=f"[{body}]", headers=headers).json()
    assert prediction["probabilities"] == wanted


MODEL = "/v2/models/defect-classifier/infer"
TENSOR = json.dumps({"name": "x", "datatype": "FP32", "shape": [1, 22], "data": [1] * 22})


@pytest.mark.parametrize(
    ("path", "body", "key"),
    [
        ("/classify", json.dumps(EXAMPLE)[:-1] + ', "weight_g": 5}', "weight_g"),
        ("/classify_batch", f'[{json.dumps(EXAMPLE)[:-1]}, "weight_g": 5}}]', "weight_g"),
        ("/v1/models/defect-classifier:predict", '{"instances": [], "instances": []}', "instances"),
        ("/v1/models/defect-classifier:predict", '{"instances": [{"weight_g": 5, "weight_g": 5}]}', "weight_g"),
        (MODEL, f'{{"inputs": [{TENSOR}], "inputs": [{TENSOR}]}}', "inputs"),
        (MODEL, f'{{"inputs": [{TENSOR[:-1]}, "datatype": "INT8"}}]}}', "datatype"),
        (MODEL, f'{{"inputs": [{TENSOR}], "id": "a:b", "parameters": {{"x": 1, "x": 2}}}}', "x"),
    ],
)
def test_a_key_that_appears_twice_is_refused(client: httpx.Client, path: str, body: str, key: str) -> None:
    answer = client.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(f"invalid input: body: {key} appears twice; expected")


def test_an_answer_with_one_prediction_names_it_in_a_header(client: httpx.Client) -> None:
    one = client.post("/classify", json=EXAMPLE)
    batch = client.post("/classify_batch", json=[EXAMPLE])
    v1 = client.post("/v1/models/defect-classifier:predict", json={"instances": [EXAMPLE]})
    bodies = [one.json(), batch.json()[0], v1.json()["predictions"][0]]
    told = [answer.headers["x-prediction-id"] for answer in (one, batch, v1)]
    assert told == [body["prediction_id"] for body in bodies]
    assert told == sorted({*told})
    for several in (
        client.post("/classify_batch", json=[EXAMPLE] * 2),
        client.post("/v1/models/defect-classifier:predict", json={"instances": [EXAMPLE] * 2}),
        client.post("/classify", json={}),
        client.get("/model"),
    ):
        assert "x-prediction-id" not in several.headers


def test_identifiers_begin_with_the_time(client: httpx.Client) -> None:
    before = time.time_ns() // 1_000_000
    answer = client.post("/classify", json=EXAMPLE)
    after = time.time_ns() // 1_000_000
    for name in (answer.headers["x-request-id"], answer.headers["x-prediction-id"]):
        assert uuid.UUID(name).version == 7
        assert before <= int(name[:12], 16) <= after


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "message"),
    [
        ("POST", "/classify", b"{", {}, 400, "not valid JSON"),
        ("POST", "/classify", b"", {}, 400, "not valid JSON"),
        ("POST", "/classify", b"\xff\xfe", {}, 400, "not valid JSON"),
        ("POST", "/classify", b'{"\\ud800": 1}', {}, 400, "not valid JSON"),
        ("POST", "/classify", b"[" * 100_000, {}, 400, "not valid JSON"),
        ("POST", "/classify", b"[]", {}, 400, "body: is a list; expected an object"),
        ("POST", "/classify_batch", b"[]", {}, 400, "body: is a list of 0; expected a list of 1 to 1024 scans"),
        ("POST", "/classify_batch", b"[" + b"{}," * 1024 + b"{}]", {}, 400, "body: is a list of 1025"),
        ("POST", "/classify_batch", b"{}", {}, 400, "body: is not a list"),
        ("POST", "/classify_batch", b"[1, {}]", {}, 400, "[0]: is a number; expected an object"),
        ("POST", "/classify", b"{}", {"content-type": "text/plain"}, 415, "expected application/json"),
        ("POST", "/classify", b" " * (3 << 20), {}, 413, "expected at most 1299456 bytes"),
        ("GET", "/classify", b"", {}, 405, "method GET is not allowed here; expected POST"),
        ("DELETE", "/model", b"", {}, 405, "expected GET"),
        ("GET", "/nowhere", b"", {}, 404, "no such path"),
    ],
)
def test_every_refusal_is_json_that_says_what_was_expected(
    client: httpx.Client, method: str, path: str, body: bytes, headers: dict[str, str], status: int, message: str
) -> None:
    answer = client.request(method, path, content=body, headers={"content-type": "application/json"} | headers)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    assert message in answer.json()["error"]


def test_a_chunked_body_is_limited_too(client: httpx.Client) -> None:
    def endless() -> Any:
        for _ in range(100):
            yield b" " * (1 << 20)

    try:
        answer = client.post("/classify", content=endless(), headers={"content-type": "application/json"})
    except httpx.TransportError:  # the server may hang up while we still send
        answer = None
    assert answer is None or answer.status_code == 413
    assert client.post("/classify", json=EXAMPLE).status_code == 200


def test_every_answer_carries_the_headers(client: httpx.Client, trained: pipeline.Trained) -> None:
    for method, path in (
        ("GET", "/model"),
        ("GET", "/readyz"),
        ("GET", "/nowhere"),
        ("POST", "/classify"),
        ("GET", "/"),
    ):
        headers = client.request(method, path).headers
        assert headers["x-model-version"] == trained.card["version"]
        assert headers["x-revision"] == "local"
        assert len(headers["x-request-id"]) == 32
        assert [part.split(";")[0] for part in headers["server-timing"].split(", ")] == ["queue", "score", "total"]


@pytest.mark.parametrize("timeout", ["0", "-1", "x", "", "600001", "0000000001" + "9" * 400, "0000000001999999999"])
def test_a_wrong_timeout_is_refused(client: httpx.Client, timeout: str) -> None:
    answer = client.post("/classify", json=EXAMPLE, headers={"x-request-timeout-ms": timeout})
    assert answer.status_code == 400
    assert "x-request-timeout-ms is not valid; expected an integer from 1 to 600000" in answer.json()["error"]


def test_a_flood_of_unknown_fields_is_refused_at_once(client: httpx.Client) -> None:
    began = time.monotonic()
    answer = client.post("/classify", json={f"k{i:07}": 1 for i in range(90_000)})
    assert (answer.status_code, len(answer.json()["fields"])) == (400, 50)
    assert "and at least 50 more" in answer.json()["error"]
    assert time.monotonic() - began < 60  # not a timing: it was minutes


def test_a_request_whose_deadline_has_passed_is_not_scored(server: Server, client: httpx.Client) -> None:
    def slowly() -> Any:
        body = json.dumps(EXAMPLE).encode()
        yield body[:10]
        until(lambda: "defects_requests_in_flight 1.0" in httpx.get(f"{server.url}/metrics").text)
        time.sleep(0.1)  # from here on, its deadline passes
        yield body[10:]

    headers = {"content-type": "application/json", "x-request-timeout-ms": "50"}
    answer = client.post("/classify", content=slowly(), headers=headers)
    assert answer.status_code == 503
    assert answer.headers["retry-after"].isdigit()


@pytest.mark.parametrize(("given_id", "kept"), [("order-17:4", True), ("a b", False), ("x" * 129, False), ("é", False)])
def test_a_sane_request_id_is_kept(client: httpx.Client, given_id: str, kept: bool) -> None:
    got = client.get("/model", headers=[(b"x-request-id", given_id.encode("latin-1"))]).headers["x-request-id"]
    assert (got == given_id) is kept


def test_model_describes_itself(client: httpx.Client, model_dir: Path) -> None:
    loaded, told = artifact.load(model_dir), client.get("/model").json()
    assert (told["digest"], told["version"], told["engine"]) == (loaded.digest, loaded.version, "onnxruntime")
    assert told["card"] == loaded.card
    assert told["schema"] == json.loads(json.dumps(loaded.schema.to_json()))


def test_the_documents_examples_work(client: httpx.Client) -> None:
    document = client.get("/docs.json").json()
    scan = document["components"]["schemas"]["Scan"]
    assert scan["properties"]["weight_g"]["description"].startswith("weight (g); training saw ")
    assert scan["additionalProperties"] is False
    assert client.post("/classify", json=scan["example"]).status_code == 200
    for path, operations in document["paths"].items():
        if "get" in operations:
            assert client.get(path).status_code == 200, path
        elif "example" in (body := operations["post"]["requestBody"]["content"]["application/json"]["schema"]):
            assert client.post(path, json=body["example"]).status_code == 200, path
    answer = client.post("/classify", json=scan["example"]).json()
    assert answer.keys() == document["components"]["schemas"]["Prediction"]["properties"].keys()


def test_the_page_runs_no_third_party_script(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "script-src 'self';" in page.headers["content-security-policy"]


def test_bentoml_clients_work(server: Server, client: httpx.Client) -> None:
    wanted = client.post("/classify", json=EXAMPLE).json()["probabilities"]
    with bentoml.SyncHTTPClient(server.url) as sync:
        assert sync.classify(EXAMPLE)["probabilities"] == wanted
        for answer in sync.classify_batch([EXAMPLE, EXAMPLE]):
            assert answer["probabilities"] == wanted

    async def ask() -> Any:
        async with bentoml.AsyncHTTPClient(server.url) as c:
            return await c.classify(EXAMPLE)

    assert asyncio.run(ask())["probabilities"] == wanted


def test_many_callers_get_their_own_answers(server: Server, model_dir: Path) -> None:
    rows = scans(400, seed=9)
    answers = ask_together(server.url, lambda own, row: own.post("/classify", json=row).json(), rows, callers=16)
    np.testing.assert_allclose(
        [list(a["probabilities"].values()) for a in answers], expected(model_dir, rows), atol=1e-6
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=10), inner, max_size=5),
    max_leaves=20,
)
NEARLY_SCANS = st.fixed_dictionaries(
    {}, optional={name: st.floats() | st.none() | st.integers() | st.text(max_size=3) for name in EXAMPLE}
)


@settings(max_examples=300)
@given(body=JSON | NEARLY_SCANS | NEARLY_SCANS.map(EXAMPLE.__or__) | st.lists(NEARLY_SCANS, max_size=3))
def test_no_json_makes_a_server_error(client: httpx.Client, body: Any) -> None:
    for path in ("/classify", "/classify_batch"):
        answer = client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
        assert answer.status_code in (200, 400), answer.text
        if answer.status_code == 400:
            assert "expected" in answer.json()["error"]


@given(body=st.binary(max_size=200))
def test_no_bytes_make_a_server_error(client: httpx.Client, body: bytes) -> None:
    for path in ("/classify", "/classify_batch"):
        answer = client.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400


def test_callers_mistakes_leave_no_traceback_in_the_log(server: Server, client: httpx.Client) -> None:
    client.post("/classify", content=b"{")
    client.post("/classify", json={"weight_g": "x"})
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("command", [BENTOML, MODULE], ids=["bentoml serve", "defects.serve"])
def test_the_served_process_imports_no_training_library(serve: Serve, model_dir: Path, command: Command) -> None:
    with serve(command=command, MODEL_DIR=model_dir) as started:
        leader = started.process.pid
        processes = [leader, *(p.pid for p in psutil.Process(leader).children(recursive=True))]
        mapped = "".join(Path(f"/proc/{pid}/maps").read_text() for pid in processes)
    assert "onnxruntime" in mapped
    for library in ("sklearn", "scipy", "pandas", "pyarrow", "skl2onnx"):
        assert f"site-packages/{library}/" not in mapped, library


def test_importing_the_service_imports_no_training_library(model_dir: Path, tmp_path: Path) -> None:
    code = (
        "import service, sys; print(*({'sklearn', 'scipy', 'pandas', 'pyarrow', 'onnx', 'skops'} & set(sys.modules)))"
    )
    result = run(tmp_path, "python", "-c", code, MODEL_DIR=model_dir)
    assert (result.returncode, result.stdout.strip()) == (0, ""), result.stderr


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"DEFECTS_MAX_BODY_BYTES": "x"}, 78, "DEFECTS_MAX_BODY_BYTES"),
        ({"DEFECTS_TYPO": "x"}, 78, "DEFECTS_TYPO: unknown setting"),
        ({"MODEL_DIR": "/nowhere"}, 66, "no model: /nowhere"),
        ({"MODEL_DIR": ""}, 66, "no model: defect_classifier:latest is not in the BentoML model store"),
        ({"DEFECTS_MODEL_DIGEST": "sha256:" + "0" * 64}, 65, "DEFECTS_MODEL_DIGEST asks sha256:000"),
    ],
)
def test_a_server_that_can_not_start_says_why_and_ends(
    change: dict[str, str], code: int, message: str, model_dir: Path, tmp_path: Path
) -> None:
    result = run(
        tmp_path,
        "bentoml",
        "serve",
        "service:DefectClassifier",
        "--port",
        "0",
        **{"MODEL_DIR": str(model_dir)} | change,
    )
    assert result.returncode == code, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("defects: ")]
    assert message in line
    assert "Traceback" not in result.stderr


def test_a_damaged_artifact_ends_the_start(model_dir: Path, tmp_path: Path) -> None:
    files = {p.name: p.read_bytes() for p in model_dir.iterdir()}
    golden = json.loads(files["golden.json"])
    golden["probabilities"][0].reverse()
    files["golden.json"] = artifact.dump(golden)
    del files[artifact.DIGESTS]
    artifact.write(tmp_path, files)
    result = run(tmp_path, "python", "-c", "import service", MODEL_DIR=tmp_path)
    assert result.returncode == 65
    assert "golden answers differ by" in result.stderr


@pytest.mark.skipif(not STEEL_PLATES.exists(), reason=f"{STEEL_PLATES} is not here")
def test_ones_own_data_is_served_without_a_code_change(serve: Serve, tmp_path: Path) -> None:
    result = pipeline.train(dataset.read(STEEL_PLATES, "fault"), Recipe("hist-gradient-boosting", 0, 0.2), quiet)
    artifact.replace(tmp_path / "model", result.files)
    with serve(MODEL_DIR=tmp_path / "model", DEFECTS_REVISION="steel-1") as steel:
        document = httpx.get(f"{steel.url}/docs.json").json()
        scan = document["components"]["schemas"]["Scan"]
        assert len(scan["properties"]) == len(scan["required"]) == 27
        answer = httpx.post(f"{steel.url}/classify", json=scan["example"])
        assert answer.status_code == 200
        assert answer.headers["x-revision"] == "steel-1"
        assert set(answer.json()["probabilities"]) >= {"Bumps", "Pastry", "Z_Scratch"}
        assert httpx.post(f"{steel.url}/classify", json=EXAMPLE).status_code == 400
