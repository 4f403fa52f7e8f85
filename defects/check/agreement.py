"""Choose rows, send them by every protocol, and compare what is answered."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from defects.artifact import Golden
from defects.check.client import Client, Failed
from defects.check.protocols import CODECS, Codec
from defects.features import Feature
from defects.kinds import CATEGORY
from defects.schema import ModelRows, Schema
from defects.scoring import Probabilities
from defects.serving.model import ServedModel

ROWS = 64  # of the golden inputs that are sent at most, by every protocol
GENERATED = 8  # rows where there are no golden inputs
SEED = 1
TOLERANCE = 1e-7  # between protocols, which write the same 32-bit number with more or with fewer digits


class Sample(NamedTuple):
    """Rows, and their golden probabilities where there are any."""

    rows: ModelRows
    golden: Probabilities | None = None


def samples(schema: Schema, golden: Golden | None) -> tuple[Sample, Sample]:
    """Choose rows where nothing is missing, and rows where something is; the latter may be none at all."""
    complete, missing = map(Sample, generated(schema))
    if golden is None:
        return complete, missing
    rows, probabilities = golden.rows[:ROWS], golden.probabilities[:ROWS]
    gaps = np.isnan(rows).any(axis=1)
    if not gaps.all():
        complete = Sample(rows[~gaps], probabilities[~gaps])
    if gaps.any():
        missing = Sample(rows[gaps], probabilities[gaps])
    return complete, missing


def generated(schema: Schema) -> tuple[ModelRows, ModelRows]:
    """Make random rows within what training saw, the first one the example, and the same rows with missing values."""
    features = schema.features
    low, high = np.array([_usual(feature) for feature in features]).T
    random = np.random.default_rng(SEED)
    rows = low + (high - low) * random.random((GENERATED, len(features)))
    example = np.array([np.nan if f.example is None else f.example for f in features], np.float64)
    rows[0] = np.where(np.isnan(example), rows[0], example)
    with np.errstate(over="ignore"):
        rows = schema.held(np.clip(rows, *schema.limits[:2]))
    discrete = [feature.discrete for feature in features]
    rows[:, discrete] = rows[:, discrete].round()
    optional = ~schema.limits[2]
    gaps = optional & (random.random(rows.shape) < 0.5)
    gaps[0] = optional  # at least one row misses all that it may
    return rows, np.where(gaps, rows.dtype.type(np.nan), rows)[gaps.any(axis=1)]


def _usual(feature: Feature) -> tuple[float, float]:
    """Return the range of a feature's random values: what training saw, or all categories."""
    if feature.kind == CATEGORY:
        return feature.limits
    ends = ((feature.observed_low, feature.low), (feature.observed_high, feature.high))
    low, high = (_first(*end, feature.example, 0.0) for end in ends)
    return low, high


def _first(*numbers: float | None) -> float:
    return next(float(number) for number in numbers if number is not None)


class ProtocolAnswers:
    """What every protocol answers for the same rows.

    `median` is the median of their probabilities `[n, classes]`: a protocol that is wrong differs from it, also where
    nothing else is known of the model. It is `None` where no protocol answered.
    """

    def __init__(self, client: Client, model: ServedModel, sample: Sample):
        self.sample = sample
        self._model = model
        self._answers = {
            codec.name: _answers_of(codec, client, model, sample.rows) for codec in CODECS if len(sample.rows)
        }
        answered = [answer for answer in self._answers.values() if not isinstance(answer, Failed)]
        self.median: Probabilities | None = np.median(answered, axis=0) if answered else None

    def judge(self, protocol: str) -> None:
        """Raise `Failed` where this protocol did not answer, or other than the rest."""
        answer = self._answers[protocol]
        if isinstance(answer, Failed):
            raise answer
        assert self.median is not None  # noqa: S101 - there is this answer
        if problem := largest_difference(self._model, answer, self.median):
            raise Failed(problem)

    def right(self, protocol: str) -> bool:
        """Whether this protocol answered as the others did."""
        try:
            self.judge(protocol)
        except Failed:
            return False
        return True


def _answers_of(codec: Codec, client: Client, model: ServedModel, rows: ModelRows) -> Probabilities | Failed:
    try:
        return codec.ask(client, model, rows)
    except Failed as problem:
        return problem


def largest_difference(model: ServedModel, seen: Probabilities, expected: Probabilities) -> str | None:
    """Say where two results for the same rows differ most; `None` if by no more than the tolerance."""
    apart = np.abs(seen - expected)
    if apart.max() <= TOLERANCE:
        return None
    row, column = np.unravel_index(apart.argmax(), apart.shape)
    name = model.schema.class_names[int(column)]
    return f"row {row} is {name} with {seen[row, column]:.6g}; most protocols say {expected[row, column]:.6g}"
