"""The resources of a stream, and what belongs together: an InferenceService, its runtime, settings and policies."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from defects.lint.documents import BadYAML, Node
from defects.lint.fields import Field, Origin
from defects.settings import PREFIX

Mode = Literal["Knative", "Standard"]
MODES: dict[str, Mode] = {
    "Knative": "Knative",
    "Serverless": "Knative",
    "Standard": "Standard",
    "RawDeployment": "Standard",
}
MODE = "serving.kserve.io/deploymentMode"
GROUP = "serving.kserve.io"
RUNTIMES = ("ServingRuntime", "ClusterServingRuntime")
FRAMEWORKS = (
    "sklearn",
    "xgboost",
    "tensorflow",
    "pytorch",
    "triton",
    "onnx",
    "huggingface",
    "pmml",
    "lightgbm",
    "paddle",
)
MAIN = "kserve-container"
COMPONENTS = ("predictor", "transformer", "explainer")
MAX_LISTS = 4  # kinds that are lists, within one another
REFERENCE = re.compile(r"\{\{|\$\(")  # in a value that KServe or Kubernetes fills in, such as {{.Name}} and $(POD_IP)


@dataclass(frozen=True)
class Options:
    """What the linter is told besides the manifests."""

    start_seconds: float | None = None  # that a server takes to start, with a full core
    capacity: float | None = None  # requests per second that one replica holds
    service_seconds: float | None = None  # that a request takes in a replica
    default_mode: Mode | None = None  # where an InferenceService does not say it


class Resource(NamedTuple):
    """A Kubernetes object: where it stands and what it is called, and its root."""

    origin: Origin
    root: Field

    @property
    def kind(self) -> str:
        """Its kind; empty where it has none."""
        return self.origin.kind

    @property
    def group(self) -> str:
        """Its API group."""
        return (self.root.at("apiVersion").text or "").rpartition("/")[0]

    @property
    def name(self) -> str:
        """Its name; empty where it has none."""
        return self.origin.name

    @property
    def namespace(self) -> str:
        """Its namespace; empty where it has none."""
        return self.origin.namespace

    def near(self, namespace: str) -> bool:
        """Whether it can be in a namespace: what has none is applied to any."""
        return not self.namespace or not namespace or self.namespace == namespace


def resources(file: str, documents: Sequence[Node]) -> Iterator[Resource]:
    """Yield the objects of a file; raises `BadYAML` where a document is no mapping."""
    for number, node in enumerate(documents, 1):
        if not isinstance(node.value, dict):
            raise BadYAML(f"line {node.line}: document {number} is no mapping; expected a Kubernetes object")
        yield from _objects(Field(node, "", node.line), file, number, MAX_LISTS)


def _objects(root: Field, file: str, document: int, depth: int) -> Iterator[Resource]:
    """Yield an object, or the items of one that is a list."""
    kind, metadata = root.at("kind").text or "", root.at("metadata")
    if kind.endswith("List") and root.at("items").items and depth:
        for item in root.at("items").items:
            if item.members:
                yield from _objects(item, file, document, depth - 1)
        return
    origin = Origin(file, document, kind, metadata.at("namespace").text or "", metadata.at("name").text or "")
    yield Resource(origin, root._replace(origin=origin))


class Stream:
    """All resources that are looked at together."""

    def __init__(self, found: Sequence[Resource], options: Options):
        self.options, self.resources = options, found
        self._by_kind: dict[str, list[Resource]] = {}
        for resource in found:
            self._by_kind.setdefault(resource.kind, []).append(resource)
        kserves = [
            r for kind in ("InferenceService", *RUNTIMES) for r in self._by_kind.get(kind, []) if r.group == GROUP
        ]
        self.services = [Service(self, r) for r in kserves if r.kind not in RUNTIMES]
        self.runtimes = [Runtime(self, r) for r in kserves if r.kind in RUNTIMES]

    def of_kind(self, kind: str, namespace: str) -> list[Resource]:
        """Return the objects of a kind that can be in a namespace."""
        return [r for r in self._by_kind.get(kind, []) if r.near(namespace)]

    def config_map(self, name: str, namespace: str) -> Field:
        """Return the data of a ConfigMap; missing where it is not in the stream, or not for certain."""
        found = [r for r in self.of_kind("ConfigMap", namespace) if r.name == name]
        return found[0].root.at("data") if len(found) == 1 else Field(None)


class Container:
    """A container as it will run: what the InferenceService says of it first, then what its runtime says."""

    def __init__(self, stream: Stream, namespace: str, *fields: Field):
        self._stream, self._namespace, self._fields = stream, namespace, fields

    def at(self, *keys: str | int) -> Field:
        """Return a field of it, from where it is given."""
        found = [field.at(*keys) for field in self._fields]
        return next((field for field in found if field.given), found[0])

    @cached_property
    def environment(self) -> dict[str, str | None]:
        """The environment variables that the stream tells; `None` for a value that it does not tell."""
        found: dict[str, str | None] = {}
        for field in reversed(self._fields):
            for source in field.at("envFrom").items:
                name = source.at("configMapRef", "name").text
                if name is not None and not source.at("prefix").given:
                    found |= self._stream.config_map(name, self._namespace).texts
            for variable in field.at("env").items:
                name = variable.at("name").text
                value = variable.at("value").text
                if name is not None:
                    found[name] = None if value is None or REFERENCE.search(value) else value
        return found

    def variable(self, name: str) -> Field:
        """Return the value of a variable in the container's own `env`."""
        variables = [v for field in self._fields for v in field.at("env").items]
        return next((v.at("value") for v in variables if v.at("name").text == name), Field(None))

    @property
    def is_ours(self) -> bool:
        """Whether it runs this project's server: it says so by its command, or has its settings."""
        words = [*self.at("command").words, *self.at("args").words]
        return any("defects.serve" in word.split() for word in words) or any(
            name.startswith(PREFIX) for name in self.environment
        )

    @property
    def cores(self) -> float:
        """How much of a core it has for certain of what a start can use: its limit, at most 1."""
        limit = self.at("resources", "limits", "cpu").quantity
        return min(1.0, limit) if limit is not None and limit > 0 else 1.0


class Component:
    """The predictor, transformer or explainer of an InferenceService."""

    def __init__(self, service: Service, name: str):
        self.service, self.name = service, name
        self.field = service.root.at("spec", name)

    @property
    def framework(self) -> Field:
        """What names a model rather than a container: `model`, or the older field with a format's name."""
        fields = (self.field.at(name) for name in ("model", *FRAMEWORKS))
        return next((field for field in fields if field.members), Field(None))

    @cached_property
    def runtime(self) -> Runtime | None:
        """The runtime in the stream that runs its model: the one that is named, or the only one that can."""
        namespace, wanted = self.service.resource.namespace, self.framework.at("runtime").text
        runtimes = [r for r in self.service.stream.runtimes if r.resource.near(namespace)]
        if wanted is not None:
            found = [r for r in runtimes if r.resource.name == wanted]
        else:
            format_name = self.framework.at("modelFormat", "name").text
            found = [r for r in runtimes if format_name in r.selected_formats]
        return found[0] if len(found) == 1 else None

    @cached_property
    def containers(self) -> list[Container]:
        """Its containers; the first is the one that serves."""
        fields = [field for field in self.field.at("containers").items if field.members]
        fields.sort(key=lambda field: field.at("name").text != MAIN)  # the others keep their order
        if not self.framework.given:
            return [self._container(field) for field in fields]
        main = [field for field in fields if field.at("name").text == MAIN]
        return [self._container(self.framework, *main)] + [self._container(f) for f in fields if f not in main]

    def _container(self, *fields: Field) -> Container:
        """Return a container with what its runtime says of it, as KServe merges them by name."""
        name = MAIN if fields[0] == self.framework else fields[0].at("name").text
        below = [f for f in (self.runtime.containers if self.runtime else []) if f.at("name").text == name]
        return Container(self.service.stream, self.service.resource.namespace, *fields, *below)

    @property
    def custom(self) -> Container | None:
        """The container that serves, where it is no runtime's."""
        return self.containers[0] if self.containers and not self.framework.given else None


class Service:
    """An InferenceService, and what of the stream belongs to it."""

    def __init__(self, stream: Stream, resource: Resource):
        self.stream, self.resource, self.root = stream, resource, resource.root

    @property
    def options(self) -> Options:
        """What the linter is told besides the manifests."""
        return self.stream.options

    @property
    def mode(self) -> Mode | None:
        """The deployment mode, where it is known."""
        said = self.root.at("metadata", "annotations", MODE)
        said = said if said.given else self.root.at("status", "deploymentMode")  # of one that is in a cluster
        return MODES.get(said.text or "") if said.given else self.options.default_mode

    @cached_property
    def components(self) -> list[Component]:
        """The components that it has."""
        found = (Component(self, name) for name in COMPONENTS)
        return [component for component in found if component.field.members]

    @cached_property
    def predictor(self) -> Component:
        """Its predictor; it may have nothing in it."""
        return Component(self, "predictor")

    def annotation(self, key: str) -> Field:
        """Return an annotation that reaches the pods of the predictor: its own, the object's, or its runtime's."""
        object_, runtime = self.root.at("metadata", "annotations", key), self.predictor.runtime
        found = [self.predictor.field.at("annotations", key), object_]
        found += [runtime.root.at("spec", "annotations", key)] if runtime else []
        return next((field for field in found if field.given), object_)

    @property
    def ours(self) -> Container | None:
        """The predictor's container, where it runs this project's server."""
        containers = self.predictor.containers
        return containers[0] if containers and containers[0].is_ours else None


class Runtime:
    """A ServingRuntime or ClusterServingRuntime."""

    def __init__(self, stream: Stream, resource: Resource):
        self.stream, self.resource, self.root = stream, resource, resource.root

    @property
    def containers(self) -> list[Field]:
        """Its containers."""
        return [field for field in self.root.at("spec", "containers").items if field.members]

    @property
    def main(self) -> Field:
        """The container that serves."""
        named = (field for field in self.containers if field.at("name").text == MAIN)
        return next(named, self.root.at("spec", "containers", 0))

    @property
    def ours(self) -> Container | None:
        """The container that serves, where it runs this project's server."""
        container = Container(self.stream, self.resource.namespace, self.main)
        return container if container.is_ours else None

    @property
    def selected_formats(self) -> list[str]:
        """The names of the model formats that select it by themselves."""
        formats = self.root.at("spec", "supportedModelFormats").items
        selecting = (f for f in formats if f.at("autoSelect").node and not f.at("autoSelect").is_false)
        return [name for f in selecting if (name := f.at("name").text) is not None]
