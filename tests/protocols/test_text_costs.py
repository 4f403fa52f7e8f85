"""What a caller's mistake in texts of categories costs beside valid requests of the same size; see `test_costs.py`."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson
from test_costs import MOST, collected_as_in_a_server

from defects.features import DefectClass, Feature
from defects.http.messages import BINARY, JSON, Refusal, Request, check_body, error
from defects.http.predictions import Codecs, Decode
from defects.problems import InvalidInput
from defects.protocols import requests
from defects.schema import Schema
from defects.serving.model import MAX_ROWS, Limits, ServedModel, body_bytes

TEXTS = tuple(f"a rather long category, number {number:04}" for number in range(1_000))
SHORT = tuple(f"a{number:03}" for number in range(1_000))
SCHEMA = Schema(
    (
        *(Feature(f"long{n}", kind="category", categories=TEXTS, optional=True) for n in range(4)),
        *(Feature(f"short{n}", kind="category", categories=SHORT, optional=True, unknown="missing") for n in range(4)),
        *(Feature(f"number{n}") for n in range(4)),
    ),
    (DefectClass("a"), DefectClass("b")),
)
SIZE = body_bytes(SCHEMA)
CODECS = Codecs(ServedModel(SCHEMA, "model", "1", "test", {}), Limits(SIZE, 1.0))
ROUTES: dict[str, Decode] = {"scans": CODECS.scans, "v1": CODECS.v1, "v2": CODECS.v2}


class Sent(NamedTuple):
    title: str
    route: str
    body: bytes
    length: int | None = None  # of the JSON part


def rows(change: Any = None) -> list[list[Any]]:
    """Return valid rows; `change` makes another text of each."""
    made = [
        [*(TEXTS[(row + n) % 1_000] for n in range(4)), *(SHORT[(row + n) % 1_000] for n in range(4)), 1, 2, 3, 4.5]
        for row in range(MAX_ROWS)
    ]
    return made if change is None else [[*map(change, row[:8]), *row[8:]] for row in made]


def ways(title: str, values: list[list[Any]], more: bytes = b"") -> Iterator[Sent]:
    """Yield the rows as each protocol has them."""
    yield Sent(f"scans: {title}", "scans", orjson.dumps([dict(zip(SCHEMA.names, row, strict=True)) for row in values]))
    yield Sent(f"v1: {title}", "v1", orjson.dumps({"instances": values}))
    for binary in (False, True):
        inputs, raw = requests.by_feature(SCHEMA, values, binary=binary)
        head = orjson.dumps({"inputs": inputs})
        yield Sent(f"v2: {title}{', binary' * binary}", "v2", head + raw + more, len(head) if binary else None)


def wrong() -> Iterator[Sent]:
    yield from ways("near to a category", rows(lambda text: f"{text}x"))
    yield from ways("near to many", rows(lambda text: f"{text[:-1]}?"))
    yield from ways("nowhere near", rows(lambda _: "x" * 30))
    yield from ways("in capitals", rows(str.upper))
    yield from ways("empty", rows(lambda _: ""))
    yield from ways("all missing", rows(lambda _: None))
    yield from ways("one is long", [["x" * 300_000, *rows()[0][1:]], *rows()[1:900]])
    inputs, raw = requests.by_feature(SCHEMA, rows(), binary=True)
    head = orjson.dumps({"inputs": inputs})
    yield Sent("v2: no UTF-8", "v2", head + raw.replace(b"a", b"\xff"), len(head))
    yield Sent("v2: cut off", "v2", head + raw[:-1], len(head))
    for title, byte in (("lengths of 0", b"\0"), ("lengths of 4 GB", b"\xff")):
        yield Sent(f"v2: {title}", "v2", head + byte * len(raw), len(head))
    one = {"name": "long0", "datatype": "BYTES", "shape": [1]}
    many = struct.pack("<I", 1) * 200_000
    head = orjson.dumps({"inputs": [{**one, "parameters": {"binary_data_size": len(many)}}]})
    yield Sent("v2: far too many texts", "v2", head + many, len(head))
    for name, value in {"numbers": 1, "lists": [], "nested lists": ["x"], "true": True}.items():
        data = [value] * 8_000
        yield Sent(f"v2: {name} for texts", "v2", orjson.dumps({"inputs": [{**one, "shape": [1_000], "data": data}]}))


def answered(sent: Sent) -> int:
    """Decode a request; return the status that it leads to, 200 or 400."""
    headers = (
        {}
        if sent.length is None
        else {b"inference-header-content-length": b"%d" % sent.length, b"content-type": BINARY}
    )
    request = Request("POST", "/", headers, receive=None, body=sent.body)  # type: ignore[arg-type]
    try:
        request.body = check_body(request, (JSON, BINARY), SIZE)
        ROUTES[sent.route](request)
    except Refusal as problem:
        return error(problem.status, str(problem)).status
    except InvalidInput as problem:
        return error(400, str(problem), problem.problems).status
    return 200


def cost(sent: Sent, times: int) -> float:
    taken = []
    for _ in range(times):
        began = time.process_time()
        answered(sent)
        taken.append(time.process_time() - began)
    return min(taken)


def test_no_mistake_in_texts_costs_more_than_a_valid_request() -> None:
    valid = [*ways("", rows())]
    assert {*map(answered, valid)} == {200}
    assert max(len(each.body) for each in (*valid, *wrong())) <= SIZE
    found: dict[str, float] = {}
    with collected_as_in_a_server():
        unit = max(cost(each, times=5) for each in valid)
        for each in wrong():
            taken = cost(each, times=1) / unit
            found[each.title] = taken if taken <= MOST / 2 else cost(each, times=5) / unit
    assert {title: ratio for title, ratio in found.items() if ratio > MOST} == {}


def test_one_small_mistake_costs_little_whatever_the_categories_are() -> None:
    """A thousand categories that are all near to what came: compared with each it took 50 ms, beside 0.1 for a row."""
    row = dict(zip(SCHEMA.names, rows()[0], strict=True))
    scans = [Sent("", "scans", orjson.dumps([row | {"long0": text}])) for text in (TEXTS[0], f"{TEXTS[0][:-4]}....")]
    assert [*map(answered, scans)] == [200, 400]
    whole = cost(Sent("", "scans", orjson.dumps([row] * MAX_ROWS)), times=5)
    assert cost(scans[1], times=5) < whole
