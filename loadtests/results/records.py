"""Kinds of values that parts of the summary share."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict


def _finite(value: Any) -> Any:
    """JSON knows no NaN."""
    return None if isinstance(value, float | np.floating) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_finite)]
VerdictOutcome = Literal["Passed", "Failed", "Invalid", "Error"]
AutoscalerKind = Literal["KPA", "HPA", "KEDA", "external", "none"]
LimitsName = Literal["kpa", "hpa"]  # of the autoscalers that scenarios have lengths and limits for
PhaseName = Literal["warm-up", "baseline", "burst", "recovery"]


class Record(BaseModel):
    """A part of the summary."""

    model_config = ConfigDict(frozen=True, extra="forbid")
