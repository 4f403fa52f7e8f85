"""The checks: each returns what it saw, in words, or raises `Failed` or `Skipped`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import orjson
from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel, Field

from defects import scoring
from defects.artifact import CARD_PAGE, Artifact, Golden
from defects.check import agreement, protocols
from defects.check.agreement import TOLERANCE, ProtocolAnswers, Sample
from defects.check.client import Client, Failed, Response, Skipped, difference, parsed, read_json
from defects.check.overload import Burst
from defects.check.protocols import CODECS, Call, json_call, post, v1, v2
from defects.features import FLOAT32_MAX
from defects.http import openapi
from defects.http.messages import SANE_ID
from defects.kinds import REFUSE
from defects.problems import MAX_NAME
from defects.protocols import v2 as openinference
from defects.schema import ModelRows, Schema
from defects.serving.model import ServedModel, body_bytes
from defects.settings import SANE

# Samples that a scrape has to have, and their labels.
METRICS = {
    "defects_requests_total": ("route", "code"),
    "defects_request_duration_seconds_count": ("route",),
    "defects_phase_duration_seconds_count": ("phase",),
    "defects_batch_rows_count": (),
    "defects_queue_rows": (),
    "defects_queue_rows_max": (),
    "defects_requests_in_flight": (),
    "defects_requests_in_flight_max": (),
    "defects_refused_total": ("reason",),
    "defects_ready": ("reason",),
    "defects_model_info": ("version", "digest", "engine"),
    "defects_startup_seconds": ("phase",),
    "defects_predictions_total": ("defect", "model_version"),
}
TIMING = re.compile(r"queue;dur=[\d.]+, score;dur=[\d.]+, total;dur=[\d.]+")
HIDDEN = (403, 404)  # what an ingress says of paths that it keeps to itself
UNKNOWN = "no-such-thing"  # as a path, a model or a field
INSANE_ID = "has a space"


@dataclass
class Run:
    """What is to be checked, and what earlier checks have found out for later ones."""

    client: Client
    artifact: Artifact | None = None
    name: str | None = None  # of the model in URLs, where it is not the one in /model
    described: Described | None = None
    served: ServedModel | None = None

    @property
    def model(self) -> ServedModel:
        if self.served is None:
            raise Skipped("needs GET /model, or --model-dir and --name")
        return self.served

    @property
    def golden(self) -> Golden | None:
        """Golden inputs that the model can be asked."""
        if self.artifact is None or _shape(self.artifact.schema) != _shape(self.model.schema):
            return None
        return self.artifact.golden

    @cached_property
    def samples(self) -> tuple[Sample, Sample]:
        return agreement.samples(self.model.schema, self.golden)

    @cached_property
    def complete(self) -> ProtocolAnswers:
        return ProtocolAnswers(self.client, self.model, self.samples[0])

    @cached_property
    def missing(self) -> ProtocolAnswers:
        return ProtocolAnswers(self.client, self.model, self.samples[1])

    @cached_property
    def burst(self) -> Burst:
        return Burst(self.client, self.model, self.complete)


def _shape(schema: Schema) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return schema.names, schema.class_names


# --- health and description ----------------------------------------------------------------------------------------


class _Engine(BaseModel):
    name: str


class _Card(BaseModel):
    version: str = Field(pattern=SANE)
    engine: _Engine


class Described(BaseModel):
    """What /model answers."""

    name: str = Field(pattern=SANE)
    version: str
    digest: str
    engine: str
    features_and_classes: Schema = Field(alias="schema")
    card: _Card


def check_json(path: str, expected: dict[str, Any], run: Run) -> str:
    _same(read_json(run.client.get(path)), expected, f"GET {path}: ")
    return f"GET {path}: {_listed(expected)}"


def _same(seen: Any, expected: Any, what: str = "") -> None:
    """Raise `Failed` where two JSON values are not the same."""
    if problem := difference(seen, expected):
        raise Failed(what + problem)


def _listed(content: dict[str, Any]) -> str:
    return orjson.dumps(content).decode()


def v2_health(run: Run) -> str:
    return (
        f"{check_json('/v2/health/live', {'live': True}, run)}, {check_json('/v2/health/ready', {'ready': True}, run)}"
    )


def model_described(run: Run) -> str:
    if run.artifact and run.name:  # where /model can't be read, these do as well
        run.served = ServedModel(run.artifact.schema, run.name, run.artifact.version, run.artifact.engine, {})
    answer = run.client.get("/model")
    if run.served and answer.status in HIDDEN:
        raise Skipped(f"{answer.status}: not for everybody there")
    value = read_json(answer)
    described = run.described = parsed(Described, value)
    version, engine = described.card.version, described.card.engine.name
    run.served = ServedModel(described.features_and_classes, run.name or described.name, version, engine, value)
    _same({"version": described.version, "engine": described.engine}, {"version": version, "engine": engine}, "its ")
    if run.name not in (None, described.name):
        raise Failed(f"its name is {described.name}; expected {run.name}")
    counts = f"{len(run.served.schema.names)} features, {len(run.served.schema.class_names)} classes"
    return f"{described.name} {version}, {engine}, {counts}"


def artifact_served(run: Run) -> str:
    if run.artifact is None:
        raise Skipped("needs --model-dir")
    if run.described is None:
        raise Skipped("needs GET /model")
    described = run.model.description
    expected = {"version": run.artifact.version, "digest": run.artifact.digest}
    _same({name: described[name] for name in expected}, expected)
    content = {"schema": run.artifact.schema.to_json(), "card": run.artifact.card}
    _same({name: described[name] for name in content}, orjson.loads(orjson.dumps(content)))
    page = run.artifact.files.get(CARD_PAGE)
    card = run.client.get("/card")
    if page is not None and card.status not in HIDDEN and (card.status, card.body) != (200, page):
        raise Failed(f"{card.excerpt}; expected the artifact's {CARD_PAGE}")
    return run.artifact.digest


def v2_server(run: Run) -> str:
    described = read_json(run.client.get("/v2"))
    extensions = [*openinference.EXTENSIONS]
    expected = {"name": "warehouse-defects", "version": run.model.version, "extensions": extensions}
    _same(described, expected)
    return f"{described['name']} with {', '.join(described['extensions'])}"


def v2_metadata(run: Run) -> str:
    model = run.model
    expected = openinference.metadata(model.schema, model.name, model.version, model.engine)
    for path in (v2(model), v2(model, versioned=True)):
        _same(read_json(run.client.get(path)), expected, f"GET {path}: ")
    return f"features, classes and version are the card's, also at {v2(model, versioned=True)}"


def model_ready(run: Run) -> str:
    model = run.model
    expected = {"name": model.name, "ready": True}
    for path in (v1(model), f"{v2(model)}/ready", f"{v2(model, versioned=True)}/ready"):
        check_json(path, expected, run)
    return f"V1 and V2: {_listed(expected)}"


# --- predictions ---------------------------------------------------------------------------------------------------


def protocol_agrees(name: str, run: Run) -> str:
    run.complete.judge(name)
    return f"{len(run.complete.sample.rows)} rows; the protocols agree to {TOLERANCE:g}"


def missing_values(run: Run) -> str:
    if not len(run.samples[1].rows):
        raise Skipped("every feature is required")
    names = [codec.name for codec in CODECS if run.complete.right(codec.name)]  # of the others, their own rows tell
    if not names:
        raise Skipped("no protocol answers rightly where nothing is missing")
    for name in names:
        try:
            run.missing.judge(name)
        except Failed as problem:
            raise Failed(f"{name}: {problem}") from None
    return f"{len(run.missing.sample.rows)} rows; null, NaN and left out are the same in {len(names)} protocols"


def golden_answers(run: Run) -> str:
    if run.artifact is None:
        raise Skipped("needs --model-dir; answers were only compared with one another")
    golden = run.golden
    if golden is None:
        raise Skipped("the artifact has other features or classes than what runs there")
    count = 0
    for asked in (run.complete, run.missing):
        if asked.sample.golden is None:
            continue
        if asked.median is None:
            raise Skipped("no protocol answered")
        expected = Golden(asked.sample.rows, asked.sample.golden, golden.tolerance)
        if problem := scoring.golden_difference(expected, asked.median.astype(np.float32)):
            raise Failed(problem)
        count += len(expected.rows)
    return f"{count} golden inputs have their golden answers, to {golden.tolerance:g}"


# --- errors --------------------------------------------------------------------------------------------------------


def _refused(answer: Response, status: int) -> openapi.Error:
    """Read an error with this status."""
    return parsed(openapi.Error, read_json(answer, status))


def _refused_field(run: Run, call: Call, field: str, what: str) -> None:
    """Raise `Failed` where the call is not refused for this field."""
    try:
        error = _refused(post(run.client, call), 400)
    except Failed as problem:
        raise Failed(f"{what}: {problem}") from None
    fields = [problem.field for problem in error.fields or ()]
    if not any(name.endswith(field[:MAX_NAME]) for name in fields):
        raise Failed(f"{what}: fields name {', '.join(fields) or 'nothing'}; expected {field}")


def invalid_value(run: Run) -> str:
    """Check that every protocol refuses a value out of range, and a missing one where it is required (null or NaN)."""
    names, features = run.model.schema.names, run.model.schema.features
    # Where an unknown category counts as missing, nothing is out of range.
    limited = [column for column, feature in enumerate(features) if feature.unknown == REFUSE]
    required = [column for column, feature in enumerate(features) if not feature.optional]
    changes = [(column, 10 * FLOAT32_MAX, "out of range") for column in limited[:1]]
    changes += [(column, np.nan, "missing") for column in required[:1]]
    if not changes:
        raise Skipped("every feature may be missing, and an unknown category counts as that")
    for codec in CODECS:
        for column, value, what in changes:
            changed: ModelRows = run.samples[0].rows[:1].astype(np.float64)
            changed[0, column] = value
            _refused_field(run, codec.calls(run.model, changed)[0], names[column], f"{codec.name}, {what}")
    return f"400 with the field's name, in {len(CODECS)} protocols"


def unknown_field(run: Run) -> str:
    scan = protocols.objects(run.model.schema, run.samples[0].rows[:1])[0] | {UNKNOWN: 1.0}
    bodies = {"/classify": scan, "/classify_batch": [scan], f"{v1(run.model)}:predict": {"instances": [scan]}}
    for path, body in bodies.items():
        _refused_field(run, json_call(path, body), UNKNOWN, path)
    return "400 with the field's name"


def refusal(method: str, path: str, status: int, run: Run, body: bytes | None = None, **headers: str) -> str:
    answer = run.client.send(method, path, body, content_type="application/json", **headers)
    return f"{status}: {_refused(answer, status).error}"


def not_found(run: Run) -> str:
    refusal("GET", f"/{UNKNOWN}", 404, run)
    return refusal("GET", f"/v2/models/{UNKNOWN}", 404, run)


def wrong_method(run: Run) -> str:
    text = refusal("GET", "/classify", 405, run)
    if (allowed := run.client.responses[-1].headers.get("allow")) != "POST":
        raise Failed(f"the header allow is {allowed}; expected POST")
    return text


def wrong_type(run: Run) -> str:
    answer = run.client.send("POST", "/classify", b"{}", content_type="text/plain")
    return f"415: {_refused(answer, 415).error}"


def too_large(run: Run) -> str:
    size = body_bytes(run.model.schema) + 1
    answer = run.client.send("POST", "/classify", b" " * size, content_type="application/json")
    if answer.status == 400:
        raise Skipped(f"{size} bytes are not too many there: DEFECTS_MAX_BODY_BYTES is set to more")
    return f"413: {_refused(answer, 413).error}"


# --- metrics and headers -------------------------------------------------------------------------------------------


def metrics(run: Run) -> str:
    answer = run.client.get("/metrics")
    if answer.status in HIDDEN:
        raise Skipped(f"{answer.status}: not for everybody there")
    if answer.status != 200 or answer.content_type != "text/plain":
        raise Failed(f"{answer.excerpt}; expected 200 text/plain")
    try:
        families = list(text_string_to_metric_families(answer.body.decode()))
    except Exception as problem:  # what the parser raises for what is no metrics is its own affair
        raise Failed(f"can't be read as metrics: {problem}") from None
    samples = [sample for family in families for sample in family.samples]
    for name, labels in METRICS.items():
        if not any(s.name == name and set(s.labels) == set(labels) for s in samples):
            raise Failed(f"there is no {name} with the labels {', '.join(labels) or 'none'}; expected it")
    if run.described:
        info = {
            "version": run.described.card.version,
            "digest": run.described.digest,
            "engine": run.described.card.engine.name,
        }
        _same(next(s.labels for s in samples if s.name == "defects_model_info"), info, "of defects_model_info: ")
    return f"{len(METRICS)} pinned metrics among {len(samples)} samples"


def _check_header(run: Run, header: str, right: Callable[[Response, str | None], bool], expected: str) -> list[str]:
    """Return the values of a header, which all responses so far must have."""
    answers = list(run.client.responses)
    if not answers:
        raise Skipped("nothing was answered")
    wrong = [a for a in answers if not right(a, a.headers.get(header))]
    if wrong:
        value = wrong[0].headers.get(header, "missing")
        raise Failed(f"{len(wrong)} of {len(answers)} answers, first {wrong[0].request}: {value}; expected {expected}")
    return [answer.headers[header] for answer in answers]


def request_id(run: Run) -> str:
    run.client.get("/livez", x_request_id=INSANE_ID)

    def new(answer: Response, value: str | None) -> bool:
        return value is not None and value != answer.request_id and bool(SANE_ID.fullmatch(value))

    def kept(answer: Response, value: str | None) -> bool:
        return new(answer, value) if answer.request_id == INSANE_ID else value == answer.request_id

    answers = run.client.responses
    ingress = run.client.host_header or any("x-envoy-upstream-service-time" in a.headers for a in answers)
    if ingress and all(new(a, a.headers.get("x-request-id")) for a in answers):
        raise Skipped("the ingress gives its own, as Envoy does where preserve_external_request_id is not set")
    ids = _check_header(run, "x-request-id", kept, "the one sent, or a new one where that was not sane")
    return f"the one sent, on {len(ids)} answers"


def model_version(run: Run) -> str:
    version = run.model.version
    return _counted(_check_header(run, "x-model-version", lambda _, value: value == version, version))


def revision(run: Run) -> str:
    return _counted(
        _check_header(run, "x-revision", lambda _, value: bool(re.match(SANE, value or "")), "a revision's name")
    )


def server_timing(run: Run) -> str:
    return _check_header(run, "server-timing", lambda _, v: bool(TIMING.search(v or "")), "queue, score and total")[-1]


def _counted(values: Sequence[str]) -> str:
    return ", ".join(f"{value} on {count} answers" for value, count in Counter(values).most_common())
