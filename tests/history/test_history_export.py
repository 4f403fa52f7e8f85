"""Exported records are what was sent, to the bit, and a table that training takes as it is; in both databases."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count, cycle
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow.parquet as pq
import pytest

from defects import artifact
from defects.features import DefectClass, Feature
from defects.history import table_file
from defects.history.__main__ import main
from defects.history.database import Database, Registration
from defects.history.export import CannotExport, Result, Selection, export
from defects.history.export_command import moment
from defects.history.record import Batch, Layout
from defects.identifiers import identifiers
from defects.schema import ModelRows, Schema
from defects.serving.recording import Answered
from defects.training import dataset
from defects.training.precision import is_wide
from defects.training.reading import Reading

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)
LABELS = {"text": ("007", "a", "b"), "integer": ("-3", "0", "12"), "number": ("0.5", "1.0", "1e+30"),
          "boolean": ("False", "True")}  # fmt: skip


def schema_of(label_type: str = "text", *, wide: bool = True, name: str = "grade") -> Schema:
    features = (
        Feature("size", "mm", "the longest side", low=-1e6, high=1e6, optional=True),
        Feature("fragile", low=0, high=1, optional=True, kind="boolean"),
        Feature("zone", optional=True, kind="category", categories=("1", "2", "10"), unknown="missing"),
        Feature("carrier", kind="category", categories=("DHL", "UPS", "Österreich Post")),
        Feature("serial", wide=wide),
    )
    classes = tuple(DefectClass(label, f"grade {label}") for label in LABELS[label_type])
    return Schema(features, classes, title="parcels", label_type=label_type, label_name=name)


# Values that a rounding, or a way through text, would change.
HARD = np.array(
    [
        [0.1, 1, 0, 2, 1_764_000_000_123],
        [np.nan, 0, 2, 0, 2.0**53 - 1],
        [np.nextafter(np.float32(0.1), np.float32(1)), np.nan, np.nan, 1, 0.1],
        [-0.0, 1, 1, 0, -0.0],
        [1e-45, 0, 0, 1, 5e-324],
        [16_777_217.0 / 32, 1, 2, 2, np.nextafter(1e15, 0)],
    ]
)


def id_at(moment: datetime) -> str:
    """The id of a prediction that was made then."""
    return next(identifiers(lambda: int(moment.timestamp() * 1000) * 1_000_000))


class History:
    """A database that a test fills, and asks in a loop of its own."""

    def __init__(self, run: Callable[[Coroutine[Any, Any, Any]], Any], database: Database):
        self.run, self.database = run, database
        self._versions = count(1)

    def record(
        self,
        schema: Schema,
        rows: ModelRows,
        *,
        best: Sequence[int] | None = None,
        at: datetime = NOON,
        version: str | None = None,
        source: str = "",
        with_features: bool = True,
    ) -> list[str]:
        """Write records as a replica does; return their ids."""
        layout = Layout(schema, with_features=with_features)
        ids = [id_at(at + timedelta(milliseconds=number)) for number in range(len(rows))]
        best = best if best is not None else [0] * len(rows)
        probabilities = np.eye(len(schema.classes), dtype=np.float32)[best]
        answered = Answered(b"request", b"", 0, ids, rows, probabilities, best)
        batch = Batch(layout.read(layout.pack(answered, 1 if source else 0, 0.001)), ["", source])
        version = version or f"version-{next(self._versions)}"
        text = artifact.dump(schema.to_json()).decode()
        registration = Registration(version, f"sha256:{version}", text, "local", layout)

        async def write() -> None:
            await self.database.register(registration)
            await self.database.write(batch, again=False)

        self.run(write())
        return ids

    def outcome(
        self, identifier: str, label: str, origin: str = "default", minute: int = 0, replaced: bool = False
    ) -> None:
        """Write what turned out to be true of a prediction."""
        received = NOON + timedelta(minutes=minute)
        self._insert([(UUID(identifier), origin, label, NOON, received, received if replaced else None)])

    def outcomes(self, ids: Sequence[str], labels: Iterable[str]) -> None:
        """Write what turned out to be true of predictions; labels begin anew at their end."""
        self._insert(
            [(UUID(i), "default", label, NOON, NOON, None) for i, label in zip(ids, cycle(labels), strict=False)]
        )

    def _insert(self, rows: Sequence[tuple[Any, ...]]) -> None:
        async def insert() -> None:
            async with self.database.transaction() as transaction:
                for values in rows:
                    await transaction.execute("INSERT INTO outcomes VALUES ($1, $2, $3, $4, $5, $6)", *values)

        self.run(insert())

    def export(self, path: Path, selection: Selection | None = None, **options: Any) -> Result:
        selection = selection or Selection(NOON - DAY)
        made: Result = self.run(export(self.database, selection, path, options.pop("say", print), **options))
        return made


IN_A_FILE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # where no SQL is tested


@pytest.fixture
def history(database: Database, runner: asyncio.Runner) -> History:
    return History(runner.run, database)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty directory."""
    made = tmp_path / "folder"
    made.mkdir()
    return made


@pytest.mark.parametrize("label_type", LABELS)
def test_what_was_sent_comes_out_to_the_bit_and_trains_the_same_schema(
    history: History, folder: Path, label_type: str
) -> None:
    schema = schema_of(label_type)
    held = schema.held(np.tile(HARD, (4, 1)))
    ids = history.record(schema, held)
    history.outcomes(ids, schema.class_names)
    done = history.export(folder / "out.parquet", Selection(NOON, labelled=True))
    assert done.command == f"python train.py --data {folder}/out.parquet --label grade"
    assert (done.records, done.models, done.notes) == (24, 1, ())

    table = pq.read_table(folder / "out.parquet").to_pydict()
    assert list(table) == ["size", "fragile", "zone", "carrier", "serial", "grade"]
    assert table["fragile"][:4] == [True, False, None, True]
    assert table["zone"][:4] == ["1", "10", None, "2"]
    assert table["carrier"][:3] == ["Österreich Post", "DHL", "UPS"]
    assert table["grade"][:2] == [schema.labels[0], schema.labels[1]]
    assert type(table["grade"][0]) is type(schema.labels[0])
    assert table["size"][1] is None

    trained_on = dataset.read(folder / "out.parquet", "grade")
    assert trained_on.features.tobytes() == held.tobytes()
    assert [trained_on.schema.class_names[i] for i in trained_on.labels[:3]] == [
        schema.class_names[i % len(schema.classes)] for i in range(3)
    ]
    assert trained_on.schema == schema


@IN_A_FILE
def test_numbers_of_32_bits_have_the_fewest_digits_that_mean_them(history: History, folder: Path) -> None:
    """As whoever sent them wrote them. Beside rows of the same kind they are not taken for numbers of 64 bits."""
    schema = schema_of(wide=False)
    sent = np.array([[70_000.01 + n, 1, 0, 0, n / 7] for n in range(300)])
    history.record(schema, schema.held(sent))
    history.export(folder / "out.parquet")
    table = pq.read_table(folder / "out.parquet")
    assert table["size"].to_numpy().tolist() == sent[:, 0].tolist()
    assert table["serial"].to_numpy().astype(np.float32).tobytes() == sent[:, 4].astype(np.float32).tobytes()
    assert table["grade"].null_count == len(sent)  # nothing is known of what turned out to be true
    assert not is_wide(np.concatenate([table["size"].to_numpy(), sent[:, 0]]))
    assert is_wide(np.concatenate([sent[:, 0].astype(np.float32), sent[:, 0]]))


def test_the_newest_current_outcome_is_the_label(history: History, folder: Path) -> None:
    schema = schema_of()
    one, other, none = history.record(schema, schema.held(HARD[[0, 1, 3]]))
    history.outcome(one, "a", "scanner", minute=1)
    history.outcome(one, "b", "person", minute=2)
    history.outcome(one, "007", "audit", minute=3, replaced=True)
    history.outcome(other, "007")
    assert none
    done = history.export(folder / "out.parquet", Selection(NOON, labelled=True))
    assert pq.read_table(folder / "out.parquet")["grade"].to_pylist() == ["b", "007"]
    assert "no record has the outcome 'a'" in " ".join(done.notes)
    history.export(folder / "all.parquet")
    assert pq.read_table(folder / "all.parquet")["grade"].to_pylist() == ["b", "007", None]


def test_each_record_is_read_by_its_own_models_schema(history: History, folder: Path) -> None:
    old = schema_of(wide=False)
    zone = replace(old.features[2], categories=("7", "10", "2"))
    new = replace(
        old, features=(zone, *old.features[3:2:-1], replace(old.features[4], wide=True), *old.features[1::-1])
    )
    history.record(old, old.held(HARD), version="old")
    rows = HARD[:, [2, 3, 4, 1, 0]]
    history.record(new, new.held(rows), at=NOON + DAY, version="new")
    done = history.export(folder / "out.parquet")
    assert (done.models, done.records) == (2, 12)
    table = pq.read_table(folder / "out.parquet")
    assert table.column_names == [*new.names, "grade"]
    assert table["zone"].to_pylist() == ["1", "10", None, "2", "1", "10", "7", "2", None, "10", "7", "2"]
    old_serial, new_serial = np.split(table["serial"].to_numpy(), 2)
    assert old_serial.tolist() == HARD[:, 4].astype(np.float32).tolist()
    assert new_serial.tolist() == HARD[:, 4].tolist()
    history.export(folder / "old.parquet", Selection(NOON, models=("old",)))
    assert pq.read_table(folder / "old.parquet").column_names == [*old.names, "grade"]


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"features": (*schema_of().features, Feature("weight"))}, "new has a feature 'weight', unlike old"),
        ({"features": schema_of().features[1:]}, "new has no feature 'size', unlike old"),
        ({"label_name": "defect"}, "new has the label 'defect', unlike old"),
    ],
)
def test_models_with_different_columns_are_told_apart(
    history: History, folder: Path, changed: Mapping[str, Any], difference: str
) -> None:
    old = schema_of()
    new = replace(old, **changed)
    history.record(old, old.held(HARD), version="old")
    history.record(new, new.held(np.zeros((2, len(new.features)))), at=NOON + DAY, version="new")
    with pytest.raises(CannotExport) as refused:
        history.export(folder / "out.parquet")
    assert difference in str(refused.value)
    assert "expected those of one kind: --model old (6 records); --model new (2 records)" in str(refused.value)
    assert [*folder.iterdir()] == []
    assert history.export(folder / "out.parquet", Selection(NOON, models=("new",))).records == 2
    with pytest.raises(CannotExport, match="--model: no selected record is of the model 'newer'; expected old, new"):
        history.export(folder / "other.parquet", Selection(NOON, models=("newer",)))


def test_times_and_sources_choose_records(history: History, folder: Path) -> None:
    schema = schema_of()
    for days, source in enumerate(("inland", "coast", "coast")):
        history.record(schema, schema.held(HARD[: days + 1]), at=NOON + days * DAY, source=source, version="one")

    def records(number: int, selection: Selection) -> int:
        return history.export(folder / f"{number}.parquet", selection).records

    assert records(1, Selection(NOON)) == 6
    assert records(2, Selection(NOON + DAY)) == 5
    assert records(3, Selection(NOON, NOON + DAY)) == 1
    assert records(4, Selection(NOON, NOON + 2 * DAY, source="coast")) == 2
    with pytest.raises(CannotExport, match="no records from 2026-11-23T12:00:00Z to now; expected some"):
        records(5, Selection(NOON + 3 * DAY))
    with pytest.raises(CannotExport, match="no records with an outcome from"):
        records(5, Selection(NOON, labelled=True))
    with pytest.raises(CannotExport, match="--source: no prediction came from 'moon'"):
        records(5, Selection(NOON, source="moon"))


def test_records_without_values_are_left_out_and_counted(history: History, folder: Path) -> None:
    schema = schema_of()
    history.record(schema, schema.held(HARD), version="one", with_features=False)
    with pytest.raises(CannotExport, match=r"the 6 records .* have no values of features"):
        history.export(folder / "out.parquet")
    history.record(schema, schema.held(HARD[:2]), version="one")
    done = history.export(folder / "out.parquet")
    assert (done.records, done.notes) == (2, ("6 records without values of features are left out",))


@IN_A_FILE
def test_an_outcome_that_is_no_label_of_the_model_is_left_out(history: History, folder: Path) -> None:
    """An outcome that came before its record could be checked only against all models."""
    schema = schema_of("integer")
    one, other = history.record(schema, schema.held(HARD[:2]))
    history.outcome(one, "crushed")
    history.outcome(other, "12")
    done = history.export(folder / "out.parquet", Selection(NOON, labelled=True))
    assert done.records == 1
    assert done.notes[0] == "1 outcomes are no labels of the type integer: left out"


def test_details_are_columns_that_training_leaves_out(history: History, folder: Path) -> None:
    schema = replace(schema_of(), features=(*schema_of().features[:4], Feature("prediction_time")))
    ids = history.record(schema, schema.held(np.tile(HARD, (2, 1))), best=[0, 1] * 6, source="coast", version="one")
    history.outcomes(ids, "ab")
    history.export(folder / "out.parquet", Selection(NOON, labelled=True), details=True)
    table = pq.read_table(folder / "out.parquet").to_pydict()
    assert table["prediction_id"] == ids
    assert table["_prediction_time"][1] == NOON + timedelta(milliseconds=1)
    assert table["prediction_class"][:2] == ["007", "a"]
    named = ("prediction_model", "prediction_revision", "prediction_source", "outcome_origin", "prediction_confidence")
    assert [table[name][0] for name in named] == ["one", "local", "coast", "default", 1.0]
    read = dataset.read(folder / "out.parquet", "grade")
    assert read.schema.names == schema.names
    assert "columns that are no features are left out: prediction_id, _prediction_time" in " ".join(read.notes)
    read = dataset.read(folder / "out.parquet", "grade", Reading(time="_prediction_time"))
    assert read.schema.names == schema.names
    assert read.times is not None
    assert np.diff(read.times).round(6).tolist() == [0.001] * 11


@IN_A_FILE
def test_a_file_is_written_whole_or_not_at_all_and_never_replaced_by_accident(
    history: History, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = schema_of()
    history.record(schema, schema.held(HARD))
    path = folder / "out.parquet"
    history.export(path)
    before = path.read_bytes()
    with pytest.raises(CannotExport, match="exists; expected a name that is not taken, or --force"):
        history.export(path)

    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("defects.history.export.PROGRESS_SECONDS", 0)
    with pytest.raises(KeyboardInterrupt):
        history.export(path, force=True, say=interrupted)
    assert [*folder.iterdir()] == [path]
    assert path.read_bytes() == before
    assert history.export(path, Selection(NOON + timedelta(milliseconds=3)), force=True).records == 3
    assert pq.read_table(path).num_rows == 3
    (folder / "directory.parquet").mkdir()
    problems = {
        "out.csv": "a name that ends with .parquet",
        "no/out.parquet": "there is no directory",
        "directory.parquet": "is no regular file",
        "a\0.parquet": "no file can have this name",
    }
    for name, problem in problems.items():
        with pytest.raises(CannotExport, match=problem):
            history.export(folder / name)


@IN_A_FILE
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk here")
def test_a_full_disk_is_one_line_and_leaves_nothing(
    history: History, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = schema_of()
    history.record(schema, schema.held(HARD))
    unwritten = table_file.TableFile
    monkeypatch.setattr(table_file, "TableFile", lambda _, *rest: unwritten(Path("/dev/full"), *rest))
    with pytest.raises(CannotExport, match=r"out.parquet: .*; expected a place to write to") as refused:
        history.export(folder / "out.parquet")
    assert "No space left" in str(refused.value)
    assert [*folder.iterdir()] == []


def test_pieces_are_written_as_they_come(history: History, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory holds a piece: of rows that the database gives, and of what becomes a row group."""
    schema = schema_of()
    history.record(schema, schema.held(np.tile(HARD, (20, 1))))
    history.export(folder / "whole.parquet")
    monkeypatch.setattr("defects.history.export.VALUES_AT_ONCE", 5 * 7)
    monkeypatch.setattr("defects.history.export.PROGRESS_SECONDS", 0)
    monkeypatch.setattr(table_file, "GROUP_ROWS", 20)
    said: list[str] = []
    history.export(folder / "pieces.parquet", say=said.append)
    assert said[:2] == ["7 of 120 records", "14 of 120 records"]
    assert pq.ParquetFile(folder / "pieces.parquet").num_row_groups > 3
    assert pq.read_table(folder / "pieces.parquet").equals(pq.read_table(folder / "whole.parquet"))


@IN_A_FILE
def test_more_categories_than_are_inferred_come_back_as_categories(history: History, folder: Path) -> None:
    """Those of a file of somebody else would be refused, because they may identify rows."""
    zone = replace(schema_of().features[2], categories=tuple(map(str, range(300))))
    schema = replace(schema_of(), features=(zone, schema_of().features[4]))
    history.outcomes(history.record(schema, schema.held(np.array([[n % 300, n] for n in range(301)], float))), "ab")
    history.export(folder / "out.parquet", Selection(NOON, labelled=True))
    assert dataset.read(folder / "out.parquet", "grade").schema.features[0] == zone


@IN_A_FILE
def test_without_pyarrow_one_line_says_what_to_do(
    history: History, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "defects.history.table_file")
    monkeypatch.delattr("defects.history.table_file")
    with pytest.raises(CannotExport, match="pyarrow is not installed here, nor is it in the image; expected "):
        history.export(folder / "out.parquet")


@IN_A_FILE
def test_the_command_says_what_it_wrote_and_what_is_wrong(
    history: History, folder: Path, database_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    schema = schema_of()
    history.outcomes(history.record(schema, schema.held(HARD)), "ab")
    command = ["export", "--url", database_url, "--since", "2026-11-20", "--labelled", str(folder / "out.parquet")]
    assert main(command) == 0
    assert capfd.readouterr().out == (
        f"{folder}/out.parquet: 6 records of one model\n"
        "note: no record has the outcome '007': a model that is trained on this file alone never says it\n"
        f"train on it: python train.py --data {folder}/out.parquet --label grade\n"
    )
    assert main(command) == 1
    assert capfd.readouterr().err == (
        f"defects: {folder}/out.parquet: exists; expected a name that is not taken, or --force to replace it\n"
    )
    assert main([*command, "--force", "--until", "2026-11-20T12:00:00.002Z"]) == 0
    assert pq.read_table(folder / "out.parquet").num_rows == 2


@pytest.mark.parametrize("text", ["", "7", "0d", "yesterday", "2026-11-20T08:00:00", "2026-13-01", "999999w"])
def test_a_time_that_is_none_is_a_usage_error(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", f"--since={text}", "out.parquet"])
    assert ended.value.code == 2
    assert "expected a time ago, such as 7d or 12h, or a time such as 2026-11-20" in capsys.readouterr().err


def test_times_of_the_command_are_in_utc() -> None:
    assert moment("2026-11-20") == datetime(2026, 11, 20, tzinfo=UTC)
    assert moment("2026-11-20T12:00:00+02:00") == datetime(2026, 11, 20, 10, tzinfo=UTC)
    found = moment("12h")
    assert timedelta(hours=12) <= datetime.now(UTC) - found < timedelta(hours=13)
