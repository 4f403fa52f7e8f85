"""A model of a table with text columns, in a process of its own: trained, served, asked by every protocol and client.

The deploy check passes, and finds a server that reads categories wrongly.
"""

from __future__ import annotations

import csv
import io
import json
import random
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from test_docs import blocks, difference
from wrong_server import Damage, Exchange, wrong_server

from conftest import CI, MODULE, ROOT, RUN_SECONDS, WAIT_SECONDS, Serve, Server, quiet
from defects import artifact
from defects.check import table
from defects.check.checks import Run
from defects.check.client import Client
from defects.training import dataset, pipeline
from defects.training.options import Recipe
from defects.training.reading import Reading
from loadtests.load import stub_server
from tools import answers, payloads
from tools.served import Served

CLIENTS_PYTHON = ROOT / ".venv-clients" / "bin" / "python"
NAME = "defect-classifier"
ISLANDS = {"Adelie": ["Biscoe", "Dream", "Torgersen"], "Chinstrap": ["Dream"], "Gentoo": ["Biscoe", "Øst"]}
FIELDS = ["island", "mass_g", "sex", "deck", "stage", "species"]


def penguins(rows: int = 400) -> str:
    """A table with texts, texts that may be missing, integers that are categories, and texts that may be unknown."""
    chance = random.Random(5)
    written = io.StringIO()
    made = csv.writer(written)
    made.writerow(FIELDS)
    for number in range(rows):
        species = [*ISLANDS][number % 3]
        mass = round(chance.gauss(5000 if species == "Gentoo" else 3700, 300))
        sex = chance.choice(["female", "male", ""])
        deck = 1 + (number // 3 + (species == "Adelie")) % 3
        stage = chance.choice(["egg", "chick"] if species == "Adelie" else ["adult", "chick"])
        made.writerow([chance.choice(ISLANDS[species]), mass, sex, deck, stage, species])
    return written.getvalue()


@dataclass(frozen=True)
class Species:
    """The model, its server, and rows of its table as objects of JSON."""

    loaded: artifact.Artifact
    trained: pipeline.Trained
    server: Server
    scans: list[dict[str, Any]]
    file: Path


@pytest.fixture(scope="module")
def species(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Species]:
    folder = tmp_path_factory.mktemp("species")
    file = folder / "penguins.csv"
    file.write_text(penguins(), "utf-8")
    reading = Reading(category=("deck",), allow_unknown=("stage",))
    trained = pipeline.train(dataset.read(file, "species", reading), Recipe("hist-gradient-boosting", 0, 0.2), quiet)
    artifact.replace(folder / "model", trained.files)
    scans = [
        row | {"mass_g": int(row["mass_g"]), "sex": row["sex"] or None}
        for row in csv.DictReader(io.StringIO(penguins()))
    ]
    for scan in scans:
        del scan["species"]
    with serve(command=MODULE, MODEL_DIR=folder / "model") as server:
        yield Species(artifact.load(folder / "model"), trained, server, scans[:30], file)


def check(url: str, loaded: artifact.Artifact | None = None) -> dict[str, tuple[str, str]]:
    client = Client("127.0.0.1", int(url.rsplit(":", 1)[1]), timeout=WAIT_SECONDS)
    return {row.name: (row.state, row.text) for row in table.rows(Run(client, loaded))}


def test_the_deploy_check_passes(species: Species) -> None:
    rows = check(species.server.url, species.loaded)
    assert {state for state, _ in rows.values()} == {"ok"}, rows


def test_texts_are_what_scikit_learn_was_given(species: Species) -> None:
    """Other codes than training's would be other islands."""
    answered = httpx.post(f"{species.server.url}/classify_batch", json=species.scans).json()
    schema = species.loaded.schema
    assert [*answered[0]] == ["species", "confidence", "probabilities", "prediction_id", "model_version"]
    codes = [
        [np.nan if scan[f.name] is None else f.codes.get(scan[f.name], scan[f.name]) for f in schema.features]
        for scan in species.scans
    ]
    expected = species.trained.pipeline.predict_proba(np.array(codes, np.float64))
    got = [[one["probabilities"][name] for name in schema.class_names] for one in answered]
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert [one["species"] for one in answered] == [schema.class_names[best] for best in expected.argmax(axis=1)]


def test_other_peoples_clients_send_texts(species: Species) -> None:
    if not CLIENTS_PYTHON.exists():
        (pytest.fail if CI else pytest.skip)("the clients are not installed; `make test` installs them")
    done = subprocess.run(
        [CLIENTS_PYTHON, "-W", "ignore", ROOT / "tests" / "clients.py", species.server.url, NAME],
        input=json.dumps(species.scans),
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    answered = httpx.post(f"{species.server.url}/classify_batch", json=species.scans).json()
    labels = [one["species"] for one in answered]
    assert len({*labels}) == 3
    assert told == {
        "kserve": {"json": labels, "binary": labels},
        "triton": {"json": labels, "binary": labels, "mixed": labels},
    }


def test_a_data_frames_columns_as_mlserver_has_them(species: Species) -> None:
    """A request of MLServer's codec for data frames: a tensor `[n, 1]` for each column, with content types."""
    columns = [
        {
            "name": name,
            "datatype": "INT64" if name == "mass_g" else "BYTES",
            "shape": [len(species.scans), 1],
            "data": [scan[name] for scan in species.scans],
            "parameters": {"content_type": "np" if name == "mass_g" else "str"},
        }
        for name in FIELDS[:-1]
    ]
    request = {"parameters": {"content_type": "pd"}, "inputs": columns}
    answer = httpx.post(f"{species.server.url}/v2/models/{NAME}/infer", json=request)
    assert answer.status_code == 200, answer.text
    answered = httpx.post(f"{species.server.url}/classify_batch", json=species.scans).json()
    assert answer.json()["outputs"][0]["data"] == [one["species"] for one in answered]


@pytest.mark.parametrize("way", ["unknown", "number"])
def test_an_unknown_text_is_refused_or_missing_as_the_schema_says(species: Species, way: str) -> None:
    scan = species.scans[0]
    url = f"{species.server.url}/classify"
    refused = httpx.post(url, json=scan | {"island": "Dreem" if way == "unknown" else 1})
    assert refused.status_code == 400
    (field,) = refused.json()["fields"]
    expected = "one of 'Biscoe', 'Dream', 'Torgersen', 'Øst'"
    assert field == {
        "field": "island",
        "problem": "'Dreem' is unknown" if way == "unknown" else "is a number",
        "expected": f"{expected}; did you mean 'Dream'?" if way == "unknown" else f"text: {expected}",
    }
    missing, unknown = (httpx.post(url, json=scan | {"stage": stage}).json() for stage in (None, "larva"))
    assert missing["probabilities"] == unknown["probabilities"]
    as_number, as_text = (httpx.post(url, json=scan | {"deck": deck}).json() for deck in (2, "2"))
    assert as_number["probabilities"] == as_text["probabilities"]


def test_the_documentation_of_categories_is_right(species: Species) -> None:
    page = "docs/http-api.md"
    (heading,) = {block.heading for block in blocks(page) if "127.0.0.1:3001" in block.text}
    section = [block for block in blocks(page) if block.heading == heading]
    assert [block.language for block in section] == ["sh", "json"] * 3
    for command, shown in zip(section[::2], section[1::2], strict=True):
        text = command.text.replace("http://127.0.0.1:3001", species.server.url)
        done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, timeout=RUN_SECONDS, check=True)
        came = json.loads(done.stdout.replace(species.loaded.version, "…"))
        assert difference(json.loads(shown.text), came) is None, f"{shown.place}: {done.stdout}"


# --- a server that reads categories wrongly ---------------------------------------------------------------------------


def framed(text: str) -> bytes:
    return struct.pack("<I", len(text)) + text.encode()


def reading(*texts: tuple[bytes, bytes]) -> Damage:
    """Change what the server gets: an egg is a cub to it, which is unknown, so missing, and nothing is refused."""

    def change(exchange: Exchange) -> None:
        for old, new in texts:
            exchange.request = exchange.request.replace(old, new)

    return Damage(request=change)


IN_JSON, IN_BINARY = (b'"egg"', b'"cub"'), (framed("egg"), framed("cub"))


@pytest.mark.parametrize(
    ("damage", "rows"),
    [
        (reading(IN_BINARY), {"V2 binary"}),
        # Most protocols are wrong, so those that aren't are the odd ones out; the golden answers tell.
        (reading(IN_JSON), {"V2 JSON", "V2 binary", "golden answers"}),
        (reading(IN_JSON, IN_BINARY), {"V2 JSON", "golden answers"}),
    ],
    ids=["in binary", "in JSON", "everywhere"],
)
def test_a_server_that_reads_other_texts_is_found_out(species: Species, damage: Damage, rows: set[str]) -> None:
    with wrong_server(species.server.url, damage) as url:
        found = check(url, species.loaded)
    assert {name for name, (state, _) in found.items() if state == "FAILED"} - {"missing values"} == rows, found


# --- load tests -------------------------------------------------------------------------------------------------------


def test_load_tests_send_texts_from_a_file_and_of_their_own(species: Species) -> None:
    url, schema = species.server.url, species.loaded.schema
    model = Served.from_json(payloads.ask_model(url))
    assert model.schema == schema
    own = payloads.rows_for(schema, 64, seed=1)
    schema.check(own.astype(np.float64))
    assert [len({*own[:, column]}) for column in schema.codes] == [4, 2, 3, 3]
    for rows in (own, payloads.rows_from_file(species.file, schema)[:64]):
        for kind in ("json", "v2-json", "v2-binary"):
            for each in (1, 8):
                prepared = payloads.prepare(kind, each, url, model, rows, deadline_ms=60_000)
                head, _, body = prepared.requests[0].partition(b"\r\n\r\n")
                lines = head.decode().split("\r\n")
                headers = dict(line.split(": ", 1) for line in lines[1:])
                answer = httpx.post(url + lines[0].split()[1], content=body, headers=headers)
                assert answer.status_code == 200, answer.text
                assert prepared.is_right(answer.content, answer.headers.get("inference-header-content-length", ""))


def test_an_answer_with_another_name_of_the_label_is_wrong(species: Species) -> None:
    said = httpx.post(f"{species.server.url}/classify", json=species.scans[0]).json()
    is_right = answers.checker("json", 1, species.loaded.schema)
    assert is_right(json.dumps(said).encode(), "")
    said["defect"] = said.pop("species")
    assert not is_right(json.dumps(said).encode(), "")
    assert "defect" in stub_server.PREDICTION  # of the built-in model
