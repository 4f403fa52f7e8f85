"""Let a simulated scan tunnel send its parcels to a server, and later what turned out to be true of them.

python -m defects.tunnel http://127.0.0.1:3000 --source coast --site coast --drift camera=2
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from defects.history.measures import wilson
from defects.simulator import CLASS_MIX, SCHEMA, SENSORS, SITES, Scans, Tunnel

ROWS_AT_ONCE = 500
TIMEOUT_SECONDS = 30.0


class Failed(Exception):
    """The server did not do what was asked; the message is one line."""


@dataclass(frozen=True)
class Client:
    """Sends JSON to the server at a URL."""

    url: str

    def post(self, path: str, value: Any, **headers: str) -> Any:
        """Return the server's answer; raises `Failed`."""
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        fields = {
            "content-type": "application/json",
            **{name.replace("_", "-"): text for name, text in headers.items()},
        }
        try:
            with closing(kind(parts.netloc, timeout=TIMEOUT_SECONDS)) as connection:
                connection.request("POST", parts.path.rstrip("/") + path, json.dumps(value), fields)
                response = connection.getresponse()
                body = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise Failed(f"{self.url}: {error or type(error).__name__}; expected a server there") from None
        text = body.decode(errors="replace")
        if response.status != 200:
            raise Failed(f"{path}: {response.status} {' '.join(text.split())[:300]}; expected 200")
        return json.loads(text)


@dataclass
class Count:
    """How many parcels were answered and labelled, and how many of the answers were right."""

    parcels: int
    right: int = 0
    results: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        low, high = wilson(self.right, self.parcels)
        share = self.right / self.parcels
        accuracy = f"accuracy  {share:.4f} (95 %: {low:.4f} to {high:.4f}), {self.parcels:,} parcels"
        return "\n".join([accuracy, *(f"outcomes  {count:,} {result}" for result, count in self.results.items())])


def send(client: Client, scans: Scans, source: str, labelled: float, seed: int) -> Count:
    """Send scans in batches, and then the true classes of a share of them, as whoever inspects parcels would."""
    count = Count(len(scans.labels))
    truth = [SCHEMA.class_names[label] for label in scans.labels]
    answers = []
    for start in range(0, len(truth), ROWS_AT_ONCE):
        rows = [*objects(scans, slice(start, start + ROWS_AT_ONCE))]
        answers += client.post("/classify_batch", rows, x_source=source)
    count.right = sum(answer["defect"] == true for answer, true in zip(answers, truth, strict=True))
    inspected = np.random.default_rng(seed).random(len(truth)) < labelled
    outcomes = [
        {"prediction_id": answers[place]["prediction_id"], "class": truth[place], "origin": "inspection"}
        for place in np.flatnonzero(inspected).tolist()
    ]
    for start in range(0, len(outcomes), ROWS_AT_ONCE):
        for stored in client.post("/outcomes", outcomes[start : start + ROWS_AT_ONCE]):
            count.results[stored["result"]] = count.results.get(stored["result"], 0) + 1
    return count


def objects(scans: Scans, rows: slice) -> Iterator[dict[str, Any]]:
    """Yield scans as a caller sends them: null where a value is missing."""
    for row in scans.features[rows].astype(np.float64):
        yield {
            feature.name: None if math.isnan(value) else feature.shown(value)
            for feature, value in zip(SCHEMA.features, row.tolist(), strict=True)
        }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.rows < 1 or not 0 <= options.labelled <= 1 or options.seed < 0:
        parser.error("expected --rows of at least 1, --labelled from 0 to 1, and --seed of at least 0")
    try:
        mix = CLASS_MIX | dict(options.class_mix)
        tunnel = Tunnel(options.seed, options.site, dict(options.drift), mix, options.faulty_sensor)
    except ValueError as error:
        parser.error(str(error))
    scans, source = tunnel.scans(options.rows), options.source or options.site
    try:
        sys.stdout.write(f"{send(Client(options.url), scans, source, options.labelled, options.seed)}\n")
    except Failed as error:
        sys.exit(f"defects.tunnel: {error}")
    except KeyboardInterrupt:
        sys.exit("defects.tunnel: interrupted")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m defects.tunnel", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("url", help="of the server")
    add("--rows", type=int, default=2_000, help="parcels (default: %(default)s)")
    add("--seed", type=int, default=1, help="of the parcels (default: %(default)s)")
    add("--source", help="what x-source says (default: the site)")
    add("--site", choices=SITES, default="inland", help="default: %(default)s")
    drift = f"move a sensor's readings by so many of their spreads; sensors: {', '.join(SENSORS)}"
    add("--drift", action="append", default=[], type=_amount, metavar="SENSOR=SPREADS", help=drift)
    mix = f"another share of a class; classes: {', '.join(CLASS_MIX)}"
    add("--class-mix", action="append", default=[], type=_amount, metavar="CLASS=SHARE", help=mix)
    add("--faulty-sensor", choices=SENSORS, help="its readings freeze, and one in three is lost")
    add("--labelled", type=float, default=1.0, metavar="SHARE", help="of parcels whose class is sent (default: 1)")
    return parser


def _amount(text: str) -> tuple[str, float]:
    """Read NAME=NUMBER."""
    name, _, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not name or not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=NUMBER")
    return name, value


if __name__ == "__main__":
    main()
