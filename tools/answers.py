"""Tell whether an answer to a prediction is right, as far as that is seen without the model: cheaply, for each answer.

Every answer is parsed, and has a prediction for each row that was sent. Of many rows as JSON objects, `SAMPLE` are
looked at, other ones in each answer; tensors are checked whole.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from defects.schema import Schema

SAMPLE = 8
SUM_TOLERANCE, TIE = 1e-3, 1e-6  # probabilities are rounded to 32 bits each
HEAD_BYTES, TEXT_BYTES = 1 << 16, 100  # of an answer beside its rows, and of a row or a number

# Whether an answer is right, from its body and the value of its Inference-Header-Content-Length, which may be empty.
IsRight = Callable[[bytes, str], bool]
_DTYPES = {"FP32": "<f4", "FP64": "<f8", "INT64": "<i8"}
_NUMBERS = frozenset((float, int))


def checker(kind: str, rows: int, schema: Schema) -> IsRight:
    """Return what tells whether an answer to a request of this kind with so many rows is right."""
    look = _Objects(rows, schema) if kind == "json" else _Tensors(rows, schema)

    def is_right(body: bytes, head_length: str) -> bool:
        try:
            return look(body, head_length)
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError):  # anything may be anywhere in it
            return False

    return is_right


def most_bytes(rows: int, schema: Schema) -> int:
    """Return more bytes than a right answer for so many rows has, in any protocol, with its head."""
    names = sum(6 * len(name) + TEXT_BYTES for name in schema.class_names)  # 6: as an escape sequence
    return HEAD_BYTES + rows * (2 * names + 6 * len(schema.label_name) + 10 * TEXT_BYTES)


class _Objects:
    """Checks `/classify` and `/classify_batch`."""

    def __init__(self, rows: int, schema: Schema):
        self._rows, self._names, self._label_name = rows, frozenset(schema.class_names), schema.label_name
        self._name_of = dict(zip(schema.labels, schema.class_names, strict=True))
        self._label_type, self._number = type(schema.labels[0]), count()

    def __call__(self, body: bytes, _: str) -> bool:
        said = orjson.loads(body)
        if self._rows == 1:
            return self._is_prediction(said)
        if type(said) is not list or len(said) != self._rows:
            return False
        return all(self._is_prediction(said[row]) for row in self._sample())

    def _sample(self) -> Sequence[int]:
        if self._rows <= SAMPLE:
            return range(self._rows)
        return random.Random(next(self._number)).sample(range(self._rows), SAMPLE)  # noqa: S311 - no secret

    def _is_prediction(self, said: Any) -> bool:
        label, version, probabilities = said[self._label_name], said["model_version"], said["probabilities"]
        name, values = self._name_of.get(label), list(probabilities.values())
        if name is None or type(label) is not self._label_type or type(version) is not str or not version:
            return False
        if probabilities.keys() != self._names or not _NUMBERS.issuperset(map(type, values)):
            return False
        highest = max(values)
        are_shares = min(values) >= 0 and highest <= 1 and abs(math.fsum(values) - 1) <= SUM_TOLERANCE
        return are_shares and probabilities[name] >= highest - TIE


class _Tensors:
    """Checks answers of V2, whose tensors are in JSON, or in binary form behind it."""

    def __init__(self, rows: int, schema: Schema):
        self._rows, self._names, self._shape = rows, schema.class_names, [rows, len(schema.classes)]
        encoded = [name.encode() for name in schema.class_names]
        self._encoded = [len(name).to_bytes(4, "little") + name for name in encoded]

    def __call__(self, body: bytes, head_length: str) -> bool:
        length = int(head_length or len(body))
        said, rest = orjson.loads(body[:length]), memoryview(body)[length:]
        outputs: dict[str, tuple[Any, Any]] = {}  # each one's description, and its bytes or list
        for output in said["outputs"]:
            size = output.get("parameters", {}).get("binary_data_size")
            outputs[output["name"]] = output, output["data"] if size is None else rest[:size]
            rest = rest[size or 0 :]
        version, (index, data) = said["model_version"], outputs["class_index"]
        if type(version) is not str or not version or len(rest) or index["shape"] != [self._rows]:
            return False
        best = _array(index, data)
        return self._are_probabilities(*outputs["probabilities"], best) and self._are_labels(*outputs["label"], best)

    def _are_probabilities(self, output: Any, data: Any, best: NDArray[Any]) -> bool:
        """Tell whether they are, and highest at `best`."""
        if output["shape"] != self._shape:
            return False
        values = _array(output, data).reshape(self._shape)
        chosen = np.take_along_axis(values, best.reshape(self._rows, 1), axis=1)[:, 0]
        are_shares = (values >= 0).all() and (values <= 1).all() and (best >= 0).all()
        sums = values.sum(axis=1, dtype=np.float64)
        return bool(
            are_shares and (abs(sums - 1) <= SUM_TOLERANCE).all() and (chosen >= values.max(axis=1) - TIE).all()
        )

    def _are_labels(self, output: Any, data: Any, best: NDArray[Any]) -> bool:
        if output["shape"] != [self._rows]:
            return False
        if type(data) is list:
            return data == [self._names[index] for index in best.tolist()]
        return bool(data == b"".join([self._encoded[index] for index in best.tolist()]))


def _array(output: Any, data: Any) -> NDArray[Any]:
    """Return the numbers of a tensor; raises `ValueError` where they are none."""
    found = np.array(data) if type(data) is list else np.frombuffer(data, _DTYPES[output["datatype"]])
    if found.dtype.kind not in "fi":
        raise ValueError("these are no numbers")
    return found
