"""What a caller's mistake costs beside valid requests of the same size, in processor time on the event loop.

`python tests/protocols/test_costs.py`, with `tests` in `PYTHONPATH`, prints all of it.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
import orjson

from defects import simulator
from defects.http.messages import BINARY, JSON, Refusal, Request, check_body, error
from defects.http.predictions import Codecs, Decode
from defects.problems import InvalidInput
from defects.serving.model import MAX_ROWS, Limits, ServedModel, body_bytes

SCHEMA = simulator.SCHEMA
NAMES = SCHEMA.names
SIZE = body_bytes(SCHEMA)  # of every body, once it is unpacked
CODECS = Codecs(ServedModel(SCHEMA, "model", "1", "test", {}), Limits(SIZE, 1.0))
ROUTES: dict[str, Decode] = {"scan": CODECS.scan, "scans": CODECS.scans, "v1": CODECS.v1, "v2": CODECS.v2}

# Measured: nearly all between 0.1 and 2, the worst 3 to 4, with NaN. When Python read what orjson refuses it was 25 and
# more, for lists of lists. Both sides are measured in turn, but on a machine that others use, too.
MOST = 8.0


@cache
def rows() -> list[list[float | None]]:
    """Return `MAX_ROWS` rows."""
    values = simulator.Tunnel(seed=7).scans(MAX_ROWS).features.tolist()
    return [[None if value != value else value for value in row] for row in values]  # noqa: PLR0124


def objects(more: Any = None) -> list[dict[str, Any]]:
    return [dict(zip(NAMES, row, strict=True)) | (more or {}) for row in rows()]


def padded(value: Any) -> bytes:
    text = value if isinstance(value, bytes) else orjson.dumps(value)
    assert len(text) <= SIZE
    return text + b" " * (SIZE - len(text))


def tensor(**more: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP64", "shape": [MAX_ROWS, len(NAMES)], "data": rows(), **more}


def columns() -> dict[str, Any]:
    values = list(zip(*rows(), strict=True))
    return {
        "inputs": [
            {"name": name, "datatype": "FP64", "shape": [MAX_ROWS, 1], "data": [[value] for value in column]}
            for name, column in zip(NAMES, values, strict=True)
        ]
    }


def valid() -> Iterator[tuple[str, str, bytes]]:
    yield "scans", "scans", padded(objects())
    yield "v1 objects", "v1", padded({"instances": objects()})
    yield "v1 lists", "v1", padded({"instances": rows()})
    yield "v2 rows", "v2", padded({"inputs": [tensor()]})
    yield "v2 columns", "v2", padded(columns())


def with_nan() -> Iterator[tuple[str, str, bytes]]:
    """Make valid requests in which missing values are NaN."""
    for name, route, text in valid():
        yield f"{name}, NaN", route, padded(text.strip().replace(b"null", b"NaN"))


def filled(part: bytes, *, most: int = SIZE, begin: bytes = b"[", end: bytes = b"]") -> bytes:
    """Return as much of `part`, again and again, as the size allows, or `most` times."""
    times = min(most, (SIZE - len(begin) - len(end)) // (len(part) + 1))
    return begin + b",".join([part] * times) + end


# What fills a list: as often as it fits, and at most as often as a request may have parts.
PARTS = {
    "integers": b"1", "floats": b"1.5", "long floats": b"1.2345678901234567", "empty lists": b"[]", "lists": b"[1]",
    "empty objects": b"{}", "objects": b'{"":1}', "objects of two": b'{"":0,"b":0}', "empty strings": b'""',
    "colons": b'":"', "escaped colons": rb'"\u003a"', "quotes": rb'"\""', "backslashes": rb'"\\"',
    "exponents": b"1e300",
    "digits": b"1" * 250, "too many digits": b"9" * 400, "too large": b"1e999", "NaN": b"NaN",
    "-Infinity": b"-Infinity",
    "NaN in strings": b'"NaN"', "a key twice": b'{"a":1,"a":1}', "deep": b"[" * 200 + b"]" * 200,
    "escapes in strings": b'"' + rb"\u004e" * 2_000 + b'"',
    "long strings": b'"' + b"a:" * 5_000 + b'"', "escapes": b'"' + rb"\n" * 5_000 + b'"',
    "long escapes": b'"' + rb"\u003a" * 2_000 + b'"', "backslashes in strings": b'"' + rb"\\" * 5_000 + b'"',
    "quotes in strings": b'"' + rb"\"" * 5_000 + b'"', "NaN in long strings": b'"' + b"NaN," * 2_000 + b'"',
    "spaces": b"1" + b" " * 10_000,
}  # fmt: skip
# What else is wrong with the list, at its end or beginning.
MISTAKES: dict[str, Callable[[bytes], bytes]] = {
    "": lambda text: text,
    "with NaN": lambda text: text[:-1] + b",NaN]",
    "after NaN": lambda text: b"[NaN," + text[1:],
    "with 1e999": lambda text: text[:-1] + b",1e999]",
    "cut off": lambda text: text[:-1],
    "unclosed": lambda text: text[:-1] + b',"',
    "with a key twice": lambda text: text[:-1] + b',{"a":1,"a":1}]',
    "with a colon": lambda text: text[:-1] + b',":"]',
}


def lists() -> Iterator[tuple[str, str, bytes]]:
    for name, part in PARTS.items():
        for times, most in (("", SIZE), ("at most ", 25_000)):
            if times and len(part) * most > SIZE:
                continue
            for what, mistake in MISTAKES.items() if times else [*MISTAKES.items()][:2]:
                title = f"{times}{name} {what}".rstrip()
                fitting = filled(part, most=min(most, (SIZE - 100) // (len(part) + 1)))
                yield f"scans: {title}", "scans", mistake(fitting)
                if times and "NaN" in what:
                    yield f"v1: {title}", "v1", b'{"instances":[[1]],"x":%b}' % mistake(fitting)


def texts() -> Iterator[tuple[str, str, Any]]:
    """Names and values that are long, wrong or many."""
    megabyte = "x" * 1_000_000
    yield "scan: a name of a megabyte", "scan", {megabyte: 1}
    yield "scan: a value of a megabyte", "scan", dict.fromkeys(NAMES[:1], megabyte)
    yield "scan: a number of a megabyte", "scan", b'{"%b":%b}' % (NAMES[0].encode(), b"1" * 1_000_000)
    yield "scan: thousands of names", "scan", {f"f{n}": n for n in range(25_000)}
    yield "scan: names near to those of features", "scan", {f"{NAMES[n % 22]}{n}": n for n in range(20_000)}
    yield "scan: a megabyte of quotes", "scan", b'"' * SIZE
    yield "scan: a megabyte of backslashes", "scan", b'"' + b"\\" * (SIZE - 1)
    yield "scan: megabyte of minus", "scan", b"-" * SIZE
    yield "scan: a megabyte of e", "scan", b"[1" + b"e1" * 600_000 + b"]"
    yield "scan: a megabyte of N", "scan", b"[" + b"N" * 1_000_000 + b"]"
    yield "scan: nothing but brackets", "scan", b"[" * SIZE
    yield "scans: every row has an unknown field", "scans", objects({"x" * 400: 1})
    yield "scans: every row has an unknown field near to one", "scans", objects({"wdith_mm": 1})
    yield "scans: every value is text", "scans", [dict.fromkeys(NAMES, "text")] * MAX_ROWS
    yield "scans: every value is too large", "scans", [dict.fromkeys(NAMES, 1e30)] * MAX_ROWS
    yield "scans: every value is no float", "scans", [dict.fromkeys(NAMES, 1.5)] * 1023 + [dict.fromkeys(NAMES, None)]
    yield "scans: the last row is no object", "scans", [*objects()[:-1], []]
    yield "scans: the last row is NaN", "scans", orjson.dumps([*objects()[:-1], "?"]).replace(b'"?"', b"NaN")
    yield "scans: all is NaN", "scans", orjson.dumps([dict.fromkeys(NAMES)] * MAX_ROWS).replace(b"null", b"NaN")
    yield "scans: all is 1e999", "scans", orjson.dumps([dict.fromkeys(NAMES)] * MAX_ROWS).replace(b"null", b"1e999")
    yield "scans: a key twice at the end", "scans", orjson.dumps(objects())[:-2] + b',"a":1,"a":1}]'
    yield "scans: as integers beyond floats", "scans", [dict.fromkeys(NAMES, 2**63)] * MAX_ROWS


def instances() -> Iterator[tuple[str, str, Any]]:
    yield "v1: one value too many in the last row", "v1", {"instances": [*rows()[:-1], [*rows()[-1], 1]]}
    yield "v1: lists of lists", "v1", {"instances": [[[1]] * 11] * MAX_ROWS}
    yield "v1: lists of texts", "v1", {"instances": [["text"] * 22] * MAX_ROWS}
    yield "v1: NaN beside the instances", "v1", orjson.dumps({"instances": rows(), "x": "?"}).replace(b'"?"', b"NaN")
    yield "v1: instances twice", "v1", b'{"instances":%b,"instances":1}' % orjson.dumps(rows())


def tensors() -> Iterator[tuple[str, str, Any]]:
    def one(**more: Any) -> dict[str, Any]:
        return {"inputs": [tensor(**more)]}

    flat = [1.5] * (MAX_ROWS * 22)
    yield "v2: a wrong shape", "v2", one(shape=[MAX_ROWS, 21])
    yield "v2: a shape of many sizes", "v2", one(shape=[1] * 25_000, data=[])
    yield "v2: sizes of many digits", "v2", one(shape=[1]) | {"x": 1}
    yield "v2: a wrong datatype", "v2", one(datatype="x" * 500_000)
    yield "v2: a datatype that holds less", "v2", one(datatype="INT8", data=[1000] * (MAX_ROWS * 22))
    yield "v2: floats as integers", "v2", one(datatype="INT64")
    yield "v2: texts", "v2", one(data=["text"] * (MAX_ROWS * 22))
    yield "v2: the last value is text", "v2", one(data=[*flat[:-1], "x" * 500_000])
    yield "v2: nested otherwise", "v2", one(data=[[[value]] for value in flat[:8_000]])
    yield "v2: the last row is short", "v2", one(data=[*rows()[:-1], [1]])
    yield (
        "v2: nested a thousand times",
        "v2",
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,22],"data":%b}]}' % (b"[" * 1000 + b"NaN" + b"]" * 1000),
    )
    yield "v2: one value too many", "v2", one(data=[*flat, 1])
    yield "v2: binary, and none came", "v2", one(data=flat, parameters={"binary_data_size": 8 * len(flat)})
    yield "v2: thousands of inputs", "v2", {"inputs": [tensor(name=f"f{n}", shape=[1], data=[1]) for n in range(4_000)]}
    yield "v2: inputs of one name", "v2", {"inputs": [tensor(name="x", shape=[1], data=[1])] * 4_000}
    yield "v2: inputs without a name", "v2", {"inputs": [{}] * 25_000}
    yield "v2: thousands of outputs", "v2", one() | {"outputs": [{"name": "label"}] * 5_000}
    yield "v2: an output of a megabyte", "v2", one() | {"outputs": [{"name": "x" * 500_000}]}
    yield "v2: thousands of parameters", "v2", one() | {"parameters": {f"p{n}": n for n in range(10_000)}, "id": 1}
    yield "v2: NaN in parameters", "v2", orjson.dumps(one(parameters={"x": "?"})).replace(b'"?"', b"NaN")
    yield "v2: all is NaN", "v2", orjson.dumps(one(data=[None] * len(flat))).replace(b"null", b"NaN")
    yield "v2: all is -Infinity", "v2", orjson.dumps(one(data=[None] * len(flat))).replace(b"null", b"-Infinity")


def invalid() -> Iterator[tuple[str, str, bytes]]:
    for name, route, value in chain(texts(), instances(), tensors(), lists()):
        yield name, route, padded(value)


def answered(route: str, body: bytes) -> int:
    """Decode a request and encode its answer, without the scoring; return its status: 200 or 400."""
    request = Request("POST", "/", {}, receive=None, body=body)  # type: ignore[arg-type]
    try:
        request.body = check_body(request, (JSON, BINARY), SIZE)
        decoded = ROUTES[route](request)
    except Refusal as problem:
        return error(problem.status, str(problem)).status
    except InvalidInput as problem:
        return error(400, str(problem), problem.problems).status
    probabilities = np.full((len(decoded.rows), len(SCHEMA.classes)), 1 / 6, np.float32)
    return decoded.encode(probabilities, [0] * len(decoded.rows)).status


def cost(route: str, body: bytes, times: int) -> float:
    """Return the seconds of processor time that a request takes, in the best of so many times."""
    taken = []
    for _ in range(times):
        began = time.process_time()
        answered(route, body)
        taken.append(time.process_time() - began)
    return min(taken)


@contextmanager
def collected_as_in_a_server() -> Iterator[None]:
    """Collect garbage as rarely as a replica does, and none of what the tests have."""
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def ratios() -> dict[str, float]:
    """Return what each other request costs, as a multiple of the dearest valid one."""
    with collected_as_in_a_server():
        unit = max(cost(route, body, times=7) for _, route, body in valid())
        found = {}
        for name, route, body in chain(with_nan(), invalid()):
            taken = cost(route, body, times=1) / unit
            found[name] = taken if taken <= MOST / 2 else cost(route, body, times=5) / unit  # the machine may be busy
        return found


def test_no_mistake_costs_more_than_a_valid_request_of_its_size() -> None:
    assert {answered(route, body) for _, route, body in chain(valid(), with_nan())} == {200}
    assert {name: ratio for name, ratio in ratios().items() if ratio > MOST} == {}


if __name__ == "__main__":
    for title, ratio in sorted(ratios().items(), key=lambda item: -item[1]):
        sys.stdout.write(f"{ratio:6.2f}  {title}\n")
