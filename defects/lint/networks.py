"""Rules about network policies: does a policy block what the InferenceService asks for?

Policies add up: what one of those that select the pods lets through is let through. What cannot be known from the
stream (labels of other namespaces, addresses) is taken for let through, so that every finding is true.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from defects.lint.fields import Field
from defects.lint.resources import Resource, Service
from defects.lint.rule import Problem, Rule
from defects.lint.scaling import uses_kpa

SERVICE_LABEL = "serving.kserve.io/inferenceservice"
NAMESPACE_LABEL = "kubernetes.io/metadata.name"
KNATIVE = "knative-serving"  # the namespace of the activator and the autoscaler
REQUEST_PORTS = (8012, 8013, 8112)  # of queue-proxy: HTTP/1, HTTP/2, TLS
AUTOSCALING_PORT = 9090  # of queue-proxy, which the autoscaler reads
AGENT_PORT = 9081  # of KServe's agent, which does logging and batching
DEFAULT_PORT = 8080  # KServe's, of a container that names none
DNS_PORTS = (53, 5353)
ELSEWHERE = {  # settings of this project's server that name what it connects to
    "DEFECTS_DATABASE_URL": "a database",
    "DEFECTS_CACHE_URL": "a cache",
    "MODEL_URI": "a model",
}
MOUNTED = ("pvc://", "oci://")  # what no pod downloads by itself


class Policies:
    """The network policies that select the predictor's pods for certain."""

    def __init__(self, service: Service):
        self._service = service
        namespace = service.resource.namespace
        here = (r for r in service.stream.of_kind("NetworkPolicy", namespace) if r.namespace == namespace)
        self.selecting = [policy for policy in here if self._selects(policy)]

    def _selects(self, policy: Resource) -> bool:
        selector = policy.root.at("spec", "podSelector")
        labels = selector.at("matchLabels")
        wanted = all(self._labels.get(key) == value.text for key, value in labels.members.items())
        return selector.given and wanted and all(map(self._expression, selector.at("matchExpressions").items))

    def _expression(self, expression: Field) -> bool:
        """Whether an expression is true of the pods' labels; where they may have others it is not."""
        value = self._labels.get(expression.at("key").text or "")
        match expression.at("operator").text:
            case "In":
                return value is not None and value in expression.at("values").words
            case "NotIn":
                return value is not None and value not in expression.at("values").words
            case "Exists":
                return value is not None
        return False

    @cached_property
    def _labels(self) -> dict[str, str]:
        """The labels that the pods have for certain."""
        own = self._service.predictor.field.at("labels").texts
        given = self._service.root.at("metadata", "labels").texts
        return given | own | {SERVICE_LABEL: self._service.resource.name, "component": "predictor"}

    def rules(self, direction: str) -> list[Field] | None:
        """Return the rules of all policies for `ingress` or `egress`; none where nothing is restricted."""
        restricting = [r.root.at("spec") for r in self.selecting if _restricts(r.root.at("spec"), direction)]
        return [rule for spec in restricting for rule in spec.at(direction).items] if restricting else None

    def place(self, direction: str) -> Field:
        """Return the policy that restricts a direction, to be shown."""
        return next(r.root.at("spec") for r in self.selecting if _restricts(r.root.at("spec"), direction))


def _restricts(spec: Field, direction: str) -> bool:
    types = spec.at("policyTypes").words
    if types:
        return direction.capitalize() in types
    return direction == "ingress" or spec.at("egress").given


def _lets_port(rule: Field, port: int) -> bool:
    """Whether a rule lets a TCP port through, or may."""
    ports = rule.at("ports").items
    return not ports or any(_has_port(each, port) for each in ports)


def _has_port(each: Field, port: int) -> bool:
    if each.at("protocol").text not in (None, "TCP"):
        return False
    number, last = each.at("port").number, each.at("endPort").number
    if number is None:
        return True  # any, or by a name that the pod may give it
    return number <= port <= (number if last is None else last)


def _lets_namespace(rule: Field, namespace: str) -> bool:
    """Whether a rule lets a namespace in, or may."""
    peers = rule.at("from").items
    return not peers or any(_may_be(peer, namespace) for peer in peers)


def _may_be(peer: Field, namespace: str) -> bool:
    """Whether a peer may be in a namespace; one with a podSelector only is in the policy's own."""
    selector = peer.at("namespaceSelector")
    if not selector.given:
        return peer.at("ipBlock").given
    name = selector.at("matchLabels", NAMESPACE_LABEL).text
    if name is not None and name != namespace:
        return False
    for expression in selector.at("matchExpressions").items:
        if expression.at("key").text == NAMESPACE_LABEL:
            listed = namespace in expression.at("values").words
            if expression.at("operator").text == ("NotIn" if listed else "In"):
                return False
    return True


def requests_blocked(service: Service) -> Iterator[Problem]:
    """Find policies that let no requests in."""
    policies = Policies(service)
    rules = policies.rules("ingress")
    if rules is None:
        return
    place = policies.place("ingress").at("ingress")
    if not rules:
        yield Problem(place, "no ingress from anywhere: no request reaches a replica")
    elif service.mode == "Knative":
        if service.resource.namespace == KNATIVE:
            return
        open_ = [r for r in rules if any(_lets_port(r, port) for port in REQUEST_PORTS)]
        if not open_:
            yield Problem(place, "no ingress to queue-proxy's 8012: neither gateway nor activator reaches a replica")
        elif not any(_lets_namespace(rule, KNATIVE) for rule in open_):
            yield Problem(place, f"no ingress to 8012 from {KNATIVE}: the activator reaches no replica")
    elif service.mode == "Standard":
        port = _service_port(service)
        if port is not None and not any(_lets_port(rule, port) for rule in rules):
            agent = ", where KServe's Service sends with a logger or batcher" if port == AGENT_PORT else ""
            yield Problem(place, f"no ingress to port {port}{agent}: no request reaches a replica")


def _service_port(service: Service) -> int | None:
    """Return the port that KServe's Service sends to in Standard mode; none where it is not known."""
    predictor = service.predictor
    if predictor.field.at("logger").given or predictor.field.at("batcher").given:
        return AGENT_PORT
    if not predictor.containers or (predictor.framework.given and predictor.runtime is None):
        return None  # its runtime's
    ports = predictor.containers[0].at("ports")
    number = ports.at(0, "containerPort").number if ports.items else DEFAULT_PORT
    return None if number is None else int(number)


def autoscaler_blocked(service: Service) -> Iterator[Problem]:
    """Find policies that let Knative's autoscaler read nothing."""
    policies = Policies(service)
    rules = policies.rules("ingress")
    if rules is None or not uses_kpa(service) or service.resource.namespace == KNATIVE:
        return
    if not any(_lets_port(rule, AUTOSCALING_PORT) and _lets_namespace(rule, KNATIVE) for rule in rules):
        place = policies.place("ingress").at("ingress")
        yield Problem(place, f"no ingress to {AUTOSCALING_PORT} from {KNATIVE}: the autoscaler sees no request")


def egress_blocked(service: Service) -> Iterator[Problem]:
    """Find policies that let nothing out, where something has to go out."""
    policies = Policies(service)
    rules = policies.rules("egress")
    if rules is None or any(_leads_somewhere(rule) for rule in rules):
        return
    place = policies.place("egress").at("egress")
    for what in _going_out(service, policies):
        yield Problem(place, f"no egress, but {what}")


def _leads_somewhere(rule: Field) -> bool:
    """Whether a rule lets out more than questions for names, or may: a port can have a name instead of a number."""
    ports = rule.at("ports").items
    return not ports or any(each.at("port").number not in DNS_PORTS for each in ports)


def _going_out(service: Service, policies: Policies) -> Iterator[str]:
    """Yield what the predictor's pods are asked to send elsewhere."""
    predictor = service.predictor
    uris = [predictor.framework.at("storageUri")]
    environments = []
    for container in predictor.containers:
        uris.append(container.variable("STORAGE_URI"))
        environments.append(container.environment)
    for uri in uris:
        if uri.text and not uri.text.startswith(MOUNTED):
            yield f"the model is downloaded from {uri.text.partition('://')[0]}://"
    if predictor.field.at("logger", "url").text:
        yield "the logger sends to a URL"
    if any("OTEL_EXPORTER_OTLP_ENDPOINT" in environment for environment in environments):
        yield "traces are sent to OTEL_EXPORTER_OTLP_ENDPOINT"
    for name, what in ELSEWHERE.items():
        # A value that is not told comes from a Secret, where no file's name needs to be.
        if any(name in e and not (e[name] or "").startswith("sqlite:") for e in environments):
            yield f"{name} is {what} elsewhere"
    if service.root.at("spec", "transformer").members and _selects_all(policies):
        yield "the transformer's pods have to call the predictor"


def _selects_all(policies: Policies) -> bool:
    """Whether a policy for egress selects the transformer's pods too, by the InferenceService's name alone."""
    selectors = (r.root.at("spec", "podSelector") for r in policies.selecting)
    return any(
        set(selector.at("matchLabels").members) <= {SERVICE_LABEL} and not selector.at("matchExpressions").items
        for selector in selectors
    )


VERSIONS = "KServe 0.20.0, Knative Serving 1.21 to 1.23"
RULES = (
    Rule(
        "policy-blocks-requests",
        "error",
        "a network policy that lets no request in",
        "In Knative mode requests go to queue-proxy (8012; 8013 HTTP/2; 8112 TLS), from the gateway and from the "
        "activator in knative-serving. In Standard mode they go to the container's first port, or to 9081 with "
        "KServe's logger or batcher.",
        VERSIONS,
        "Add an ingress rule for that port; see kserve/components/network-policy.",
        requests_blocked,
    ),
    Rule(
        "policy-blocks-autoscaler",
        "error",
        "a network policy that hides the requests from Knative's autoscaler",
        "The autoscaler reads queue-proxy's port 9090. Where it cannot, nothing is scaled, or only by what the "
        "activator counts.",
        VERSIONS,
        "Add an ingress rule for port 9090 from the namespace knative-serving.",
        autoscaler_blocked,
    ),
    Rule(
        "policy-blocks-egress",
        "error",
        "a network policy that lets nothing out, where something has to go out",
        "The storage initializer runs in the pod, as do the logger's agent and the server's connections to a "
        "collector or a database.",
        VERSIONS,
        "Add egress rules for DNS and for what is asked for; kserve/components/network-policy-history has those for a "
        "database.",
        egress_blocked,
    ),
)
