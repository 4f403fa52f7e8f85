"""What becomes of a row's probabilities, whichever way the request came."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from conftest import BIN, Serve, Server
from defects import simulator
from defects.features import DefectClass, Feature
from defects.http import predictions
from defects.http.messages import Reply, Request
from defects.kinds import BOOLEAN, INTEGER, NUMBER
from defects.problems import InvalidInput
from defects.protocols import v2
from defects.schema import Schema
from defects.serving import model as model_
from defects.serving.batching import Job

EXAMPLE = simulator.SCHEMA.example
WEIGHT = simulator.SCHEMA.index["weight_g"]
UNSCORABLE = """
import numpy as np
from defects import scoring, serve
from defects.replica import Replica, find_artifact
from defects.settings import Settings

def build():
    settings = Settings.from_environment()
    artifact, _ = find_artifact(settings)
    healthy = scoring.load(artifact)

    def score(rows):
        return np.where(rows[:, [%d]] == 7, np.nan, healthy(rows))

    return Replica.build(settings, artifact=artifact, scorer=score)

serve.main(build)
"""


@pytest.fixture(scope="module")
def unscorable(serve: Serve, model_dir: Any) -> Iterator[Server]:
    """A server whose model gives no finite scores for a weight of 7 g."""
    with serve(command=[BIN / "python", "-c", UNSCORABLE % WEIGHT], MODEL_DIR=model_dir) as running:
        yield running


def in_pieces(body: bytes) -> Iterator[bytes]:
    yield body[:10]
    yield body[10:]


@pytest.mark.parametrize("pieces", [False, True], ids=["whole", "in pieces"])
@pytest.mark.parametrize(
    ("path", "wrap", "field"),
    [
        ("/classify", lambda _, bad: bad, "weight_g"),
        ("/classify_batch", lambda good, bad: [good, bad], "[1].weight_g"),
        ("/v1/models/defect-classifier:predict", lambda good, bad: {"instances": [bad, good]}, "[0].weight_g"),
        ("/v1/models/defect-classifier:predict", lambda _, bad: {"instances": [bad]}, "[0].weight_g"),
        (
            "/v2/models/defect-classifier/infer",
            lambda good, bad: {
                "inputs": [
                    {"name": "x", "datatype": "FP32", "shape": [2, 22], "data": [*good.values(), *bad.values()]},
                ]
            },
            "[1].weight_g",
        ),
    ],
)
def test_a_row_that_cant_be_scored_is_the_callers_mistake(
    unscorable: Server, path: str, wrap: Any, field: str, pieces: bool
) -> None:
    body = json.dumps(wrap(EXAMPLE, EXAMPLE | {"weight_g": 7})).encode()
    content = in_pieces(body) if pieces else body
    answer = httpx.post(unscorable.url + path, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text
    (problem,) = answer.json()["fields"]
    assert (problem["field"], problem["problem"]) == (field, "7 makes the model's scores infinite")
    assert httpx.post(f"{unscorable.url}/classify", json=EXAMPLE).status_code == 200


def answered(schema: Schema, probabilities: Any, **decoded: Any) -> tuple[Any, Any]:
    """What a codec is given."""
    seen: list[Any] = []

    def encode(*given: Any) -> Reply:
        seen.extend(given)
        return Reply(200, b"")

    request = Request("POST", "/", {}, receive=None)  # type: ignore[arg-type]
    rows = np.zeros((len(probabilities), len(schema.names)))
    job = Job(rows, None, 0.0, 1)  # type: ignore[arg-type]
    predictions.finish(request, job, schema, predictions.Decoded(rows, encode, **decoded), probabilities)
    assert request.best == seen[1]
    return seen[0], seen[1]


SCHEMA = Schema((Feature("a"), Feature("b")), (DefectClass("10"), DefectClass("7")), label_type=INTEGER)


def test_the_class_is_found_in_64_bits_and_answered_in_32() -> None:
    close = np.array([[0.5 - 1e-12, 0.5 + 1e-12], [0.5, 0.5]])
    probabilities, best = answered(SCHEMA, close)
    assert best == [1, 0]
    assert probabilities.dtype == np.float32
    assert (probabilities == 0.5).all()
    narrow = np.array([[0.25, 0.75]], np.float32)
    probabilities, best = answered(SCHEMA, narrow)
    assert (best, probabilities is narrow) == ([1], True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_without_scores_are_named(dtype: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        answered(SCHEMA, np.array([[0.5, 0.5], [np.nan, np.nan], [np.nan, np.nan]], dtype))
    assert [problem.field for problem in caught.value.problems] == ["[1].a", "[2].a"]
    with pytest.raises(InvalidInput) as caught:
        answered(SCHEMA, np.array([[np.nan, np.nan]], dtype), single=True)
    assert [problem.field for problem in caught.value.problems] == ["a"]


@pytest.mark.parametrize(
    ("label_type", "names", "labels"),
    [
        (INTEGER, ("10", "7"), (10, 7)),
        (NUMBER, ("0.5", "1.0"), (0.5, 1.0)),
        (BOOLEAN, ("False", "True"), (False, True)),
        ("text", ("10", "7"), ("10", "7")),
    ],
)
def test_a_label_is_as_in_the_training_data(label_type: str, names: tuple[str, ...], labels: tuple[Any, ...]) -> None:
    schema = Schema((Feature("a"),), tuple(map(DefectClass, names)), label_type=label_type)
    model = model_.ServedModel(schema, "m", "1", "e", {})
    probabilities = np.array([[0.25, 0.75], [0.75, 0.25]], np.float32)
    answers = json.loads(json.dumps(model_.prediction_objects(model, probabilities, [1, 0])))
    assert [(type(a["defect"]), a["defect"]) for a in answers] == [(type(v), v) for v in reversed(labels)]
    assert answers[0]["probabilities"] == dict(zip(names, (0.25, 0.75), strict=True))
    query = v2.Query(np.zeros((2, 1)), None, (v2.Output("label"),))
    body, _ = v2.encode({}, schema.class_names, query, probabilities, [1, 0])
    assert json.loads(body)["outputs"][0]["data"] == [*reversed(names)]
