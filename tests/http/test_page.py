"""The page at `/`, in a real browser, and the OpenAPI document that it shows."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from served_here import routes

import browser
from conftest import MODULE, Serve, Server, until
from defects import artifact, simulator
from defects.bentoml_service import classifier
from defects.features import DefectClass, Feature
from defects.http import openapi, page
from defects.http.router import PredictionRoute
from defects.kinds import BOOLEAN, INTEGER
from defects.pydantic_models import answer_model
from defects.replica import Replica
from defects.schema import Schema
from defects.serving.metrics import Metrics
from defects.serving.model import ServedModel, prediction_objects
from defects.settings import Settings

MIXED = Schema(
    (Feature("a", optional=True), Feature("flag", kind=BOOLEAN, optional=True), Feature("full", kind=BOOLEAN)),
    (DefectClass("1"), DefectClass("2")),
    title="mixed table",
    label_type=INTEGER,
)
TEXTS = Schema(
    (
        Feature("size", kind="category", categories=("L", "M"), example=1),
        Feature("only", kind="category", categories=("one",), optional=True),
        Feature("deck", kind="category", categories=("1", "2"), optional=True, unknown="missing"),
        Feature("mass"),
    ),
    (DefectClass("a"), DefectClass("b")),
    title="texts",
    label_name="what's it?",
)
CLASSIFY = "#operations-Classify-classify"
# The paths of https://github.com/kserve/open-inference-protocol, specification/protocol/open_inference_rest.yaml.
PROTOCOL = {
    "/v2/health/live": "get",
    "/v2/health/ready": "get",
    "/v2/models/${MODEL_NAME}/versions/${MODEL_VERSION}/ready": "get",
    "/v2/": "get",
    "/v2/models/${MODEL_NAME}/versions/${MODEL_VERSION}": "get",
    "/v2/models/${MODEL_NAME}/versions/${MODEL_VERSION}/infer": "post",
}


@pytest.fixture(scope="module")
def server(serve: Serve, model_dir: Path) -> Iterator[Server]:
    with serve(command=MODULE, MODEL_DIR=model_dir) as running:
        yield running


def test_the_page_is_ours_and_the_api_can_be_tried_out(server: Server, tmp_path: Path) -> None:
    with browser.opened(tmp_path, f"{server.url}/") as tab:
        tab.wait_for(f"!!document.querySelector('{CLASSIFY}')")
        assert tab.run("document.title") == "Defect classifier: defect-classifier"
        text = tab.run("document.body.innerText")
        assert simulator.SCHEMA.title in text
        assert all(name in text for name in simulator.SCHEMA.class_names)
        assert tab.run("document.querySelector('.servers option:checked').innerText") == f"{server.url} - this server"
        links = tab.run("[...document.querySelectorAll('a[href]')].map((link) => link.href)")
        assert len([httpx.get(link).raise_for_status() for link in links if link.startswith(server.url)]) >= 4
        assert [link for link in links if not link.startswith(server.url)] == []

        tab.run(f"document.querySelector('{CLASSIFY} .opblock-summary-control').click()")
        tab.wait_for(f"!!document.querySelector('{CLASSIFY} .try-out__btn')")
        tab.run(f"document.querySelector('{CLASSIFY} .try-out__btn').click()")
        tab.wait_for(f"!!document.querySelector('{CLASSIFY} .execute')")
        tab.run(f"document.querySelector('{CLASSIFY} .execute').click()")
        table = f"document.querySelector('{CLASSIFY} .live-responses-table')"
        assert tab.wait_for(f"{table} && {table}.querySelector('tbody td.response-col_status').innerText").startswith(
            "200"
        )
        assert "prediction_id" in tab.run(f"{table}.innerText")
        assert tab.complaints == []

        tab.run("console.error('noticed'); fetch('https://example.org/').catch(() => null)")
        until(lambda: tab.run("true") and any("Content Security Policy" in said for said in tab.complaints))
        assert "noticed" in tab.complaints[0]


def test_the_pages_files_come_plain_and_packed_and_may_be_kept(server: Server) -> None:
    with httpx.Client(base_url=server.url) as client:
        paths = [path for path in client.get("/docs.json").json()["paths"] if path.startswith("/static_content/")]
        assert len(paths) == 3
        for path in paths:
            packed = client.get(path)
            plain = client.get(path, headers={"accept-encoding": "identity"})
            assert (packed.headers["content-encoding"], "content-encoding" in plain.headers) == ("gzip", False)
            assert packed.content == plain.content
            assert int(packed.headers["content-length"]) == len(gzip.compress(plain.content, mtime=0))
            assert plain.headers["cache-control"] == "max-age=3600"
            assert plain.headers["vary"] == "accept-encoding"


def test_the_page_needs_no_sdk(server: Server) -> None:
    """BentoML's is as large as everything else together, and would be imported in a process that answers."""
    for path in ("/", "/docs.json", "/schema.json", "/static_content/swagger-ui-bundle.js"):
        assert httpx.get(f"{server.url}{path}").status_code == 200
    maps = Path(f"/proc/{server.process.pid}/maps").read_text("utf-8")
    assert "onnxruntime" in maps
    for library in ("psutil", "yaml"):  # which the SDK loads
        assert f"site-packages/{library}/" not in maps


def test_the_document_lists_every_route_and_no_other(server: Server) -> None:
    app = routes(simulator.SCHEMA, np.asarray)
    document = openapi.document(simulator.SCHEMA, "1", app.table)
    listed = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    # HEAD is GET without the body, and is not listed for itself.
    assert listed == {(path, m) for path, route in app.table.items() for m in route.methods if m != "HEAD"}
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    assert all(operation["summary"] for operation in operations)
    assert {tag["name"] for tag in document["tags"]} == {tag for operation in operations for tag in operation["tags"]}

    served = httpx.get(f"{server.url}/docs.json").json()["paths"]
    with httpx.Client(base_url=server.url) as client:
        for path, methods in served.items():
            allowed = client.request("PUT", path).headers["allow"]
            assert allowed == ("POST" if "post" in methods else "GET, HEAD"), path
            if "get" in methods:
                got, head = client.get(path), client.head(path)
                assert (got.status_code, head.status_code, head.content) == (200, 200, b"")
                content_types = [*methods["get"]["responses"]["200"]["content"]]
                assert got.headers["content-type"].partition(";")[0] == content_types[0], path
                for content_type in content_types:
                    preferred = client.get(path, headers={"accept": content_type})
                    assert preferred.headers["content-type"].partition(";")[0] == content_type, path
    assert len(served) == len(app.table)


def test_what_predicts_says_what_it_takes() -> None:
    app = routes(simulator.SCHEMA, np.asarray)
    paths = openapi.document(simulator.SCHEMA, "1", app.table)["paths"]
    for path, route in app.table.items():
        if isinstance(route, PredictionRoute):
            content = paths[path]["post"]["requestBody"]["content"]
            assert [*content] == [kind.decode() for kind in route.takes]


def test_every_path_of_the_protocols_own_document_is_answered(server: Server) -> None:
    version = httpx.get(f"{server.url}/model").json()["version"]
    served = httpx.get(f"{server.url}/docs.json").json()["paths"]
    for template, method in PROTOCOL.items():
        path = template.replace("${MODEL_NAME}", "defect-classifier").replace("${MODEL_VERSION}", version)
        assert [*served[path]] == [method]
    assert httpx.get(f"{server.url}/v2/").json() == httpx.get(f"{server.url}/v2").json()


@pytest.mark.parametrize("schema", [simulator.SCHEMA, MIXED, TEXTS], ids=lambda schema: schema.title)
def test_bentomls_clients_get_what_bentoml_would_answer(schema: Schema) -> None:
    model = ServedModel(schema, "m", "1", "e", {})
    replica = Replica(Settings(), model, np.asarray, Metrics("1", "none", "e", schema.class_names), None)
    ours = json.loads(json.dumps(replica.bentoml_schema()))
    assert ours == json.loads(json.dumps(classifier(replica).schema()))
    assert [route["name"] for route in ours["routes"]] == ["classify", "classify_batch"]


# --- own names, and the card ------------------------------------------------------------------------------------------


def page_of(schema: Schema, card: bytes | None = None) -> str:
    return page.html(ServedModel(schema, "m", "1", "e", {}, card)).decode()


def test_a_service_is_named_after_what_it_says() -> None:
    schema = replace(TEXTS, title="penguins", label_name="body_type")
    assert schema.heading == "Body type classifier"
    assert schema.purpose == "Says which body type a row of the penguins has."
    assert simulator.SCHEMA.heading == "Defect classifier"
    assert simulator.SCHEMA.purpose == "Says which defect, if any, a row of the scan tunnel shows."
    document = openapi.document(schema, "1", {})
    assert document["info"]["title"] == schema.heading
    assert document["info"]["description"].startswith(schema.purpose)
    assert "<title>Body type classifier: m</title>" in page_of(schema)
    assert page_of(schema).count(schema.purpose) == 2


def test_names_stay_readable_whatever_they_are() -> None:
    hostile = replace(TEXTS, title="<b>\u202e{name}</b>\n" * 400, label_name="<script>alert(1)</script>" * 40)
    shown = page_of(hostile)
    assert all(text not in shown for text in ("<script>alert", "<b>{", "\u202e"))
    assert len(hostile.purpose) < 250
    assert len(hostile.heading) < 110
    assert "&lt;script&gt;alert(1)" in shown
    (answered,) = prediction_objects(ServedModel(hostile, "m", "1", "e", {}), np.array([[0.5, 0.5]], np.float32), [0])
    assert answered[hostile.label_name] == "a"  # an answer has it as it is
    assert answer_model(hostile)(**answered).model_dump() == answered


def test_the_card_is_linked_where_there_is_one(server: Server) -> None:
    assert 'href="card"' in page_of(TEXTS, b"<p>")
    assert 'href="card"' not in page_of(TEXTS)
    assert 'href="card"' in httpx.get(f"{server.url}/").text


def test_the_card_comes_as_it_is_in_the_artifact_and_runs_nothing(server: Server, model_dir: Path) -> None:
    with httpx.Client(base_url=server.url) as client:
        packed, plain = client.get("/card"), client.get("/card", headers={"accept-encoding": "identity"})
        assert packed.content == plain.content == (model_dir / artifact.CARD_PAGE).read_bytes()
        assert (packed.headers["content-encoding"], "content-encoding" in plain.headers) == ("gzip", False)
        for answer in (packed, plain, client.head("/card")):
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
            assert answer.headers["vary"] == "accept-encoding"
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "style-src 'unsafe-inline'" in policy
            assert "script" not in policy


def test_the_card_is_shown_with_its_pictures(server: Server, tmp_path: Path) -> None:
    with browser.opened(tmp_path, f"{server.url}/card") as tab:
        tab.wait_for("!!document.querySelector('svg')")
        assert tab.run("getComputedStyle(document.body).fontFamily") != tab.run(
            "(document.body.style.all = 'initial', getComputedStyle(document.body).fontFamily)"
        )
        assert tab.complaints == []


def test_a_model_without_a_card_for_people_says_so() -> None:
    app = routes(TEXTS, np.asarray)
    answer = asyncio.run(_ask(app, "/card"))
    assert answer.status_code == 404
    assert "this model came without a card for people; expected /model, which has it as JSON" in answer.json()["error"]


async def _ask(app: Any, path: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://m") as client:
        return await client.get(path)


def test_an_artifact_of_before_has_a_label_named_defect() -> None:
    """Its `schema.json` has neither the label's name nor what only categories have."""
    old = {"features": [{"name": "x"}], "classes": [{"name": "a"}, {"name": "b"}], "title": "t", "label_type": "text"}
    schema = Schema.from_json(old)
    (answered,) = prediction_objects(ServedModel(schema, "m", "1", "e", {}), np.array([[0.7, 0.3]], np.float32), [0])
    assert [*answered] == ["defect", "confidence", "probabilities", "prediction_id", "model_version"]
    assert answered["defect"] == "a"
    document = openapi.document(schema, "1", routes(schema, np.asarray).table)
    assert "defect" in document["components"]["schemas"]["Prediction"]["required"]
    assert schema.heading == "Defect classifier"
