"""One tensor of a V2 request: its datatype, its shape, and its values in JSON or binary, read as float64.

Sizes are checked before anything is made of them. Numbers in JSON are taken as given, not rounded to the datatype.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from defects.features import LARGEST, Feature
from defects.kinds import BOOLEAN, CATEGORY
from defects.problems import MAX_NAME, MAX_PROBLEMS, NAN, Constant, InvalidInput, Problem, short

# Wire types by the protocol's names, all little-endian. NumPy has none for BF16, the upper half of an FP32.
DATATYPES = {
    "FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
}  # fmt: skip
BF16, BOOL, BYTES = "BF16", "BOOL", "BYTES"
_WIRE = {name: np.dtype(wire) for name, wire in (DATATYPES | {BF16: "<u2", BOOL: "<u1"}).items()}

NUMERIC = (*_WIRE,)
WITH_TEXTS = (*NUMERIC, BYTES)  # for models with categories: see `texts.py`
_OF_SOME_KINDS = frozenset({BOOL, BYTES})  # not for every feature

# What a value in JSON may be, besides null.
_RANGES: dict[str, tuple[float, float]] = {
    BOOL: (0, 1),
    "FP16": (-65504.0, 65504.0),
    BF16: (-(2.0**128 - 2.0**120), 2.0**128 - 2.0**120),
    "FP32": (-LARGEST, LARGEST),
    "FP64": (-np.inf, np.inf),
    **{name: (int(np.iinfo(_WIRE[name]).min), int(np.iinfo(_WIRE[name]).max)) for name in DATATYPES if "INT" in name},
}
_REACH = {name: min(-low, high) for name, (low, high) in _RANGES.items()}
_NUMBERS, _INTEGERS = frozenset({int, float, type(None)}), frozenset({int, type(None)})
_KINDS = {name: _INTEGERS if "INT" in name else _NUMBERS for name in _RANGES} | {BOOL: _INTEGERS | {bool}}
_WORDS = {_NUMBERS: "numbers", _INTEGERS: "integers"}

MAX_SIZES = 8  # of a shape, and of one that are shown


@dataclass(slots=True)
class Tensor:
    """What a request says of a tensor: `shape` has one or two sizes, and `wrapped` sizes of 1 came before them."""

    place: str  # in the request
    datatype: str
    shape: list[int]
    wrapped: int
    described: dict[str, Any]


def described(tensor: dict[str, Any], place: str, datatypes: tuple[str, ...] = NUMERIC) -> Tensor:
    """Read what a request says of a tensor of one of these datatypes, without its values; raises `InvalidInput`."""
    datatype, shape = tensor.get("datatype"), tensor.get("shape")
    if type(datatype) is not str or datatype not in datatypes:
        raise invalid(f"{place}.datatype", f"is {quoted(datatype)}", f"one of {', '.join(datatypes)}")
    if type(shape) is not list or set(map(type, shape)) != {int} or min(shape) < 0:
        problem = f"is {shown(shape)}" if type(shape) is list else f"is {quoted(shape)}"
        raise invalid(f"{place}.shape", problem, "one or two sizes, as integers from 0")
    wrapped = 0
    if len(shape) > MAX_SIZES:
        raise invalid(f"{place}.shape", f"is {shown(shape)}", "one or two sizes, after a few 1s")
    if len(shape) > 2:
        wrapped = next((i for i, size in enumerate(shape[:-2]) if size != 1), len(shape) - 2)
        if len(shape) - wrapped > 2:
            raise invalid(f"{place}.shape", f"is {shown(shape)}", "one or two sizes, after any number of 1s")
        shape = shape[wrapped:]
    return Tensor(place, datatype, shape, wrapped, tensor)


def values(
    tensor: Tensor, features: tuple[Feature, ...], reach: float, binary: memoryview
) -> tuple[NDArray[np.float64], memoryview]:
    """Read the values of `features` in turn, flat and NaN where missing; return the binary data after the tensor's too.

    What is beyond `reach` is refused later: no feature allows it. Raises `InvalidInput`.
    """
    if tensor.datatype in _OF_SOME_KINDS:
        _check_kinds(tensor, features)
    expected, size = count(tensor), binary_size(tensor)
    if size is not None:
        return _binary_values(tensor, size, expected, binary)
    return _json_values(tensor, features, reach, expected), binary


def count(tensor: Tensor) -> int:
    """Return how many values the shape says."""
    shape = tensor.shape
    return shape[0] * (shape[1] if len(shape) == 2 else 1)


def binary_size(tensor: Tensor) -> Any:
    """Return what a request says of the bytes of a binary tensor; `None` where its values are in JSON."""
    return parameters(tensor.described, tensor.place).get("binary_data_size")


def _check_kinds(tensor: Tensor, features: tuple[Feature, ...]) -> None:
    """Refuse a BYTES tensor for a feature that is no category, and a BOOL tensor for one that is no boolean."""
    if tensor.datatype == BYTES:
        name, expected = features[0].name[:MAX_NAME], f"one of {', '.join(NUMERIC)}"
        raise invalid(f"{tensor.place}.datatype", f"is BYTES, but {name} is a {features[0].kind}", expected)
    if problems := [Problem(f.name[:MAX_NAME], "is BOOL", f.expected) for f in features if f.kind != BOOLEAN]:
        raise InvalidInput(problems)


def _binary_values(tensor: Tensor, size: Any, count: int, binary: memoryview) -> tuple[NDArray[np.float64], memoryview]:
    wire = _WIRE[tensor.datatype]
    if type(size) is not int or not 0 <= size <= len(binary) or size % wire.itemsize:
        expected = f"a multiple of {wire.itemsize} of at most the {len(binary)} bytes that are left"
        raise invalid(f"{tensor.place}.parameters.binary_data_size", f"is {quoted(size)}", expected)
    found = np.frombuffer(binary[:size], wire)
    if len(found) != count:
        raise miscounted(tensor, len(found), count)
    if tensor.datatype == BOOL and len(wrong := found[found > 1]):
        raise invalid(f"{tensor.place}.data", f"has the byte {wrong[0]}", "bytes of 0 or 1")
    if tensor.datatype == BF16:
        found = (found.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(invalid="ignore"):  # of NaNs that signal: after this they don't
        return np.multiply(found, 1.0, dtype=np.float64), binary[size:]


def _json_values(tensor: Tensor, features: tuple[Feature, ...], reach: float, count: int) -> NDArray[np.float64]:
    """Read `data` as a flat array; it may be flat, or nested exactly as the shape says."""
    data = flat_data(tensor, count, "numbers")
    kinds = set(map(type, data))
    if not kinds <= _KINDS[tensor.datatype]:
        data = _without_constants(tensor, features, data)
    if _REACH[tensor.datatype] < reach:
        _check_range(tensor, data)
    return np.array(data, np.float64)


def flat_data(tensor: Tensor, count: int, what: str) -> list[Any]:
    """Return the `count` values of `data` in JSON, which `what` names, as one list."""
    data = tensor.described.get("data")
    if type(data) is not list:
        raise invalid(f"{tensor.place}.data", "is missing or not a list", f"a list of {what}")
    if data and type(data[0]) is list:
        data = _flat(tensor, data, what)
    if len(data) != count:
        raise miscounted(tensor, len(data), count)
    return data


def _flat(tensor: Tensor, data: list[Any], what: str) -> list[Any]:
    """Return nested data as one list."""
    for _ in range(tensor.wrapped):
        if len(data) != 1 or type(data[0]) is not list:
            raise _misnested(tensor, what)
        data = data[0]
    if len(tensor.shape) == 1:
        return data
    rows, width = tensor.shape
    if len(data) != rows or not all(type(row) is list and len(row) == width for row in data):
        raise _misnested(tensor, what)
    return list(chain.from_iterable(data))


def _without_constants(tensor: Tensor, features: tuple[Feature, ...], data: list[Any]) -> list[Any]:
    """Return the data with null for the NaN of missing values; refuse what is neither a number nor a boolean."""
    allowed, numbers = _KINDS[tensor.datatype], tensor.datatype in ("FP16", "FP32", "FP64", BF16)
    problems: list[Problem] = []
    read: list[Any] = []
    for position, value in enumerate(data):
        feature = features[position % len(features)]
        nan = numbers and type(value) is Constant and value == NAN
        if nan and not feature.optional:
            row = position // len(features)
            problems.append(Problem(f"[{row}].{feature.name[:MAX_NAME]}", "is NaN", feature.expected))
            if len(problems) > MAX_PROBLEMS:
                break
        elif not nan and type(value) not in allowed and not (type(value) is bool and feature.kind == BOOLEAN):
            _refuse(tensor, feature, value)
        read.append(None if nan else value)
    if problems:
        raise InvalidInput(problems)
    return read


def _refuse(tensor: Tensor, feature: Feature, value: Any) -> NoReturn:
    place, found = f"{tensor.place}.data", f"has {quoted(value)}"
    if type(value) is bool:
        raise invalid(place, f"{found} for {feature.name[:MAX_NAME]}", feature.expected)
    if type(value) is str and feature.kind == CATEGORY:
        what = f"its code, from 0 to {len(feature.categories) - 1}; texts come in BYTES tensors, one for each feature"
        raise invalid(place, f"{found} for {feature.name[:MAX_NAME]}", what)
    raise invalid(place, found, f"{_WORDS.get(_KINDS[tensor.datatype], 'true, false, 0, 1')} or null")


def _check_range(tensor: Tensor, data: list[Any]) -> None:
    """Refuse what the datatype can't hold."""
    low, high = _RANGES[tensor.datatype]
    numbers = [value for value in data if value is not None]
    if not numbers or (low <= min(numbers) and max(numbers) <= high):
        return
    wrong = next(value for value in numbers if not low <= value <= high)
    words = _WORDS.get(_KINDS[tensor.datatype])
    ends = (low, high) if words == "integers" else (short(low), short(high))
    expected = f"{words} from {ends[0]} to {ends[1]}, or null" if words else "true, false, 0, 1 or null"
    raise invalid(f"{tensor.place}.data", f"has {quoted(wrong)}", expected)


def _misnested(tensor: Tensor, what: str) -> InvalidInput:
    lists = " of ".join(f"{quoted(size)} lists" for size in [1] * tensor.wrapped + tensor.shape[:-1])
    expected = f"{lists} of {quoted(tensor.shape[-1])} {what}" if lists else f"{quoted(tensor.shape[-1])} {what}"
    return invalid(f"{tensor.place}.data", "is not nested as the shape says", expected)


def miscounted(tensor: Tensor, found: int, count: int) -> InvalidInput:
    """Return the error of a tensor with another number of values than the shape says."""
    return invalid(f"{tensor.place}.data", f"has {found} values", f"{quoted(count)}, as the shape says")


# --- for all of a V2 request ---------------------------------------------------------------------------------------


def parameters(owner: dict[str, Any], place: str) -> dict[str, Any]:
    """Read the parameters of a request, an input or an output, which may have none."""
    found = owner.get("parameters")
    if found is not None and type(found) is not dict:
        raise invalid(f"{place}.parameters", "is not an object", "an object")
    return found or {}


def shown(shape: list[Any]) -> str:
    """Format a shape for people, as far as it helps and no longer."""
    sizes = ", ".join(map(quoted, shape[:MAX_SIZES]))
    return f"[{sizes}]" if len(shape) <= MAX_SIZES else f"[{sizes}, …] with {len(shape)} sizes"


def quoted(value: Any) -> str:
    """Format a caller's value for people, as far as it helps and no longer."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    if type(value) is int and value.bit_length() > 64:
        return "a very large number"
    return str(value)[:40] if type(value) in (Constant, int, float) else repr(value)[:40]


def invalid(field: str, problem: str, expected: str) -> InvalidInput:
    return InvalidInput([Problem(field[:MAX_NAME], problem, expected)])
