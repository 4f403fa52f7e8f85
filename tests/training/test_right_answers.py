"""Served answers are the trained model's: random data, every estimator, both engines, every protocol, alone and in
batches from concurrent callers, against scikit-learn's own `predict` and `predict_proba`.

More than fifty models here; thousands with `make test-long`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import aiohttp
import numpy as np
import orjson
import pytest
import skops.io
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from lightgbm import LGBMClassifier
from numpy.typing import NDArray
from served_here import NAME, served
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier

from conftest import quiet
from defects import scoring
from defects.features import FLOAT32_MAX, DefectClass, Feature
from defects.kinds import INTEGER
from defects.schema import Schema
from defects.training import conversion, ensembles, pipeline, precision
from defects.training.dataset import BadData, Table
from defects.training.estimators import ESTIMATORS, EXTRAS
from defects.training.options import Recipe

Floats = NDArray[np.float64]
Random = np.random.Generator

# Of each estimator; some are refused before they are fitted.
MODELS = settings().max_examples if settings.get_current_profile_name() == "thousands" else 16
QUERIES, ALONE = 32, 6  # rows asked of a model; of which each is also asked alone, by every protocol
counted: Counter[str] = Counter()


# --- random models -------------------------------------------------------------------------------------------------

COLUMNS: dict[str, Callable[[Random, int], NDArray[Any]]] = {
    "integers": lambda random, n: random.integers(0, 12, n).astype(float),
    "bits": lambda random, n: random.integers(0, 2, n).astype(float),
    "decimals": lambda random, n: random.integers(-40, 40, n) / 10,
    "hundredths": lambda random, n: random.integers(0, 5_000, n) / 100,
    "normal": lambda random, n: random.normal(size=n),
    "wide integers": lambda random, n: 1_700_000_000.0 + random.integers(0, 3 * n, n),
    "cents": lambda random, n: 20_000_000 + random.integers(0, 9_000, n) / 100,
    "constant": lambda random, n: np.full(n, float(random.integers(-3, 4))),
    "subnormal": lambda random, n: random.integers(0, 60, n) * 1e-44,
    "tiny": lambda random, n: random.normal(size=n) * 1e-30,
    "huge": lambda random, n: random.normal(size=n) * 1e37,
    "extremes": lambda random, n: random.choice([-FLOAT32_MAX, 0.0, FLOAT32_MAX], n),
}


def random_table(random: Random) -> Table:
    rows, width, classes = int(random.integers(60, 160)), int(random.integers(1, 6)), int(random.integers(2, 13))
    kinds = random.choice(list(COLUMNS), width)
    columns = [COLUMNS[kind](random, rows) for kind in kinds]
    features = np.column_stack(columns)
    ranks = np.argsort(np.argsort(features, axis=0, kind="stable"), axis=0)
    labels = (ranks @ random.normal(size=width) * classes / rows + random.normal(size=rows)).astype(int) % classes
    if random.random() < 0.3:  # nothing to learn: ties
        labels = random.integers(0, classes, rows)
    labels[: 2 * classes] = np.tile(np.arange(classes), 2)
    features[random.random(features.shape) < random.choice([0, 0, 0.1])] = np.nan
    features[:2] = np.nan_to_num(features[:2])
    schema = Schema(tuple(_feature(i, c) for i, c in enumerate(features.T)), _classes(classes), label_type=INTEGER)
    return Table(schema.held(features), labels, schema, {"source": "test"})


def _feature(number: int, column: Floats) -> Feature:
    missing = np.isnan(column)
    return Feature(f"x{number}", optional=bool(missing.any()), wide=precision.is_wide(column[~missing]))


def _classes(count: int) -> tuple[DefectClass, ...]:
    return tuple(DefectClass(str(10 * number)) for number in range(count))


def estimators(random: Random) -> dict[str, Callable[[int, Schema], Any]]:
    """Small ones of those that there are, with random parameters."""
    trees, leaf, depth = int(random.integers(1, 25)), int(random.integers(1, 6)), [None, 2, 6][random.integers(3)]
    c = 10.0 ** random.integers(-3, 3)
    return {
        "hist-gradient-boosting": lambda seed, _: HistGradientBoostingClassifier(
            max_iter=trees, min_samples_leaf=leaf, max_depth=depth, random_state=seed
        ),
        "random-forest": lambda seed, _: make_pipeline(
            SimpleImputer(strategy="median"),
            RandomForestClassifier(trees, min_samples_leaf=leaf, max_depth=depth, n_jobs=-1, random_state=seed),
        ),
        "logistic-regression": lambda seed, _: make_pipeline(
            SimpleImputer(strategy="median"), StandardScaler(), LogisticRegression(C=c, max_iter=50, random_state=seed)
        ),
        "lightgbm": lambda seed, _: LGBMClassifier(
            n_estimators=trees, min_child_samples=leaf, max_depth=depth or -1, n_jobs=1, random_state=seed, verbosity=-1
        ),
        "xgboost": lambda seed, _: XGBClassifier(
            n_estimators=trees, min_child_weight=leaf, max_depth=depth, n_jobs=1, random_state=seed
        ),
    }


def queries(random: Random, data: Table, fitted: Any) -> Floats:
    """Rows to ask for: training rows, between them, at thresholds, at extremes, with new patterns of missing values."""
    known = data.features.astype(np.float64)
    rows = known[random.integers(len(known), size=QUERIES)].copy()
    rows = random.permuted(rows, axis=0) if random.random() < 0.5 else rows
    for row in rows[: QUERIES // 2]:
        column = int(random.integers(known.shape[1]))
        row[column] = random.choice(_interesting(random, known[:, column], column, fitted))
    low, high, required = data.schema.limits
    optional = ~required & (random.random(rows.shape) < 0.1)
    rows[optional] = np.nan
    return np.clip(rows, low, high)


def _interesting(random: Random, column: Floats, number: int, fitted: Any) -> list[float]:
    values = np.sort(column[~np.isnan(column)])
    at = int(random.integers(len(values) - 1))
    between = values[at] / 2 + values[at + 1] / 2
    thresholds = [
        float(threshold)
        for tree in ensembles.trees_of(conversion.classifier_of(fitted))[:20]
        for threshold in tree.threshold[~tree.leaf & (tree.feature == number)]
        if np.isfinite(threshold)
    ]
    near = [float(np.nextafter(np.float32(t), np.float32(d))) for t in thresholds for d in (-np.inf, np.inf)]
    return [between, 0.0, -0.0, 1e-45, -1e-45, FLOAT32_MAX, -FLOAT32_MAX, *thresholds, *near]


# --- what scikit-learn says ----------------------------------------------------------------------------------------


def expected(fitted: Any, rows: Floats) -> tuple[Floats, NDArray[np.int64], NDArray[np.bool_]]:
    """Probabilities, classes, and whether a row has finite scores."""
    finite = _finite(fitted, rows)
    safe = np.where(finite[:, np.newaxis], rows, rows[finite.argmax()])
    with np.errstate(over="ignore", invalid="ignore"):
        return fitted.predict_proba(safe), fitted.predict(safe), finite


def _finite(fitted: Any, rows: Floats) -> NDArray[np.bool_]:
    """Whether each row has finite scores; each is asked for alone only where not all of them have."""
    if not hasattr(fitted, "decision_function") or _all_finite(fitted, rows):
        return np.ones(len(rows), bool)
    return np.array([_all_finite(fitted, row.reshape(1, -1)) for row in rows])


def _all_finite(fitted: Any, rows: Floats) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        try:
            return bool((np.abs(fitted.decision_function(rows)) <= FLOAT32_MAX).all())
        except ValueError:
            return False


# --- protocols -----------------------------------------------------------------------------------------------------

Answer = list[tuple[Any, tuple[float, ...]]]  # of each row: label, probabilities
Reply = tuple[int, Any]  # status, JSON
Ask = Callable[[aiohttp.ClientSession, Schema, Floats], Awaitable[Reply]]


async def post(client: aiohttp.ClientSession, path: str, content: Any, **headers: str) -> Reply:
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    async with client.post(path, data=body, headers={"content-type": "application/json"} | headers) as answer:
        return answer.status, await answer.json(content_type=None)


def values(rows: Floats) -> list[list[float | None]]:
    return [[None if np.isnan(v) else v for v in row] for row in rows.tolist()]


def objects(schema: Schema, rows: Floats) -> list[dict[str, Any]]:
    return [dict(zip(schema.names, row, strict=True)) for row in values(rows)]


async def classify(client: aiohttp.ClientSession, schema: Schema, rows: Floats) -> Reply:
    scans = objects(schema, rows)
    if len(scans) == 1:
        return await post(client, "/classify", scans[0])
    return await post(client, "/classify_batch", scans)


async def v1(client: aiohttp.ClientSession, _: Schema, rows: Floats) -> Reply:
    return await post(client, f"/v1/models/{NAME}:predict", {"instances": values(rows)})


async def v2_json(client: aiohttp.ClientSession, _: Schema, rows: Floats) -> Reply:
    data = [value for row in values(rows) for value in row]
    tensor = {"name": "rows", "datatype": "FP64", "shape": list(rows.shape), "data": data}
    return await post(client, f"/v2/models/{NAME}/infer", {"inputs": [tensor]})


async def v2_binary(client: aiohttp.ClientSession, schema: Schema, rows: Floats) -> Reply:
    raw = rows.astype("<f8" if schema.wide else "<f4").tobytes()
    tensor = {
        "name": "rows",
        "datatype": "FP64" if schema.wide else "FP32",
        "shape": list(rows.shape),
        "parameters": {"binary_data_size": len(raw)},
    }
    head = orjson.dumps({"inputs": [tensor]})
    length = {"inference-header-content-length": str(len(head))}
    return await post(client, f"/v2/models/{NAME}/infer", head + raw, **length)


PROTOCOLS: dict[str, Ask] = {"/classify": classify, "V1": v1, "V2 JSON": v2_json, "V2 binary": v2_binary}


def read(schema: Schema, answer: Any) -> Answer:
    """Labels and probabilities of an answer; these are 32-bit numbers, which V2 writes with fewer digits."""
    if isinstance(answer, dict) and "outputs" in answer:
        outputs = {output["name"]: output for output in answer["outputs"]}
        rows = np.reshape(outputs["probabilities"]["data"], outputs["probabilities"]["shape"]).tolist()
        return [(int(label), _narrow(row)) for label, row in zip(outputs["label"]["data"], rows, strict=True)]
    predictions = answer if isinstance(answer, list) else answer.get("predictions", [answer])
    return [(p["defect"], _narrow([p["probabilities"][name] for name in schema.class_names])) for p in predictions]


def _narrow(numbers: list[float]) -> tuple[float, ...]:
    return tuple(np.array(numbers, np.float32).tolist())


# --- the comparison ------------------------------------------------------------------------------------------------


def parts_of(random: Random, count: int) -> Iterator[NDArray[np.int64]]:
    """Every one of `count` rows once, in requests of several."""
    order, start = random.permutation(count), 0
    while start < count:
        size = int(random.choice([2, 3, 5, 17]))
        yield order[start : start + size]
        start += size


async def compare(random: Random, data: Table, fitted: Any, score: scoring.Scorer) -> None:
    schema = data.schema
    rows = queries(random, data, fitted)
    probabilities, classes, finite = expected(fitted, schema.held(rows).astype(np.float64))
    good = np.flatnonzero(finite)
    requests = [(name, np.array([row])) for name in PROTOCOLS for row in range(ALONE)]
    requests += [(name, good[part]) for name in PROTOCOLS for part in parts_of(random, len(good))]
    seen: dict[int, set[tuple[Any, ...]]] = {row: set() for row in range(len(rows))}

    async with served(schema, score) as url, aiohttp.ClientSession(url) as client:

        async def ask(name: str, part: NDArray[np.int64]) -> None:
            status, answer = await PROTOCOLS[name](client, schema, rows[part])
            counted[name] += len(part)
            if not finite[part].all():
                assert (status, "makes the model's scores infinite" in answer["error"]) == (400, True), answer
                return
            assert status == 200, (answer, rows[part])
            for row, one in zip(part.tolist(), read(schema, answer), strict=True):
                seen[row].add(one)

        await asyncio.gather(*(ask(name, part) for name, part in requests))

    for row in good.tolist():
        (answer,) = seen[row]  # the same bytes, however it was asked
        np.testing.assert_allclose(answer[1], probabilities[row], rtol=0, atol=1e-6)
        assert answer[0] == schema.labels[classes[row]] == 10 * classes[row], (rows[row], probabilities[row])


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@settings(max_examples=MODELS, derandomize=True, phases=[Phase.generate], database=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_served_answers_are_scikit_learns(estimator: str, seed: int) -> None:
    if estimator in EXTRAS and MODELS <= 100 and seed % 4:  # a quarter of them
        return
    random = np.random.default_rng(seed)
    data = random_table(random)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ESTIMATORS, estimator, estimators(random)[estimator])
        try:
            result = pipeline.train(data, Recipe(estimator, 0, 0.25), quiet)
        except BadData as problem:
            if "32 bits can't tell apart" not in str(problem) and "can't be split" not in str(problem):
                raise
            counted[f"{estimator}, refused"] += 1
            return
    assert result.card["engine"]["name"] == "onnxruntime", result.card["engine"]
    counted[f"{estimator}, models"] += 1
    asyncio.run(compare(random, data, result.pipeline, scoring.onnx_scorer(result.files["model.onnx"])))
    engine = scoring.sklearn_scorer(skops.io.dumps(result.pipeline))
    asyncio.run(compare(random, data, result.pipeline, engine))


@pytest.fixture(scope="module", autouse=True)
def told() -> Iterator[None]:
    """Say how much was compared."""
    logging.getLogger("defects").setLevel(logging.CRITICAL)  # thousands of refusals are meant
    yield
    logging.getLogger("defects").setLevel(logging.NOTSET)
    print(dict(counted))  # noqa: T201 - shown with -s
