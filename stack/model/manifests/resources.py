"""The parts of Kubernetes' and Istio's resources that the audit reads. Other fields are ignored.

The defaults are the API server's. A field has the default `None` if the audit must know that the field is absent.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

__all__ = ["Budget", "Container", "Selector", "ServiceSpec"]


class Part(BaseModel):
    """A part of a resource. Its fields have the names of the API."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        """The API server reads a field that is `null` as left out."""
        return {key: each for key, each in value.items() if each is not None} if isinstance(value, dict) else value


Scalar = int | float | str
Labels = dict[str, Scalar]
"""Labels, annotations or quantities. The API server refuses labels and annotations that are not text."""
Entries = dict[str, Any]
"""A mapping with values of any type."""


class EnvVar(Part):
    """A variable with a literal value, or with a reference to its value."""

    name: str
    value: Annotated[str, BeforeValidator(lambda value: value if isinstance(value, str) else "")] = ""
    value_from: dict[str, Any] | None = None


class ContainerPort(Part):
    """A port that a container declares."""

    container_port: int
    name: str | None = None


class HttpGet(Part):
    """The port of an HTTP probe or of a TCP probe."""

    port: int | str


class ExecAction(Part):
    """A command that kubelet runs in the container."""

    command: tuple[str, ...] = ()


class Probe(Part):
    """A probe of a container by kubelet."""

    period_seconds: int = 10
    timeout_seconds: int = 1
    http_get: HttpGet | None = None
    tcp_socket: HttpGet | None = None

    @property
    def port(self) -> int | str | None:
        """The port that kubelet connects to."""
        target = self.http_get or self.tcp_socket
        return target.port if target else None


class SleepAction(Part):
    """kubelet waits before it stops the container. The container needs no command for this."""

    seconds: int


class Handler(Part):
    """An action of kubelet: a command in the container, or a sleep."""

    exec: ExecAction | None = None
    sleep: SleepAction | None = None


class Lifecycle(Part):
    """The handler that kubelet runs before it stops a container."""

    pre_stop: Handler | None = None


class ResourceAmounts(Part):
    """Quantities by resource, such as `cpu`."""

    requests: Labels = Field(default_factory=dict)
    limits: Labels = Field(default_factory=dict)

    def requested(self, resource: str) -> bool:
        """True if the container requests the resource. Without a request Kubernetes uses the limit as the request."""
        return resource in self.requests or resource in self.limits


class NamedObject(Part):
    """A reference to an object by name."""

    name: str = ""


class EnvFrom(Part):
    """All entries of a ConfigMap as variables."""

    prefix: str = ""
    config_map_ref: NamedObject | None = None


class Container(Part):
    """A container of a pod."""

    name: str
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[Scalar, ...] = ()
    env: tuple[EnvVar, ...] = ()
    env_from: tuple[EnvFrom, ...] = ()
    ports: tuple[ContainerPort, ...] = ()
    resources: ResourceAmounts = ResourceAmounts()
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    startup_probe: Probe | None = None
    lifecycle: Lifecycle | None = None

    @property
    def probes(self) -> dict[str, Probe]:
        """Name of the probe in the API → the probe."""
        named = {
            "livenessProbe": self.liveness_probe,
            "readinessProbe": self.readiness_probe,
            "startupProbe": self.startup_probe,
        }
        return {name: probe for name, probe in named.items() if probe}


class HostAlias(Part):
    """Names that kubelet writes to the pod's hosts file."""

    hostnames: tuple[str, ...] = ()


class PodSpec(Part):
    """The containers, the network and the grace period of a pod."""

    containers: Annotated[tuple[Container, ...], Field(min_length=1)]
    init_containers: tuple[Container, ...] = ()
    termination_grace_period_seconds: int = 30
    host_network: bool = False
    host_aliases: tuple[HostAlias, ...] = ()


class Metadata(Part):
    """The labels of pods or of a namespace."""

    labels: Labels = Field(default_factory=dict)


class PodTemplate(Part):
    """The pods of a workload."""

    metadata: Metadata = Metadata()
    spec: PodSpec


class WorkloadSpec(Part):
    """The number of a workload's pods, and the order in which the controller starts and replaces them."""

    replicas: int | None = None
    pod_management_policy: str = "OrderedReady"
    update_strategy: Entries = Field(default_factory=dict)


class Requirement(Part):
    """One condition of a label selector."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[Scalar, ...] = ()

    def holds(self, labels: dict[str, Scalar]) -> bool:
        """True if the labels meet the condition. `NotIn` also holds if the label is missing."""
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels


class Selector(Part):
    """A label selector."""

    match_labels: Labels = Field(default_factory=dict)
    match_expressions: tuple[Requirement, ...] = ()

    @property
    def text(self) -> str:
        """The labels in the form that `kubectl --selector` accepts."""
        return ",".join(f"{key}={value}" for key, value in self.match_labels.items())

    def matches(self, labels: dict[str, Scalar]) -> bool:
        """True if the selector selects pods with these labels. An empty selector selects all pods."""
        of_labels = all(labels.get(key) == value for key, value in self.match_labels.items())
        return of_labels and all(requirement.holds(labels) for requirement in self.match_expressions)


class ServicePort(Part):
    """A port of a Service."""

    port: int
    name: str | None = None
    target_port: int | str | None = None

    @property
    def target(self) -> int | str:
        """The port of the pods: a number, or the name of a container's port."""
        return self.port if self.target_port is None else self.target_port


class ServiceSpec(Part):
    """A Service: its ports, and the pods behind it."""

    type: str = "ClusterIP"
    cluster_ip: str | None = Field(default=None, alias="clusterIP")
    selector: Labels = Field(default_factory=dict)
    ports: tuple[ServicePort, ...] = ()

    @property
    def headless(self) -> bool:
        """True if the Service's name resolves to its pods. Clients then connect to any port of the pods."""
        return self.cluster_ip == "None"


class ScaleTarget(Part):
    """The workload that an autoscaler scales."""

    kind: str
    name: str


class MetricTarget(Part):
    """The kind of a metric's target. `Utilization` means a percentage of the pods' requests."""

    type: str = ""


class ResourceMetric(Part):
    """CPU or memory of a pod: the sum of its containers."""

    name: str
    target: MetricTarget = MetricTarget()


class Metric(Part):
    """A metric of an autoscaler."""

    type: str
    resource: ResourceMetric | None = None


class Autoscaler(Part):
    """A HorizontalPodAutoscaler of any version."""

    scale_target_ref: ScaleTarget
    min_replicas: int = 1
    max_replicas: int
    metrics: tuple[Metric, ...] = ()
    target_cpu_utilization_percentage: int | None = Field(default=None, alias="targetCPUUtilizationPercentage")

    @property
    def utilization_of(self) -> tuple[str, ...]:
        """The resources whose utilization the autoscaler keeps at a target. An autoscaler without metrics uses CPU."""
        if not self.metrics:
            return ("cpu",)
        named = (metric.resource for metric in self.metrics if metric.type == "Resource" and metric.resource)
        return tuple(resource.name for resource in named if resource.target.type in {"", "Utilization"})


class Budget(Part):
    """A PodDisruptionBudget."""

    selector: Selector | None = None
    min_available: int | str | None = None
    max_unavailable: int | str | None = None


class SecretManifest(Part):
    """A Secret in a file."""

    data: Entries = Field(default_factory=dict)
    string_data: Entries = Field(default_factory=dict)


class ConfigMapManifest(Part):
    """A ConfigMap."""

    data: Entries = Field(default_factory=dict)
