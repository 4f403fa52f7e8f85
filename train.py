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
from pathlib import Path
from typing import Any

from defects import artifact, store
from defects.training import dataset, pipeline
from defects.training.options import Options, parse
from defects.values import one_line

STARTED = time.monotonic()
STILL_WORKING_SECONDS = 5.0


def main(arguments: list[str] | None = None) -> None:
    options = parse(sys.argv[1:] if arguments is None else arguments, __doc__ or "")
    if options.if_missing and _has_model():
        return
    try:
        if options.output is not None:
            artifact.check_replaceable(options.output)
        with progress(f"reading {options.data or 'the built-in data'}"):
            table = _table(options)
        for note in table.notes:
            _say(one_line(note))
        trained = pipeline.train(table, options.recipe, progress)
        with progress("saving"):
            place = _save(trained, options.output)
    except artifact.BadArtifact as error:
        error.exit()
    except dataset.BadData as error:
        sys.exit("\n".join(map(one_line, (f"train.py: {error.lines[0]}", *error.lines[1:]))))
    except OSError as error:
        sys.exit(f"train.py: {one_line(_unwritable(error))}")
    print(report(trained.card, place, artifact.digest_of(artifact.listing(trained.files))))


def _unwritable(error: OSError) -> str:
    if error.strerror is None:  # our own, of what stands at this place
        return str(error)
    return f"{error.filename}: {error.strerror}; expected a place to write to"


def _has_model() -> bool:
    """Whether the BentoML model store has a model, and say where the newest is another checkout's.

    Ends the process where the store has a damaged one.
    """
    try:
        directory, tag = store.locate(None, None, Path())
        if tag and not store.trained_here(tag):
            about = artifact.described(artifact.load(directory).card)
            _say(f"the newest model was not trained by this checkout: {tag}, {about}; make train trains one here")
    except artifact.NoModel:
        return False
    except artifact.BadArtifact as error:
        error.exit()
    return True


def _table(options: Options) -> dataset.Table:
    if options.data and options.label:
        return dataset.read(options.data, options.label, options.reading)
    return dataset.builtin(options.rows, options.recipe.seed)


def _save(trained: pipeline.Trained, output: Path | None) -> str:
    if output is None:
        return store.put(trained.files, trained.card)
    artifact.replace(output, trained.files)
    return str(output)


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


def report(card: dict[str, Any], place: str, digest: str) -> str:
    """Report what was trained, how good it is and how it will be served."""
    metrics, engine = card["metrics"], card["engine"]
    width = max(len(name) for name in (*metrics["classes"], "class"))
    lines = [
        "",
        f"accuracy {metrics['accuracy']:.4f}   macro-F1 {metrics['macro_f1']:.4f}   log loss {metrics['log_loss']:.4f}"
        f"   on {card['split']['held_out_rows']:,} held-out rows",
        "",
        f"{'class':{width}}  precision  recall      F1  log loss    rows",
    ]
    for name, c in metrics["classes"].items():
        loss = "       –" if c["log_loss"] is None else f"{c['log_loss']:8.4f}"
        lines.append(
            f"{name:{width}}  {c['precision']:9.4f}  {c['recall']:6.4f}  {c['f1']:6.4f}  {loss}  {c['rows']:6,}"
        )
    lines += [
        "",
        f"engine  {engine['name']}: {engine['reason']}",
        *([f"        largest difference {engine['parity']['largest_difference']:.1e}"] if engine["parity"] else []),
        f"model   {place}",
        f"digest  {digest}",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
