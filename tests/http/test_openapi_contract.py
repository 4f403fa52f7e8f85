"""`/docs.json` and the server say the same: schemathesis tries the document out, as other people would."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from conftest import CI, ROOT, Serve, Server, quiet, until
from defects import artifact
from defects.training import dataset, pipeline
from defects.training.options import Recipe
from defects.training.reading import Reading

SCHEMATHESIS = ROOT / ".venv-clients" / "bin" / "schemathesis"
HOOKS = Path(__file__).with_name("openapi_hooks.py")
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "positive_data_acceptance",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
)
NAME = "defect-classifier"
V1, V2 = f"/v1/models/{NAME}:predict", f"/v2/models/{NAME}/infer"
HISTORY = ("/outcomes", "/predictions/{id}", "/outcomes/summary")
Document = dict[str, Any]


def try_out(document: str | Path, folder: Path, *options: object) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Run schemathesis on a document, the same cases each time; return how it ended, and its file of all requests."""
    if not SCHEMATHESIS.exists():
        (pytest.fail if CI else pytest.skip)("schemathesis is not installed; `make test` installs it")
    requests = folder / "requests.har"
    command = [
        SCHEMATHESIS, "run", document, "--no-color", "--mode", "all", "--checks", ",".join(CHECKS),
        "--generation-deterministic", "--continue-on-failure", "--no-shrink", "--request-timeout", "60",
        "--report", "har", "--report-har-path", requests, *options,
    ]  # fmt: skip
    done = subprocess.run(
        [*map(str, command)],
        cwd=folder,
        env=os.environ | {"SCHEMATHESIS_HOOKS": str(HOOKS)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return done, requests


def answered(requests: Path) -> dict[str, set[tuple[int, str]]]:
    """Return, for each path that was asked with POST, the statuses and content types of its answers."""
    found = defaultdict(set)
    for entry in json.loads(requests.read_text("utf-8"))["log"]["entries"]:
        if entry["request"]["method"] == "POST":
            answer = entry["response"]
            found[httpx.URL(entry["request"]["url"]).path].add((answer["status"], answer["content"]["mimeType"]))
    return found


# --- the built-in model --------------------------------------------------------------------------------------------


def test_a_thousand_requests_made_from_the_document_are_answered_as_it_says(server: Server, tmp_path: Path) -> None:
    phases = ("--phases", "examples,coverage,fuzzing")
    done, requests = try_out(f"{server.url}/docs.json", tmp_path, *phases, "--max-examples", 10)
    assert done.returncode == 0, done.stdout + done.stderr
    generated, passed = re.findall(r"(\d+) generated, (\d+) passed", done.stdout)[0]
    assert int(generated) == int(passed) >= 1_000
    found = answered(requests)
    for path, methods in httpx.get(f"{server.url}/docs.json").json()["paths"].items():
        if "post" in methods:  # else it would only have been asked for nonsense
            assert {(200, "application/json"), (400, "application/json")} <= found[path], path
    assert (200, "application/octet-stream") in found[V2]
    assert "Traceback" not in server.log.read_text()


@pytest.fixture(scope="module")
def recording(serve: Serve, model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that has the routes of history too."""
    file = tmp_path_factory.mktemp("history") / "history.sqlite"
    with serve(MODEL_DIR=model_dir, DEFECTS_DATABASE_URL=f"sqlite:///{file}") as running:
        yield running


def test_requests_about_history_are_answered_as_the_document_says(recording: Server, tmp_path: Path) -> None:
    included = [option for path in HISTORY for option in ("--include-path", path)]
    options = ("--phases", "examples,coverage", "--max-examples", 5, *included)
    done, requests = try_out(f"{recording.url}/docs.json", tmp_path, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {(200, "application/json"), (400, "application/json")} <= answered(requests)["/outcomes"]
    assert "Traceback" not in recording.log.read_text()


def test_a_document_that_is_wrong_is_found_out(server: Server, tmp_path: Path) -> None:
    document = httpx.get(f"{server.url}/docs.json").json()
    schemas = document["components"]["schemas"]
    schemas["Scan"]["properties"]["length_mm"]["maximum"] = 9_000
    schemas["Prediction"]["properties"]["confidence"]["type"] = "string"
    document["components"]["headers"]["x-request-id"]["schema"]["pattern"] = "^Q"
    file = tmp_path / "docs.json"
    file.write_text(json.dumps(document), "utf-8")
    options = ("--url", server.url, "--include-path", "/classify", "--phases", "examples,coverage", "--max-examples", 5)
    done, _ = try_out(file, tmp_path, *options)
    assert done.returncode == 1, done.stdout + done.stderr
    for problem in ("Schema-valid request rejected", "Response violates schema", "Response header does not conform"):
        assert problem in done.stdout
    assert f"{server.url}/classify" in done.stdout.partition("Reproduce with")[2]


# --- what is valid by the document is taken, and nothing else ---------------------------------------------------------


@pytest.fixture(scope="module")
def document(server: Server) -> Document:
    described: Document = httpx.get(f"{server.url}/docs.json").json()
    return described


def validator(document: Document, schema: Any) -> jsonschema.Draft202012Validator:
    """Return what checks a value by a schema that refers to the document's components."""
    return jsonschema.Draft202012Validator({**schema, "components": document["components"]})


def valid(document: Document, path: str, body: Any) -> bool:
    content = document["paths"][path]["post"]["requestBody"]["content"]
    accepted: bool = validator(document, content["application/json"]["schema"]).is_valid(body)
    return accepted


def v1_and_bare_bodies(scan: dict[str, Any]) -> Iterator[tuple[str, Any, bool]]:
    """Yield bodies in JSON without tensors: where they go, and whether they are right."""
    row, without = [*scan.values()], {name: value for name, value in scan.items() if name != "weight_g"}
    optional = {name: value for name, value in scan.items() if name != "surface_moisture_pct"}
    values: list[tuple[Any, bool]] = [
        (scan, True), (without, False), (optional, True), (scan | {"surface_moisture_pct": None}, True),
        (scan | {"weight_g": None}, False), (scan | {"weight_g": True}, False), (scan | {"weight_g": "1"}, False),
        (scan | {"weight_g": 70_000}, True), (scan | {"weight_g": 70_001}, False), (scan | {"weight_g": 5}, True),
        (scan | {"weight_g": 4.9}, False), (scan | {"weight_g": 10**400}, False), (scan | {"colour": 1}, False),
        ({}, False), ([], False), (None, False), (5, False), ("scan", False),
    ]  # fmt: skip
    for value, right in values:
        yield "/classify", value, right
        yield "/classify_batch", [scan, value], right
        yield V1, {"instances": [row, value]}, right
    rows: list[tuple[Any, bool]] = [
        (row[:-1], False), ([*row, 1], False), ([], False), (["1", *row[1:]], False), ([None, *row[1:]], False),
        ([*row[:-1], None], True), ([False, *row[1:]], False), ([1e300, *row[1:]], False), ([row], False),
    ]  # fmt: skip
    for value, right in rows:
        yield V1, {"instances": [value]}, right
    for many, right in (([], False), ([scan] * 1_024, True), ([scan] * 1_025, False), (None, False), (scan, False)):
        yield "/classify_batch", many, right
        yield V1, {"instances": many}, right
    yield V1, {"instances": [row], "signature_name": "x"}, True
    yield V1, {}, False
    yield V1, [row], False


def v2_bodies(scan: dict[str, Any]) -> Iterator[tuple[str, Any, bool]]:
    """Yield V2's bodies, as far as JSON Schema can tell right from wrong."""
    row = [*scan.values()]
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, len(row)], "data": row}
    columns = [{"name": name, "datatype": "FP32", "shape": [1], "data": [value]} for name, value in scan.items()]
    tensors: list[tuple[dict[str, Any], bool]] = [
        ({}, True), ({"datatype": "BF16"}, True), ({"datatype": "STRING"}, False), ({"datatype": None}, False),
        ({"datatype": "BOOL"}, False), ({"data": [row]}, True), ({"data": None}, False), ({"data": []}, False),
        ({"data": ["1", *row[1:]]}, False), ({"data": [True, *row[1:]]}, False), ({"data": {}}, False),
        ({"shape": [0, len(row)], "data": []}, False), ({"shape": [-1, len(row)]}, False), ({"shape": []}, False),
        ({"shape": [1] * 7 + [len(row)]}, True), ({"shape": [1] * 8 + [len(row)]}, False), ({"shape": "1"}, False),
        ({"shape": [1_025, len(row)], "data": row * 1_025}, False), ({"name": 5}, False), ({"name": None}, False),
        ({"parameters": None}, True), ({"parameters": {"x": 1}}, True), ({"parameters": []}, False),
        ({"parameters": {"binary_data_size": None}}, True), ({"parameters": {"binary_data_size": 0}}, False),
    ]  # fmt: skip
    for change, right in tensors:
        yield V2, {"inputs": [tensor | change]}, right
    inputs = [(columns, True), ([tensor, tensor | {"name": "y"}], False), ([], False), (None, False), (tensor, False)]
    for given, right in [*inputs, ([5], False)]:
        yield V2, {"inputs": given}, right
    label, classes = {"name": "label"}, {"parameters": {"classification": 2}}
    requests: list[tuple[dict[str, Any], bool]] = [
        ({"id": "x"}, True), ({"id": None}, True), ({"id": 5}, False), ({"outputs": None}, True),
        ({"outputs": []}, True), ({"outputs": {}}, False), ({"outputs": [label]}, True), ({"outputs": ["x"]}, False),
        ({"outputs": [{"name": "colour"}]}, False), ({"outputs": [{}]}, False), ({"outputs": [label | classes]}, False),
        ({"outputs": [{"name": "probabilities", **classes}]}, True), ({"parameters": None}, True),
        ({"outputs": [{"name": "probabilities", "parameters": {"classification": 0}}]}, False),
        ({"outputs": [label | {"parameters": {"binary_data": True}}]}, True),
        ({"outputs": [label | {"parameters": {"binary_data": "yes"}}]}, False),
        ({"parameters": {"binary_data_output": True}}, True), ({"parameters": {"binary_data_output": None}}, False),
        ({"parameters": 5}, False), ({"colour": 1}, True),
    ]  # fmt: skip
    for change, right in requests:
        yield V2, {"inputs": [tensor], **change}, right
    yield V2, [tensor], False
    yield V2, {}, False


@pytest.mark.parametrize("bodies", [v1_and_bare_bodies, v2_bodies])
def test_what_is_valid_is_taken_and_nothing_else(server: Server, document: Document, bodies: Any) -> None:
    wrong = []
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for path, body, right in bodies(document["components"]["schemas"]["Scan"]["example"]):
            status = client.post(path, json=body).status_code
            if (valid(document, path, body), status) != (right, 200 if right else 400):
                wrong.append((path, str(body)[:200], f"valid: {not right}" if status in (200, 400) else status))
    assert wrong == []


def outcomes(label: str) -> Iterator[tuple[Any, bool]]:
    """Yield bodies with outcomes, and whether they are right."""
    id_, row = {"prediction_id": "0" * 32, "class": label}, {"request_id": "r", "row": 0, "class": label}
    items: list[tuple[dict[str, Any], bool]] = [
        (id_, True), (row, True), (id_ | {"prediction_id": "A" * 8 + "-AAAA" * 3 + "-" + "A" * 12}, True),
        (id_ | {"prediction_id": "0" * 31}, False), (id_ | {"row": 0}, False), (id_ | row, False),
        ({"class": label}, False), ({"prediction_id": "0" * 32}, False), (row | {"row": 1.0}, True),
        (row | {"row": -1}, False), (row | {"row": 2**31 - 1}, True), (row | {"row": 2**31}, False),
        (row | {"row": 0.5}, False), (row | {"row": True}, False), (row | {"request_id": "a b"}, False),
        (id_ | {"class": "colour"}, False), (id_ | {"class": 0}, False), (id_ | {"class": None}, False),
        (id_ | {"origin": "a"}, True), (id_ | {"origin": ""}, False), (id_ | {"origin": None}, False),
        (id_ | {"replace": True}, True), (id_ | {"replace": 1}, False), (id_ | {"colour": 1}, False),
        (id_ | {"occurred_at": "2026-11-27T05:00:00Z"}, True), (id_ | {"occurred_at": 5}, False),
    ]  # fmt: skip
    for item, right in items:
        yield item, right
        yield [id_, item], right
    yield from (([], False), ([id_] * 1_024, True), ([id_] * 1_025, False), (None, False), ({}, False), ("x", False))


def test_outcomes_that_are_valid_are_taken_and_no_others(recording: Server) -> None:
    described: Document = httpx.get(f"{recording.url}/docs.json").json()
    wrong = []
    with httpx.Client(base_url=recording.url) as client:
        for body, right in outcomes("ok"):
            answer = client.post("/outcomes", json=body)
            if (valid(described, "/outcomes", body), answer.status_code) != (right, 200 if right else 400):
                wrong.append((str(body)[:200], answer.status_code))
            check_answer(
                described, answer, described["paths"]["/outcomes"]["post"]["responses"][str(answer.status_code)]
            )
    assert wrong == []


def test_a_recorded_prediction_and_the_summary_are_as_described(recording: Server) -> None:
    described: Document = httpx.get(f"{recording.url}/docs.json").json()
    paths = described["paths"]
    with httpx.Client(base_url=recording.url) as client:
        scan = described["components"]["schemas"]["Scan"]["example"]
        id_ = client.post("/classify", json=scan).json()["prediction_id"]
        outcomes_ = [{"prediction_id": id_, "class": name, "replace": True} for name in ("ok", "crushed")]
        client.post("/outcomes", json=outcomes_)
        until(lambda: client.get(f"/predictions/{id_}").status_code == 200)
        record = until(lambda: (found := client.get(f"/predictions/{id_}")).json()["outcomes"] and found)
        check_answer(described, record, paths["/predictions/{id}"]["get"]["responses"]["200"])
        missing = client.get(f"/predictions/{'0' * 32}")
        check_answer(described, missing, paths["/predictions/{id}"]["get"]["responses"]["404"])
        for by in ("revision", "model", "source", "day"):
            summary = client.get(f"/outcomes/summary?by={by}")
            assert summary.json()["groups"]
            check_answer(described, summary, paths["/outcomes/summary"]["get"]["responses"]["200"])
        for method, path in (("GET", "/outcomes"), ("POST", f"/predictions/{id_}"), ("POST", "/outcomes/summary")):
            check_answer(described, client.request(method, path), described["components"]["responses"]["405"])


# --- answers that schemathesis doesn't get ----------------------------------------------------------------------------


def check_answer(document: Document, answer: httpx.Response, described: Any) -> None:
    """Fail where an answer is not as its description says."""
    if "$ref" in described:
        described = document["components"]["responses"][described["$ref"].rpartition("/")[2]]
    schema = described["content"][answer.headers["content-type"].partition(";")[0]]["schema"]
    if answer.headers["content-type"] == "application/json":
        validator(document, schema).validate(answer.json())
    for name, reference in described["headers"].items():
        header = document["components"]["headers"][reference["$ref"].rpartition("/")[2]]
        value: Any = answer.headers.get(name)
        assert value is not None or not header.get("required"), name
        if value is not None:
            value = int(value) if header["schema"]["type"] == "integer" else value
            validator(document, header["schema"]).validate(value)


def test_refusals_are_as_described(server: Server, document: Document) -> None:
    responses = document["components"]["responses"]
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for path, methods in document["paths"].items():
            for method in ("PUT", "DELETE", "PATCH", "GET" if "post" in methods else "POST"):
                answer = client.request(method, path)
                assert answer.status_code == 405
                check_answer(document, answer, responses["405"])
            described = next(iter(methods.values()))["responses"]
            many = {f"x-{number}": "" for number in range(101)}
            for url, headers, status in ((f"{path}?{'x' * 9_000}", {}, 414), (path, many, 431)):
                answer = client.get(url, headers=headers)
                assert answer.status_code == status
                check_answer(document, answer, described[str(status)])
        for path in (
            "/nowhere",
            "/v2/models/nobody",
            f"/v2/models/{NAME}/versions/0/infer",
            "/v1/models/nobody:predict",
        ):
            answer = client.get(path)
            assert answer.status_code == 404
            check_answer(document, answer, responses["404"])
        for path in (path for path, methods in document["paths"].items() if "post" in methods):
            described = document["paths"][path]["post"]["responses"]
            for status, headers, content in (
                (400, {}, b"{"),
                (400, {"x-request-timeout-ms": "0"}, b"{}"),
                (413, {}, b"x" * 3_000_000),
                (415, {"content-type": "text/plain"}, b"{}"),
                (415, {"content-encoding": "br"}, b"{}"),
            ):
                answer = client.post(path, content=content, headers={"content-type": "application/json"} | headers)
                assert answer.status_code == status, (path, status, answer.text)
                check_answer(document, answer, described[str(status)])


def test_the_request_after_a_large_body_is_answered_for_itself(server: Server) -> None:
    """The body's last part, which comes in one large piece, is no head of the next request."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for _ in range(20):
            assert client.post("/classify_batch", content=b"x" * 3_000_000).status_code == 413
            assert client.post("/classify_batch", content=b"{}").status_code == 400


def test_a_replica_that_shuts_down_answers_as_described(serve: Serve, model_dir: Path) -> None:
    with serve(MODEL_DIR=model_dir, DEFECTS_DRAIN_SECONDS=120) as stopping:
        document = httpx.get(f"{stopping.url}/docs.json").json()
        stopping.process.terminate()
        with httpx.Client(base_url=stopping.url) as client:
            until(lambda: client.get("/readyz").status_code == 503)
            for path in ("/readyz", "/v2/health/ready", f"/v2/models/{NAME}/ready", f"/v1/models/{NAME}"):
                for query in ("", "?verbose", "?verbose=1"):
                    answer = client.get(path + query)
                    assert answer.status_code == 503
                    check_answer(document, answer, document["paths"][path]["get"]["responses"]["503"])
            verbose = client.get("/readyz?verbose").json()
            assert (verbose["ready"], verbose["reason"]) == (False, "draining")
        stopping.process.kill()  # it would drain for long


def test_packed_answers_have_the_headers_that_are_described(server: Server, document: Document) -> None:
    scan = document["components"]["schemas"]["Scan"]["example"]
    answer = httpx.post(f"{server.url}/classify_batch", json=[scan] * 50, headers={"accept-encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    described = document["paths"]["/classify_batch"]["post"]["responses"]["200"]
    check_answer(document, answer, described)
    assert {"content-encoding", "vary"} <= described["headers"].keys()


def test_the_pages_tables_are_the_documents(document: Document) -> None:
    page = (ROOT / "docs" / "http-api.md").read_text("utf-8")
    errors = page.partition("\n## Errors")[2].partition("\n## ")[0]
    assert {*re.findall(r"^\| (\d+) \|", errors, re.MULTILINE)} == {*document["components"]["responses"], "500"}
    headers = page.partition("\n## Headers")[2].partition("\n## ")[0]
    answers, requests = (
        {name.lower() for name in re.findall(r"^\| `([\w-]+)[`:]", part, re.MULTILINE)}
        for part in headers.split("| Header of a request")
    )
    components = document["components"]
    assert requests == {name for name, given in components["parameters"].items() if given["in"] == "header"}
    assert answers == components["headers"].keys()


# --- models of other kinds --------------------------------------------------------------------------------------------


def odd_names() -> str:
    """Names with quotes, spaces and signs, a feature that needs 64 bits, and labels that are integers."""
    at = [1_700_000_000 + second for second in range(1_000)]
    lines = [f"{second % 7},{second % 3 - 1},{second},{second // 120 % 3 * 10 - 10}" for second in at]
    return "\n".join(['"größe ""mm"" ☃","it\'s [a/b]~c: 100 %","$epoch.{s}",label', *lines]) + "\n"


def booleans_and_categories() -> str:
    """Booleans and categories, of each one that may be missing; labels that are booleans, with a name of their own.

    Categories are texts, integers, and texts of which any other one counts as missing.
    """
    flag = [("True", "False")[n % 2] for n in range(300)]
    kinds = ["größer", "kleiner"]
    lines = [
        f"{f if n % 50 else ''},{n % 3 == 0},{n / 10},{'SML'[n % 3]},{n % 4 or ''},{kinds[n // 2 % 2]},{f}"
        for n, f in enumerate(flag)
    ]
    return "\n".join(["flag,full,x,size,deck,kind,is it on?", *lines]) + "\n"


def one_feature() -> str:
    """One feature, which may not be missing, and labels that are numbers."""
    return "\n".join(["x,label", *(f"{n / 10},{0.5 if n % 40 < 20 else 1.25}" for n in range(400))]) + "\n"


KINDS = Reading(category=("deck",), allow_unknown=("kind",))


@pytest.mark.parametrize(
    ("table", "label", "reading"),
    [
        (odd_names, "label", Reading()),
        (booleans_and_categories, "is it on?", KINDS),
        (one_feature, "label", Reading()),
    ],
)
def test_documents_of_other_models_are_right_too(
    table: Any, label: str, reading: Reading, serve: Serve, tmp_path: Path
) -> None:
    file = tmp_path / "table.csv"
    file.write_text(table(), "utf-8")
    trained = pipeline.train(dataset.read(file, label, reading), Recipe("hist-gradient-boosting", 0, 0.2), quiet)
    artifact.replace(tmp_path / "model", trained.files)
    with serve(MODEL_DIR=tmp_path / "model") as model:
        done, requests = try_out(
            f"{model.url}/docs.json", tmp_path, "--phases", "examples,fuzzing", "--max-examples", 20,
            "--include-method", "POST",
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        for answers in answered(requests).values():
            assert {(200, "application/json"), (400, "application/json")} <= answers
