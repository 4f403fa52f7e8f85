"""Write the patch that makes an overlay scale on what one replica holds."""

from __future__ import annotations

import math
from typing import Literal

from loadtests.results import Capacity

CPU_PERCENT = 60  # of the requested CPU, as in kserve/components/autoscale-cpu

_HEAD = """\
patches: # of the overlay's kustomization.yaml; where it has some, add this one to them
  - target:
      group: serving.kserve.io
      kind: InferenceService
    patch: |-
"""
_KNATIVE = """\
      - op: add
        path: /spec/predictor/scaleMetric
        value: rps
      - op: add # what one replica holds; the autoscaler aims at 70 % of it
        path: /spec/predictor/scaleTarget
        value: {target}
"""
_STANDARD = """\
      - op: add
        path: /metadata/annotations/serving.kserve.io~1autoscalerClass
        value: hpa
      - op: add # a HorizontalPodAutoscaler takes no rate
        path: /spec/predictor/scaleMetric
        value: cpu
      - op: add # percent of the requested CPU
        path: /spec/predictor/scaleTarget
        value: {target}
"""


Mode = Literal["Knative", "Standard"] | None


def patch_for(capacity: Capacity | None, mode: Mode) -> str | None:
    """Return the patch for what a ramp found, as YAML; `None` where it did not find what the server holds."""
    replica = capacity and capacity.replica
    if capacity is None or capacity.limited_by != "server" or not replica or not replica.per_s:
        return None
    return patch(mode, replica.per_s)


def patch(mode: Mode, per_s: float) -> str | None:
    """Return the patch, as YAML; `per_s`: requests per second that one replica holds.

    Knative takes a whole number, which is rounded down: rather too many replicas than too few. `None` below one.
    Where the mode is not known, it is Knative's.
    """
    if mode == "Standard":
        return _HEAD + _STANDARD.format(target=CPU_PERCENT)
    target = math.floor(per_s + 1e-9)
    return _HEAD + _KNATIVE.format(target=target) if target >= 1 else None
