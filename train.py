"""Train a defect classifier and put it into the BentoML model store.

python train.py                                      the built-in parcel data
python train.py --data parcels.csv --label defect    your own CSV or Parquet file
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from defects import artifact, store
from defects.settings import Fatal
from defects.training import brought, dataset, importing, pipeline, report, saving
from defects.training.gate import Gate, Refused, open_gate
from defects.training.options import Options, parse
from defects.values import one_line

STARTED = time.monotonic()
STILL_WORKING_SECONDS = 5.0


def main(arguments: list[str] | None = None) -> None:
    options = parse(sys.argv[1:] if arguments is None else arguments, __doc__ or "")
    if options.if_missing and _has_model():
        return
    try:
        trained, place = _train(options)
    except Fatal as error:
        error.exit()
    except Refused as refusal:
        sys.exit(f"train.py: {refusal}")
    except dataset.BadData as error:
        sys.exit("\n".join(map(one_line, (f"train.py: {error.lines[0]}", *error.lines[1:]))))
    except (saving.BadPlace, OSError) as error:
        sys.exit(f"train.py: {one_line(str(error))}")
    except KeyboardInterrupt:
        sys.exit("train.py: interrupted")
    report.write(report.report(trained.card, place, artifact.digest_of(artifact.listing(trained.files))))
    if options.output is None:
        for note in store.notes(place.name, datetime.now(UTC)):
            report.write(f"note    {one_line(note)}")


def _train(options: Options) -> tuple[pipeline.Trained, saving.Place]:
    saving.check(options.output)
    gate = open_gate(options.champion, options.margin) if options.champion is not None else None
    trained = _trained(options, gate)
    with progress("saving"):
        place = saving.save(trained.files, trained.card, options.output)
        if gate is not None and options.output is None:
            store.make_champion(place.name)
    return trained, place


def _has_model() -> bool:
    """Whether the BentoML model store has a model, and say where the newest is another checkout's.

    Ends the process where the store has a damaged one, or can't be opened.
    """
    try:
        directory, tag = store.locate(None, None, Path())
        if tag and not store.trained_here(tag):
            about = artifact.described(artifact.load(directory).card)
            _say(f"the newest model was not trained by this checkout: {tag}, {about}; make train trains one here")
    except artifact.NoModel:
        return False
    except Fatal as error:
        error.exit()
    return True


def _trained(options: Options, gate: Gate | None) -> pipeline.Trained:
    """Fit a model, or take the one that was brought."""
    model, data, label = options.model, options.data, options.label
    if model is None or data is None or label is None:
        with progress(f"reading {data or 'the built-in data'}"):
            table = _table(options)
        return pipeline.train(table, options.recipe, progress, gate)
    with progress(f"reading {model} and {data}"):
        loaded = importing.load(model, trust_pickle=options.trust_pickle)
        rows = brought.read(loaded, data, label, options.reading)
    return pipeline.bring(rows, loaded, options.recipe, progress, gate)


def _table(options: Options) -> dataset.Table:
    if options.data and options.label:
        return dataset.read(options.data, options.label, options.reading)
    return dataset.builtin(options.rows, options.recipe.seed)


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Say what is being done, and every few seconds that it still is."""
    done = threading.Event()

    def tick() -> None:
        while not done.wait(STILL_WORKING_SECONDS):
            _say(f"still {what}")

    _say(what)
    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    try:
        yield
    finally:
        done.set()
        ticker.join()


def _say(text: str) -> None:
    with suppress(OSError):  # nobody can read it
        os.write(2, f"[{time.monotonic() - STARTED:6.1f} s] {text}\n".encode(errors="backslashreplace"))


if __name__ == "__main__":
    main()
