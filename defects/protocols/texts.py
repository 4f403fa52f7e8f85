"""A BYTES tensor of a V2 request: texts, in JSON or binary, read as the codes of categories.

In binary each text is UTF-8 after its length, 4 bytes, little-endian. An empty text is a missing value, as null is.
Whatever is wrong with a tensor, no more texts are read than its shape says.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defects.features import Codes, Feature
from defects.kinds import CATEGORY, MISSING
from defects.problems import MAX_NAME, MAX_PROBLEMS, NAN, Constant, InvalidInput, Problem, field_name
from defects.protocols import tensors
from defects.protocols.tensors import BYTES, Tensor, invalid, quoted

_LENGTH = struct.Struct("<I")
_FRAMED = "each text after its length, in 4 bytes, little-endian"
_TEXTS = frozenset({str, type(None)})


def codes(
    tensor: Tensor, features: Sequence[Feature], readers: Sequence[Codes], binary: memoryview
) -> tuple[NDArray[np.float64], memoryview]:
    """Read the categories of `features` in turn, as codes, flat and NaN where missing.

    `readers` are the features' codes. Return the binary data after the tensor's too. Raises `InvalidInput`.
    """
    count, size = tensors.count(tensor), tensors.binary_size(tensor)
    elements: list[Any]
    if size is None:
        elements = _json_texts(tensor, count)
    else:
        elements, binary = _binary_texts(tensor, size, count, binary)
    if len(readers) == 1:
        found = [*map(readers[0].by_element.get, elements)]
    else:
        found = [reader.by_element.get(element) for element, reader in zip(elements, cycle(readers), strict=False)]
    if None in found:
        _resolve(tensor, features, readers, elements, found)
    return np.array(found, np.float64), binary


def refuse_number(tensor: Tensor, feature: Feature) -> None:
    """Refuse a tensor of a category's name that is none of texts."""
    if tensor.datatype != BYTES:
        problem = f"is {tensor.datatype} for {feature.name[:MAX_NAME]}: it may be a code or a value"
        raise invalid(f"{tensor.place}.datatype", problem, f"BYTES, with texts: {feature.expected}")


def check_all_categories(tensor: Tensor, features: Sequence[Feature]) -> None:
    """Refuse a tensor of texts for all features, where one of them is no category."""
    other = next((feature for feature in features if feature.kind != CATEGORY), None)
    if other is not None:
        problem = f"is BYTES, but {other.name[:MAX_NAME]} is a {other.kind}"
        expected = "a tensor for each feature by its name, BYTES for categories; or one of numbers, with their codes"
        raise invalid(f"{tensor.place}.datatype", problem, expected)


def _json_texts(tensor: Tensor, count: int) -> list[str | None]:
    """Return the texts of `data`, which may be flat, or nested exactly as the shape says."""
    data = tensors.flat_data(tensor, count, "texts")
    if _TEXTS.issuperset(map(type, data)):
        return data
    read = [None if type(value) is Constant and value == NAN else value for value in data]
    wrong = [value for value in read if type(value) not in _TEXTS]
    if wrong:
        raise invalid(f"{tensor.place}.data", f"has {quoted(wrong[0])}", "texts or null")
    return read


def _binary_texts(tensor: Tensor, size: Any, count: int, binary: memoryview) -> tuple[list[bytes], memoryview]:
    if type(size) is not int or not 0 <= size <= len(binary):
        expected = f"a number of bytes, at most the {len(binary)} that are left"
        raise invalid(f"{tensor.place}.parameters.binary_data_size", f"is {quoted(size)}", expected)
    raw, elements, end = bytes(binary[:size]), list[bytes](), 0
    while len(elements) < count:
        start = end + 4
        if start > size:
            raise _cut_off(tensor, len(elements), size - end, count)
        end = start + _LENGTH.unpack_from(raw, end)[0]
        if end > size:
            problem = f"text {len(elements)} has the length {end - start}, and {size - start} bytes are left"
            raise invalid(f"{tensor.place}.data", problem, _FRAMED)
        elements.append(raw[start:end])
    if end < size:
        problem = f"has {size - end} bytes after text {count - 1}"
        raise invalid(f"{tensor.place}.data", problem, f"{count} texts, as the shape says")
    return elements, binary[size:]


def _cut_off(tensor: Tensor, found: int, left: int, count: int) -> InvalidInput:
    """Return the error of data that end before there are as many texts as the shape says."""
    if left:
        return invalid(f"{tensor.place}.data", f"ends within the length of text {found}", _FRAMED)
    return tensors.miscounted(tensor, found, count)


def _resolve(
    tensor: Tensor, features: Sequence[Feature], readers: Sequence[Codes], elements: list[Any],
    found: list[float | None],
) -> None:  # fmt: skip
    """Make the unknown texts missing where they count as that; raises `InvalidInput` for the others."""
    problems: list[Problem] = []
    for position, element in enumerate(elements):
        if found[position] is not None:
            continue
        row, column = divmod(position, len(features))
        text, feature = _decoded(tensor, position, element), features[column]
        if feature.unknown == MISSING:
            code = readers[column].stripped(text)
            found[position] = math.nan if code is None else code
            continue
        place = field_name(row, feature.name, single=False)
        problems.append(feature.problem_with_category(text, place, suggest=not problems))
        if len(problems) > MAX_PROBLEMS:
            break
    if problems:
        raise InvalidInput(problems)


def _decoded(tensor: Tensor, position: int, element: str | bytes) -> str:
    try:
        return element if type(element) is str else bytes(element).decode()  # type: ignore[arg-type]
    except UnicodeDecodeError:
        raise invalid(f"{tensor.place}.data", f"text {position} is not UTF-8", "texts as UTF-8") from None
