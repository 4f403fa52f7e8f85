"""Lints documents that a test has as data, and manifests that people write."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

from defects.lint.documents import read
from defects.lint.resources import Options, Stream, resources
from defects.lint.rule import Finding
from defects.lint.table import findings

Document = dict[str, Any]

# As people write it: a model by its format, and nothing else.
IRIS = """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: sklearn-iris
  namespace: models
spec:
  predictor:
    model:
      modelFormat:
        name: sklearn
      storageUri: gs://models/iris
"""
# With a transformer, an explainer, a list and objects of other kinds beside it.
LARGE = """
apiVersion: v1
kind: List
items:
  - apiVersion: serving.kserve.io/v1beta1
    kind: InferenceService
    metadata: {name: digits, namespace: vision, annotations: {serving.kserve.io/deploymentMode: Standard}}
    spec:
      predictor:
        minReplicas: 2
        maxReplicas: 2
        model:
          modelFormat: {name: onnx}
          storageUri: pvc://models/digits
          resources: {limits: {cpu: "2", memory: 4Gi}}
      transformer:
        containers:
          - image: registry.example.com/resize@sha256:1111111111111111111111111111111111111111111111111111111111111111
      explainer:
        containers:
          - image: registry.example.com/why:1.4
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: inferenceservices.serving.kserve.io}
spec: {group: serving.kserve.io, names: {kind: InferenceService}}
---
apiVersion: serving.kserve.io/v1alpha1
kind: ClusterServingRuntime
metadata: {name: onnx}
spec:
  supportedModelFormats: [{name: onnx, autoSelect: true}]
  containers: [{name: kserve-container, image: "registry.example.com/onnx:2", args: ["--name={{.Name}}"]}]
---
"""
# A server of one's own, on one thread, limited to one request at a time.
CUSTOM = """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: llm
  namespace: text
  annotations:
    serving.kserve.io/deploymentMode: Knative
    features.knative.dev/http-full-duplex: Enabled
spec:
  predictor:
    minReplicas: 1
    maxReplicas: 8
    containerConcurrency: 1
    containers:
      - name: kserve-container
        image: registry.example.com/llm@sha256:2222222222222222222222222222222222222222222222222222222222222222
        ports: [{containerPort: 8080, protocol: TCP}]
        readinessProbe: {httpGet: {path: /v2/health/ready, port: 8080}}
        livenessProbe: {httpGet: {path: /v2/health/live, port: 8080}, initialDelaySeconds: 600}
"""


def lint(text: str | bytes, options: Options = Options(), ignored: Iterable[str] = ()) -> list[Finding]:  # noqa: B008
    """Return what is found in YAML."""
    content = text.encode() if isinstance(text, str) else text
    return list(findings(Stream(list(resources("test.yaml", read(content))), options), list(ignored)))


def lint_documents(documents: list[Document], options: Options = Options()) -> list[Finding]:  # noqa: B008
    """Return what is found in documents."""
    return lint(yaml.dump_all(documents, Dumper=yaml.CSafeDumper), options)


def ids(found: Iterable[Finding]) -> set[str]:
    """Return the rules that found something."""
    return {finding.rule.id for finding in found}


def failing(found: Iterable[Finding]) -> list[str]:
    """Return what would fail a pipeline, as text."""
    return [f"{f.rule.id}: {f.message}" for f in found if f.rule.level != "note"]
