"""A fitted model from a notebook becomes an artifact that answers every row as the model itself does there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import joblib
import lightgbm
import numpy as np
import pandas as pd
import pytest
import skops.io
import xgboost
from hypothesis import settings
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from conftest import WAIT_SECONDS, Serve, quiet, run
from defects import artifact, scoring
from defects.kinds import BOOLEAN, CATEGORY, MISSING, NUMBER, REFUSE
from defects.training import brought, importing, options, pipeline
from defects.training.bad_data import BadData
from defects.training.given_labels import better_order
from defects.training.options import Recipe
from defects.training.reading import Reading

ROWS, FITTED = 200, 120
NUMBERS = ["age", "fare", "pclass"]
TEXTS = ["sex", "port"]


@cache
def passengers() -> pd.DataFrame:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": np.where(random.random(ROWS) < 0.1, np.nan, random.integers(18, 80, ROWS)),
            "fare": random.gamma(2, 15, ROWS).round(2),
            "sex": random.choice(["female", "male"], ROWS),
            "port": random.choice(np.array(["S", "C", "Q", None]), ROWS, p=[0.5, 0.3, 0.15, 0.05]),
            "pclass": random.integers(1, 4, ROWS),
            "alone": random.random(ROWS) < 0.5,
        }
    )
    odds = 2 * (frame.sex == "female") - frame.pclass + (frame.port == "C") + 0.02 * frame.fare
    return frame.assign(survived=np.where(random.random(ROWS) < 1 / (1 + np.exp(-odds)), "yes", "no"))


def known() -> pd.DataFrame:
    return passengers()[:FITTED]


def numbers() -> Any:
    return make_pipeline(SimpleImputer(strategy="median"), StandardScaler())


def one_hot(**parameters: Any) -> OneHotEncoder:
    return OneHotEncoder(**{"handle_unknown": "ignore"} | parameters)


def ordinal() -> OrdinalEncoder:
    return OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)


def by_names(texts: Any, classifier: Any) -> Any:
    return make_pipeline(make_column_transformer((numbers(), NUMBERS), (texts, TEXTS)), classifier)


Fit = Callable[[], Any]


def fit(model: Any, columns: Any = None) -> Any:
    frame = known().drop(columns="survived")
    return model.fit(frame if columns is None else frame[columns], known().survived)


def categorical() -> pd.DataFrame:
    return known()[["age", *TEXTS]].astype(dict.fromkeys(TEXTS, "category"))


IMPUTED = SimpleImputer(strategy="most_frequent")
CONVERTED: dict[str, Fit] = {
    "one-hot and linear": lambda: fit(by_names(make_pipeline(IMPUTED, one_hot()), LogisticRegression())),
    "one-hot, a missing text as its own category": lambda: fit(by_names(one_hot(), LogisticRegression())),
    "a constant for what is missing": lambda: fit(
        by_names(make_pipeline(SimpleImputer(strategy="constant", fill_value="?"), one_hot()), LogisticRegression())
    ),
    "one-hot without the first": lambda: fit(by_names(one_hot(drop="first"), LogisticRegression())),
    "one-hot and forest": lambda: fit(by_names(one_hot(), RandomForestClassifier(7, random_state=0))),
    "ordinal and boosting": lambda: fit(by_names(ordinal(), HistGradientBoostingClassifier(max_iter=8))),
    "selectors and what remains": lambda: fit(
        make_pipeline(
            make_column_transformer(
                (ordinal(), make_column_selector(dtype_exclude=["number", "bool"])), remainder="passthrough"
            ),
            HistGradientBoostingClassifier(max_iter=8),
        )
    ),
    "columns by number": lambda: fit(
        make_pipeline(
            make_column_transformer((SimpleImputer(), slice(0, 2)), (one_hot(), [2, 3]), ("passthrough", [4])),
            GradientBoostingClassifier(n_estimators=8, random_state=0),
        )
    ),
    "scalers": lambda: fit(
        make_pipeline(SimpleImputer(), MinMaxScaler(), RobustScaler(), ExtraTreesClassifier(6, random_state=0)), NUMBERS
    ),
    "a tree": lambda: fit(DecisionTreeClassifier(max_depth=4, random_state=0), NUMBERS),
    "native categories": lambda: HistGradientBoostingClassifier(max_iter=8).fit(categorical(), known().survived),
    "numbers that are categories": lambda: fit(
        make_pipeline(
            make_column_transformer((OneHotEncoder(), ["pclass", "sex"]), remainder=SimpleImputer()),
            LogisticRegression(),
        ),
        [*NUMBERS, "sex"],
    ),
    "a search": lambda: fit(GridSearchCV(by_names(one_hot(), LogisticRegression()), {"logisticregression__C": [1, 2]})),
    "lightgbm": lambda: fit(by_names(ordinal(), lightgbm.LGBMClassifier(n_estimators=8, verbose=-1))),
    "xgboost": lambda: make_pipeline(
        make_column_transformer((ordinal(), TEXTS), ("passthrough", NUMBERS)), xgboost.XGBClassifier(n_estimators=8)
    ).fit(known().drop(columns="survived"), (known().survived == "yes").astype(int)),
}
ASKED: dict[str, Fit] = {
    "neighbours, of text": lambda: fit(by_names(one_hot(), KNeighborsClassifier(3))),
    "calibrated": lambda: fit(CalibratedClassifierCV(make_pipeline(SimpleImputer(), GaussianNB()), cv=2), NUMBERS),
    "a function": lambda: fit(
        make_pipeline(SimpleImputer(), FunctionTransformer(np.log1p), LogisticRegression()), NUMBERS
    ),
    "lightgbm, averaged": lambda: fit(
        lightgbm.LGBMClassifier(n_estimators=5, boosting_type="rf", bagging_freq=1, bagging_fraction=0.6, verbose=-1),
        NUMBERS,
    ),
}


ALL = settings.get_current_profile_name() == "thousands"  # `make test-long`; here, one of each kind
CONVERTED_HERE = [*CONVERTED] if ALL else [
    "one-hot and linear", "one-hot and forest", "selectors and what remains", "columns by number", "native categories",
    "numbers that are categories", "xgboost",
]  # fmt: skip
ASKED_HERE = [*ASKED] if ALL else ["neighbours, of text", "lightgbm, averaged"]


@pytest.fixture(scope="module")
def holdout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows that were not fitted on, as a CSV file; one more column, and another order."""
    path = tmp_path_factory.mktemp("brought") / "holdout.csv"
    frame = passengers()[FITTED:]
    frame.assign(ticket=range(len(frame)))[[*reversed(frame.columns), "ticket"]].to_csv(path, index=False)
    return path


def bring(path: Path, data: Path, *, label: str = "survived", trust: bool = False) -> pipeline.Trained:
    loaded = importing.load(path, trust_pickle=trust)
    return pipeline.bring(brought.read(loaded, data, label, Reading()), loaded, Recipe(), quiet)


def saved(model: Any, directory: Path) -> Path:
    path = directory / "model.skops"
    skops.io.dump(model, path)
    return path


def served(made: pipeline.Trained) -> tuple[artifact.Artifact, scoring.Scorer]:
    loaded = artifact.parse(made.files, artifact.digest_of(artifact.listing(made.files)))
    return loaded, scoring.verified(loaded, scoring.load(loaded))


def objects(schema: Any, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of the frame as a caller sends them."""
    rows = frame[[*schema.names]].astype(object)
    return [dict(zip(schema.names, row, strict=True)) for row in rows.where(rows.notna(), None).to_numpy().tolist()]


def check_every_row(made: pipeline.Trained, holdout: Path, model: Any) -> None:
    """What is served is what the model says of the notebook's own frame, on every row."""
    ours, score = served(made)
    frame = pd.read_csv(holdout)
    answered = score(ours.schema.held(ours.schema.rows_from_objects(objects(ours.schema, frame))))
    asked = frame[[*ours.schema.names]]
    np.testing.assert_allclose(answered, model.predict_proba(asked), rtol=0, atol=1e-6)
    names = np.array(ours.schema.class_names, object)
    predicted = model.predict(asked)
    if predicted.dtype.kind == "i":
        predicted = np.array(["no", "yes"], object)[predicted]
    np.testing.assert_array_equal(names[answered.argmax(axis=1)], predicted)


@pytest.mark.parametrize("name", CONVERTED_HERE)
def test_a_fitted_pipeline_is_converted_exactly(name: str, holdout: Path, tmp_path: Path) -> None:
    model = CONVERTED[name]()
    made = bring(saved(model, tmp_path), holdout)
    assert made.card["engine"]["name"] == "onnxruntime", made.card["engine"]
    assert made.card["split"]["how"] == "given"
    assert made.card["split"]["held_out_rows"] == ROWS - FITTED
    check_every_row(made, holdout, model)


@pytest.mark.parametrize("name", ASKED_HERE)
def test_what_can_not_be_converted_is_asked_itself(name: str, holdout: Path, tmp_path: Path) -> None:
    model = ASKED[name]()
    made = bring(saved(model, tmp_path), holdout)
    assert made.card["engine"]["name"] == "scikit-learn", made.card["engine"]
    assert made.card["engine"]["input"] == "frame"
    check_every_row(made, holdout, model)


def test_a_pipeline_of_a_skops_file_is_served_with_text_as_it_answers_itself(
    serve: Serve, holdout: Path, tmp_path: Path
) -> None:
    """The command, a server in a process of its own, and every row: as JSON, and as BYTES tensors of V2."""
    model = CONVERTED["one-hot, a missing text as its own category"]()
    command = ("--model", saved(model, tmp_path), "--data", holdout, "--label", "survived", "--output", tmp_path / "m")
    made = run(tmp_path, "python", "train.py", *command)
    assert made.returncode == 0, made.stderr
    assert "left out, as the model was fitted without them: ticket" in made.stdout
    schema = artifact.load(tmp_path / "m").schema
    frame = pd.read_csv(holdout)[[*schema.names]]
    rows = objects(schema, frame)
    tensors = [
        {"name": feature.name, "datatype": datatype, "shape": [len(rows)], "data": [row[feature.name] for row in rows]}
        for feature in schema.features
        for datatype in [{CATEGORY: "BYTES", BOOLEAN: "BOOL"}.get(feature.kind, "FP64")]
    ]
    with serve(MODEL_DIR=tmp_path / "m") as server:
        predictions = httpx.post(f"{server.url}/classify_batch", json=rows, timeout=WAIT_SECONDS).json()
        infer = f"{server.url}/v2/models/defect-classifier/infer"
        outputs = httpx.post(infer, json={"inputs": tensors}, timeout=WAIT_SECONDS).json()["outputs"]
    expected, classes = model.predict_proba(frame), model.predict(frame).tolist()
    assert [prediction["survived"] for prediction in predictions] == classes
    answered = [[prediction["probabilities"][name] for name in schema.class_names] for prediction in predictions]
    np.testing.assert_allclose(answered, expected, rtol=0, atol=1e-6)
    by_name = {output["name"]: output["data"] for output in outputs}
    assert by_name["label"] == classes
    np.testing.assert_allclose(np.reshape(by_name["probabilities"], expected.shape), expected, rtol=0, atol=1e-6)


# --- what the model takes ------------------------------------------------------------------------------------------


def schema_of(name: str, holdout: Path, tmp_path: Path) -> dict[str, Any]:
    loaded = importing.load(saved(CONVERTED[name](), tmp_path), trust_pickle=False)
    schema = brought.read(loaded, holdout, "survived", Reading()).fitted.schema
    return {feature.name: feature for feature in schema.features}


def test_categories_are_those_of_the_pipeline_s_encoder(holdout: Path, tmp_path: Path) -> None:
    found = schema_of("one-hot, a missing text as its own category", holdout, tmp_path)
    assert [*found] == ["age", "fare", "sex", "port", "pclass", "alone"]  # in the model's order
    assert (found["port"].categories, found["port"].optional, found["port"].unknown) == (("C", "Q", "S"), True, REFUSE)
    assert (found["sex"].categories, found["sex"].unknown) == (("female", "male"), MISSING)  # both are zeros
    assert {name: feature.kind for name, feature in found.items()} == {
        "age": NUMBER, "fare": NUMBER, "sex": CATEGORY, "port": CATEGORY, "pclass": NUMBER, "alone": BOOLEAN,
    }  # fmt: skip
    assert found["fare"].wide  # 7.25 is 7.25 in 32 bits, and 7.23 is not
    assert not found["age"].wide


def test_an_unknown_category_is_missing_only_where_the_model_does_not_tell_them_apart(
    holdout: Path, tmp_path: Path
) -> None:
    imputed = schema_of("one-hot and linear", holdout, tmp_path)
    assert (imputed["sex"].optional, imputed["sex"].unknown) == (True, REFUSE)  # missing is the most frequent one
    numbers = schema_of("numbers that are categories", holdout, tmp_path)
    assert (numbers["pclass"].categories, numbers["pclass"].optional) == (("1", "2", "3"), False)
    assert (numbers["sex"].categories, numbers["sex"].optional) == (("female", "male"), False)


def test_a_category_that_only_the_rows_have_is_served_if_the_model_takes_it(holdout: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(holdout)
    frame.loc[3, "port"] = "New York"
    frame.to_csv(tmp_path / "rows.csv", index=False)
    model = CONVERTED["one-hot, a missing text as its own category"]()
    made = bring(saved(model, tmp_path), tmp_path / "rows.csv")
    assert served(made)[0].schema.features[3].categories == ("C", "Q", "S", "New York")
    check_every_row(made, tmp_path / "rows.csv", model)


def test_text_with_spaces_around_it_is_what_the_encoder_knows(holdout: Path, tmp_path: Path) -> None:
    spaced = known().assign(sex=" " + known().sex)
    encoder = make_column_transformer((OneHotEncoder(), ["sex"]), remainder="drop")
    model = make_pipeline(encoder, LogisticRegression()).fit(spaced[["sex", "age"]], spaced.survived)
    made = bring(saved(model, tmp_path), holdout)
    assert made.card["engine"]["categories"] == {"sex": (" female", " male")}
    ours, score = served(made)
    rows = ours.schema.rows_from_objects([{"sex": "male", "age": 30}])
    expected = model.predict_proba(pd.DataFrame({"sex": [" male"], "age": [30]}))
    np.testing.assert_allclose(score(ours.schema.held(rows)), expected, rtol=0, atol=1e-12)


def test_classes_with_spaces_around_them_are_the_labels_of_the_same_file(holdout: Path, tmp_path: Path) -> None:
    """The classes of the census data are " <=50K" and " >50K", as pandas reads them."""
    model = fit(DecisionTreeClassifier(max_depth=2), NUMBERS).fit(known()[NUMBERS], " " + known().survived)
    spaced = pd.read_csv(holdout)
    spaced.assign(survived=" " + spaced.survived).to_csv(tmp_path / "spaced.csv", index=False)
    for data in (holdout, tmp_path / "spaced.csv"):
        made = bring(saved(model, tmp_path), data)
        assert served(made)[0].schema.class_names == ("no", "yes")
        predicted = pd.Series(model.predict(spaced[NUMBERS])).str.strip()
        assert made.card["metrics"]["accuracy"] == pytest.approx((predicted == spaced.survived).mean())


def test_a_class_without_rows_is_said_and_one_that_the_model_does_not_know_is_refused(
    holdout: Path, tmp_path: Path
) -> None:
    path = saved(fit(DecisionTreeClassifier(max_depth=2), NUMBERS), tmp_path)
    frame = pd.read_csv(holdout)
    frame[frame.survived == "no"].to_csv(tmp_path / "no.csv", index=False)
    made = bring(path, tmp_path / "no.csv")
    assert any("has no row of 'yes'" in note for note in made.card["data"]["notes"])
    assert made.card["metrics"]["classes"]["yes"]["rows"] == 0
    frame.loc[5, "survived"] = "yess"
    frame.to_csv(tmp_path / "more.csv", index=False)
    with pytest.raises(BadData, match=r"'survived', row 6: 'yess' is no class of the model; .* did you mean 'yes'\?"):
        bring(path, tmp_path / "more.csv")


def test_false_and_true_are_no_numbers_of_sorted_labels(holdout: Path, tmp_path: Path) -> None:
    """A model of `survived == "no"` would be turned around; of 0 and 1 it is known which is which."""
    model = DecisionTreeClassifier(max_depth=2).fit(known()[NUMBERS].fillna(0), known().survived == "no")
    path = saved(model, tmp_path)
    frame = pd.read_csv(holdout)
    frame[NUMBERS] = frame[NUMBERS].fillna(0)
    frame.to_csv(tmp_path / "texts.csv", index=False)
    with pytest.raises(BadData, match="is no class of the model; expected one among 'False', 'True'"):
        bring(path, tmp_path / "texts.csv")
    answers = frame["survived"] == "no"
    frame.assign(survived=answers.astype(int)).to_csv(tmp_path / "numbers.csv", index=False)
    made = bring(path, tmp_path / "numbers.csv")
    assert served(made)[0].schema.labels == (False, True)
    assert made.card["metrics"]["accuracy"] == pytest.approx(model.score(frame[NUMBERS], answers))


def test_numbers_of_classes_in_another_order_are_not_served_turned_around(holdout: Path, tmp_path: Path) -> None:
    """A model of `(survived == "no")` as 0 and 1 says 1 where the sorted labels say 0."""
    frame = pd.read_csv(holdout)
    frame[NUMBERS] = frame[NUMBERS].fillna(0)
    frame["survived"] = np.where(frame["fare"] > frame["fare"].median(), "yes", "no")
    frame.to_csv(tmp_path / "texts.csv", index=False)
    for turned, taken in ((False, True), (True, False)):
        numbers = (frame["survived"] == ("no" if turned else "yes")).astype(int)
        path = saved(DecisionTreeClassifier(max_depth=2).fit(frame[NUMBERS], numbers), tmp_path)
        if taken:
            assert bring(path, tmp_path / "texts.csv").card["metrics"]["accuracy"] == 1
        else:
            with pytest.raises(BadData, match=r"if 0, 1, … are yes, no than if they are the sorted labels, no, yes"):
                bring(path, tmp_path / "texts.csv")


@pytest.mark.parametrize(("classes", "share"), [(2, 0.5), (2, 0.9), (10, 0.1)])
def test_a_model_that_knows_nothing_is_not_said_to_have_another_order(classes: int, share: float) -> None:
    random = np.random.default_rng(7)
    for rows in (30, 200, 5_000):
        shares = np.append(share, np.full(classes - 1, (1 - share) / (classes - 1)))
        labels = random.choice(classes, rows, p=shares)
        assert better_order(labels, random.choice(classes, rows, p=shares), classes) is None
        assert better_order(labels, np.full(rows, classes - 1), classes) is None
        assert better_order(labels, labels, classes) is None


# --- own files of XGBoost and LightGBM, pickles --------------------------------------------------------------------


@pytest.mark.parametrize("file", ["m.json", "m.ubj", "m.txt", "model.bst"])
def test_own_files_are_taken_with_the_sorted_labels_as_classes(file: str, holdout: Path, tmp_path: Path) -> None:
    frame, codes = known()[NUMBERS], (known().survived == "yes").astype(int)
    if file.endswith((".json", ".ubj")):
        model: Any = xgboost.XGBClassifier(n_estimators=6).fit(frame, codes)
        model.save_model(tmp_path / file)
    else:
        model = lightgbm.LGBMClassifier(n_estimators=6, verbose=-1).fit(frame, codes)
        model.booster_.save_model(tmp_path / file)
    made = bring(tmp_path / file, holdout)
    assert made.card["engine"]["name"] == "onnxruntime", made.card["engine"]
    assert "0, 1, … are taken for the sorted labels: no, yes" in str(made.card["data"]["notes"])
    check_every_row(made, holdout, model)


@pytest.mark.parametrize("file", ["m.ubj", "m.txt"])
def test_categories_of_pandas_are_refused_for_boosters_with_what_to_do(
    file: str, holdout: Path, tmp_path: Path
) -> None:
    frame, codes = known()[[*NUMBERS, "sex"]].astype({"sex": "category"}), (known().survived == "yes").astype(int)
    if file == "m.ubj":
        xgboost.XGBClassifier(n_estimators=2, enable_categorical=True).fit(frame, codes).save_model(tmp_path / file)
    else:
        lightgbm.LGBMClassifier(n_estimators=2, verbose=-1).fit(frame, codes).booster_.save_model(tmp_path / file)
    with pytest.raises(BadData, match=r"categorical columns of pandas, .* OrdinalEncoder or OneHotEncoder before the"):
        bring(tmp_path / file, holdout)


def test_a_pickle_is_only_loaded_where_its_maker_is_trusted(holdout: Path, tmp_path: Path) -> None:
    """Loading it would make a file: what a pickle can do."""

    class Harmful:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "was here",)

    joblib.dump(Harmful(), tmp_path / "m.joblib")
    with pytest.raises(BadData, match=r"a pickle runs whatever code its maker has put into it; expected .*skops.*, or"):
        bring(tmp_path / "m.joblib", holdout)
    assert not (tmp_path / "was here").exists()
    model = CONVERTED["one-hot and linear"]()
    joblib.dump(model, tmp_path / "m.pkl")
    check_every_row(bring(tmp_path / "m.pkl", holdout, trust=True), holdout, model)


def test_a_model_of_another_version_is_said(holdout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sklearn.base

    model = fit(DecisionTreeClassifier(max_depth=2), NUMBERS)
    monkeypatch.setattr(sklearn.base, "__version__", "1.5.0")
    path = saved(model, tmp_path)
    monkeypatch.undo()
    made = bring(path, holdout)
    warning = made.card["warnings"][0]
    assert warning["kind"] == "version"
    assert warning["text"].startswith("the model was fitted with scikit-learn 1.5.0, and this is ")


# --- what is refused, in one line ----------------------------------------------------------------------------------


class Unknown(LogisticRegression):  # type: ignore[misc]
    """A type that no list of ours has."""


REFUSED: dict[str, tuple[Fit, str]] = {
    "no classifier": (lambda: LinearRegression().fit([[0], [1]], [0, 1]), "holds a LinearRegression that is no class"),
    "clusters": (lambda: KMeans(2, n_init=1).fit([[0], [1], [2]]), "holds a KMeans that is no classifier"),
    "not fitted": (lambda: make_pipeline(StandardScaler(), LogisticRegression()), "Pipeline that is not fitted"),
    "no probabilities": (
        lambda: fit(make_pipeline(SimpleImputer(), LinearSVC()), NUMBERS),
        "LinearSVC without predict_proba; expected a classifier that gives probabilities, such as a Calibrated",
    ),
    "several labels": (
        lambda: DecisionTreeClassifier().fit([[0], [1]], [[0, 1], [1, 0]]), "without one list of classes",
    ),
    "no estimator": (lambda: {"model": 1}, "holds a dict; expected a classifier"),
    "an unknown type": (lambda: fit(make_pipeline(SimpleImputer(), Unknown()), NUMBERS), "types that are not trusted"),
    "a column that is not there": (
        lambda: DecisionTreeClassifier().fit(known()[["fare"]].set_axis(["fares"], axis=1), known().survived),
        r"column 'fares' is missing; .* did you mean 'fare'\?",
    ),
    "the label as a column": (
        lambda: DecisionTreeClassifier().fit(pd.DataFrame({"survived": [0, 1]}), ["no", "yes"]),
        "was fitted on a column 'survived', which is the label here",
    ),
    "rows that it can't answer": (lambda: fit(LogisticRegression(), ["fare"]).fit(
        known()[["age"]].fillna(0), known().survived), "can't answer the rows of .*: ValueError: Input X contains NaN"),
    "a threshold of its own": (
        lambda: fit(FixedThresholdClassifier(DecisionTreeClassifier(), threshold=1.5, pos_label="yes"), NUMBERS),
        "predicts another class than the most probable one, on .* rows; expected a classifier that decides by its prob",
    ),
    "columns without names": (
        lambda: DecisionTreeClassifier().fit(known()[NUMBERS].to_numpy(), known().survived),
        "has 7 columns besides the label, and the model was fitted on 3, without their names",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_fitted_classifier_is_refused_in_one_line(name: str, holdout: Path, tmp_path: Path) -> None:
    make, problem = REFUSED[name]
    with pytest.raises(BadData, match=problem) as raised:
        bring(saved(make(), tmp_path), holdout)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("names", [NUMBERS, None])
def test_an_option_that_names_no_column_is_refused(names: list[str] | None, holdout: Path, tmp_path: Path) -> None:
    frame = known()[NUMBERS]
    model = DecisionTreeClassifier(max_depth=2).fit(frame if names else frame.to_numpy(), known().survived)
    loaded = importing.load(saved(model, tmp_path), trust_pickle=False)
    with pytest.raises(BadData, match=r"no column 'tickets'; --ignore: expected it among .* did you mean 'ticket'\?"):
        brought.read(loaded, holdout, "survived", Reading(ignore=("tickets",)))
    with pytest.raises(BadData, match=r"column 'survive'.*; expected .* did you mean 'survived'\?"):
        brought.read(loaded, holdout, "survive", Reading())


def test_a_column_that_the_model_takes_can_not_be_ignored(holdout: Path, tmp_path: Path) -> None:
    loaded = importing.load(saved(fit(DecisionTreeClassifier(max_depth=2), NUMBERS), tmp_path), trust_pickle=False)
    with pytest.raises(BadData, match=f"was fitted on a column '{NUMBERS[0]}'; expected it, and not --ignore"):
        brought.read(loaded, holdout, "survived", Reading(ignore=(NUMBERS[0], "ticket")))
    frame = pd.read_csv(holdout)
    frame[NUMBERS] = frame[NUMBERS].astype(object)
    frame.loc[3, NUMBERS[0]] = "?"
    frame.loc[4, NUMBERS[1]] = "2026-01-31"
    frame.to_csv(tmp_path / "wrong.csv", index=False)
    with pytest.raises(BadData) as raised:
        brought.read(loaded, tmp_path / "wrong.csv", "survived", Reading())
    assert "--na '?'" in str(raised.value)
    assert "--ignore" not in str(raised.value)


def test_a_column_without_any_value_is_refused(holdout: Path, tmp_path: Path) -> None:
    pd.read_csv(holdout).assign(age=np.nan, port=None).to_csv(tmp_path / "empty.csv", index=False)
    with pytest.raises(BadData, match=r"2 columns can't be used\n.*'age' is empty in every row, .*\n.*'port' is empty"):
        bring(saved(CONVERTED["one-hot and linear"](), tmp_path), tmp_path / "empty.csv")


@pytest.mark.parametrize(
    ("file", "content"),
    [("m.skops", b"PK"), ("m.json", b"{}"), ("m.txt", b"tree\nbut none"), ("m.onnx", b""), ("m.ubj", b"\0")],
)
def test_a_file_that_is_no_model_is_one_line(file: str, content: bytes, holdout: Path, tmp_path: Path) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(BadData, match=r"expected a fitted classifier: \.skops, \.joblib or \.pkl") as raised:
        bring(tmp_path / file, holdout)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["model.joblib", "model.pkl", "model.bst", "model.json"])
def test_a_directory_of_kserve_s_own_servers_is_named_with_the_command(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(artifact.NoModel) as raised:
        artifact.load(tmp_path)
    trust = " --trust-pickle" if name.endswith(("joblib", "pkl")) else ""
    command = f"python train.py --model {tmp_path / name}{trust} --data FILE --label COLUMN --output DIRECTORY"
    assert str(raised.value).endswith(f"make an artifact of it: {command}")
    assert raised.value.exit_code == 66
    with pytest.raises(BadData, match=f"is a directory; expected --model {tmp_path / name}"):
        importing.load(tmp_path, trust_pickle=True)


@pytest.mark.parametrize("option", ["--cv=5", "--class-weight=balanced", "--set=C=2", "--pipeline=a:b", "--group=g"])
def test_options_of_training_are_refused_for_a_fitted_model(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options.parse(["--model", "m.skops", "--data", "d.csv", "--label", "y", option], "")
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"{option.split('=', maxsplit=1)[0]}: is for a model that is fitted here" in last


# --- a function of the user's own ----------------------------------------------------------------------------------

NOTEBOOK = """
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder
from sklearn.svm import LinearSVC

def good(seed):
    texts = OneHotEncoder(handle_unknown="ignore"), ["sex", "port"]
    parts = make_column_transformer((SimpleImputer(), make_column_selector(dtype_include="number")), texts)
    return make_pipeline(parts, LogisticRegression(max_iter=300, random_state=seed))

def svc():
    return LinearSVC()

def wrong():
    return {}["a"]

def kind():
    return LogisticRegression

def nothing():
    pass

def arguments(a, b=1):
    pass

def own(frame):
    raise KeyError("in a step of mine")

def fails():
    return make_pipeline(FunctionTransformer(own), LogisticRegression())
"""
WRONG = {
    "notebook:svc": "returned a LinearSVC without predict_proba; expected",
    "notebook:wrong": r"KeyError: 'a' \(.*notebook.py:18\)$",
    "notebook:kind": "returned the type LogisticRegression; expected a classifier of scikit-learn, not fitted",
    "notebook:nothing": "returned a NoneType; expected",
    "notebook:arguments": "arguments needs a; expected a function without arguments, or with seed",
    "notebook:fails": r"KeyError: 'in a step of mine' \(.*notebook.py:30\)$",
    "notebook:godo": r"has no function 'godo'; .* did you mean 'good'\?",
    "unclosed:a": r"SyntaxError: .* \(.*unclosed.py:1\)$",
    "needs:a": r"ModuleNotFoundError: No module named 'not_there' \(.*needs.py:1\)$",
    "nowhere:a": "no module 'nowhere' in .*; expected module:function, such as",
    "notebook": "expected module:function, such as",
}


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "notebook.py").write_text(NOTEBOOK)
    (tmp_path / "unclosed.py").write_text("def a(:\n")
    (tmp_path / "needs.py").write_text("import not_there\n")
    for module in ("notebook", "unclosed", "needs"):
        monkeypatch.delitem(sys.modules, module, raising=False)


@pytest.fixture(scope="module")
def table(holdout: Path) -> Any:
    from defects.training import dataset

    return dataset.read(holdout, "survived", Reading(ignore=("ticket",)))


@pytest.mark.usefixtures("notebook")
def test_a_function_of_the_user_s_makes_the_pipeline_that_is_fitted_on_a_data_frame(table: Any) -> None:
    made = pipeline.train(table, Recipe(pipeline="notebook:good", seed=7), quiet)
    assert made.card["engine"]["input"] == "frame"
    assert made.card["engine"]["name"] == "onnxruntime", made.card["engine"]
    assert made.card["estimator"]["pipeline"] == "notebook:good"
    assert made.card["estimator"]["parameters"]["classifier__logisticregression__random_state"] == 7
    assert served(made)[0].schema.label_name == "survived"


@pytest.mark.usefixtures("notebook")
def test_the_user_s_pipeline_is_calibrated_on_data_frames_too(table: Any) -> None:
    made = pipeline.train(table, Recipe(pipeline="notebook:good", calibrate="sigmoid"), quiet)
    assert made.card["calibration"]["method"] == "sigmoid"
    assert made.card["engine"]["name"] == "onnxruntime", made.card["engine"]


@pytest.mark.usefixtures("notebook")
@pytest.mark.parametrize("given", WRONG)
def test_what_is_wrong_with_the_user_s_code_is_one_line_with_its_place(given: str, table: Any) -> None:
    with pytest.raises(BadData, match=WRONG[given]) as raised:
        pipeline.train(table, Recipe(pipeline=given), quiet)
    assert str(raised.value).startswith(f"--pipeline {given}: ")
    assert "\n" not in str(raised.value)
