"""The deploy check passes where everything is right, and fails with the right row where one thing is wrong."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wrong_server import PAGE, Damage, Exchange, on, wrong_server

from conftest import (
    BENTOML,
    CI,
    MODULE,
    PATIENT_CHECK,
    ROOT,
    STEEL_PLATES,
    WAIT_SECONDS,
    Command,
    Serve,
    Server,
    environment,
    free_port,
    quiet,
    run,
)
from defects import artifact
from defects.check import overload, table
from defects.check.checks import Run
from defects.check.client import Client, Response
from defects.training import dataset, pipeline
from defects.training.options import Recipe

INFER, PREDICT, METADATA = r"/v2/models/[^/]+/infer", r"/v1/models/[^/]+:predict", r"/v2/models/[^/]+"
EVERY = r".*"
HEADERS = {name for name, _ in table.HEADERS}
INFINITY, UNKNOWN = b"\x00\x00\x80\x7f", b"no-such-thing"


class Impatient(Client):
    """Waits for one path less than for all others."""

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Response:
        if path != "/v2":
            return super().send(method, path, body, **headers)
        return Client(self.host, self.port, timeout=1.0, responses=self.responses).send(method, path, body, **headers)


def checked(
    url: str, loaded: artifact.Artifact | None = None, kind: type[Client] = Client, **options: Any
) -> dict[str, tuple[str, str]]:
    """State and text of each row, by this kind of client."""
    client = kind("127.0.0.1", int(url.rsplit(":", 1)[1]), timeout=WAIT_SECONDS)
    return {r.name: (r.state, r.text) for r in table.rows(Run(client, loaded), **options)}


def failed(rows: dict[str, tuple[str, str]]) -> set[str]:
    return {name for name, (state, _) in rows.items() if state == "FAILED"}


def command_line(tmp_path: Path, *arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
    return run(tmp_path, "python", "-m", "defects.check", *arguments, **settings)


@pytest.fixture(scope="module")
def loaded(model_dir: Path) -> artifact.Artifact:
    return artifact.load(model_dir)


# --- right -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [BENTOML, MODULE], ids=["bentoml serve", "defects.serve"])
def test_it_passes_where_all_is_right(serve: Serve, model_dir: Path, tmp_path: Path, command: Command | None) -> None:
    with serve(
        command=command,
        MODEL_DIR=model_dir,
        INFERENCE_SERVICE_NAME="parcels",
        K_REVISION="parcels-7",
        DEFECTS_MAX_QUEUED_ROWS=1024,
    ) as right:
        done = run(tmp_path, "python", "-c", PATIENT_CHECK, right.url, "--model-dir", model_dir, "--overload")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    lines = done.stdout.splitlines()
    assert {line.split()[0] for line in lines[:-1]} == {"ok"}
    assert re.fullmatch(r"33 ok, 0 failed, 0 skipped; \d+ answers", lines[-1])
    assert "parcels-7 on" in done.stdout


@pytest.fixture(scope="module")
def small(serve: Serve, model_dir: Path) -> Iterator[Server]:
    """A server that has to refuse where two large requests come together, on however fast a machine."""
    with serve(MODEL_DIR=model_dir, DEFECTS_MAX_QUEUED_ROWS=1024) as running:
        yield running


def test_without_the_artifact_it_says_what_it_can_not_know(server: Server) -> None:
    rows = checked(server.url)
    assert {name for name, (state, _) in rows.items() if state != "ok"} == {"artifact", "golden answers"}
    assert rows["golden answers"] == ("skipped", "needs --model-dir; answers were only compared with one another")


@pytest.mark.skipif(not STEEL_PLATES.exists(), reason=f"{STEEL_PLATES} is not here")
def test_ones_own_data_where_no_value_may_be_missing(serve: Serve, tmp_path: Path) -> None:
    result = pipeline.train(dataset.read(STEEL_PLATES, "fault"), Recipe("logistic-regression", 0, 0.2), quiet)
    artifact.replace(tmp_path / "model", result.files)
    with serve(MODEL_DIR=tmp_path / "model", DEFECTS_MAX_BODY_BYTES=1 << 24) as steel:
        for model in (None, artifact.load(tmp_path / "model")):
            rows = checked(steel.url, model)
            assert failed(rows) == set(), rows
            assert rows["missing values"] == ("skipped", "every feature is required")
            assert rows["413 too large"][0] == "skipped"


def test_it_needs_only_what_serving_needs(tmp_path: Path) -> None:
    code = "import defects.check, sys; print(*({'bentoml', 'httpx', 'sklearn', 'pandas', 'yaml'} & set(sys.modules)))"
    result = run(tmp_path, "python", "-c", code)
    assert (result.returncode, result.stdout.strip()) == (0, ""), result.stderr


# --- wrong in one way ------------------------------------------------------------------------------------------------


def changed(**values: Any) -> Callable[[Exchange], None]:
    """Put other values into a JSON object."""

    def change(x: Exchange) -> None:
        x.json = x.json | values

    return change


def edited(edit: Callable[[Any], object]) -> Callable[[Exchange], None]:
    """Edit a JSON answer in place."""

    def change(x: Exchange) -> None:
        value = x.json
        edit(value)
        x.json = value

    return change


def refused(x: Exchange) -> None:
    x.becomes(503, {"error": "not ready: it never is; expected another try"})


def fastapi(x: Exchange) -> None:
    x.becomes(422, {"detail": [{"loc": ["body"], "msg": "field required", "type": "missing"}]})


def becomes(status: int, value: Any) -> Callable[[Exchange], None]:
    return lambda x: x.becomes(status, value)


def page(status: int) -> Callable[[Exchange], None]:
    return lambda x: x.page(status)


def replaced(old: bytes, new: bytes) -> Callable[[Exchange], None]:
    return lambda x: setattr(x, "body", x.body.replace(old, new))


def shift(probabilities: dict[str, float]) -> None:
    """By little: they are still probabilities, with nearly the same sum and the same order."""
    name = min(probabilities, key=lambda name: probabilities[name])
    probabilities[name] += 5e-5


def percentages(answer: dict[str, Any]) -> None:
    answer["probabilities"] = {name: 100 * value for name, value in answer["probabilities"].items()}
    answer["confidence"] *= 100


def one_identifier(answers: list[dict[str, Any]]) -> None:
    for answer in answers:
        answer["prediction_id"] = "1"


def one_output(inference: dict[str, Any]) -> None:
    data = inference["outputs"][3]["data"]
    data[:] = data[:1] * len(data)


def other_field(error: dict[str, Any]) -> None:
    error["fields"][0]["field"] = "other"


def columns(metadata: Any) -> Any:
    return metadata["inputs"][0]["parameters"]["columns"]


def classes(metadata: Any) -> Any:
    return metadata["outputs"][0]["parameters"]["classes"]


def in_v2(kind: str, change: Callable[[Exchange], object]) -> Damage:
    """Change answers to one of the ways to ask V2."""

    def only(x: Exchange) -> None:
        if not x.path.endswith("/infer") or x.status != 200:
            return
        binary = "octet-stream" in x.request_headers.get("content-type", "")
        seen = "binary" if binary else "JSON" if len(json.loads(x.request)["inputs"]) == 1 else "by feature"
        if seen == kind:
            change(x)

    return Damage(only)


def nan_becomes_zero(x: Exchange) -> None:
    length = int(x.request_headers.get("inference-header-content-length", 0))
    if length:
        rows = np.frombuffer(x.request[length:], "<f4")
        x.request = x.request[:length] + np.nan_to_num(rows, posinf=math.inf).tobytes()


def one_float_changed(x: Exchange) -> None:
    """The last of the probabilities, which come last."""
    (value,) = struct.unpack("<f", x.body[-4:])
    x.body = x.body[:-4] + struct.pack("<f", value + 5e-4)


def without(header: str, path: str = EVERY) -> Damage:
    return on(path, lambda x: x.headers.pop(header, None))


def header(name: str, value: str, path: str = EVERY) -> Damage:
    return on(path, lambda x: x.headers.update({name: value}))


def any_deadline(x: Exchange) -> None:
    if x.request_headers.get("x-request-timeout-ms") == "0":
        x.becomes(200, {})


def no_json(x: Exchange) -> None:
    if x.request == b"{":
        x.page(500)


def echoed(x: Exchange) -> None:
    x.headers["x-request-id"] = x.request_headers["x-request-id"]


DAMAGES: list[tuple[str, Damage, str]] = [
    ("not ready", on("/readyz", refused), "readyz"),
    ("ready in words only", on("/readyz", changed(ready=False)), "readyz"),
    ("no livez", on("/livez", becomes(404, {"error": "no such path"})), "livez"),
    ("a page with 200", on("/livez", page(200)), "livez"),
    ("JSON that says it is a page", header("content-type", "text/html", "/livez"), "livez"),
    ("V2 not ready", on("/v2/health/ready", refused), "V2 health"),
    ("V2 not live", on("/v2/health/live", refused), "V2 health"),
    ("a version that is not the card's", on("/model", changed(version="other")), "model"),
    ("an engine that is not the card's", on("/model", changed(engine="other")), "model"),
    ("no extension", on("/v2", edited(lambda v: v["extensions"].clear())), "V2 server"),
    ("no HTTP", on("/v2", lambda x: setattr(x, "raw", b"SSH-2.0-OpenSSH_9.6\r\n")), "V2 server"),
    ("hangs up", on("/v2", lambda x: setattr(x, "raw", b"")), "V2 server"),
    ("half an answer", on("/v2", lambda x: setattr(x, "cut", 10)), "V2 server"),
    ("another version in V2", on(METADATA, changed(versions=["other"]), status=200), "V2 metadata"),
    ("another name in V2", on(METADATA, changed(name="other"), status=200), "V2 metadata"),
    ("features in another order", on(METADATA, edited(lambda v: columns(v).reverse()), status=200), "V2 metadata"),
    ("another limit", on(METADATA, edited(lambda v: columns(v)[1].update(minimum=-1)), status=200), "V2 metadata"),
    ("classes in another order", on(METADATA, edited(lambda v: classes(v).reverse()), status=200), "V2 metadata"),
    ("KServe's empty metadata", on(METADATA, changed(inputs=[], outputs=[]), status=200), "V2 metadata"),
    ("no versioned URLs", on(r".*/versions/[^/]+", becomes(501, {"error": "no versions"})), "V2 metadata"),
    ("model not ready in V1", on("/v1/models/[^/:]+", changed(ready=False)), "model ready"),
    ("model not ready in V2", on(f"{METADATA}/ready", refused), "model ready"),
    ("another probability", on("/classify", edited(lambda v: shift(v["probabilities"])), status=200), "/classify"),
    ("another label", on("/classify", changed(defect="other"), status=200), "/classify"),
    ("another confidence", on("/classify", changed(confidence=0.99999), status=200), "/classify"),
    ("another identifier in the header", header("x-prediction-id", "other", "/classify"), "/classify"),
    ("percentages", on("/classify", edited(percentages), status=200), "/classify"),
    ("another version in answers", on("/classify", changed(model_version="other"), status=200), "/classify"),
    ("a list around a prediction", on("/classify", lambda x: x.becomes(200, [x.json]), status=200), "/classify"),
    ("swapped rows", on("/classify_batch", edited(list.reverse), status=200), "/classify_batch"),
    ("a row too few", on("/classify_batch", edited(list.pop), status=200), "/classify_batch"),
    ("an identifier twice", on("/classify_batch", edited(one_identifier), status=200), "/classify_batch"),
    (
        "a class too few",
        on(PREDICT, edited(lambda v: v["predictions"][2]["probabilities"].pop("ok")), status=200),
        "V1",
    ),
    ("numbers for predictions", on(PREDICT, becomes(200, {"predictions": [1] * 16}), status=200), "V1"),
    ("V2 error", in_v2("JSON", becomes(500, {"error": "internal error"})), "V2 JSON"),
    ("V2 in reverse", in_v2("JSON", edited(lambda v: v["outputs"][2]["data"].reverse())), "V2 JSON"),
    ("other labels in V2", in_v2("JSON", edited(lambda v: v["outputs"][0]["data"].reverse())), "V2 JSON"),
    ("NaN in JSON", in_v2("JSON", replaced(b'"data":[0.', b'"data":[NaN,0.')), "V2 JSON"),
    ("an output too few", in_v2("by feature", edited(lambda v: v["outputs"].pop())), "V2 JSON by feature"),
    ("an identifier twice in V2", in_v2("by feature", edited(one_output)), "V2 JSON by feature"),
    ("another model name", in_v2("by feature", changed(model_name="other")), "V2 JSON by feature"),
    ("another shape", in_v2("by feature", edited(lambda v: v["outputs"][2]["shape"].reverse())), "V2 JSON by feature"),
    ("one binary value", in_v2("binary", one_float_changed), "V2 binary"),
    ("bytes too few", in_v2("binary", lambda x: setattr(x, "body", x.body[:-8])), "V2 binary"),
    ("bytes too many", in_v2("binary", lambda x: setattr(x, "body", x.body + b"0000")), "V2 binary"),
    ("no header length", in_v2("binary", lambda x: x.headers.pop("inference-header-content-length")), "V2 binary"),
    ("NaN becomes 0", Damage(request=nan_becomes_zero), "missing values"),
    ("null refused", on(PREDICT, becomes(400, {"error": "null"}), status=200, request=b"null"), "missing values"),
    ("422 and detail", on("/classify", fastapi, status=400, request=b"e+39"), "400 invalid value"),
    ("no fields", on(INFER, edited(lambda v: v.pop("fields")), status=400), "400 invalid value"),
    ("infinity is taken", on(INFER, becomes(200, {}), request=INFINITY), "400 invalid value"),
    ("unknown fields are taken", on("/classify_batch", becomes(200, []), request=UNKNOWN), "400 unknown field"),
    ("another field is named", on(PREDICT, edited(other_field), request=UNKNOWN), "400 unknown field"),
    ("a page for no JSON", on("/classify", no_json), "400 no JSON"),
    ("any deadline", on("/classify", any_deadline), "400 wrong deadline"),
    ("a proxy's page", on("/no-such-thing", page(404)), "404 not found"),
    ("a list around an error", on("/v2/models/no.*", lambda x: x.becomes(404, [x.json]), status=404), "404 not found"),
    ("404 for a method", on("/classify", becomes(404, {"error": "no such path"}), status=405), "405 wrong method"),
    ("no allow", without("allow"), "405 wrong method"),
    ("an error for too much", on("/classify", becomes(500, {"error": "no memory"}), status=413), "413 too large"),
    ("another code for a type", on("/classify", becomes(400, {"error": "type"}), status=415), "415 wrong type"),
    ("a metric too few", on("/metrics", replaced(b"defects_refused", b"refused")), "metrics"),
    ("another label on a metric", on("/metrics", replaced(b"{phase=", b"{step=")), "metrics"),
    ("metrics of another model", on("/metrics", replaced(b'engine="onnxruntime"', b'engine="other"')), "metrics"),
    ("a page of metrics", on("/metrics", page(200)), "metrics"),
    ("no metrics", on("/metrics", lambda x: setattr(x, "body", PAGE)), "metrics"),
    ("no request id on errors", on(EVERY, lambda x: x.headers.pop("x-request-id"), status=400), "x-request-id"),
    ("a request id of its own", header("x-request-id", "mine"), "x-request-id"),
    ("any request id", on("/livez", echoed), "x-request-id"),
    ("another model version", header("x-model-version", "other", "/classify_batch"), "x-model-version"),
    ("no model version", without("x-model-version", "/metrics"), "x-model-version"),
    ("no revision", without("x-revision", "/v2/.*"), "x-revision"),
    ("no timing", without("server-timing", "/readyz"), "Server-Timing"),
    ("half a timing", header("server-timing", "total;dur=1.0"), "Server-Timing"),
]


@pytest.mark.parametrize(("damage", "row"), [d[1:] for d in DAMAGES], ids=[d[0] for d in DAMAGES])
def test_what_is_wrong_fails_its_row_and_no_other(server: Server, damage: Damage, row: str) -> None:
    with wrong_server(server.url, damage) as url:
        rows = checked(url)
    assert failed(rows) == {row}, rows


@pytest.mark.usefixtures("patient")
def test_the_proxy_itself_damages_nothing(small: Server, loaded: artifact.Artifact) -> None:
    with wrong_server(small.url) as url:
        rows = checked(url, loaded, overload=True)
    assert {state for state, _ in rows.values()} == {"ok"}, rows


def test_every_row_can_fail() -> None:
    by_damage = {row for _, _, row in DAMAGES}
    elsewhere = {"artifact", "golden answers", *(name for name, _ in table.OVERLOAD)}
    assert by_damage | elsewhere == {name for name, _ in (*table.CHECKS, *table.OVERLOAD, *table.HEADERS)}


@pytest.mark.parametrize("way", ["hang", "drip"])
def test_what_never_ends_fails_its_row(server: Server, way: str) -> None:
    over = threading.Event()
    change = (lambda _: over.wait(WAIT_SECONDS)) if way == "hang" else (lambda x: setattr(x, "drip", 0.2))
    with wrong_server(server.url, on("/v2", change)) as url:
        rows = checked(url, kind=Impatient)
        over.set()
    assert failed(rows) == {"V2 server"}, rows
    assert rows["V2 server"][1] == "GET /v2: no complete answer within 1 s"


def test_another_artifact_fails_its_rows(server: Server, loaded: artifact.Artifact, tmp_path: Path) -> None:
    result = pipeline.train(dataset.builtin(2_000, seed=3), Recipe("logistic-regression", 1, 0.2), quiet)
    artifact.replace(tmp_path / "model", result.files)
    done = command_line(tmp_path, server.url, "--model-dir", tmp_path / "model")
    assert done.returncode == 1
    assert re.findall(r"^FAILED +(.*?)  ", done.stdout, re.MULTILINE) == ["artifact", "golden answers"]
    assert failed(checked(server.url, replace(loaded, digest="sha256:0"))) == {"artifact"}
    assert failed(checked(server.url, replace(loaded, card={**loaded.card, "more": 1}))) == {"artifact"}
    rows = checked(server.url, replace(loaded, schema=replace(loaded.schema, classes=loaded.schema.classes[::-1])))
    assert failed(rows) == {"artifact"}
    assert rows["golden answers"][0] == "skipped"
    off = replace(loaded.golden, probabilities=np.roll(loaded.golden.probabilities, 1, axis=0))
    rows = checked(server.url, replace(loaded, golden=off))
    assert failed(rows) == {"golden answers"}
    assert "golden answers differ by" in rows["golden answers"][1]


# --- overload --------------------------------------------------------------------------------------------------------

FOREVER_MS = 600_000  # the longest deadline


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the overload have time: how fast this machine is, is not tested. `small` refuses when its queue is full."""
    for name in ("DEADLINE_MS", "LATE_MS", "QUICK_MS"):
        monkeypatch.setattr(overload, name, FOREVER_MS)


def one_answer_for_all() -> Callable[[Exchange], None]:
    """The first answer to a request with so many rows goes to everybody."""
    first: list[Exchange] = []

    def change(x: Exchange) -> None:
        if x.status == 200 and len(x.request) > 50_000:
            first.append(x)
            x.body, x.headers = first[0].body, first[0].headers | {"x-request-id": x.headers["x-request-id"]}

    return change


def never_again() -> Callable[[Exchange], None]:
    """Not ready any more once something was refused."""
    over = threading.Event()

    def change(x: Exchange) -> None:
        if x.status == 503:
            over.set()
        if x.path == "/readyz" and over.is_set():
            refused(x)

    return change


def refuses_large(x: Exchange) -> None:
    if len(x.request) > 50_000:
        x.becomes(503, {"error": "overloaded"})
        x.headers["retry-after"] = "1"


def late(exchange: Exchange) -> None:
    exchange.headers["server-timing"] = f"queue;dur={2 * FOREVER_MS}, score;dur=0, total;dur={2 * FOREVER_MS}"


OVERLOADS: list[tuple[str, Damage, str]] = [
    ("no Retry-After", on(INFER, lambda x: x.headers.pop("retry-after"), status=503), "overload: Retry-After"),
    ("Retry-After in words", header("retry-after", "soon", INFER), "overload: Retry-After"),
    ("a proxy's 502", on(INFER, page(502), status=503), "overload: answers"),
    ("a proxy's 503", on(INFER, page(503), status=503), "overload: answers"),
    ("others' answers", Damage(one_answer_for_all()), "overload: answers"),
    ("answers that nobody waits for", on(INFER, late, status=200), "overload: answers"),
    ("everything refused", on(INFER, refuses_large), "overload: answers"),
    ("refusals take their time", on(INFER, late, status=503), "overload: at once"),
    ("not ready again", Damage(never_again()), "overload: afterwards"),
]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(("damage", "row"), [o[1:] for o in OVERLOADS], ids=[o[0] for o in OVERLOADS])
def test_what_is_wrong_in_an_overload_fails_its_row(
    small: Server, damage: Damage, row: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overload, "TRIES", 2)
    with wrong_server(small.url, damage) as url:
        rows = checked(url, overload=True)
    assert failed(rows) == {row}, rows


# --- nothing that comes makes a traceback ----------------------------------------------------------------------------

GARBAGE: list[bytes] = [
    b"", b"null", b"[]", b"{}", b'"text"', b"1", b"1e999", b"NaN", b"{", b"\xff\xfe", b"[" * 100_000, b"[{}]",
    b"[null]",
    b"[" * 500 + b"]" * 500,
    b'{"error": 5}', b'{"error": "x", "fields": 5}', b'{"outputs": [{}]}', b'{"predictions": [[]]}', PAGE,
    b'{"name": "m", "version": "1", "digest": "d", "engine": "e", "schema": {}, "card": {}}',
]  # fmt: skip
SCHEMAS: list[dict[str, Any]] = [
    {"features": [], "classes": []},
    {"features": [{"name": "a"}], "classes": [{"name": "x"}]},
    {"features": [{"name": "a"}, {"name": "a"}], "classes": [{"name": "x"}]},
    {"features": [{"name": "a", "low": 1e308, "high": -1e308, "example": 1e308}], "classes": [{"name": "x"}]},
    {"features": [{"name": "a" * 3000, "optional": True}], "classes": [{"name": "\x1b[31m"}]},
    {"features": [{"name": 5}], "classes": [{"name": None}]},
    {"features": [{"name": "a", "observed_low": "x"}], "classes": [{"name": "x"}]},
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda g: repr(g[:30]))
def test_garbage_fails_rows(server: Server, loaded: artifact.Artifact, garbage: bytes) -> None:
    def as_it_is(x: Exchange) -> None:
        """With the status and the headers of the right answer."""
        x.body = garbage
        if "inference-header-content-length" in x.headers:
            x.headers["inference-header-content-length"] = str(len(garbage))

    with wrong_server(server.url, Damage(as_it_is)) as url:
        rows = checked(url)
        assert {state for state, _ in rows.values()} == {"FAILED", "skipped", "ok"}, rows
        assert {name for name, (state, _) in rows.items() if state == "ok"} <= HEADERS
    with wrong_server(server.url, on("/(?!model$|card$).*", as_it_is)) as url:
        rows = checked(url, loaded)
    assert {name for name, (state, _) in rows.items() if state == "ok"} == {"model", "artifact"} | HEADERS, rows


def test_another_card_than_the_artifacts_fails_its_row(server: Server, loaded: artifact.Artifact) -> None:
    with wrong_server(server.url, on("/card", page(200))) as url:
        assert failed(checked(url, loaded)) == {"artifact"}
    with wrong_server(server.url, on("/card", page(403))) as url:  # an ingress may keep it to itself
        assert failed(checked(url, loaded)) == set()


def test_a_server_that_only_hangs_up_fails_rows(server: Server) -> None:
    with wrong_server(server.url, on(EVERY, lambda x: setattr(x, "raw", b""))) as url:
        rows = checked(url, overload=True)
    assert {state for state, _ in rows.values()} == {"FAILED", "skipped"}, rows


@pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_a_strange_schema_fails_rows(server: Server, schema: dict[str, Any]) -> None:
    with wrong_server(server.url, on("/model", changed(schema=schema))) as url:
        rows = checked(url)
    assert failed(rows) & {"model", "V2 metadata"}
    assert all(text.isprintable() for _, text in rows.values())


def mutations(seed: int) -> Callable[[Exchange], None]:
    """Put something else somewhere into every fourth JSON answer."""
    chance = random.Random(seed)
    others: tuple[Any, ...] = (None, True, 0, -1, 1e300, 2**70, "", "x" * 500, [], {}, [[]], {"a": {}})

    def mutate(value: Any) -> Any:
        inner = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        if not inner or chance.random() < 0.2:
            return chance.choice(others)
        key = chance.choice(inner)
        value[key] = mutate(value[key])
        return value

    def change(x: Exchange) -> None:
        if x.headers.get("content-type") == "application/json" and chance.random() < 0.25:
            x.json = mutate(x.json)

    return change


@pytest.mark.parametrize("seed", range(20))
def test_other_types_anywhere_fail_rows(server: Server, loaded: artifact.Artifact, seed: int) -> None:
    with wrong_server(server.url, Damage(mutations(seed))) as url:
        rows = checked(url, loaded if seed % 2 else None)
    assert failed(rows)


# --- ingress, TLS, arguments -----------------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A key and a certificate of its own making, for parcels.example, in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        (pytest.fail if CI else pytest.skip)("openssl is not installed; .ci/system-packages installs it")
    key, made = tmp_path / "key.pem", tmp_path / "both.pem"
    command: Command = [
        openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", "/CN=parcels.example", "-addext", "subjectAltName=DNS:parcels.example", "-keyout", key, "-out", made,
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    made.write_bytes(made.read_bytes() + key.read_bytes())
    return made


def test_an_ingress_that_routes_by_host_and_path(server: Server, model_dir: Path, tmp_path: Path) -> None:
    name = "parcels.default.example.com"
    with wrong_server(server.url, host=name, prefix="/some/where") as url:
        asked = (f"{url}/some/where/", "--model-dir", model_dir)
        right = command_line(tmp_path, *asked, "--host-header", name)
        assert right.returncode == 0, right.stdout
        without_host = command_line(tmp_path, *asked)
    assert without_host.returncode == 1
    assert "404 text/html" in without_host.stdout


def test_an_ingress_may_give_its_own_request_ids(server: Server, tmp_path: Path) -> None:
    numbers = count()
    new = Damage(request=lambda x: x.request_headers.update({"x-request-id": f"own-{next(numbers)}"}))
    with wrong_server(server.url, new, host="parcels") as url:
        done = command_line(tmp_path, url, "--host-header", "parcels")
    assert done.returncode == 0, done.stdout
    assert "skipped  x-request-id" in done.stdout


def test_tls_with_the_name_of_the_host_header(server: Server, certificate: Path, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with wrong_server(server.url, tls=context) as url:
        trusted = {"SSL_CERT_FILE": certificate}
        assert command_line(tmp_path, url, "--host-header", "parcels.example", **trusted).returncode == 0
        assert command_line(tmp_path, url, "--insecure").returncode == 0
        for settings, host, problem in (
            ({}, "parcels.example", "self-signed certificate"),
            (trusted, "other.example", "not valid for 'other.example'"),
        ):
            done = command_line(tmp_path, url, "--host-header", host, **settings)
            assert (done.returncode, done.stdout) == (69, "")
            assert problem in done.stderr
            assert done.stderr.count("\n") == 1


def test_where_nobody_answers_it_says_so_in_one_line(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = command_line(tmp_path, url)
    expected = f"defects: can't reach {url}: Connection refused; expected a server there\n"
    assert (done.returncode, done.stdout, done.stderr) == (69, "", expected)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "URL"),
        (("localhost:3000",), 2, "'localhost:3000' is not http[s]://host[:port][/prefix]"),
        (("http://localhost:x",), 2, "is not http[s]://host[:port][/prefix]"),
        (("http://u:p@localhost/?a",), 2, "is not http[s]://host[:port][/prefix]"),
        (("http://localhost", "--timeout", "0"), 2, "'0' is not a number from 0.1 to 600"),
        (("http://localhost", "--host-header", "a\r\nb"), 2, "is not host[:port]"),
        (("http://localhost", "--name", "a/b"), 2, "is not a model's name"),
        (("http://localhost", "--model-dir", "/nowhere"), 66, "no model: /nowhere is not a directory"),
        (("http://a..b",), 69, "can't reach http://a..b:80"),
    ],
)
def test_wrong_arguments_end_with_one_line(arguments: tuple[str, ...], code: int, message: str, tmp_path: Path) -> None:
    done = command_line(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.fixture
def no_description(server: Server) -> Iterator[str]:
    with wrong_server(server.url, on("/model", lambda x: x.becomes(404, {"error": "hidden"}))) as url:
        yield url


def test_a_hidden_description(no_description: str, model_dir: Path, tmp_path: Path) -> None:
    alone = command_line(tmp_path, no_description)
    assert "skipped  V2 binary              needs GET /model, or --model-dir and --name" in alone.stdout
    done = command_line(tmp_path, no_description, "--model-dir", model_dir, "--name", "defect-classifier")
    assert done.returncode == 0
    assert "skipped  model                  404: not for everybody there" in done.stdout
    assert "64 golden inputs have their golden answers" in done.stdout


def test_hidden_metrics(server: Server) -> None:
    with wrong_server(server.url, on("/metrics", lambda x: x.becomes(403, {"error": "no"}))) as url:
        rows = checked(url)
    assert rows["metrics"] == ("skipped", "403: not for everybody there")
    assert failed(rows) == set()


def test_another_name_is_noticed(server: Server, tmp_path: Path) -> None:
    done = command_line(tmp_path, server.url, "--name", "other")
    assert done.returncode == 1
    assert "FAILED   model                  its name is defect-classifier; expected other" in done.stdout


def test_standard_output_that_takes_no_unicode(server: Server, tmp_path: Path) -> None:
    with wrong_server(server.url, on("/livez", lambda x: x.becomes(200, {"live": "é"}))) as url:
        done = subprocess.run(
            [sys.executable, "-m", "defects.check", url],
            cwd=ROOT, env=environment(tmp_path, PYTHONIOENCODING="ascii"), capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert 'live is "?"; expected true' in done.stdout
