"""What went wrong once, on a real server: thresholds, ties, extremes, wide columns, labels and booleans."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sklearn.datasets import load_iris

from conftest import MODULE, Serve, ask_together, quiet
from defects import artifact
from defects.features import FLOAT32_MAX
from defects.training import dataset, pipeline
from defects.training.options import Recipe

NAME = "defect-classifier"
Csv = Callable[[], str]


def lines(header: str, *columns: Any) -> str:
    return "\n".join([header, *(",".join(map(str, row)) for row in zip(*columns, strict=True))]) + "\n"


def half_steps() -> str:
    x = [step / 10 for step in range(40) for _ in range(8)]
    return lines("x,label", x, ["low" if value <= 1.9 else "high" for value in x])


def eight_bits() -> str:
    random = np.random.default_rng(4)
    bits = random.integers(0, 2, (160, 8))
    return lines("a,b,c,d,e,f,g,h,label", *bits.T, np.where(random.random(160) < 0.5, "yes", "no"))


def iris() -> str:
    x, y = load_iris(return_X_y=True)
    return lines("sepal length,sepal width,petal length,petal width,kind", *x.T, y)


def epochs() -> str:
    at = range(2_000)
    return lines("epoch_s,label", [1_700_000_000 + s for s in at], ["odd" if s // 120 % 2 else "even" for s in at])


def twelve() -> str:
    x = [n for n in range(12) for _ in range(30)]
    return lines("x,label", x, x)


def flags() -> str:
    flag = [("True", "False")[n % 2] for n in range(200)]
    return lines("flag,x,label", [*flag[:-1], ""], range(200), [f == "True" for f in flag])


TABLES: dict[str, tuple[Csv, str, str]] = {
    "half_steps": (half_steps, "label", "hist-gradient-boosting"),
    "eight_bits": (eight_bits, "label", "random-forest"),
    "iris": (iris, "kind", "logistic-regression"),
    "epochs": (epochs, "label", "hist-gradient-boosting"),
    "twelve": (twelve, "label", "hist-gradient-boosting"),
    "flags": (flags, "label", "hist-gradient-boosting"),
}


class Model:
    """A table's model, served."""

    def __init__(self, trained: pipeline.Trained, table: dataset.Table, directory: Path, client: httpx.Client):
        self.trained, self.table, self.directory, self.client = trained, table, directory, client

    def infer(self, *inputs: dict[str, Any], **request: Any) -> httpx.Response:
        return self.client.post(f"/v2/models/{NAME}/infer", json={"inputs": inputs, **request})

    def v1(self, *instances: Any) -> httpx.Response:
        return self.client.post(f"/v1/models/{NAME}:predict", json={"instances": instances})


@pytest.fixture(scope="module")
def models(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Model]]:
    """Trains and serves each table once, when it is first asked for."""
    known: dict[str, Model] = {}
    with ExitStack() as servers:

        def model(name: str) -> Model:
            if name not in known:
                directory = tmp_path_factory.mktemp(name)
                content, label, estimator = TABLES[name]
                (directory / f"{name}.csv").write_text(content())
                table = dataset.read(directory / f"{name}.csv", label)
                trained = pipeline.train(table, Recipe(estimator, 0, 0.2), quiet)
                assert trained.card["engine"]["name"] == "onnxruntime", trained.card["engine"]
                artifact.replace(directory / "model", trained.files)
                server = servers.enter_context(serve(command=MODULE, MODEL_DIR=directory / "model"))
                client = servers.enter_context(httpx.Client(base_url=server.url))
                known[name] = Model(trained, table, directory / "model", client)
            return known[name]

        yield model


Models = Callable[[str], Model]


def matrix(rows: Any, datatype: str = "FP64") -> dict[str, Any]:
    rows = np.asarray(rows)
    return {"name": "rows", "datatype": datatype, "shape": list(rows.shape), "data": rows.ravel().tolist()}


def probabilities(answer: httpx.Response) -> list[list[float]]:
    """Of a V2 answer, as 32-bit numbers."""
    assert answer.status_code == 200, answer.text
    outputs = {output["name"]: output for output in answer.json()["outputs"]}
    values: list[list[float]] = (
        np.array(outputs["probabilities"]["data"], np.float32).reshape(outputs["probabilities"]["shape"]).tolist()
    )
    return values


def test_a_value_at_a_threshold_is_on_the_side_where_scikit_learn_has_it(models: Models) -> None:
    model = models("half_steps")
    answer = model.client.post("/classify", json={"x": 1.95}).json()
    assert answer["label"] == "high"
    assert answer["confidence"] > 0.999
    steps = np.arange(80) / 20
    expected = model.trained.pipeline.predict(steps.astype(np.float32).reshape(-1, 1).astype(np.float64))
    answered = model.client.post("/classify_batch", json=[{"x": step} for step in steps.tolist()]).json()
    assert [a["label"] for a in answered] == [("high", "low")[c] for c in expected]


def test_a_tie_has_one_answer_however_it_comes_and_on_any_number_of_cores(models: Models, serve: Serve) -> None:
    model = models("eight_bits")
    rows = np.array([[int(bit) for bit in f"{n:08b}"] for n in range(256)])
    margins = np.abs(np.diff(model.trained.pipeline.predict_proba(rows.astype(np.float64)), axis=1)).ravel()
    row = rows[margins.argmin()]
    scan = dict(zip("abcdefgh", row.tolist(), strict=True))

    def ask(client: httpx.Client, _: int = 0) -> tuple[str, float]:
        answer = client.post("/classify", json=scan).json()
        return answer["label"], answer["confidence"]

    seen = Counter(ask_together(str(model.client.base_url), ask, range(300), callers=30))
    assert len(seen) == 1
    whole = probabilities(model.infer(matrix(rows)))
    alone = [probabilities(model.infer(matrix([one])))[0] for one in rows]
    assert whole == alone
    one_core = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0))), *MODULE]
    with serve(command=one_core, MODEL_DIR=model.directory) as server, httpx.Client(base_url=server.url) as client:
        assert {ask(client)} == set(seen)
        assert probabilities(client.post(f"/v2/models/{NAME}/infer", json={"inputs": [matrix(rows)]})) == whole


@pytest.mark.parametrize("value", [FLOAT32_MAX, -FLOAT32_MAX])
@pytest.mark.parametrize("field", ["sepal length", "sepal width", "petal length", "petal width"])
def test_a_row_without_finite_scores_is_refused_by_its_field(field: str, value: float, models: Models) -> None:
    model = models("iris")
    good = {"sepal length": 5.1, "sepal width": 3.5, "petal length": 1.4, "petal width": 0.2}
    bad = good | {field: value}
    row = list(bad.values())

    def refused(answer: httpx.Response, name: str) -> None:
        assert answer.status_code == 400, answer.text
        (problem,) = answer.json()["fields"]
        assert (problem["field"], "makes the model's scores infinite" in problem["problem"]) == (name, True)
        assert "training saw" in problem["expected"]

    refused(model.client.post("/classify", json=bad), field)
    refused(model.client.post("/classify_batch", json=[good, bad, good]), f"[1].{field}")
    refused(model.v1(list(good.values()), row), f"[1].{field}")
    refused(model.infer(matrix([row])), f"[0].{field}")
    columns = [{"name": n, "datatype": "FP32", "shape": [1], "data": [v]} for n, v in bad.items()]
    refused(model.infer(*columns), f"[0].{field}")

    expected = model.client.post("/classify", json=good).json()["probabilities"]
    # In the same batches.
    answers = ask_together(
        str(model.client.base_url), lambda own, n: own.post("/classify", json=(good, bad)[n % 2]), range(200), callers=8
    )
    for number, answer in enumerate(answers):
        assert answer.status_code == (200, 400)[number % 2]
        assert number % 2 or answer.json()["probabilities"] == expected


def test_epochs_are_told_apart_by_every_protocol(models: Models) -> None:
    model = models("epochs")
    assert model.trained.card["metrics"]["accuracy"] > 0.95
    at = 1_700_000_000 + np.arange(0, 2_000, 7)
    expected = model.trained.pipeline.predict(at.astype(np.float64).reshape(-1, 1)).tolist()
    names = [("even", "odd")[index] for index in expected]
    assert set(names) == {"even", "odd"}
    scans = [{"epoch_s": second} for second in at.tolist()]
    assert [a["label"] for a in model.client.post("/classify_batch", json=scans).json()] == names
    assert [a["label"] for a in model.v1(*([s] for s in at.tolist())).json()["predictions"]] == names
    for datatype in ("FP64", "INT64", "UINT32"):
        answer = model.infer(matrix(at.reshape(-1, 1), datatype)).json()
        assert {o["name"]: o["data"] for o in answer["outputs"]}["label"] == names
    raw = at.astype("<f8").tobytes()
    tensor = {"name": "epoch_s", "datatype": "FP64", "shape": [len(at)], "parameters": {"binary_data_size": len(raw)}}
    head = httpx.Request("POST", "http://x", json={"inputs": [tensor]}).content
    answer = model.client.post(
        f"/v2/models/{NAME}/infer", content=head + raw, headers={"inference-header-content-length": str(len(head))}
    ).json()
    assert {o["name"]: o["data"] for o in answer["outputs"]}["label"] == names
    (described,) = model.client.get(f"/v2/models/{NAME}").json()["inputs"]
    assert described["datatype"] == "FP64"


def test_integer_labels_are_integers_in_their_order(models: Models) -> None:
    model = models("twelve")
    assert model.table.schema.class_names == tuple(map(str, range(12)))
    answers = model.client.post("/classify_batch", json=[{"x": n} for n in range(12)]).json()
    assert [a["label"] for a in answers] == list(range(12))
    assert [p["label"] for p in model.v1(*([n] for n in range(12))).json()["predictions"]] == list(range(12))
    outputs = {o["name"]: o["data"] for o in model.infer(matrix(np.arange(12).reshape(-1, 1))).json()["outputs"]}
    assert outputs["class_index"] == list(range(12))
    assert outputs["label"] == list(map(str, range(12)))
    prediction = model.client.get("/docs.json").json()["components"]["schemas"]["Prediction"]
    assert prediction["properties"]["label"]["type"] == "integer"
    assert prediction["properties"]["label"]["enum"] == list(range(12))


def test_booleans_are_booleans(models: Models) -> None:
    model = models("flags")
    flag = model.table.schema.features[0]
    assert (flag.kind, flag.optional, flag.limits) == ("boolean", True, (0, 1))
    for given in (True, 1, 1.0):
        answer = model.client.post("/classify", json={"flag": given, "x": 5})
        assert answer.json()["label"] is True, answer.text
    assert model.client.post("/classify", json={"flag": False, "x": 5}).json()["label"] is False
    assert model.client.post("/classify", json={"flag": None, "x": 5}).status_code == 200
    for wrong in (0.5, 2, -1, "true"):
        answer = model.client.post("/classify", json={"flag": wrong, "x": 5})
        assert (answer.status_code, answer.json()["fields"][0]["expected"]) == (400, "true or false, or null")
    assert model.client.post("/classify", json={"flag": True, "x": True}).json()["fields"][0]["field"] == "x"
    columns = [
        {"name": "flag", "datatype": "BOOL", "shape": [2], "data": [True, False]},
        {"name": "x", "datatype": "INT32", "shape": [2], "data": [5, 6]},
    ]
    outputs = {o["name"]: o["data"] for o in model.infer(*columns).json()["outputs"]}
    assert outputs["label"] == ["True", "False"]
    assert model.v1([True, 5], [0, 5]).json()["predictions"][1]["label"] is False


@pytest.mark.parametrize("name", TABLES)
def test_the_documents_examples_work(name: str, models: Models) -> None:
    model = models(name)
    document = model.client.get("/docs.json").json()
    for path, operations in document["paths"].items():
        if "get" in operations:
            assert model.client.get(path).status_code == 200
            continue
        body = operations["post"]["requestBody"]["content"]["application/json"]["schema"]
        example = body.get("example") or document["components"]["schemas"]["Scan"]["example"]
        answer = model.client.post(path, json=example)
        assert answer.status_code == 200, answer.text
    assert answer.headers["x-prediction-id"]
