"""Types of Istio's resources. mypy refuses fields that are not listed here.

Source: Istio's CustomResourceDefinitions, `kubernetes/customresourcedefinitions.gen.yaml` of istio.io/api 1.31.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NotRequired, TypedDict

if TYPE_CHECKING:
    from components.kubernetes.types import ObjectMeta

NETWORKING_VERSION: Final = "networking.istio.io/v1"
SECURITY_VERSION: Final = "security.istio.io/v1"


class Selector(TypedDict):
    matchLabels: dict[str, str]


class MutualTls(TypedDict):
    mode: Literal["STRICT", "PERMISSIVE"]


class PeerAuthenticationSpec(TypedDict):
    selector: NotRequired[Selector]
    mtls: MutualTls
    portLevelMtls: NotRequired[dict[str, MutualTls]]


class PeerAuthentication(TypedDict):
    apiVersion: Literal["security.istio.io/v1"]
    kind: Literal["PeerAuthentication"]
    metadata: ObjectMeta
    spec: PeerAuthenticationSpec


class Source(TypedDict):
    principals: list[str]


class From(TypedDict):
    source: Source


class RequestOperation(TypedDict):
    ports: list[str]
    methods: NotRequired[list[str]]
    paths: NotRequired[list[str]]


class To(TypedDict):
    operation: RequestOperation


AuthorizationRule = TypedDict("AuthorizationRule", {"from": NotRequired[list[From]], "to": list[To]})


class AuthorizationPolicySpec(TypedDict):
    selector: Selector
    action: Literal["ALLOW"]
    rules: list[AuthorizationRule]


class AuthorizationPolicy(TypedDict):
    apiVersion: Literal["security.istio.io/v1"]
    kind: Literal["AuthorizationPolicy"]
    metadata: ObjectMeta
    spec: AuthorizationPolicySpec


class WorkloadSelector(TypedDict):
    labels: dict[str, str]


class EgressListener(TypedDict):
    hosts: list[str]


class OutboundTrafficPolicy(TypedDict):
    mode: Literal["REGISTRY_ONLY"]


class SidecarSpec(TypedDict):
    workloadSelector: WorkloadSelector
    inboundConnectionPool: NotRequired[ConnectionPool]
    outboundTrafficPolicy: OutboundTrafficPolicy
    egress: list[EgressListener]


class Sidecar(TypedDict):
    apiVersion: Literal["networking.istio.io/v1"]
    kind: Literal["Sidecar"]
    metadata: ObjectMeta
    spec: SidecarSpec


class OutlierDetection(TypedDict):
    consecutive5xxErrors: int
    baseEjectionTime: str
    maxEjectionPercent: int
    minHealthPercent: int


class TcpPool(TypedDict):
    maxConnections: int


class HttpPool(TypedDict):
    http2MaxRequests: NotRequired[int]
    idleTimeout: NotRequired[str]


class ConnectionPool(TypedDict):
    tcp: NotRequired[TcpPool]
    http: NotRequired[HttpPool]


class TrafficPolicy(TypedDict):
    outlierDetection: NotRequired[OutlierDetection]
    connectionPool: NotRequired[ConnectionPool]


class DestinationRuleSpec(TypedDict):
    host: str
    exportTo: list[str]
    workloadSelector: Selector
    trafficPolicy: TrafficPolicy


class DestinationRule(TypedDict):
    apiVersion: Literal["networking.istio.io/v1"]
    kind: Literal["DestinationRule"]
    metadata: ObjectMeta
    spec: DestinationRuleSpec


class EntryPort(TypedDict):
    number: int
    name: str
    protocol: Literal["TCP"]


class ServiceEntrySpec(TypedDict):
    hosts: list[str]
    addresses: list[str]
    location: Literal["MESH_EXTERNAL"]
    resolution: Literal["NONE"]
    ports: list[EntryPort]


class ServiceEntry(TypedDict):
    apiVersion: Literal["networking.istio.io/v1"]
    kind: Literal["ServiceEntry"]
    metadata: ObjectMeta
    spec: ServiceEntrySpec


class Destination(TypedDict):
    host: str


class Route(TypedDict):
    destination: Destination


class Retries(TypedDict):
    attempts: int


class StringMatch(TypedDict):
    exact: str


class HttpMatch(TypedDict):
    uri: StringMatch
    sourceLabels: dict[str, str]


class HttpRoute(TypedDict):
    match: NotRequired[list[HttpMatch]]
    route: list[Route]
    timeout: NotRequired[str]
    retries: Retries


class VirtualServiceSpec(TypedDict):
    hosts: list[str]
    http: list[HttpRoute]


class VirtualService(TypedDict):
    apiVersion: Literal["networking.istio.io/v1"]
    kind: Literal["VirtualService"]
    metadata: ObjectMeta
    spec: VirtualServiceSpec
